# What the recipes share; they source it. Environment of all of them:
#   BASICSR  how to call the command (default basicsr)
# Every recipe may be stopped and run again: what is made stays, and what was begun is gone on with.
set -euo pipefail

BASICSR=${BASICSR:-basicsr}

# Prints the comment at the head of the recipe.
usage() {
  sed -n '2,/^[^#]/{/^[^#]/d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
}

# once OUTPUT COMMAND ARGUMENTS...: basicsr prepare COMMAND ..., unless OUTPUT is there and nothing of it is unfinished.
once() {
  local output=$1
  shift
  if [ -e "$output" ] && [ ! -e "$output.parts" ]; then
    echo "$output: is there"
  else
    $BASICSR prepare "$@"
  fi
}

# hr_and_lr HR NAME SCALE...: a store of HR images and one of MATLAB bicubic LR images a scale, below $ROOT.
hr_and_lr() {
  local hr=$1 name=$2 scale
  shift 2
  mkdir -p "$ROOT"
  once "$ROOT/${name}_HR.lmdb" lmdb -i "$hr" -o "$ROOT/${name}_HR.lmdb"
  for scale in "$@"; do
    once "$ROOT/${name}_LR_x$scale.lmdb" lr -i "$hr" -o "$ROOT/${name}_LR_x$scale.lmdb" --scale "$scale"
  done
}

# pair_stores HR LQ NAME SUFFIX SCALE: checks a folder of pairs, and makes the stores NAME_HR and NAME_SUFFIX below $ROOT.
pair_stores() {
  local hr=$1 lq=$2 name=$3 suffix=$4 scale=$5
  mkdir -p "$ROOT"
  if [ ! -e "$ROOT/${name}_HR.lmdb" ] || [ ! -e "$ROOT/${name}_$suffix.lmdb" ]; then
    $BASICSR prepare check --gt "$hr" --lq "$lq" --scale "$scale"
  fi
  once "$ROOT/${name}_HR.lmdb" lmdb -i "$hr" -o "$ROOT/${name}_HR.lmdb"
  once "$ROOT/${name}_$suffix.lmdb" lmdb -i "$lq" -o "$ROOT/${name}_$suffix.lmdb"
}

# A folder for links that goes with the recipe: $links.
make_links_folder() {
  links=$(mktemp -d)
  trap 'rm -rf "$links"' EXIT
}

# link TARGET NAME: $links/NAME leads to a file or folder, which must be there.
link() {
  [ -e "$1" ] || { echo "$1: expected a file or folder, and there is nothing." >&2; exit 2; }
  mkdir -p "$(dirname "$links/$2")"
  ln -s "$(realpath "$1")" "$links/$2"
}
