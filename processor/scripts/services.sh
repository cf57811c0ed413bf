# shellcheck shell=bash
# What the scripts of this folder and the pipeline's start and stop have in common. Sourced, never run.
#
# Two habits hold everywhere: a script waits for a condition with a deadline, never for a time, and it
# signals a process only after it has seen that the process is the one it started.

say() { printf '%s\n' "$*" >&2; }
die() {
  printf '%s: error: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# What a `help` prints is the comment at the top of the script, so that the two cannot differ.
print_header_comment() { sed -n '2,/^[^#]/{/^#/{s/^# \{0,1\}//;p;};}' "$1"; }

# wait_until SECONDS COMMAND...: succeeds as soon as COMMAND does, fails after SECONDS.
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# Something answers on this loopback port.
port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Prints a port nobody listens on, below the range the kernel hands out to outgoing connections.
# Whoever binds it later may still lose a race for it: starting a service reports that plainly.
free_port() {
  local port
  for _ in {1..100}; do
    port=$((20000 + RANDOM % 12000))
    port_taken "$port" || { echo "$port" && return; }
  done
  die "found no free port between 20000 and 32000"
}

check_port() {
  [[ $1 =~ ^[1-9][0-9]{0,4}$ ]] && (($1 <= 65535)) && return
  die "\`$1\` is not a port number (1 to 65535)"
}

# The arguments of a process, or nothing: a zombie has none.
command_line_of() { { tr '\0' ' ' <"/proc/$1/cmdline"; } 2>/dev/null || true; }

# No such process any more, or a zombie that only its parent keeps.
process_gone() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  # The name in brackets may hold anything; the state follows the last one.
  [[ ${stat##*) } == [ZX]* ]]
}

# pid_of PIDFILE MARK: prints the pid in PIDFILE if that process lives and MARK occurs in its command line;
# fails otherwise. The kernel reuses pids, so a stale file may name somebody else's process.
pid_of() {
  local pid
  [[ -s $1 ]] && read -r pid <"$1" && [[ $pid =~ ^[0-9]+$ ]] || return 1
  [[ "$(command_line_of "$pid")" == *"$2"* ]] || return 1
  echo "$pid"
}

# daemonize LOGFILE PIDFILE COMMAND...: starts COMMAND in a session of its own, so that neither a closed
# terminal nor Ctrl-C in it ends the service. Descriptor 9 is the scripts' lock; a service must not keep it.
daemonize() {
  local log=$1 pid_file=$2
  shift 2
  setsid "$@" >>"$log" 2>&1 </dev/null 9>&- &
  echo $! >"$pid_file"
  disown # its end is looked for, not announced by the shell
  # For an instant the new process still carries this script's arguments, or none: nobody's mark.
  wait_until 10 has_become $! "$*" || die "could not start $1"
}
has_become() {
  local line
  line=$(command_line_of "$1")
  [[ $line == *"$2"* && $line != "setsid "* ]] || process_gone "$1"
}

# Root as it is, or through sudo where that asks no password.
may_be_root() { ((EUID == 0)) || sudo -n true 2>/dev/null; }
as_root() {
  if ((EUID == 0)); then "$@"; else sudo -n "$@"; fi
}

package_installed() { [[ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]; }

# apt_install PACKAGE...: installs those that are missing, or says what to type where it may not.
apt_install() {
  local package missing=()
  command -v apt-get >/dev/null || die "cannot install on a system without apt; needed are: $*"
  for package in "$@"; do
    package_installed "$package" || missing+=("$package")
  done
  ((${#missing[@]} > 0)) || return 0
  may_be_root || die "missing packages; type: sudo apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300)
  # Package lists that are there are tried first: refreshing them takes longer than most installs.
  as_root "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 && return
  as_root "${apt[@]}" update >&2 || say "the package lists could not be refreshed"
  as_root "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >&2 ||
    die "apt could not install: ${missing[*]}"
}

show_log_tail() {
  say "the last lines of $1:"
  tail -n 15 -- "$1" | sed 's/^/  | /' >&2
}

# absolute_dir DIR: creates DIR and prints its absolute path, free of symbolic links.
absolute_dir() {
  mkdir -p -- "$1" && (cd -- "$1" && pwd -P)
}
