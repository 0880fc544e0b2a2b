#!/usr/bin/env bash
# DF2K: DIV2K's 800 training images and Flickr2K's 2650, as HR and MATLAB bicubic LR stores.
#
# Where to get it: DIV2K at https://data.vision.ee.ethz.ch/cvl/DIV2K ("Train Data (HR images)"); Flickr2K from the authors of
# EDSR, https://cv.snu.ac.kr/research/EDSR/Flickr2K.tar (the folder Flickr2K_HR in it; users have reported the link dead).
# Licence: DIV2K for academic research only, says its page; the copyright stays with the owners of the images. None is stated for
# Flickr2K (https://github.com/limbee/NTIRE2017): its images are Flickr users', each under its own terms.
# The HR store takes about 32 GB, the LR stores 13 GB together; making a store needs its size twice for a while.
#
#   datasets_prep/df2k.sh DIV2K_train_HR Flickr2K_HR
#
# Images are called DIV2K/0001 and Flickr2K/000001. Run it again after a stop: it goes on.
# Environment: ROOT, where the stores go (default datasets/DF2K); SCALES (default "2 3 4"); BASICSR, how to call the command.
source "$(dirname "$0")/common.sh"

ROOT=${ROOT:-datasets/DF2K}

[ $# -eq 2 ] || usage
make_links_folder
link "$1" DF2K/DIV2K
link "$2" DF2K/Flickr2K
# shellcheck disable=SC2086
hr_and_lr "$links/DF2K" train ${SCALES:-2 3 4}
