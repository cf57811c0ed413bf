#!/usr/bin/env bash
# Runs every test, with a real Apache Kafka and a real PostgreSQL beside them.
#
# usage: test.sh [ARGUMENT OF cargo test]...        for example: test.sh -p logguard --test end_to_end
#
# Installs what is missing (Debian packages; Kafka from Maven Central), starts both services on free loopback
# ports in a temporary directory, runs `cargo test` over the workspace once, stops the services whatever
# happened, and ends with cargo's exit code. The services' logs stay in target/service-logs.
#
# LOGGUARD_TEST_KAFKA_BROKERS or LOGGUARD_TEST_DATABASE_URL (a superuser's), when set, is used instead of a
# service of its own. With LOGGUARD_TEST_REQUIRE_SERVICES=1, which this script sets, a test that cannot reach
# its service fails instead of being skipped.
set -euo pipefail

SCRIPTS_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
PROJECT_DIR=$(cd -- "$SCRIPTS_DIR/../.." && pwd)
# shellcheck source=processor/scripts/services.sh
source "$SCRIPTS_DIR/services.sh"

case ${1:-} in -h | --help | help) print_header_comment "$0" && exit ;; esac

SERVICES_DIR=''

stop_services() {
  local status=$?
  trap - EXIT INT TERM
  [[ -n $SERVICES_DIR ]] || exit "$status"
  "$SCRIPTS_DIR/kafka.sh" stop --dir "$SERVICES_DIR/kafka" || status=$((status ? status : 1))
  "$SCRIPTS_DIR/postgres.sh" stop --dir "$SERVICES_DIR/postgres" || status=$((status ? status : 1))
  mkdir -p "$PROJECT_DIR/target/service-logs"
  cp "$SERVICES_DIR"/*/*.log "$PROJECT_DIR/target/service-logs/" 2>/dev/null || true
  rm -rf "$SERVICES_DIR"
  exit "$status"
}

install_packages() {
  command -v cargo >/dev/null || die "cargo is not on the PATH; install Rust first (https://rustup.rs)"
  # librdkafka is built from source; kcat is an independent client; logrotate moves alarm files away; chromium
  # draws the report of a replay.
  apt_install g++ make pkg-config libssl-dev kcat logrotate chromium
  "$SCRIPTS_DIR/kafka.sh" install
  "$SCRIPTS_DIR/postgres.sh" install
}

# The trap comes first: from here on every way out stops what was started.
start_services() {
  trap stop_services EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  SERVICES_DIR=$(mktemp -d)
  chmod 755 "$SERVICES_DIR" # user postgres must get through
  local answer
  if [[ -z ${LOGGUARD_TEST_KAFKA_BROKERS:-} ]]; then
    answer=$("$SCRIPTS_DIR/kafka.sh" start --test --dir "$SERVICES_DIR/kafka")
    export LOGGUARD_TEST_KAFKA_BROKERS=${answer#bootstrap=}
  fi
  if [[ -z ${LOGGUARD_TEST_DATABASE_URL:-} ]]; then
    answer=$("$SCRIPTS_DIR/postgres.sh" start --test --dir "$SERVICES_DIR/postgres")
    LOGGUARD_TEST_DATABASE_URL=$(sed -n 's/^superuser_url=//p' <<<"$answer")
    export LOGGUARD_TEST_DATABASE_URL
  fi
  export LOGGUARD_TEST_REQUIRE_SERVICES=1
  say "Kafka at $LOGGUARD_TEST_KAFKA_BROKERS, PostgreSQL at $LOGGUARD_TEST_DATABASE_URL"
}

install_packages
start_services
cd "$PROJECT_DIR"
# More tests at once than there are cores: those that take long wait for brokers, and do not compute.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-4}
# The benches have no tests; the lints compile them.
cargo test --workspace --exclude logguard-bench --locked "$@"
