#!/usr/bin/env bash
# Schemathesis against the queue's HTTP interface, and against the policy's where a run is given:
#
#   scripts/schemathesis.sh [RUN]     RUN is the folder of a run, of which the newest checkpoint is served
#
# Exit code 1 where any request is answered with a 5xx, other than the 503 that says when to come again. Schemathesis
# gets a virtual environment of its own: a temporary one, or the folder that SCHEMATHESIS_ENV names, which is kept.
# EXAMPLES is the number of requests that are made up for each operation (default: 50), beside those for the edges of its
# schema. PYTHON names the interpreter with rayrlhf in it (default: .venv/bin/python, else python).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
run=${1:+$(realpath "$1")}

python=${PYTHON:-$([[ -x $root/.venv/bin/python ]] && echo "$root/.venv/bin/python" || echo python)}
folder=$(mktemp -d)
env=${SCHEMATHESIS_ENV:-$folder/env}
export PYTHONPATH="$root:$root/tests${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS=1
server=
finish() {
    [[ -z $server ]] || { kill "$server" && wait "$server"; } 2>/dev/null || true
    rm -rf "$folder"
}
trap finish EXIT

if [[ ! -x $env/bin/schemathesis ]]; then
    "$python" -m venv "$env"
    "$env/bin/pip" install --quiet "schemathesis>=4,<5"
fi
cd "$folder" # it leaves files where it runs
cat >schemathesis.toml <<'END'
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "503"]
END
cat >made_up.py <<'END'
"""What Schemathesis sends where the queue wants an MP4 file."""

import schemathesis
from hypothesis import strategies as st

schemathesis.openapi.media_type("video/mp4", st.binary(max_size=10_000))


@schemathesis.serializer("video/mp4")
def as_it_is(context, value):
    return value if isinstance(value, bytes) else str(value).encode()
END

serve() { # a program on standard input that prints the address and a token
    rm -f said
    "$python" - "$@" <&0 >said &
    server=$!
    until [[ $(wc -l 2>/dev/null <said) -ge 1 ]]; do
        kill -0 "$server" 2>/dev/null || { echo "the server did not start" >&2; exit 2; }
        sleep 0.1
    done
    read -r url token <said
}

try() { # a configuration, and options
    PYTHONPATH=. SCHEMATHESIS_HOOKS=made_up "$env/bin/schemathesis" --config-file "$1" run "$url/v1/openapi.json" \
        -H "Authorization: Bearer $token" \
        --checks not_a_server_error --max-examples "${EXAMPLES:-50}" --continue-on-failure --request-timeout 20 \
        --suppress-health-check all --warnings off --no-color "${@:2}"
}

failed=0

serve <<'END'
import hashlib
import time
from pathlib import Path

from queue_server import Server

from rayrlhf.preferences.store import PreferenceStore, Database, Question, Run
from rayrlhf.serving.clips import Clips
from rayrlhf.serving.settings import QueueSettings

settings = QueueSettings(
    database="queue.sqlite", clips=str(Path("clips").absolute()), requests_per_second=1e6, burst=10**6, at_once=1000
)
server = Server(settings)
name = Clips(settings.clips).keep(b"\0\0\0\x18ftypisom and so on")
store = PreferenceStore(Database(settings.database))
store.register(Run("run", "drawer-open", "open the drawer"))
store.enqueue("run", [Question(f"q{i}", 0, i, left_clip=name, right_clip=name) for i in range(100)])
store.enqueue("run", [Question(f"known{i}", 0, i, "left", name, name) for i in range(10)])
for lease in store.lease("run", "the annotator", 50):
    store.answer("the annotator", lease.id, "equal", key=f"key{lease.id}")
print(server.url, server.tokens["admin"], flush=True)
digest = hashlib.sha256(server.tokens["admin"].encode()).hexdigest()
while True:  # names that it has seen are tried, too: it would end its own account, and be refused from there on
    server.accounts.ensure("the admin", "admin", digest)
    time.sleep(0.1)
END
echo "--- the queue"
# streams of events last for minutes
try schemathesis.toml --exclude-path "/v1/runs/{run}/events" || failed=1
echo "--- the queue, with a run and a clip that are there"
printf '[parameters]\n"path.run" = "run"\n"path.clip" = "%s"\n' "$(ls clips)" | cat schemathesis.toml - >there.toml
try there.toml --exclude-path "/v1/runs/{run}/events" || failed=1
kill "$server" && wait "$server" 2>/dev/null || true
server=

if [[ -z $run ]]; then
    echo "--- the policy: left out, no run was given"
    exit $failed
fi
serve "$run" <<'END'
import hashlib
import sys
import time

from app_server import AppServer

from rayrlhf.serving.policy import build_app
from rayrlhf.serving.policy_settings import PolicySettings
from rayrlhf.serving.shelf import Shelf

token = "a token for the time of these tests"
digest = hashlib.sha256(token.encode()).hexdigest()
settings = PolicySettings(
    models={"policy": sys.argv[1]}, token_digests=(digest,), requests_per_second=1e6, burst=10**6, at_once=1000
)
server = AppServer(build_app(settings, Shelf(settings.models)))
print(server.url, token, flush=True)
time.sleep(1e6)
END
echo "--- the policy"
try schemathesis.toml || failed=1
exit $failed
