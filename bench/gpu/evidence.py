"""Runs scripts of bench/results on this device, one after the other, within a time limit.

    python bench/gpu/evidence.py [--scripts eco.py,pspl.py,ail.py] [--out DIR] [--minutes 4] [--small]

Each script gets an equal share of what is left of the time, as ``--minutes``, and ``--device``, ``--jobs`` and ``--root``;
what it has written as JSON, run by run, is packed into ``evidence.tar.gz``, also where its time ran out. Images are looked for
in BASICSR_EXT_BENCH_DIR.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import time

from measuring import CUDA, ROOT, Figures, parse_arguments

SCRIPTS = ROOT / 'bench/results'


def main() -> None:
    args = parse_arguments(__doc__.split('\n')[0], scripts='eco.py,pspl.py,ail.py')
    scripts = args.scripts.split(',')
    figures = Figures('evidence', args.out, args.minutes, args.small)
    root = args.out / 'evidence'
    for number, script in enumerate(scripts):
        minutes = figures.seconds_left() / 60 / (len(scripts) - number)
        line = [sys.executable, str(SCRIPTS / script), '--minutes', f'{minutes:.2f}', '--device', 'cuda' if CUDA else 'cpu',
                '--root', str(root / script.removesuffix('.py'))]  # fmt: skip
        line += (
            ['--iterations', '10', '--seeds', '1', '--jobs', '1']
            if args.small
            else ['--jobs', str(min(8, os.cpu_count() or 1))]
        )
        with figures.attempt(f'evidence_{script}', 5) as there_is_time:
            if not there_is_time:
                continue
            start = time.perf_counter()
            try:
                status = subprocess.run(line, timeout=60 * minutes + 20, check=False).returncode
            except subprocess.TimeoutExpired:
                status = 'killed: it outlasted its time by 20 seconds'
            found = sorted(path for path in (root / script.removesuffix('.py')).rglob('*.json'))
            seconds = time.perf_counter() - start
            figures.write(f'evidence_{script}', len(found), 'files', status=status, seconds=seconds)
            with tarfile.open(args.out / 'evidence.tar.gz', 'w:gz') as archive:
                for path in root.rglob('*.json'):
                    archive.add(path, path.relative_to(args.out))


if __name__ == '__main__':
    main()
