"""Runs scripts of bench/results on this device, side by side, within a time limit.

    python bench/gpu/evidence.py [--scripts eco.py:7,pspl.py:4,ail.py:4,published.py:1] [--out DIR] [--minutes 4] [--small]

Behind the colon stands the number of processes that a script may train in. All get the time that there is, as ``--minutes``,
and one ``--root``, which is not kept but for JSON and logs: they are in ``DIR/evidence`` as soon as a run is over, and in the
end in ``evidence.tar.gz``. Images are looked for in BASICSR_EXT_BENCH_DIR.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from measuring import CUDA, ROOT, Figures, parse_arguments

SCRIPTS = ROOT / 'bench/results'
DEFAULT = 'eco.py:7,pspl.py:4,ail.py:4,published.py:1'
TO_LEAVE = 20  # seconds, of the time, in which processes save and leave
SMALL = ['--iterations', '40', '--seeds', '1']


def main() -> None:
    args = parse_arguments(__doc__.split('\n')[0], scripts=DEFAULT)
    figures = Figures('evidence', args.out, args.minutes, args.small)
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # what comes back from a machine is small: stores and checkpoints stay
        root = Path(folder)
        kept = args.out.resolve() / 'evidence'
        for name in ('json', 'logs'):
            (kept / name).mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(kept / name)
        run_scripts(args.scripts.split(','), figures, root)
    with tarfile.open(args.out / 'evidence.tar.gz', 'w:gz') as archive:
        archive.add(kept, 'evidence')


def run_scripts(scripts: list[str], figures: Figures, root: Path) -> None:
    """Runs scripts side by side, and writes how many runs each has done."""
    minutes, start = max(0.0, figures.seconds_left() - TO_LEAVE) / 60, time.perf_counter()
    processes = {}
    for script in scripts:
        name, _, jobs = script.partition(':')
        line = [sys.executable, str(SCRIPTS / name), '--minutes', f'{minutes:.2f}']
        line += ['--device', 'cuda' if CUDA else 'cpu', '--root', str(root)]
        line += ['--jobs', '1', *SMALL] if figures.small else ['--jobs', jobs or '1']
        processes[name] = subprocess.Popen(line)
    for name, process in processes.items():
        try:
            status = process.wait(max(1.0, figures.seconds_left() + TO_LEAVE / 2))
        except subprocess.TimeoutExpired:
            process.kill()
            status = 'killed: it outlasted its time'
        found = list((root / 'json' / name.removesuffix('.py')).glob(f'{name.removesuffix(".py")}_*.json'))
        figures.write(f'evidence_{name}', len(found), 'runs', status=status, seconds=time.perf_counter() - start)


if __name__ == '__main__':
    main()
