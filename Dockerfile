# Two stages: everything is compiled in the first, the second holds the two programs and what they load.
FROM rust:1.95-bookworm AS build
# librdkafka is compiled from source; OpenSSL comes from the system.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make pkg-config libssl-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches outlive the build, so that a changed line does not compile every dependency again.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p logguard -p producer-sim \
    && install -D -t /out target/release/logguard target/release/producer-sim

FROM debian:bookworm-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --home-dir /var/lib/logguard --create-home logguard \
    && install -d -o logguard -g logguard /var/lib/logguard/model /var/lib/logguard/logs
COPY --from=build /out/ /usr/local/bin/
# By number, so that Kubernetes can see that it is not root.
USER 10001
# Relative defaults, model/ and logs/anomalies.log, end up in here; mount volumes over the two.
WORKDIR /var/lib/logguard
EXPOSE 9464
# Without curl in the image: bash asks by itself. A processor that only lost its broker or database stays alive.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9464 && printf 'GET /livez HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && read -r -t 4 _ status _ <&3 && [ \"$status\" = 200 ]"]
ENTRYPOINT ["logguard"]
CMD ["run", "--http-listen", "0.0.0.0:9464"]
