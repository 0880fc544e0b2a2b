#!/usr/bin/env bash
# RealSR as Cria-CL uses it, x4: Canon's 200 training pairs with DIV2K's 800 clean images, and Canon's 50 test pairs.
#
# Where to get it: version 3 (LR smaller than HR), https://github.com/csjcai/RealSR; DIV2K's training images at
# https://data.vision.ee.ethz.ch/cvl/DIV2K.
# Licence: none is stated for RealSR, see its authors' page; DIV2K for academic research only, says its page.
#
#   datasets_prep/realsr.sh RealSR_V3 DIV2K_train_HR
#
# RealSR_V3 is the folder that holds Canon/Train/4 and Canon/Test/4. Makes train_HR, train_LR_x4, test_HR and test_LR_x4.
# The paper does not say what the LR images of DIV2K are: here they are MATLAB bicubic (DIV2K_LR_x4 keeps them as files).
# Pairs are checked first. Run it again after a stop: it goes on.
# Environment: ROOT, where the stores go (default datasets/RealSR); BASICSR, how to call the command (default basicsr).
source "$(dirname "$0")/common.sh"

ROOT=${ROOT:-datasets/RealSR}

# canon PART FOLDER: links the pairs of a part under names that HR and LR images share.
canon() {
  local hr name
  for hr in "$source/Canon/$1/4"/*_HR.png; do
    name=$(basename "$hr" _HR.png)
    link "$hr" "$2_HR/RealSR/$name.png"
    link "${hr%_HR.png}_LR4.png" "$2_LR/RealSR/$name.png"
  done
}

[ $# -eq 2 ] || usage
source=$1
make_links_folder
canon Train train
canon Test test
link "$2" train_HR/DIV2K
mkdir -p "$ROOT"
once "$ROOT/DIV2K_LR_x4" lr -i "$2" -o "$ROOT/DIV2K_LR_x4" --scale 4
link "$ROOT/DIV2K_LR_x4" train_LR/DIV2K
pair_stores "$links/train_HR" "$links/train_LR" train LR_x4 4
pair_stores "$links/test_HR" "$links/test_LR" test LR_x4 4
