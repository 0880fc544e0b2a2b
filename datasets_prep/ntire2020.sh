#!/usr/bin/env bash
# NTIRE 2020 real-world super-resolution, track 1 (image processing artifacts), x4, as Cria-CL uses it: 2650 images of
# Flickr2K with the track's noise and DIV2K's 800 clean ones; 100 validation images of DIV2K with the same degradation.
#
# Where to get it: the challenge's page, https://competitions.codalab.org/competitions/22220 (training source domain,
# validation inputs and their ground truth; registration); DIV2K at https://data.vision.ee.ethz.ch/cvl/DIV2K. The report is
# Lugmayr et al., arXiv 2005.01996.
# Licence: the challenge's terms, shown there on registration; it is made of Flickr2K (none is stated, see df2k.sh) and DIV2K (for
# academic research only, says its page).
#
#   datasets_prep/ntire2020.sh SOURCE_DOMAIN DIV2K_train_HR VALID_INPUTS VALID_GROUND_TRUTH
#
# The challenge has no training pairs, and the paper does not say how it makes them: here LR images are MATLAB bicubic of both
# sets, with what the source domain's noise leaves in them. Makes train_HR, train_LR_x4, valid_HR, valid_LR_x4, and noise,
# windows of the source domain that show nothing but noise, which options may add to LR crops in training. Validation inputs and
# ground truth have the same names, and are checked first. Run it again after a stop: it goes on.
# Environment: ROOT, where the stores go (default datasets/NTIRE2020); BASICSR, how to call the command (default basicsr).
source "$(dirname "$0")/common.sh"

ROOT=${ROOT:-datasets/NTIRE2020}

[ $# -eq 4 ] || usage
pair_stores "$4" "$3" valid LR_x4 4
make_links_folder
link "$1" train/source
link "$2" train/DIV2K
hr_and_lr "$links/train" train 4
once "$ROOT/noise.lmdb" noise -i "$1" -o "$ROOT/noise.lmdb" --size 32  # an LR crop
