#!/usr/bin/env bash
# A Ray cluster of several nodes on one machine, to try out what runs on a cluster.
#
#   eval "$(clusters/local.sh up 2)"    a head and two workers; `eval` tells this shell where they are
#   clusters/local.sh kill 1            ends worker 1 at once, as a node that is taken away ends
#   clusters/local.sh add 1             starts it again
#   clusters/local.sh down              ends all of it, and nothing else
#
# The nodes have addresses of the loopback network (127.0.0.2, 127.0.0.3, ...), so they need no root, and nobody beyond
# this machine reaches them; a token keeps its other users out. The head carries the resource `durable`, the workers
# `rollout`. Variables, here with their defaults:
#
#   CLUSTER=/tmp/rayrlhf-cluster   where token, pids and Ray's own files are; short, since sockets lie there
#   CPUS=2                         CPUs that each node declares
#   PORT=6390                      the head's; the 20 after it are used, too
#   DASHBOARD=8265                 of the dashboard and the job server, on 127.0.0.1
set -euo pipefail

CLUSTER="${CLUSTER:-/tmp/rayrlhf-cluster}"
CPUS="${CPUS:-2}"
PORT="${PORT:-6390}"
DASHBOARD="${DASHBOARD:-8265}"
HEAD=127.0.0.2
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$CLUSTER/token" RAY_USAGE_STATS_ENABLED=0
unset RAY_ADDRESS RAY_AUTH_TOKEN

fail() { echo "local.sh: $*" >&2; exit 1; }

# start_node NAME NUMBER OPTION...: a node in the background; it ends when its `ray start` does
start_node() {
    local name="$1" number="$2"
    shift 2
    # a folder for each node: two that share one delete each other's copies of a job's working folder
    setsid ray start --block --node-ip-address "127.0.0.$((number + 2))" --temp-dir "$CLUSTER/$number" --num-cpus "$CPUS" \
        --object-store-memory "${OBJECT_STORE:-300000000}" --dashboard-agent-listen-port "$((PORT + 2 + number))" \
        --min-worker-port 0 --max-worker-port 0 "$@" >"$CLUSTER/$name.log" 2>&1 </dev/null &
    echo $! >"$CLUSTER/$name.pid"
}

add_worker() {
    start_node "worker$1" "$1" --address "$HEAD:$PORT" --resources '{"rollout": 1}'
}

# end_node NAME SIGNAL: all processes of a node
end_node() {
    local pid
    pid="$(cat "$CLUSTER/$1.pid" 2>/dev/null)" || fail "there is no $1"
    kill "-$2" -- "-$pid" 2>/dev/null || true
    rm -f "$CLUSTER/$1.pid"
    for _ in $(seq 100); do
        kill -0 -- "-$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -KILL -- "-$pid" 2>/dev/null || true
}

nodes() { # how many are alive
    timeout 10 ray list nodes --address "http://127.0.0.1:$DASHBOARD" --filter state=ALIVE --format json 2>/dev/null |
        grep -o '"node_id"' | wc -l
}

wait_for_head() {
    for _ in $(seq 900); do
        kill -0 "$(cat "$CLUSTER/head.pid")" 2>/dev/null || fail "the head does not start: see $CLUSTER/head.log"
        (: </dev/tcp/127.0.0.1/"$DASHBOARD") 2>/dev/null && return
        sleep 0.2
    done
    fail "the head does not come up: see $CLUSTER/head.log"
}

wait_for() { # NODES
    local end=$((SECONDS + 180))
    while [ "$SECONDS" -lt "$end" ]; do
        [ "$(nodes || true)" = "$1" ] && return
        sleep 1
    done
    fail "the nodes do not come up: see $CLUSTER/*.log"
}

up() {
    local workers="$1"
    [ -e "$CLUSTER/head.pid" ] && fail "there is one already in $CLUSTER: clusters/local.sh down"
    command -v ray >/dev/null || fail "there is no 'ray' on PATH: activate the environment that has rayrlhf"
    mkdir -p "$CLUSTER"
    [ -O "$CLUSTER" ] || fail "$CLUSTER is somebody else's: name another folder by CLUSTER"
    chmod 700 "$CLUSTER" # the token is in it
    (umask 077 && head -c 32 /dev/urandom | base64 >"$CLUSTER/token")
    start_node head 0 --head --port "$PORT" --ray-client-server-port "$((PORT + 1))" \
        --include-dashboard true --dashboard-host 127.0.0.1 --dashboard-port "$DASHBOARD" --resources '{"durable": 1}'
    wait_for_head
    for number in $(seq "$workers"); do
        add_worker "$number"
    done
    wait_for "$((workers + 1))"
    echo "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$CLUSTER/token RAY_API_SERVER_ADDRESS=http://127.0.0.1:$DASHBOARD"
    echo "local.sh: a head and $workers workers are up; dashboard http://127.0.0.1:$DASHBOARD" >&2
}

down() {
    local file
    for file in "$CLUSTER"/worker*.pid "$CLUSTER"/head.pid; do
        [ -e "$file" ] && end_node "$(basename "$file" .pid)" TERM
    done
    return 0
}

case "${1:-}" in
up) up "${2:-2}" ;;
add) add_worker "${2:?which? clusters/local.sh add NUMBER}" ;;
kill) end_node "worker${2:?which? clusters/local.sh kill NUMBER}" KILL ;;
down) down ;;
*) sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//' >&2; exit 2 ;;
esac
