#!/usr/bin/env bash
# Benchmark sets: Set5, Set14, BSD100, Urban100, Manga109, as HR and MATLAB bicubic LR stores.
#
# Where to get it: Set5, Set14, BSD100 and Urban100 at https://github.com/jbhuang0604/SelfExSR; Manga109 on application at
# http://www.manga109.org. All five, as BasicSR has them: https://github.com/XPixelGroup/BasicSR, docs/DatasetPreparation.md.
# Licence: Set5 and Set14 come without one; BSD100 is part of BSDS300, for non-commercial research and education; Urban100
# holds Flickr users' images under Creative Commons licences; Manga109 for academic use, see there.
#
#   datasets_prep/benchmark.sh Set5 FOLDER [Set14 FOLDER] [BSD100 FOLDER] [Urban100 FOLDER] [Manga109 FOLDER]
#
# A folder holds the HR images of the set. LR images are those of MATLAB on uint8, to the last pixel. Run it again after a
# stop: it goes on.
# Environment: ROOT, where the stores go (default datasets/benchmark); SCALES (default "2 3 4 8"); BASICSR, how to call the
# command (default basicsr).
source "$(dirname "$0")/common.sh"

ROOT=${ROOT:-datasets/benchmark}

[ $# -ge 2 ] && [ $(($# % 2)) -eq 0 ] || usage
while [ $# -gt 0 ]; do
  case $1 in
    # shellcheck disable=SC2086
    Set5 | Set14 | BSD100 | Urban100 | Manga109) hr_and_lr "$2" "$1" ${SCALES:-2 3 4 8} ;;
    *) usage ;;
  esac
  shift 2
done
