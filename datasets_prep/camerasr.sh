#!/usr/bin/env bash
# CameraSR's City100 (iPhoneX) as Cria-CL uses it: pairs 021-100 with DIV2K's 800 clean images, tested on 001-020. LR and HR
# images have the same size (scale 1).
#
# Where to get it: https://github.com/ngchc/CameraSR (City100_iPhoneX, files 001H.PNG and 001L.PNG to 100H.PNG and 100L.PNG);
# DIV2K's training images at https://data.vision.ee.ethz.ch/cvl/DIV2K.
# Licence: MIT for the repository of CameraSR, images included; DIV2K for academic research only, says its page.
#
#   datasets_prep/camerasr.sh City100_iPhoneX DIV2K_train_HR
#
# Makes train_HR, train_LQ, test_HR and test_LQ. The paper does not say what the LR images of DIV2K are: here they are MATLAB
# bicubic, shrunk by FACTOR and enlarged again (DIV2K_LQ keeps them as files). Pairs are checked first. Run it again after a
# stop: it goes on.
# Environment: ROOT, where the stores go (default datasets/CameraSR); FACTOR (default 4; DIV2K's sides are multiples of it);
# BASICSR, how to call the command (default basicsr).
source "$(dirname "$0")/common.sh"

ROOT=${ROOT:-datasets/CameraSR}

[ $# -eq 2 ] || usage
make_links_folder
for hr in "$1"/*H.PNG; do
  name=$(basename "$hr" H.PNG)
  part=train
  if [ "$name" \< 021 ]; then part=test; fi
  link "$hr" "${part}_HR/City100/$name.png"
  link "${hr%H.PNG}L.PNG" "${part}_LQ/City100/$name.png"
done
link "$2" train_HR/DIV2K
mkdir -p "$ROOT"
once "$ROOT/DIV2K_LQ" lr -i "$2" -o "$ROOT/DIV2K_LQ" --scale "${FACTOR:-4}" --enlarge
link "$ROOT/DIV2K_LQ" train_LQ/DIV2K
pair_stores "$links/train_HR" "$links/train_LQ" train LQ 1
pair_stores "$links/test_HR" "$links/test_LQ" test LQ 1
