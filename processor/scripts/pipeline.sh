# shellcheck shell=bash
# What ./start-pipeline.sh and ./stop-pipeline.sh must agree on: where things are, which processes are ours, and
# how all of it is stopped. Sourced, never run; needs PROJECT_DIR and services.sh.

SCRIPTS_DIR=$PROJECT_DIR/processor/scripts
RUN_DIR=$PROJECT_DIR/.run
PIDS_DIR=$PROJECT_DIR/pids
LOGS_DIR=$PROJECT_DIR/logs
BIN_DIR=$PROJECT_DIR/target/release

# Longer than the processor's own drain deadline, so that it is the one to say what could not be written.
DRAIN_DEADLINE_SECONDS=60

# One start or stop at a time. Descriptor 9 stays open, and so the lock is held, until the script ends.
take_lock() {
  mkdir -p "$RUN_DIR"
  exec 9>"$RUN_DIR/lock"
  flock -n 9 || die "another start or stop of this pipeline is at work; wait for it"
}

# What a pid file's process must have in its command line to be ours: processor-2.pid belongs to a processor.
mark_of() {
  case $1 in
    processor*) echo "$BIN_DIR/logguard run" ;;
    producer) echo "$BIN_DIR/producer-sim run" ;;
    broker) echo "$BIN_DIR/producer-sim broker" ;;
  esac
}

pid_of_part() { pid_of "$PIDS_DIR/$1.pid" "$(mark_of "$1")"; }

# parts PATTERN: the names of the parts that have a pid file, alive or not.
parts() {
  local file
  for file in "$PIDS_DIR"/$1.pid; do
    [[ ! -e $file ]] || basename "$file" .pid
  done
}

# One line for each part that runs; nothing if none does.
list_running() {
  local part pid
  for part in $(parts '*'); do
    if pid=$(pid_of_part "$part"); then echo "$part (pid $pid)"; fi
  done
}

# Some directory on the way to PATH lets nobody but its owner and group through.
closed_to_others() {
  local path=$1
  while [[ $path != / ]]; do
    [[ $(stat -c %A "$path") == *[xt] ]] || return 0
    path=$(dirname "$path")
  done
  return 1
}

# The private cluster's directory. Run by root, the server belongs to user `postgres`, who has to reach it; for a
# project below /root the cluster lives in /var/lib instead, and .run/pg points to it.
postgres_dir() {
  if [[ -e $RUN_DIR/pg ]]; then
    (cd "$RUN_DIR/pg" && pwd -P)
  elif ((EUID == 0)) && closed_to_others "$PROJECT_DIR"; then
    echo "/var/lib/logguard/$(cksum <<<"$PROJECT_DIR" | cut -d' ' -f1)/pg"
  else
    echo "$RUN_DIR/pg"
  fi
}

# stop_parts PATTERN: SIGTERM to all of them at once, then waits for each. What does not end is killed, which
# loses nothing: the offsets of what was not written were not committed.
stop_parts() {
  local part pid
  for part in $(parts "$1"); do
    if pid=$(pid_of_part "$part"); then
      say "stopping $part (pid $pid)"
      kill -TERM "$pid" 2>/dev/null || true
    else
      say "$part was not running; removing its stale pid file"
    fi
  done
  for part in $(parts "$1"); do
    if pid=$(pid_of_part "$part") && ! wait_until "$DRAIN_DEADLINE_SECONDS" process_gone "$pid"; then
      say "$part did not end within $DRAIN_DEADLINE_SECONDS s; killing it (see $LOGS_DIR/$part.log)"
      kill -KILL "$pid" 2>/dev/null || true
      wait_until 10 process_gone "$pid" || die "process $pid does not go away"
    fi
    rm -f "$PIDS_DIR/$part.pid"
  done
}

# stop_service NAME SCRIPT DIR
stop_service() {
  "$SCRIPTS_DIR/$2" status --dir "$3" >/dev/null 2>&1 || return 0
  say "stopping $1"
  "$SCRIPTS_DIR/$2" stop --dir "$3" 9>&-
}

# From the source to the store: whoever writes stops before whatever it writes to.
stop_pipeline() {
  stop_parts producer
  stop_parts 'processor*'
  stop_parts broker
  stop_service "Apache Kafka" kafka.sh "$RUN_DIR/kafka"
  stop_service PostgreSQL postgres.sh "$(postgres_dir)"
}
