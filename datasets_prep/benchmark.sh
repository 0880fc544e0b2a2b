#!/usr/bin/env bash
# Benchmark sets: Set5, Set14, BSD100, Urban100, Manga109, as HR and MATLAB bicubic LR stores.
#
# Where to get it: Set5, Set14, BSD100 and Urban100 at https://github.com/jbhuang0604/SelfExSR (HR images cropped for a scale:
# take those of the scale in question, or others that are whole); Manga109 on application at http://www.manga109.org. All five,
# as BasicSR has them: https://github.com/XPixelGroup/BasicSR, docs/DatasetPreparation.md.
# Licence: none is stated for Set5 and Set14, see their authors' pages (linked at SelfExSR); BSD100 is the test part of BSDS300,
# free for non-commercial research and education, says its page; Urban100 holds Flickr users' photographs, each under its own
# terms (listed in data/Urban100 at SelfExSR); Manga109 is for academic purposes only and not to be passed on, see its page.
#
#   datasets_prep/benchmark.sh Set5 FOLDER [Set14 FOLDER] [BSD100 FOLDER] [Urban100 FOLDER] [Manga109 FOLDER]
#
# A folder holds the HR images of the set. LR images are those of MATLAB on uint8, to the last pixel. Run it again after a
# stop: it goes on.
# Environment: ROOT, where the stores go (default datasets/benchmark); SCALES (default "2 3 4 8"); LUMA, where it is set, also
# makes luminance in float32 for networks that are validated on it, such as Set5_luma_x2, with the suffix _LQ enlarged, and with
# _small as it was before; NOISE, where it is set to a standard deviation on [0, 1] such as 0.01, also makes LR images with
# Gaussian noise at x2, from ten seeds, such as Set5_LR_x2_noise0; PILLOW, where it is set, also makes the images that PSPL's
# published scores are measured on: Pillow resizes HR to a multiple of the scale and makes LR (Set5_HR_x4_pillow,
# Set5_LR_x4_pillow, and enlarged again Set5_LR_x4_pillow_enlarged); BASICSR, how to call the command (default basicsr).
source "$(dirname "$0")/common.sh"

ROOT=${ROOT:-datasets/benchmark}
KNOWN='Set5|Set14|BSD100|Urban100|Manga109'

[ $# -ge 2 ] && [ $(($# % 2)) -eq 0 ] || usage

# luminance HR NAME SCALE...: stores of luminance for each scale, whole images.
luminance() {
  local hr=$1 name=$2 scale store
  shift 2
  for scale in "$@"; do
    store=$ROOT/${name}_luma_x$scale
    once "$store.lmdb" luma -i "$hr" -o "$store.lmdb" --output_lq "${store}_LQ.lmdb" --output_small "${store}_small.lmdb" \
      --scale "$scale" --factors 1
  done
}

# noisy HR NAME: ten stores of noisy LR images.
noisy() {
  local seed store
  for seed in {0..9}; do
    store=$ROOT/${2}_LR_x2_noise$seed.lmdb
    once "$store" lr -i "$1" -o "$store" --scale 2 --noise_sigma "$NOISE" --noise_seed "$seed"
  done
}

# pillow HR NAME SCALE...: HR, LR and enlarged LR images by Pillow.
pillow() {
  local hr=$1 name=$2 scale lr
  shift 2
  for scale in "$@"; do
    lr=$ROOT/${name}_LR_x${scale}_pillow
    once "$lr.lmdb" lr -i "$hr" -o "$lr.lmdb" --output_hr "$ROOT/${name}_HR_x${scale}_pillow.lmdb" --scale "$scale" \
      --resizer pillow
    once "${lr}_enlarged.lmdb" lr -i "$hr" -o "${lr}_enlarged.lmdb" --scale "$scale" --resizer pillow --enlarge
  done
}

sets=("$@")
for ((i = 0; i < $#; i += 2)); do
  [[ ${sets[i]} =~ ^($KNOWN)$ ]] || { echo "${sets[i]}: unknown set; known sets: ${KNOWN//|/, }." >&2; exit 2; }
done
# warn_of_number HR NAME: says where a store does not hold as many images as the set has.
warn_of_number() {
  local known found
  case $2 in Set5) known=5 ;; Set14) known=14 ;; Manga109) known=109 ;; *) known=100 ;; esac
  found=$(find -L "$1" -type f | wc -l)
  [ "$found" -eq "$known" ] || echo "warning: $1: $2 has $known images, this folder has $found files: it should hold the HR images alone." >&2
}

while [ $# -gt 0 ]; do
  [ ! -d "$2" ] || warn_of_number "$2" "$1"
  # shellcheck disable=SC2086
  hr_and_lr "$2" "$1" ${SCALES:-2 3 4 8}
  # shellcheck disable=SC2086
  [ -z "${LUMA:-}" ] || luminance "$2" "$1" ${SCALES:-2 3 4 8}
  [ -z "${NOISE:-}" ] || noisy "$2" "$1"
  # shellcheck disable=SC2086
  [ -z "${PILLOW:-}" ] || pillow "$2" "$1" ${SCALES:-2 3 4 8}
  shift 2
done
