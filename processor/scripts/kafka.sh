#!/usr/bin/env bash
# A single-node Apache Kafka on loopback, for the tests and for trying things out.
#
# usage: kafka.sh install
#        kafka.sh start  --dir D [--port P] [--test] [--topic NAME:PARTITIONS]...
#                        [--listener NAME:PROTOCOL:PORT]... [--scram USER=PASSWORD]... [--extra-properties FILE]
#        kafka.sh topic  --dir D NAME:PARTITIONS...
#        kafka.sh stop   --dir D
#        kafka.sh status --dir D
#
# install  copies Kafka and what it needs from Maven Central into a cache (LOGGUARD_CACHE, default ~/.cache)
# start    creates the node in D at the first start; prints `bootstrap=127.0.0.1:P`; data in D stays over stops
# topic    creates topics that do not exist yet; existing ones are left as they are
# stop     stops the node and waits for it; nothing to stop is no error
# status   succeeds if the node runs, and prints its `bootstrap=`
#
# --test   lets groups use sessions of 1 s and more (Kafka's own minimum is 6 s; KIP-848's is 45 s), so that a
#          test sees a killed member replaced in seconds
# --listener, --scram, --extra-properties
#          at the first start: further listeners on 127.0.0.1, users that log in by SCRAM-SHA-512, and lines for the
#          broker's configuration, which say what the listeners need (for tests: a password shows in the process list)
# The listener on P is plain text on 127.0.0.1, without authentication. Needs Java 17 or newer.
set -euo pipefail

SCRIPTS_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=processor/scripts/services.sh
source "$SCRIPTS_DIR/services.sh"

KAFKA_VERSION=4.1.1
CACHE_DIR="${LOGGUARD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}}/logguard-kafka-$KAFKA_VERSION"
# A restart after kill -9 checks every segment and took 13 s on two cores; slow machines get room.
START_DEADLINE_SECONDS=120
STOP_DEADLINE_SECONDS=60

write_pom() {
  cat >"$1" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>logguard</groupId>
  <artifactId>kafka-node</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$KAFKA_VERSION</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$KAFKA_VERSION</version>
    </dependency>
    <!-- Without a binding the broker logs nothing at all; the version is the one its log4j-core has. -->
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version>
    </dependency>
  </dependencies>
  <build>
    <plugins>
      <plugin>
        <groupId>org.apache.maven.plugins</groupId>
        <artifactId>maven-dependency-plugin</artifactId>
        <version>3.8.1</version>
      </plugin>
    </plugins>
  </build>
</project>
POM
}

# Fills a directory beside the cache and renames it, so that nobody ever sees half a Kafka.
install_kafka() {
  [[ -d $CACHE_DIR/lib ]] && return
  command -v java >/dev/null || apt_install default-jre-headless
  command -v mvn >/dev/null || apt_install maven
  local part
  mkdir -p "$(dirname "$CACHE_DIR")"
  part=$(mktemp -d "$CACHE_DIR.part.XXXXXX")
  write_pom "$part/pom.xml"
  say "copying Apache Kafka $KAFKA_VERSION from Maven Central to $CACHE_DIR"
  (cd "$part" && mvn -B -C dependency:copy-dependencies -DoutputDirectory="$part/lib" -DincludeScope=runtime) \
    >"$part/maven.log" 2>&1 </dev/null || {
    show_log_tail "$part/maven.log"
    rm -rf "$part"
    die "maven could not fetch Apache Kafka $KAFKA_VERSION; see above"
  }
  chmod 755 "$part" # mktemp keeps everybody else out
  # Another script may have been faster; its copy is as good as ours.
  mv -T "$part" "$CACHE_DIR" 2>/dev/null || rm -rf "$part"
  [[ -d $CACHE_DIR/lib ]] || die "cannot create $CACHE_DIR: something else is in its place, remove it"
}

# Two listeners: clients on PORT, the KRaft controller on a port of its own that only the node itself uses. More where
# they are asked for.
write_config() {
  local dir=$1 port=$2 controller_port=$3 spec name protocol listener_port
  local further='' protocols=''
  for spec in "${LISTENERS[@]}"; do
    IFS=: read -r name protocol listener_port <<<"$spec"
    check_port "$listener_port"
    further+=",${name^^}://127.0.0.1:$listener_port"
    protocols+=",${name^^}:$protocol"
  done
  cat >"$dir/server.properties" <<PROPERTIES
node.id=1
process.roles=broker,controller
controller.quorum.voters=1@127.0.0.1:$controller_port
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port$further
advertised.listeners=PLAINTEXT://127.0.0.1:$port$further
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT$protocols
log.dirs=$dir/data
# One node cannot hold more than one copy.
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# Fewer files and a faster start; one consumer group does not need fifty partitions of offsets.
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
# A misspelt topic is an error, not a new topic.
auto.create.topics.enable=false
# The first member of a group need not wait for others.
group.initial.rebalance.delay.ms=0
PROPERTIES
  [[ -z $TEST_SETTINGS ]] || cat >>"$dir/server.properties" <<PROPERTIES
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=2000
group.consumer.session.timeout.ms=3000
group.consumer.min.heartbeat.interval.ms=200
group.consumer.heartbeat.interval.ms=300
PROPERTIES
  [[ -z $EXTRA_PROPERTIES ]] || cat "$EXTRA_PROPERTIES" >>"$dir/server.properties"
  cat >"$dir/log4j2.properties" <<PROPERTIES
status=warn
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=[%d] %p %m (%c{1})%n
rootLogger.level=info
rootLogger.appenderRef.console.ref=console
PROPERTIES
}

# The wildcard is Java's own, not the shell's.
kafka_java() { java -cp "$CACHE_DIR/lib/*" "$@"; }

# The pid of the node in DIR; its command line names that node's configuration.
node_pid() { pid_of "$1/kafka.pid" "kafka.Kafka $1/server.properties"; }
node_port() { sed -n 's|^advertised.listeners=PLAINTEXT://127.0.0.1:\([0-9]*\).*|\1|p' "$1/server.properties"; }

# Fails as soon as the node has died, succeeds once it has said that it is up.
node_up_or_dead() {
  grep -q 'Kafka Server started' "$1/kafka.log" || process_gone "$2"
}

format_storage() {
  local dir=$1 id user users=()
  [[ -f $dir/data/meta.properties ]] && return
  for user in "${SCRAM_USERS[@]}"; do
    users+=(--add-scram "SCRAM-SHA-512=[name=${user%%=*},password=${user#*=}]")
  done
  id=$(kafka_java kafka.tools.StorageTool random-uuid 2>/dev/null)
  kafka_java kafka.tools.StorageTool format -t "$id" -c "$dir/server.properties" "${users[@]}" >"$dir/format.log" 2>&1 || {
    show_log_tail "$dir/format.log"
    die "cannot format $dir/data for Kafka"
  }
}

launch() {
  local dir=$1 pid
  : >"$dir/kafka.log"
  daemonize "$dir/kafka.log" "$dir/kafka.pid" java -Xmx512m "-Dlog4j2.configurationFile=$dir/log4j2.properties" \
    -cp "$CACHE_DIR/lib/*" kafka.Kafka "$dir/server.properties"
  pid=$(<"$dir/kafka.pid")
  if wait_until "$START_DEADLINE_SECONDS" node_up_or_dead "$dir" "$pid" && ! process_gone "$pid"; then
    return
  fi
  show_log_tail "$dir/kafka.log"
  process_gone "$pid" && die "Kafka ended while it started; see above and $dir/kafka.log"
  kill -KILL "$pid"
  die "Kafka was not up after $START_DEADLINE_SECONDS s; see above and $dir/kafka.log"
}

start_node() {
  [[ -n $DIR ]] || die "start needs --dir"
  install_kafka
  DIR=$(absolute_dir "$DIR")
  if node_pid "$DIR" >/dev/null; then
    local running_port
    running_port=$(node_port "$DIR")
    [[ -z $PORT || $PORT == "$running_port" ]] || die "the node in $DIR runs already, on port $running_port; stop it first"
    say "Kafka in $DIR runs already"
  else
    [[ -n $PORT ]] || PORT=$(free_port)
    check_port "$PORT"
    ! port_taken "$PORT" || die "port $PORT is in use; give another one with --port"
    write_config "$DIR" "$PORT" "$(free_port)"
    format_storage "$DIR"
    launch "$DIR"
  fi
  create_topics "$DIR" "$@"
  echo "bootstrap=127.0.0.1:$(node_port "$DIR")"
}

# create_topics DIR NAME:PARTITIONS...
create_topics() {
  local dir=$1 spec
  shift
  for spec in "$@"; do
    [[ $spec =~ ^([A-Za-z0-9._-]+):([1-9][0-9]*)$ ]] || die "\`$spec\` is not NAME:PARTITIONS"
    kafka_java org.apache.kafka.tools.TopicCommand --bootstrap-server "127.0.0.1:$(node_port "$dir")" --create \
      --if-not-exists --topic "${BASH_REMATCH[1]}" --partitions "${BASH_REMATCH[2]}" --replication-factor 1 \
      >"$dir/topic.log" 2>&1 || {
      show_log_tail "$dir/topic.log"
      die "cannot create topic \`${BASH_REMATCH[1]}\`"
    }
  done
}

stop_node() {
  [[ -n $DIR ]] || die "stop needs --dir"
  [[ -d $DIR ]] || return 0
  local pid
  DIR=$(absolute_dir "$DIR")
  if pid=$(node_pid "$DIR"); then
    kill -TERM "$pid"
    if ! wait_until "$STOP_DEADLINE_SECONDS" process_gone "$pid"; then
      say "Kafka did not stop within $STOP_DEADLINE_SECONDS s and is killed; its data is checked at the next start"
      kill -KILL "$pid"
      wait_until 10 process_gone "$pid" || die "process $pid does not go away"
    fi
  fi
  rm -f "$DIR/kafka.pid"
}

print_status() {
  [[ -n $DIR ]] || die "status needs --dir"
  [[ -d $DIR ]] || die "no Kafka runs in $DIR"
  DIR=$(absolute_dir "$DIR")
  node_pid "$DIR" >/dev/null || die "no Kafka runs in $DIR"
  echo "bootstrap=127.0.0.1:$(node_port "$DIR")"
}

main() {
  local command=${1:-help}
  shift || true
  local topics=()
  DIR='' PORT='' TEST_SETTINGS='' EXTRA_PROPERTIES='' LISTENERS=() SCRAM_USERS=()
  while (($# > 0)); do
    case $1 in
      --dir) DIR=${2:?--dir needs a directory} && shift 2 ;;
      --port) PORT=${2:?--port needs a number} && shift 2 ;;
      --topic) topics+=("${2:?--topic needs NAME:PARTITIONS}") && shift 2 ;;
      --test) TEST_SETTINGS=yes && shift ;;
      --listener) LISTENERS+=("${2:?--listener needs NAME:PROTOCOL:PORT}") && shift 2 ;;
      --scram) SCRAM_USERS+=("${2:?--scram needs USER=PASSWORD}") && shift 2 ;;
      --extra-properties) EXTRA_PROPERTIES=${2:?--extra-properties needs a file} && shift 2 ;;
      -h | --help) command=help && shift ;;
      -*) die "unknown option \`$1\`; see $0 help" ;;
      *) topics+=("$1") && shift ;;
    esac
  done
  case $command in
    install) install_kafka ;;
    start) start_node "${topics[@]}" ;;
    topic) print_status >/dev/null && create_topics "$DIR" "${topics[@]}" ;;
    stop) stop_node ;;
    status) print_status ;;
    help | -h | --help) print_header_comment "$0" ;;
    *) die "unknown command \`$command\`; see $0 help" ;;
  esac
}

main "$@"
