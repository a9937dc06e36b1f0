#!/usr/bin/env bash
# A whole fleet on this machine: etcd, PostgreSQL, a coordinator and WORKERS (4) workers as processes
# on free loopback ports, with their data in a temporary folder. Loads the raw data of
# examples/flights, plans and applies the project, and compares the result with figures computed from
# the files. Ends everything that it started, by process id. KEEP=1 keeps the folder with the logs.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
bin=${BIN:-${CARGO_TARGET_DIR:-$root/target}/release}
workers=${WORKERS:-4}
slots=${SLOTS:-2}
project=$root/examples/flights

for name in coordctl coordinator worker; do
  [[ -x $bin/$name ]] || { echo "no $name in $bin: run make build" >&2; exit 1; }
done
pg=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort --version-sort | tail -n 1)
[[ -n $pg ]] || { echo "PostgreSQL is missing: scripts/need.sh fleet" >&2; exit 1; }

work=$(mktemp -d)
chmod 755 "$work" # PostgreSQL runs as a user of its own
started=() # process ids, in the order of their start

finish() {
  local status=$? pid
  trap '' INT TERM
  if ((status != 0)); then
    for log in "$work"/*.log; do
      if [[ -s $log ]]; then printf '\n--- the end of %s\n' "${log##*/}" && tail -n 6 "$log"; fi
    done >&2
  fi
  # Last started, first ended: workers drain while their coordinator is there.
  for ((n = ${#started[@]} - 1; n >= 0; n--)); do
    pid=${started[n]}
    # INT is PostgreSQL's fast shutdown; TERM would wait for connections.
    kill "-$([[ $pid == "${postgres_pid:-}" ]] && echo INT || echo TERM)" "$pid" 2>/dev/null || true
    for _ in {1..150}; do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  if [[ -n ${KEEP:-} ]]; then echo "logs and data: $work"; else rm -rf "$work"; fi
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start() { # start NAME COMMAND…: in the background, output to NAME.log
  local log=$work/$1.log
  shift
  NO_COLOR=1 "$@" >"$log" 2>&1 </dev/null &
  started+=($!)
}
ready() { # ready NAME COMMAND…: waits until the command succeeds
  local name=$1 pid=${started[-1]}
  shift
  for _ in {1..300}; do
    if "$@" >/dev/null 2>&1; then return; fi
    kill -0 "$pid" 2>/dev/null || { echo "$name ended early" >&2; exit 1; }
    sleep 0.1
  done
  echo "$name did not get ready" >&2
  exit 1
}
say() { printf '[%3d s] %s\n' "$SECONDS" "$*"; }

read -r etcd_port peer_port pg_port port < <(python3 -c '
import socket
open_ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
print(*(one.getsockname()[1] for one in open_ports))')
server=http://127.0.0.1:$port

say "etcd on port $etcd_port, PostgreSQL on port $pg_port"
etcd_url=http://127.0.0.1:$etcd_port peer_url=http://127.0.0.1:$peer_port
start etcd etcd --name fleet --data-dir "$work/etcd" --log-level warn --logger zap \
  --listen-client-urls "$etcd_url" --advertise-client-urls "$etcd_url" \
  --listen-peer-urls "$peer_url" --initial-advertise-peer-urls "$peer_url" \
  --initial-cluster "fleet=$peer_url" --auto-compaction-mode revision --auto-compaction-retention 10000
ready etcd env ETCDCTL_API=3 etcdctl --endpoints "127.0.0.1:$etcd_port" endpoint health

as_server=()
mkdir "$work/postgres"
if [[ $(id -u) -eq 0 ]]; then
  # The server refuses root. setpriv becomes the server, so its process id is the server's.
  as_server=(setpriv --reuid=postgres --regid=postgres --clear-groups --)
  chown postgres: "$work/postgres"
fi
(cd / && "${as_server[@]}" "$pg/initdb" -D "$work/postgres/data" -U postgres -E UTF8 --locale=C \
  --auth=trust --no-sync) >"$work/initdb.log" 2>&1
cd /
start postgres "${as_server[@]}" "$pg/postgres" -D "$work/postgres/data" -p "$pg_port" \
  -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=100
postgres_pid=${started[-1]}
cd "$root"
ready PostgreSQL "$pg/pg_isready" -q -h 127.0.0.1 -p "$pg_port" -U postgres
export FLIGHTS_PG_HOST=127.0.0.1 FLIGHTS_PG_PORT=$pg_port FLIGHTS_PG_USER=postgres FLIGHTS_PG_DATABASE=flights
export PGHOST=127.0.0.1 PGPORT=$pg_port PGUSER=postgres PGDATABASE=flights
"$pg/createdb" flights

if [[ ! -f ${FLIGHTS_DATA:-$project/data}/flights.csv ]]; then
  say 'fetching a year of flights (33 MB once unpacked)'
  "$project/fetch.py"
fi
"$project/load_postgres.sh"

say "a coordinator on port $port, and $workers workers with $slots slots each"
start coordinator "$bin/coordinator" --listen "127.0.0.1:$port" --state "etcd://127.0.0.1:$etcd_port/fleet"
ctl() { "$bin/coordctl" --server "$server" --project "$project" --gateway postgres "$@"; }
ready 'the coordinator' ctl info --skip-connection
for ((n = 1; n <= workers; n++)); do
  start "worker-$n" "$bin/worker" --coordinator "$server" --project "$project" --gateway postgres \
    --slots "$slots" --name "worker-$n"
done

say 'planning and applying'
from=$SECONDS
ctl plan --no-prompts --auto-apply
applied=$((SECONDS - from))

say 'checking'
(cd "$project" && ./check.py --query-command "$pg/psql --no-psqlrc --csv -c {sql}") >"$work/check.log"
tail -n 3 "$work/check.log"

say 'summary'
ctl environments
"$pg/psql" --no-psqlrc --quiet --tuples-only --no-align --command "
  SELECT '  ' || to_char(count(*), 'FM999,999') || ' flights staged, ' ||
         (SELECT count(*) FROM information_schema.tables
          WHERE table_type = 'BASE TABLE' AND table_schema LIKE 'sqlmesh\_\_%') || ' physical tables'
  FROM nyc.stg_flights"
printf '  applied in %d s by %d workers; all figures agree\n' "$applied" "$workers"
