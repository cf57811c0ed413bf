"""A yardstick: the method of a Python prototype, on a file, without Kafka.

For every window of 30 seconds: counts and rates, means over its lines of TF-IDF values reduced to 15
dimensions and of distances to KMeans centroids; then DBSCAN, fitted on the window's own row as that
prototype's live path does it. Written from a description of the method, with pandas and scikit-learn.

    python prototype.py train  training.jsonl model.pkl
    python prototype.py score  events.jsonl   model.pkl

`score` prints one JSON object: events, windows, seconds, events_per_s, cpu_s_per_million, rss_peak_mib.
Lines are read in batches of a window, as a consumer would hand them over.
"""

import itertools
import json
import pickle
import re
import resource
import sys
import time

import numpy as np
import pandas as pd
from sklearn.cluster import DBSCAN, KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import StandardScaler

WINDOW_S = 30
LEVELS = ["ERROR", "FATAL", "WARN", "INFO", "DEBUG"]
# Variables become placeholders, so that messages become templates.
MASKS = [
    (re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"), "<ip>"),
    (re.compile(r"(?:/[\w.@%+~-]+){2,}"), "<path>"),
    (re.compile(r"\b[0-9a-f]{8,}\b"), "<hex>"),
    (re.compile(r"\b[A-Za-z]+[_-]\d+\b"), "<id>"),
    (re.compile(r"\d+(?:\.\d+)?"), "<num>"),
]


def template(message):
    for pattern, placeholder in MASKS:
        message = pattern.sub(placeholder, message)
    return message


def windows(path):
    """Yields (start, lines) of each window; the file is in order of time."""
    with open(path, encoding="utf-8") as file:
        events = map(json.loads, file)
        # 2026-01-05T00:00:17.636Z: minute, and half of it.
        for start, lines in itertools.groupby(
            events, key=lambda it: (it["timestamp"][:16], int(it["timestamp"][17:19]) // WINDOW_S)
        ):
            yield start, list(lines)


class Model:
    def fit(self, path):
        frames = [pd.DataFrame(lines) for _, lines in windows(path)]
        messages = pd.concat(frames)["message"].map(template)
        self.rarity = (1.0 / messages.value_counts()).to_dict()
        self.vectorizer = TfidfVectorizer(
            ngram_range=(1, 2), max_features=100, min_df=5, max_df=0.8, stop_words="english"
        )
        vectors = self.vectorizer.fit_transform(messages)
        self.svd = TruncatedSVD(n_components=15, random_state=42).fit(vectors)
        reduced = self.svd.transform(vectors)
        self.kmeans = KMeans(min(20, messages.nunique()), random_state=42, n_init=10).fit(reduced)
        distances = self.kmeans.transform(reduced).min(axis=1)
        self.nearest, self.farthest = distances.min(), distances.max()
        self.scaler = StandardScaler().fit([self.features(frame) for frame in frames])
        return self

    def features(self, frame):
        counts = frame["level"].value_counts()
        error, fatal, warn, info, debug = (int(counts.get(level, 0)) for level in LEVELS)
        lines = len(frame)
        messages = frame["message"].map(template)
        reduced = self.svd.transform(self.vectorizer.transform(messages))
        distances = self.kmeans.transform(reduced)
        nearest = distances.min(axis=1)
        anomaly = (nearest - self.nearest) / max(self.farthest - self.nearest, 1e-12)
        return [
            lines, error, fatal, warn, info, debug,
            error / lines, fatal / lines, warn / lines, warn / max(info, 1),
            error + fatal, (error + fatal) / lines,
            messages.map(self.rarity).fillna(1.0).mean(),
            anomaly.clip(0, 1).mean(),
            int(np.bincount(distances.argmin(axis=1)).argmax()),
            *reduced.mean(axis=0),
        ]  # fmt: skip

    def score(self, frame):
        row = self.scaler.transform([self.features(frame)])
        return DBSCAN(eps=5, min_samples=3).fit_predict(row)[0]


def score(path, model):
    started, cpu = time.perf_counter(), time.process_time()
    events = count = anomalies = 0
    for _, lines in windows(path):
        events += len(lines)
        count += 1
        anomalies += model.score(pd.DataFrame(lines)) == -1
    seconds = time.perf_counter() - started
    return {
        "events": events,
        "windows": count,
        "anomalies": int(anomalies),
        "seconds": seconds,
        "events_per_s": events / seconds,
        "cpu_s_per_million": (time.process_time() - cpu) / events * 1e6,
        "rss_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main():
    command, path, model_path = sys.argv[1:]
    if command == "train":
        with open(model_path, "wb") as file:
            pickle.dump(Model().fit(path), file)
    else:
        with open(model_path, "rb") as file:
            model = pickle.load(file)
        print(json.dumps(score(path, model)))


if __name__ == "__main__":
    main()
