#!/usr/bin/env bash
# RealSR-Zero: 45 photographs of an iPhone 4, a test set without ground truth; networks for it are trained on DF2K.
#
# Where to get it: https://github.com/House-Leo/RealSR-Zero; for training see df2k.sh.
# Licence: none is stated, see the authors' page; they collected the images on the internet.
#
#   datasets_prep/realsr_zero.sh RealSR-Zero
#
# Makes test_LR. Without ground truth there are metrics without reference only, such as NIQE.
# Environment: ROOT, where the store goes (default datasets/RealSR-Zero); BASICSR, how to call the command (default basicsr).
source "$(dirname "$0")/common.sh"

ROOT=${ROOT:-datasets/RealSR-Zero}

[ $# -eq 1 ] || usage
mkdir -p "$ROOT"
once "$ROOT/test_LR.lmdb" lmdb -i "$1" -o "$ROOT/test_LR.lmdb"
