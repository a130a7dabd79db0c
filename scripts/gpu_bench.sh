#!/usr/bin/env bash
# The benchmarks that a GPU changes, on this machine's GPU, in five minutes:
#
#   scripts/gpu_bench.sh [FOLDER]     one JSON file per benchmark; FOLDER is `bench-gpu` by default
#
# PYTHON names the interpreter with rayrlhf in it (default: .venv/bin/python, else python).
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:-bench-gpu}
python=${PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python)}
export OMP_NUM_THREADS=1
mkdir -p "$folder"

bench() {
    local name=$1
    shift
    if ! "$python" -m rayrlhf bench "$name" device=cuda "$@" --json | tee "$folder/$name.txt"; then
        echo "bench $name failed" >&2
        return 1
    fi
    tail -n 1 "$folder/$name.txt" >"$folder/$name.json"
}

failed=0
bench learner rounds=5 stock=false || failed=1
bench limits rounds=5 || failed=1
bench share rounds=2 runs=[2,4,8] || failed=1
bench relabel rounds=5 || failed=1
bench query rounds=3 || failed=1
bench reward rounds=5 epochs=5 || failed=1
exit $failed
