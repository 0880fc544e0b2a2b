#!/usr/bin/env bash
# Tries the whole GPU run in small on the CPU: from a copy outside of the clone, with the environment that the GPU machine has, and
# without a network (where "unshare" may make one). Fails where a test fails, or a figure is missing.
#
#   bench/gpu/dry.sh [--minutes 40] [--only tests,step,feeding,centroids,evidence]
#
# PYTHON312 names a Python 3.12; VENV the environment, made on first use; BASICSR_EXT_BENCH_DIR the images to pack.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=${VENV:-$root/.venv-gpu}
packer=${PACKER:-python3}
if [ ! -e "$venv/.ready" ]; then
    "${PYTHON312:-python3.12}" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/machine.txt"
    touch "$venv/.ready"
fi
venv=$(cd "$venv" && pwd)
"$packer" "$here/pack.py"
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
(cd "$root" && git ls-files -z --cached --others --exclude-standard | xargs -0 tar -c --ignore-failed-read 2>/dev/null) | tar -x -C "$copy"
cp -r "$here/pack" "$copy/bench/gpu/pack"
alone=()
if unshare -rn ip link set lo up 2>/dev/null; then
    alone=(unshare -rn sh -c 'ip link set lo up; exec "$@"' sh)
else
    echo 'dry.sh: no network namespace can be made here: the run could reach the network' >&2
fi
rm -rf "$root/gpu_out/dry"
cd "$copy"
env -u BASICSR_EXT_BENCH_DIR -u BASICSR_EXT_GOLDEN_DIR -u PYTHONPATH PYTHON="$venv/bin/python" \
    ${alone[@]+"${alone[@]}"} bench/gpu/run.sh --minutes 40 --only tests,step,feeding,centroids,evidence "$@" --out "$root/gpu_out/dry"
"$venv/bin/python" - "$root/gpu_out/dry/results.jsonl" <<'CHECK'
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1], encoding='utf-8')]
wrong = [line['figure'] for line in lines if line['value'] is None or line.get('outcome') == 'failed' or line.get('status')]
sys.exit(f'missing or failed: {", ".join(wrong)}' if wrong or not lines else 0)
CHECK
