#!/usr/bin/env bash
# Stops what ./start-pipeline.sh started: the simulator, the processors (which first write what they hold and
# commit their offsets), the broker, PostgreSQL. Nothing that runs is no error. Data and logs stay.
#
# usage: ./stop-pipeline.sh
set -euo pipefail

PROJECT_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=processor/scripts/services.sh
source "$PROJECT_DIR/processor/scripts/services.sh"
# shellcheck source=processor/scripts/pipeline.sh
source "$PROJECT_DIR/processor/scripts/pipeline.sh"

case ${1:-} in
  '') ;;
  -h | --help | help) print_header_comment "$0" && exit ;;
  *) die "unknown option \`$1\`; see $0 --help" ;;
esac

cd "$PROJECT_DIR"
take_lock
stop_pipeline
if [[ -e $RUN_DIR/docker ]]; then
  say "stopping the containers; their volumes stay"
  docker compose down
  rm -f "$RUN_DIR/docker"
fi
say "nothing of the pipeline runs any more"
