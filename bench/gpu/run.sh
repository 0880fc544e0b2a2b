#!/usr/bin/env bash
# Tests and measures everything on a GPU in one call, without a network; see pack.py for what is taken along.
#
#   bench/gpu/run.sh [--minutes 8] [--only tests,step,feeding,centroids,evidence] [--out DIR] [--pack DIR]
#                    [--works eco,pspl (of step)] [--scripts eco.py:7 (of evidence)]
#
# Parts have time limits (their shares of --minutes). Figures are lines of DIR/results.jsonl as soon as they are there; all output
# is in DIR/log.txt, profiles are in DIR/traces.tar. "evidence" is run only where --only names it. Without a GPU the work is small.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
minutes=8 only=tests,step,feeding,centroids out=gpu_out pack=$here/pack scripts= works=
python=${PYTHON:-python3}
usage() { echo "run.sh: expected --minutes, --only, --out, --pack, --scripts or --works with a value, found: $1" >&2; exit 2; }
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage "$1"
    case $1 in
        --minutes) minutes=$2 ;; --only) only=$2 ;; --out) out=$2 ;; --pack) pack=$2 ;; --scripts) scripts=$2 ;; --works) works=$2 ;; *) usage "$1" ;;
    esac
    shift 2
done
IFS=, read -ra parts <<<"$only"
declare -A shares=([tests]=20 [step]=45 [feeding]=12 [centroids]=13 [evidence]=60)
total=0
for part in "${parts[@]}"; do
    [ -n "${shares[$part]:-}" ] || usage "--only $part"
    total=$((total + ${shares[$part]}))
done
mkdir -p "$out" && out=$(cd "$out" && pwd)
exec > >(tee -a "$out/log.txt") 2>&1
started=$SECONDS
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ -d "$pack" ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$work/site" "$pack"/wheels/*.whl ||
        { echo "run.sh: the wheels in $pack do not fit this Python" >&2; exit 1; }
    mkdir "$work/bench" && tar -xf "$pack/images.tar" -C "$work/bench"
    export BASICSR_EXT_BENCH_DIR=$work/bench PYTHONPATH="$root:$work/site"
else
    export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
fi
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 TORCHINDUCTOR_CACHE_DIR="$work/inductor" TMPDIR="$work"
cd "$root" || exit 1
"$python" -c 'import torch; print("torch", torch.__version__, "cuda", torch.version.cuda, "cudnn", torch.backends.cudnn.version(), torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")'

seconds_of() { "$python" -c "print(max(10, int(60 * $minutes * $1 / $total)))"; }

for part in "${parts[@]}"; do
    limit=$(seconds_of "${shares[$part]}")
    echo "=== $part: at most $limit s"
    begun=$SECONDS
    arguments=(--out "$out" --minutes "$("$python" -c "print($limit / 60)")")
    [ "$part" = evidence ] && [ -n "$scripts" ] && arguments+=(--scripts "$scripts")
    [ "$part" = tests ] && [[ ,$only, == *,step,* ]] && arguments+=(--warm yes)
    [ "$part" = step ] && [ -n "$works" ] && arguments+=(--works "$works")
    timeout --kill-after=10 $((limit + 30)) "$python" "$here/$part.py" "${arguments[@]}"
    echo "=== $part: exit status $? after $((SECONDS - begun)) s"
done
traces=("$out"/trace_*.json.gz)
if [ -e "${traces[0]}" ]; then
    tar -cf "$out/traces.tar" -C "$out" "${traces[@]##*/}" && rm "${traces[@]}"
fi
echo "=== all: $((SECONDS - started)) s"
