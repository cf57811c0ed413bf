#!/usr/bin/env bash
# A private PostgreSQL cluster on loopback, for the tests and for trying things out.
#
# usage: postgres.sh install
#        postgres.sh start  --dir D [--port P] [--test]
#        postgres.sh stop   --dir D
#        postgres.sh status --dir D
#
# install  installs PostgreSQL 14 or newer from the system's packages if none is there
# start    creates the cluster in D at the first start, with role and database `logguard`; prints
#              database_url=postgres://logguard@127.0.0.1:P/logguard
#              superuser_url=postgres://postgres@127.0.0.1:P/postgres
#          Data in D stays over stops; a cluster that was killed recovers.
# stop     stops the cluster and waits for it; nothing to stop is no error
# status   succeeds if the cluster runs, and prints the same two lines
#
# --test   does not wait for the disk (fsync off): faster, and lost when the machine crashes
# Whoever can open a loopback connection on this machine is let in without a password. There is no socket file.
# Run by root, the cluster belongs to user `postgres`, who must be able to reach D.
set -euo pipefail

SCRIPTS_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=processor/scripts/services.sh
source "$SCRIPTS_DIR/services.sh"

OLDEST_MAJOR_VERSION=14
# Includes recovery after a kill.
START_DEADLINE_SECONDS=120
STOP_DEADLINE_SECONDS=60

# Prints `MAJOR BINDIR` of every usable server, newest first.
list_servers() {
  local initdb major
  for initdb in /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb \
    "$(pg_config --bindir 2>/dev/null || true)/initdb" "$(command -v initdb || true)"; do
    [[ -x $initdb && -x ${initdb%/*}/pg_ctl ]] || continue
    major=$("$initdb" --version | sed -n 's/[^0-9]*\([0-9]*\).*/\1/p')
    ((major < OLDEST_MAJOR_VERSION)) || printf '%s %s\n' "$major" "${initdb%/*}"
  done | sort -rn -u
}

# Debian's package creates and starts a cluster on port 5432 when it is installed. Nobody asked for that one.
install_postgres() {
  [[ -z "$(list_servers)" ]] || return 0
  local keep_quiet=/etc/postgresql-common/createcluster.d/logguard-install.conf
  if may_be_root; then
    as_root mkdir -p "${keep_quiet%/*}"
    echo 'create_main_cluster = false' | as_root tee "$keep_quiet" >/dev/null
    # In a subshell, so that the file goes again when the install fails.
    (apt_install postgresql) || { as_root rm -f "$keep_quiet" && exit 1; }
    as_root rm -f "$keep_quiet"
  else
    apt_install postgresql
  fi
  [[ -n "$(list_servers)" ]] || die "the system's PostgreSQL is older than $OLDEST_MAJOR_VERSION; install a newer one or set DATABASE_URL"
}

# Sets BIN. A cluster can only be opened by the major version that made it.
choose_server() {
  local made_by=''
  [[ ! -f $DATA/PG_VERSION ]] || made_by=$(<"$DATA/PG_VERSION")
  BIN=$(list_servers | awk -v want="$made_by" 'want == "" || $1 == want { sub(/^[0-9]+ /, ""); print; exit }')
  [[ -n $BIN ]] || die "$DATA was made by PostgreSQL $made_by, which is not installed; install it or remove the directory"
}

# PostgreSQL refuses to run as root.
as_owner() {
  if ((EUID == 0)); then (cd / && runuser -u postgres -- "$@"); else "$@"; fi
}

# The server's user must be able to walk down to D; say which directory bars the way.
check_reachable() {
  ((EUID == 0)) || return 0
  id postgres >/dev/null 2>&1 || die "there is no user \`postgres\` to run the server as; run this script as an ordinary user"
  local path=/ part
  while IFS= read -r -d / part; do
    path+=${part:+$part/}
    as_owner test -x "$path" || die "user \`postgres\` cannot enter $path, which $DIR is under; choose another --dir or run this script as an ordinary user"
  done <<<"${DIR#/}/"
}

create_cluster() {
  [[ -f $DATA/PG_VERSION ]] && return
  local owner=()
  ((EUID != 0)) || owner=(-o postgres -g postgres)
  install -d "${owner[@]}" -m 700 "$DATA"
  as_owner "$BIN/initdb" -D "$DATA" -A trust -U postgres -E UTF8 --no-locale --no-instructions >"$DIR/initdb.log" 2>&1 || {
    show_log_tail "$DIR/initdb.log"
    die "cannot create a PostgreSQL cluster in $DATA"
  }
  as_owner tee -a "$DATA/postgresql.conf" >/dev/null <<<"include 'logguard.conf'"
}

write_config() {
  {
    echo "listen_addresses = '127.0.0.1'"
    echo "port = $1"
    # A socket file would tie the length of D to 107 bytes and add a second way in.
    echo "unix_socket_directories = ''"
    echo "max_connections = 200"
    [[ -z $TEST_SETTINGS ]] || printf '%s\n' "fsync = off" "full_page_writes = off"
    # TimescaleDB must be loaded at start, and its jobs need workers.
    [[ ! -f "$("$BIN/pg_config" --sharedir 2>/dev/null || true)/extension/timescaledb.control" ]] ||
      printf '%s\n' "shared_preload_libraries = 'timescaledb'" "max_worker_processes = 32" "timescaledb.telemetry_level = off"
  } | as_owner tee "$DATA/logguard.conf" >/dev/null
}

server_pid() { pid_of "$DATA/postmaster.pid" "$DATA"; }
server_port() { sed -n 's/^port = //p' "$DATA/logguard.conf"; }

# Backends outlive a killed parent for a moment, and a new server beside them would ruin the data.
no_backend_left() {
  local process
  for process in /proc/[0-9]*; do
    if [[ $process/cwd -ef $DATA && "$(cat "$process/comm" 2>/dev/null || true)" == postgres ]]; then
      return 1
    fi
  done
}

# After a kill the pid file stays. The server refuses to start while any process has that pid, be it a zombie or
# somebody else's by now; with no backend left the file means nothing.
drop_stale_pid_file() {
  [[ -f $DATA/postmaster.pid ]] || return 0
  wait_until 30 no_backend_left || die "processes of a server that was killed still run in $DATA; end them first"
  rm -f "$DATA/postmaster.pid"
}

launch() {
  local owner=()
  ((EUID != 0)) || owner=(-o postgres -g postgres)
  install "${owner[@]}" -m 600 /dev/null "$LOG"
  drop_stale_pid_file
  as_owner "$BIN/pg_ctl" -D "$DATA" -l "$LOG" -w -t "$START_DEADLINE_SECONDS" start >/dev/null 2>&1 || {
    show_log_tail "$LOG"
    die "PostgreSQL did not start; see above and $LOG"
  }
}

sql() { "$BIN/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$(server_port)" -U postgres -d postgres -c "$1"; }

create_role_and_database() {
  [[ -n "$(sql "SELECT 1 FROM pg_roles WHERE rolname = 'logguard'")" ]] || sql "CREATE ROLE logguard LOGIN"
  [[ -n "$(sql "SELECT 1 FROM pg_database WHERE datname = 'logguard'")" ]] || sql "CREATE DATABASE logguard OWNER logguard"
}

print_urls() {
  echo "database_url=postgres://logguard@127.0.0.1:$(server_port)/logguard"
  echo "superuser_url=postgres://postgres@127.0.0.1:$(server_port)/postgres"
}

start_server() {
  install_postgres
  check_reachable
  choose_server
  if server_pid >/dev/null; then
    [[ -z $PORT || $PORT == "$(server_port)" ]] || die "the cluster in $DIR runs already, on port $(server_port); stop it first"
    say "PostgreSQL in $DIR runs already"
  else
    [[ -n $PORT ]] || PORT=$(free_port)
    check_port "$PORT"
    ! port_taken "$PORT" || die "port $PORT is in use; give another one with --port"
    create_cluster
    write_config "$PORT"
    launch
  fi
  create_role_and_database
  print_urls
}

stop_server() {
  if server_pid >/dev/null; then
    choose_server
    as_owner "$BIN/pg_ctl" -D "$DATA" -m fast -w -t "$STOP_DEADLINE_SECONDS" stop >/dev/null ||
      die "PostgreSQL did not stop within $STOP_DEADLINE_SECONDS s; see $LOG"
  fi
}

print_status() {
  server_pid >/dev/null || die "no PostgreSQL runs in $DIR"
  print_urls
}

main() {
  local command=${1:-help} dir=''
  shift || true
  PORT='' TEST_SETTINGS=''
  while (($# > 0)); do
    case $1 in
      --dir) dir=${2:?--dir needs a directory} && shift 2 ;;
      --port) PORT=${2:?--port needs a number} && shift 2 ;;
      --test) TEST_SETTINGS=yes && shift ;;
      -h | --help) command=help && shift ;;
      *) die "unknown option \`$1\`; see $0 help" ;;
    esac
  done
  case $command in
    install) install_postgres && return ;;
    start | stop | status) [[ -n $dir ]] || die "$command needs --dir" ;;
    help | -h | --help) print_header_comment "$0" && return ;;
    *) die "unknown command \`$command\`; see $0 help" ;;
  esac
  if [[ ! -d $dir ]]; then
    [[ $command != stop ]] || return 0
    [[ $command != status ]] || die "no PostgreSQL runs in $dir"
  fi
  DIR=$(absolute_dir "$dir")
  DATA=$DIR/data LOG=$DIR/postgres.log
  case $command in
    start) start_server ;;
    stop) stop_server ;;
    status) print_status ;;
  esac
}

main "$@"
