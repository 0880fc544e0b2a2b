"""Runs scripts of bench/results on this device, side by side, within a time limit.

    python bench/gpu/evidence.py [--scripts eco.py:7,pspl.py:4,ail.py:4] [--out DIR] [--minutes 4] [--small]

Behind the colon stands the number of processes that a script may train in. All get the time that there is, as ``--minutes``,
and one ``--root``; what they have written as JSON, run by run, is packed into ``evidence.tar.gz``, also where their time ran
out. Images are looked for in BASICSR_EXT_BENCH_DIR.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import time

from measuring import CUDA, ROOT, Figures, parse_arguments

SCRIPTS = ROOT / 'bench/results'
DEFAULT = 'eco.py:7,pspl.py:4,ail.py:4'
TO_LEAVE = 20  # seconds, of the time, in which processes save and leave
SMALL = ['--iterations', '40', '--seeds', '1']


def main() -> None:
    args = parse_arguments(__doc__.split('\n')[0], scripts=DEFAULT)
    figures = Figures('evidence', args.out, args.minutes, args.small)
    root = args.out.resolve() / 'evidence'
    minutes, start = max(0.0, figures.seconds_left() - TO_LEAVE) / 60, time.perf_counter()
    processes = {}
    for script in args.scripts.split(','):
        name, _, jobs = script.partition(':')
        line = [
            sys.executable,
            str(SCRIPTS / name),
            '--minutes',
            f'{minutes:.2f}',
            '--device',
            'cuda' if CUDA else 'cpu',
        ]
        line += ['--root', str(root), '--jobs', '1' if args.small else jobs or '1', *(SMALL if args.small else [])]
        processes[name] = subprocess.Popen(line)
    for name, process in processes.items():
        try:
            status = process.wait(max(1.0, figures.seconds_left() + TO_LEAVE / 2))
        except subprocess.TimeoutExpired:
            process.kill()
            status = 'killed: it outlasted its time'
        found = list((root / 'json' / name.removesuffix('.py')).glob('*_seed*.json'))
        figures.write(f'evidence_{name}', len(found), 'runs', status=status, seconds=time.perf_counter() - start)
    with tarfile.open(args.out / 'evidence.tar.gz', 'w:gz') as archive:
        for path in sorted((root / 'json').rglob('*.json')) + sorted((root / 'logs').glob('*.log')):
            archive.add(path, path.relative_to(args.out.resolve()))


if __name__ == '__main__':
    main()
