#!/usr/bin/env bash
# The benchmarks that a GPU changes, on this machine's GPU, in some minutes, and with 16 cores the rollouts:
#
#   scripts/gpu_bench.sh [FOLDER]            one JSON file per benchmark; FOLDER is `bench-gpu` by default
#   SMALL=1 scripts/gpu_bench.sh [FOLDER]    the same on the CPU with tiny sizes: a check that all of it runs, no result
#
# PYTHON names the interpreter with rayrlhf in it (default: .venv/bin/python, else python).
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:-bench-gpu}
python=${PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python)}
export OMP_NUM_THREADS=1
mkdir -p "$folder"

# bench NAME OPTION... -- OPTION...: those behind the dashes are the tiny sizes
bench() {
    local name=$1 device=cuda options=()
    shift
    while [[ $# -gt 0 && $1 != -- ]]; do
        options+=("$1")
        shift
    done
    if [[ -n ${SMALL:-} ]]; then
        device=cpu
        options=("${@:2}")
    fi
    [[ $name == rollout ]] || options+=("device=$device")
    if ! "$python" -m rayrlhf bench "$name" "${options[@]}" --json | tee "$folder/$name.txt"; then
        echo "bench $name failed" >&2
        return 1
    fi
    tail -n 1 "$folder/$name.txt" >"$folder/$name.json"
}

failed=0
bench learner rounds=5 stock=false -- rounds=1 stock=false updates=2 rows=600 epochs=1 || failed=1
bench limits rounds=5 -- rounds=1 'hidden=[16]' batch_size=16 rows=500 states=100 budget=60 matrix=64 || failed=1
bench share rounds=2 'runs=[2,4,8]' -- rounds=1 'runs=[2]' seconds=0.5 'hidden=[16]' batch_size=16 rows=500 || failed=1
bench relabel rounds=5 -- rounds=1 rows=3000 'hidden=[32]' || failed=1
bench query rounds=3 -- rounds=1 candidates=30 centres=20 picks=5 length=10 steps=400 || failed=1
bench reward rounds=5 epochs=5 -- rounds=1 labels=20 length=4 'hidden=[16]' batch_size=8 || failed=1
bench methods rounds=3 -- rounds=1 rows=600 labels=12 length=5 'hidden=[16]' batch_size=16 updates=2 || failed=1
if [[ -n ${SMALL:-} || $(nproc) -ge 16 ]]; then
    bench few_shot draws=8 'hidden=[256,256,256]' data="$folder/few_shot" -- \
        draws=3 pairs=70 horizon=40 'hidden=[16]' steps=2 'labels=[4,16]' seeds=1 epochs=2 data="$folder/few_shot" || failed=1
    bench rollout rounds=3 'actors=[2,4,8,16]' -- rounds=1 'actors=[2]' fragments=2 envs=2 fragment_length=10 || failed=1
fi
exit $failed
