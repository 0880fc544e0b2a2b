#!/usr/bin/env bash
# DIV2K: training and validation images, and ECO's centroids of the training images.
#
# Where to get it: https://data.vision.ee.ethz.ch/cvl/DIV2K, "Train Data (HR images)" and "Validation Data (HR images)".
# Licence: for academic research only, says that page; the copyright stays with the owners of the images. About 4.4 GB of PNGs
# become some 26 GB of stores (raw pixels, read without decoding): HR 7.4, LR 3.2 for all scales together, centroids 8.2 for x2
# and 7.0 for x4; enlarged images take as much as HR.
#
#   datasets_prep/div2k.sh images DIV2K_train_HR DIV2K_valid_HR     HR and MATLAB bicubic LR images (x2, x3, x4, x8)
#   datasets_prep/div2k.sh first_ten DIV2K_valid_HR                 of 0801-0810 alone, x4: what LFC-SR validates on
#   datasets_prep/div2k.sh enlarged DIV2K_train_HR DIV2K_valid_HR   LR x4 enlarged again, in 8 bits: PSPL's SRCNN, VDSR and DRRN
#   basicsr train -opt options/train_vanilla_EDSR_x2.yml            a teacher: plain training
#   datasets_prep/div2k.sh centroids EDSR_x2 [OPTIONS]              its centroids, with further options of
#                                                                   "basicsr prepare centroids", e.g. --precision bf16
#   basicsr train -opt options/train_ECO_EDSR_x2.yml
#
# The name after "centroids" is that of any options/train_vanilla_<name>.yml, which ends with its scale.
# Whatever is stopped: run it again. Making a store needs its size twice for a while.
#
# Environment: ROOT, where the stores go (default datasets/DIV2K, as in the option files); WEIGHTS and OPT, another teacher
# than the vanilla twin; BASICSR, how to call the command (default basicsr).
source "$(dirname "$0")/common.sh"

ROOT=${ROOT:-datasets/DIV2K}

images() {
  hr_and_lr "$1" train 2 3 4 8
  hr_and_lr "$2" valid 2 3 4 8
}

first_ten() {
  local number
  make_links_folder
  for number in {0801..0810}; do link "$1/$number.png" "$number.png"; done
  hr_and_lr "$links" valid10 4
}

enlarged() {
  local part
  mkdir -p "$ROOT"
  for part in train valid; do
    once "$ROOT/${part}_LR_x4_enlarged.lmdb" lr -i "$1" -o "$ROOT/${part}_LR_x4_enlarged.lmdb" --scale 4 --enlarge
    shift
  done
}

centroids() {
  local name=$1 twin=train_vanilla_$1
  [[ $name =~ ^[A-Za-z0-9-]+_x[0-9]+$ ]] || usage
  shift
  once "$ROOT/centroid_$name.lmdb" centroids -i "$ROOT/train_LR_${name##*_}.lmdb" \
    -o "$ROOT/centroid_$name.lmdb" --output_lq "$ROOT/centroid_${name}_LR.lmdb" \
    -opt "${OPT:-experiments/$twin/$twin.yml}" --weights "${WEIGHTS:-experiments/$twin/models/net_g_latest.pth}" "$@"
}

case ${1:-} in
  images) [ $# -eq 3 ] || usage; images "$2" "$3" ;;
  first_ten) [ $# -eq 2 ] || usage; first_ten "$2" ;;
  enlarged) [ $# -eq 3 ] || usage; enlarged "$2" "$3" ;;
  centroids) [ $# -ge 2 ] || usage; shift; centroids "$@" ;;
  *) usage ;;
esac
