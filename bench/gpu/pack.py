"""Packs what a GPU machine without a network needs beside the working tree: images and wheels, for run.sh.

    python bench/gpu/pack.py [--bench FOLDER] [--to bench/gpu/pack]

``images.tar`` has the layout of FOLDER (default: BASICSR_EXT_BENCH_DIR): T91, Set14 and as much of BSD100 as there is room
for, lossless; BSDS500's training images and the photographs, as WebP of quality 90; and the small published weights. Images
take at most 30 MB. ``wheels`` are for Python 3.12 on x86-64 Linux: what an environment with torch, torchvision, OpenCV,
scikit-image and pytest lacks. BasicSR has no wheel; it is built here, in pure Python. All of it and the working tree must be
at most 64 MiB.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import cv2

ROOT = Path(__file__).resolve().parents[2]
MOST_IMAGES, MOST = 30_000_000, 64 << 20
WHEELS = (
    'lmdb', 'addict', 'future', 'yapf', 'platformdirs', 'pydantic', 'pydantic_core', 'annotated-types', 'typing-inspection',
    'pytorch_optimizer', 'lpips', 'pytest-timeout', 'pytest-xdist', 'execnet',
)  # fmt: skip
PLATFORMS = ('manylinux_2_28_x86_64', 'manylinux_2_27_x86_64', 'manylinux_2_17_x86_64', 'manylinux2014_x86_64',
             'manylinux1_x86_64')  # fmt: skip
LOSSLESS, LOSSY = 101, 90  # WebP's quality
FOLDERS = {
    'train/T91': LOSSLESS, 'Set14/HR': LOSSLESS, 'train/photos_560': LOSSY, 'train/BSDS500_train': LOSSY,
    'BSD100/HR': LOSSLESS,
}  # fmt: skip
WEIGHTS = ('ail_tea_vdsr.pth', 'ail_pre_vdsr_f13.pth', 'ail_ours_ail_r9_f13_s2.pth', 'ail_ours_ail_r9_f13_s3.pth',
           'ail_ours_ail_r9_f13_s4.pth', 'lpips')  # fmt: skip


def encoded(bench: Path) -> Iterator[tuple[str, bytes]]:
    """Gives names and contents of the archive's images, until they would take more than they may."""
    room = MOST_IMAGES
    for folder, quality in FOLDERS.items():
        for file in sorted((bench / folder).iterdir()):
            image = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if image is None:
                continue
            data = cv2.imencode('.webp', image, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()
            if len(data) + 1024 > room:  # tar's header and padding
                return
            room -= len(data) + 1024
            yield f'{folder}/{file.stem}.webp', data


def pack_images(bench: Path, target: Path) -> None:
    with tarfile.open(target, 'w') as archive:
        counts: dict[str, int] = {}
        for name, data in encoded(bench):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
            counts[os.path.dirname(name)] = counts.get(os.path.dirname(name), 0) + 1
        for name in WEIGHTS:
            if (bench / 'weights' / name).exists():
                archive.add(
                    bench / 'weights' / name, f'weights/{name}', filter=lambda m: None if m.name.endswith('.png') else m
                )
    print(', '.join(f'{count} of {folder}' for folder, count in counts.items()))


def pack_wheels(target: Path) -> None:
    pip = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check']
    constraints = ['-c', str(ROOT / 'constraints.txt')]
    platforms = [part for name in PLATFORMS for part in ('--platform', name)]
    subprocess.run(
        [*pip, 'download', '--no-deps', '--only-binary=:all:', '--python-version', '3.12', '--implementation', 'cp',
         *platforms, *constraints, '-d', str(target), *WHEELS], check=True,
    )  # fmt: skip
    subprocess.run(
        [*pip, 'wheel', '--no-deps', '--no-build-isolation', '-w', str(target), 'basicsr==1.4.2'], check=True
    )


def tree_bytes() -> int:
    """Bytes of the files that travel with the repository: those that git tracks, and new ones that it does not ignore."""
    names = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], cwd=ROOT, capture_output=True, check=True
    ).stdout.decode().split('\0')  # fmt: skip
    return sum((ROOT / name).stat().st_size for name in names if name and (ROOT / name).is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--bench', type=Path, default=os.environ.get('BASICSR_EXT_BENCH_DIR'), metavar='FOLDER')
    parser.add_argument('--to', type=Path, default=Path(__file__).parent / 'pack', metavar='FOLDER')
    args = parser.parse_args()
    shutil.rmtree(args.to, ignore_errors=True)
    (args.to / 'wheels').mkdir(parents=True)
    if args.bench is None or not args.bench.is_dir():
        parser.error('--bench: expected a folder of images (or BASICSR_EXT_BENCH_DIR), found none.')
    pack_images(args.bench, args.to / 'images.tar')
    pack_wheels(args.to / 'wheels')
    packed = sum(path.stat().st_size for path in args.to.rglob('*') if path.is_file())
    tree = tree_bytes()
    print(
        f'{args.to}: {packed / 1e6:.1f} MB, and {tree / 1e6:.1f} MB of the working tree; at most {MOST / 1e6:.1f} MB travel'
    )
    if packed + tree > MOST:
        sys.exit('pack: too large; lower MOST_IMAGES')


if __name__ == '__main__':
    main()
