#!/usr/bin/env bash
# 291 images, the training set of VDSR, DRRN and AIL: T91 and the 200 training images of BSD, as luminance.
#
# Where to get it: T91 with the code of Yang et al., "Image Super-Resolution via Sparse Representation" (2010), or in the
# repositories of many SR networks; BSD200 is the folder images/train of BSDS300,
# https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/bsds (the same images as BSDS500's train).
# Licence: none is stated for T91, see its authors' page; BSD is free for non-commercial research and education, says its page.
#
#   datasets_prep/291.sh T91 BSD200 [TEST_SET...]
#
# Makes luma_x2, luma_x3, luma_x4 (one scale each) and luma_x234 (all), with the suffix _LQ the enlarged luminance, and with
# _small what it was enlarged from: float32, one channel, copies shrunk by 1.0, 0.7 and 0.5. Datasets read the first two at
# scale 1, with gt_size 41; see "basicsr prepare luma --help". Test sets that are named are compared with the training images
# first: BSD200 holds the image that Set5 calls "woman". Found images are named, and nothing stops, since published numbers were
# made with them.
# Environment: ROOT, where the stores go (default datasets/291); ROUND, where it is set, rounds luminance to 8 bits as in the
# published training, into stores with the suffix _8bit (options/train_*-published_*.yml); BASICSR, how to call the command
# (default basicsr).
source "$(dirname "$0")/common.sh"

ROOT=${ROOT:-datasets/291}

[ $# -ge 2 ] || usage
t91=$1 bsd=$2
shift 2
mkdir -p "$ROOT"
if [ $# -gt 0 ]; then
  make_links_folder
  link "$t91" 291/T91
  link "$bsd" 291/BSD200
  status=0
  $BASICSR prepare check --gt "$links/291" --test "$@" || status=$?
  [ "$status" -le 1 ] || exit "$status"
fi
for scales in "2" "3" "4" "2 3 4"; do
  store=$ROOT/luma_x${scales// /}${ROUND:+_8bit}
  # shellcheck disable=SC2086
  once "$store.lmdb" luma -i "$t91" "$bsd" -o "$store.lmdb" --output_lq "${store}_LQ.lmdb" \
    --output_small "${store}_small.lmdb" --scale $scales ${ROUND:+--round_luma}
done
