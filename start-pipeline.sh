#!/usr/bin/env bash
# Builds LogGuard and starts the whole pipeline on this machine: a broker, PostgreSQL, the processor and the
# simulator that feeds it. Shows the first scored window and the first alarm, then leaves everything running.
#
# usage: ./start-pipeline.sh [OPTION]...
#
#   --kafka embedded   an in-process broker that keeps nothing on disk, for trying things out (default)
#   --kafka apache     a real single-node Apache Kafka (fetched with Maven, needs Java; both are installed if missing)
#   --docker           everything in containers instead, see docker-compose.yml
#   --replicas N       processors that share the work (default 1)
#   --rate N           events a second that the simulator writes (default 100)
#   --no-simulator     reads what others write to `log-events`
#   --help             this text
#
# KAFKA_BROKERS=HOST:PORT[,...]   uses that Kafka; the topics log-events, anomaly-results and log-events.dlq must exist
# DATABASE_URL=postgres://...     uses that PostgreSQL or TimescaleDB; otherwise a private cluster in .run/pg
#
# Logs are in logs/, process ids in pids/, everything else in .run/ and model/. ./stop-pipeline.sh stops it all.
set -euo pipefail

PROJECT_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=processor/scripts/services.sh
source "$PROJECT_DIR/processor/scripts/services.sh"
# shellcheck source=processor/scripts/pipeline.sh
source "$PROJECT_DIR/processor/scripts/pipeline.sh"

KAFKA_PORT=9092
POSTGRES_PORT=5432
METRICS_PORT=9464
PARTITIONS=4
READY_DEADLINE_SECONDS=60
# A window lasts 30 s and is final 2 s later; the first incident starts after 20 s and needs a window too.
FIRST_ROW_DEADLINE_SECONDS=120
FIRST_ALARM_DEADLINE_SECONDS=120
TRAINING_DAYS=9
# Set when DATABASE_URL came from outside.
DATABASE_IS_THEIRS=''
# About three incidents a day: what a model takes for usual should mostly be so.
TRAINING_ANOMALY_PROB=0.001
# The parts this run has started; each must stay alive.
STARTED=()

parse_options() {
  KAFKA=embedded DOCKER='' REPLICAS=1 RATE=100 SIMULATOR=yes
  while (($# > 0)); do
    case $1 in
      --kafka) KAFKA=${2:-} && shift ;;
      --replicas) REPLICAS=${2:-} && shift ;;
      --rate) RATE=${2:-} && shift ;;
      --docker) DOCKER=yes ;;
      --no-simulator) SIMULATOR='' ;;
      -h | --help) print_header_comment "$0" && exit ;;
      *) die "unknown option \`$1\`; see $0 --help" ;;
    esac
    shift || die "the last option needs a value; see $0 --help"
  done
  [[ $KAFKA == embedded || $KAFKA == apache ]] || die "--kafka takes embedded or apache, not \`$KAFKA\`"
  [[ $REPLICAS =~ ^[1-9][0-9]?$ ]] || die "--replicas takes a number from 1 to 99, not \`$REPLICAS\`"
  [[ $RATE =~ ^[1-9][0-9]{0,5}$ ]] || die "--rate takes events a second, 1 to 999999, not \`$RATE\`"
  # A replica without a partition would have nothing to do.
  ((PARTITIONS >= REPLICAS)) || PARTITIONS=$REPLICAS
}

refuse_if_running() {
  local running
  running=$(list_running)
  [[ -z $running ]] || die "the pipeline is running already: ${running//$'\n'/, }; stop it with ./stop-pipeline.sh"
  [[ ! -e $RUN_DIR/docker ]] || die "the pipeline is running already, in containers; stop it with ./stop-pipeline.sh"
}

# Until the pipeline is up, whatever ends this script also ends what it started.
stop_what_was_started() {
  local status=$?
  trap - EXIT INT TERM
  say "start failed; stopping what was started"
  stop_pipeline || true
  exit "$status"
}

# Prints PORT if it is free, otherwise another one, and says so.
port_or_other() {
  local other
  if port_taken "$1"; then
    other=$(free_port)
    say "port $1 is in use; $2 gets port $other"
    echo "$other"
  else
    echo "$1"
  fi
}

build() {
  [[ -d $HOME/.cargo/bin ]] && PATH=$PATH:$HOME/.cargo/bin
  command -v cargo >/dev/null || die "cargo is not on the PATH; install Rust first: https://rustup.rs"
  # What librdkafka and OpenSSL's bindings are compiled with.
  apt_install g++ make pkg-config libssl-dev
  say "building (the first time takes some minutes)"
  cargo build --release --locked --target-dir "$PROJECT_DIR/target" -p logguard -p producer-sim
}

# start_part NAME COMMAND...: its log is logs/NAME.log, which keeps what earlier runs wrote.
start_part() {
  local part=$1
  shift
  daemonize "$LOGS_DIR/$part.log" "$PIDS_DIR/$part.pid" "$@"
  STARTED+=("$part")
}

# Sets BROKERS.
start_broker() {
  local topics=(--topic "log-events:$PARTITIONS" --topic anomaly-results:1 --topic log-events.dlq:1) port
  if [[ -n ${KAFKA_BROKERS:-} ]]; then
    BROKERS=$KAFKA_BROKERS
    say "using the Kafka at $BROKERS"
    return
  fi
  port=$(port_or_other "$KAFKA_PORT" "the broker")
  BROKERS=127.0.0.1:$port
  if [[ $KAFKA == apache ]]; then
    "$SCRIPTS_DIR/kafka.sh" start --dir "$RUN_DIR/kafka" --port "$port" "${topics[@]}" >/dev/null 9>&-
    say "Apache Kafka is up at $BROKERS, data in .run/kafka"
  else
    start_part broker "$BIN_DIR/producer-sim" broker --listen "$BROKERS" "${topics[@]}"
    wait_or_die "$READY_DEADLINE_SECONDS" broker port_taken "$port"
    say "the embedded broker is up at $BROKERS; it keeps nothing on disk: what it holds is gone when it stops"
  fi
}

# Exports DATABASE_URL: in the environment, a password in it does not show in the process list.
start_postgres() {
  local answer dir
  if [[ -n ${DATABASE_URL:-} ]]; then
    say "using the database that DATABASE_URL names"
    DATABASE_IS_THEIRS=yes
    command -v psql >/dev/null || apt_install postgresql-client
    export DATABASE_URL
    return
  fi
  dir=$(postgres_dir)
  if [[ $dir != "$RUN_DIR/pg" && ! -e $RUN_DIR/pg ]]; then
    say "user postgres cannot enter $PROJECT_DIR, so the cluster is kept in $dir"
    mkdir -p "$dir"
    ln -s "$dir" "$RUN_DIR/pg"
  fi
  # One that a killed start left behind is taken as it is.
  answer=$("$SCRIPTS_DIR/postgres.sh" status --dir "$dir" 2>/dev/null) ||
    answer=$("$SCRIPTS_DIR/postgres.sh" start --dir "$dir" --port "$(port_or_other "$POSTGRES_PORT" PostgreSQL)" 9>&-)
  DATABASE_URL=$(sed -n 's/^database_url=//p' <<<"$answer")
  export DATABASE_URL
  say "PostgreSQL is up at $DATABASE_URL, data in $dir"
}

train_if_needed() {
  [[ ! -e model/model.json ]] || return 0
  say "there is no model yet: training on $TRAINING_DAYS days of generated logs"
  "$BIN_DIR/producer-sim" generate --seed 42 --days "$TRAINING_DAYS" \
    --anomaly-prob "$TRAINING_ANOMALY_PROB" --out "$RUN_DIR/training.jsonl"
  "$BIN_DIR/logguard" train --input "$RUN_DIR/training.jsonl" --model-dir model
}

# http_status PORT PATH: prints the status code; nothing if nobody answers.
http_status() {
  local code=''
  {
    printf 'GET %s HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' "$2" >&3
    read -r -t 2 _ code _ <&3 || true
  } 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$1" || true
  echo "$code"
}

answers_ok() { [[ $(http_status "$1" "$2" 2>/dev/null) == 200 ]]; }

start_processors() {
  local i port part
  METRICS_PORTS=()
  for ((i = 1; i <= REPLICAS; i++)); do
    part=processor
    ((i == 1)) || part=processor-$i
    port=$(port_or_other $((METRICS_PORT + i - 1)) "the metrics of $part")
    start_part "$part" "$BIN_DIR/logguard" run --kafka-brokers "$BROKERS" --model-dir model \
      --anomaly-log logs/anomalies.log --http-listen "127.0.0.1:$port"
    METRICS_PORTS+=("$port")
    # One after the other, so that the next one sees the port taken.
    wait_or_die "$READY_DEADLINE_SECONDS" "$part" answers_ok "$port" /readyz
    say "$part is up, http://127.0.0.1:$port/metrics"
  done
}

start_simulator() {
  [[ -n $SIMULATOR ]] || return 0
  start_part producer "$BIN_DIR/producer-sim" run --kafka-brokers "$BROKERS" --rate "$RATE" \
    --first-incident-after 20s
  say "the simulator is started, $RATE events a second"
}

# A part that ended is named, with its last lines.
all_alive_or_die() {
  local part
  for part in "${STARTED[@]}"; do
    pid_of_part "$part" >/dev/null || {
      show_log_tail "$LOGS_DIR/$part.log"
      die "$part ended; see $LOGS_DIR/$part.log"
    }
  done
}

# wait_while_alive SECONDS CONDITION...: like wait_until, but does not wait for the dead.
wait_while_alive() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    all_alive_or_die
    ((SECONDS < deadline)) || return 1
    sleep 0.2
  done
}

# wait_or_die SECONDS PART CONDITION...: a part that hangs is as bad as one that ended.
wait_or_die() {
  local seconds=$1 part=$2
  shift 2
  wait_while_alive "$seconds" "$@" && return
  show_log_tail "$LOGS_DIR/$part.log"
  die "$part was not up after $seconds s; see $LOGS_DIR/$part.log"
}

# The password of a URL goes to psql by the environment: arguments are for everyone to see.
sql() {
  local url=$DATABASE_URL password=''
  if [[ $url =~ ^([a-z]+://[^:/@]+):([^@]*)@(.*)$ ]]; then
    url=${BASH_REMATCH[1]}@${BASH_REMATCH[3]}
    printf -v password '%b' "${BASH_REMATCH[2]//%/\\x}"
  fi
  PGPASSWORD=${password:-${PGPASSWORD:-}} psql -X -q -v ON_ERROR_STOP=1 "$url" "$@"
}

# Rows of an earlier run are no sign of life of this one.
row_since_start() { [[ -n "$(sql -A -t -c "SELECT 1 FROM anomaly_results WHERE window_end > to_timestamp($START_TIME) LIMIT 1")" ]]; }

show_newest_row() {
  sql -c "SELECT to_char(window_start, 'HH24:MI:SS') AS window_start, to_char(window_end, 'HH24:MI:SS') AS window_end,
    is_anomaly, round(anomaly_score::numeric, 3) AS anomaly_score, log_count, error_count
    FROM anomaly_results ORDER BY window_end DESC LIMIT 1"
}

alarms() { tail -c "+$((ALARM_FILE_BYTES + 1))" logs/anomalies.log 2>/dev/null || true; }
alarm_since_start() { [[ "$(alarms)" == *'ANOMALY DETECTED'* ]]; }

# A URL that the user gave may hold a password; it is not repeated.
# shellcheck disable=SC2016 # the name, not the value
shown_database() { if [[ -n $DATABASE_IS_THEIRS ]]; then echo '"$DATABASE_URL"'; else echo "$DATABASE_URL"; fi; }

print_what_to_look_at() {
  say ""
  say "  tail -f logs/anomalies.log              alarms, with the lines that show them"
  say "  psql $(shown_database) -c 'SELECT * FROM anomaly_results ORDER BY window_start DESC LIMIT 5'"
  say "  curl -s http://127.0.0.1:${METRICS_PORTS[0]}/metrics    what the processor counts"
  say "  tail -f logs/processor.log logs/producer.log"
  say "  ./stop-pipeline.sh                      stops everything, drained"
  say ""
}

# Shows the first row and the first alarm of this run. From the first row on, Ctrl-C ends only the watching.
follow_until_first_alarm() {
  local seconds=$FIRST_ROW_DEADLINE_SECONDS
  say "waiting for the first window (30 s of events, 2 s for late ones)"
  wait_while_alive "$seconds" row_since_start || {
    show_log_tail "$LOGS_DIR/processor.log"
    die "no scored window after $seconds s; see $LOGS_DIR/processor.log and $LOGS_DIR/producer.log"
  }
  show_newest_row
  trap 'trap - EXIT && say "everything keeps running; ./stop-pipeline.sh stops it" && exit 0' INT
  say "waiting for the first alarm (the first incident starts 20 s after the simulator)"
  wait_while_alive "$FIRST_ALARM_DEADLINE_SECONDS" alarm_since_start || {
    trap - EXIT
    die "no alarm after $FIRST_ALARM_DEADLINE_SECONDS s; everything keeps running, see $LOGS_DIR/processor.log"
  }
  alarms | head -n 4
  trap - EXIT
  say ""
  say "everything keeps running; ./stop-pipeline.sh stops it"
}

# Compose orders the services by their health; here it only remains to see the processors become healthy.
start_in_docker() {
  docker compose version >/dev/null 2>&1 || die "docker compose is not installed; see https://docs.docker.com/compose/install/"
  docker info >/dev/null 2>&1 || die "no Docker engine answers; start it, or run without --docker"
  touch "$RUN_DIR/docker"
  SIMULATOR_RATE=$RATE docker compose up --build --detach --scale "processor=$REPLICAS" \
    --scale "simulator=$([[ -n $SIMULATOR ]] && echo 1 || echo 0)"
  wait_until "$FIRST_ALARM_DEADLINE_SECONDS" processors_healthy || {
    docker compose ps --all >&2
    docker compose logs --tail 15 processor >&2
    die "the processors are not healthy after $FIRST_ALARM_DEADLINE_SECONDS s; ./stop-pipeline.sh stops everything"
  }
  say "up; alarms: docker compose exec processor tail -f logs/anomalies.log"
  say "    rows:   psql -h localhost -U logguard -d logguard (password logguard); Kafka UI: http://localhost:8080"
  exit
}

processors_healthy() {
  local health
  health=$(docker compose ps --format '{{.Health}}' processor)
  [[ $health =~ ^(healthy[[:space:]]*)+$ ]]
}

main() {
  parse_options "$@"
  cd "$PROJECT_DIR"
  take_lock
  refuse_if_running
  [[ -z $DOCKER ]] || start_in_docker
  mkdir -p "$PIDS_DIR" "$LOGS_DIR"
  build
  trap stop_what_was_started EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  start_broker
  start_postgres
  train_if_needed
  "$BIN_DIR/logguard" migrate
  START_TIME=$(date +%s)
  ALARM_FILE_BYTES=$(stat -c %s logs/anomalies.log 2>/dev/null || echo 0)
  start_processors
  start_simulator
  print_what_to_look_at
  exec 9>&- # all is up: whoever wants to stop it need not wait for the watching below
  if [[ -n $SIMULATOR ]]; then
    follow_until_first_alarm
  else
    trap - EXIT
  fi
}

main "$@"
