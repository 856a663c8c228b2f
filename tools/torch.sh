# shellcheck disable=SC2034 # what choose_torch sets is for ./dev
# shellcheck shell=bash
# Which PyTorch a build takes; sourced by ./dev, which has defined `need` and `as_root`.
#
# choose_torch CHOICE BUILD_FOLDER, then finish_torch, set
#   torch_kind     path, python, pip or debian
#   torch_folder   of a wheel or an unpacked libtorch; empty for Debian's
#   torch_python   the interpreter that imports the same PyTorch; empty where there is none (tests against PyTorch then have nothing to
#                  compare with)
#   torch_version  as PyTorch says it
# CHOICE is what --torch said, or empty: what the build folder was last made with, else the first of python, pip, debian that is there.

oldest_python_torch=2.6
requirement=tools/torch_requirement.txt

# True if version $1 is at least $2.
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# Prints "VERSION FOLDER" of the PyTorch that interpreter $1 imports, and "cuda" behind where it is a CUDA build. Modules may print too.
imported_torch() {
  "$1" -c 'import os, torch; print("\ntorch:", torch.__version__, os.path.dirname(torch.__file__), "cuda" if torch.version.cuda else "", sep="\t")' \
    2>/dev/null | sed -n 's/^torch:\t//p' | tail -n 1 | grep .
}

# Splits what imported_torch has printed.
is_imported() { # LINE; sets torch_version and torch_folder
  local cuda
  IFS=$'\t' read -r torch_version torch_folder cuda <<<"$1"
  [ -z "$cuda" ] || command -v nvcc >/dev/null || [ -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ] || {
    torch_problem="PyTorch $torch_version in $torch_folder is a CUDA build, which needs the CUDA toolkit (nvcc) to build with"
    return 1
  }
}

has_cmake_config() { [ -f "$1/share/cmake/Torch/TorchConfig.cmake" ]; }

refuse_torch() {
  echo "dev: $1${torch_remembered:-}" >&2
  exit 2
}

# The PyTorch of `python3`, if it is new enough. Debian's own has no CMake files of its own: it is Debian's libtorch.
take_python() {
  local found python
  torch_problem="python3 imports no PyTorch >= $oldest_python_torch that has its CMake files"
  python=$(command -v python3) || return 1
  found=$(imported_torch "$python") || return 1
  version_at_least "${found%%[+$'\t']*}" "$oldest_python_torch" || return 1
  is_imported "$found" || return 1
  has_cmake_config "$torch_folder" || return 1
  torch_kind=python
  torch_python=$python
}

# Makes .venv where there is none that works.
make_venv() {
  local python said
  python=$(command -v python3) || {
    need python3
    python=$(command -v python3) || {
      torch_problem="there is no python3"
      return 1
    }
  }
  "$python" -c 'import ensurepip' 2>/dev/null || need python3-venv
  said=$("$python" -m venv --clear .venv 2>&1) || {
    torch_problem="'$python -m venv .venv' fails: $(tail -n 1 <<<"$said")"
    return 1
  }
}

# Asks pip what it would install; stops it once it speaks of CUDA, since it downloads all before it answers.
ask_pip() { # FILE
  local asker result=0
  PYTHONUNBUFFERED=1 "$torch_python" -m pip install --dry-run -r "$requirement" >"$1" 2>&1 &
  asker=$!
  while kill -0 "$asker" 2>/dev/null; do
    if speaks_of_cuda "$1"; then
      kill "$asker" 2>/dev/null || true
      wait "$asker" 2>/dev/null || true
      return 0
    fi
    sleep 0.2
  done
  wait "$asker" || result=$?
  return $result
}
speaks_of_cuda() { grep -qiE '\b(nvidia-|cuda-|triton\b)' "$1"; }

# The pinned PyTorch in .venv, installed if need be. With "small": not where pip would bring a CUDA build.
take_pip() { # [small]
  local wanted found='' plan
  wanted=$(sed -n 's/^torch==//p' "$requirement")
  torch_python=$PWD/.venv/bin/python
  if "$torch_python" -m pip --version >/dev/null 2>&1; then
    found=$(imported_torch "$torch_python") || found=''
  else
    make_venv || return 1
  fi
  torch_kind=pip
  if [ "${found%%[+$'\t']*}" = "$wanted" ]; then
    is_imported "$found"
    return
  fi
  plan=$(mktemp)
  echo "asking pip for torch==$wanted"
  if ! ask_pip "$plan"; then
    torch_problem="pip finds no torch==$wanted for $("$torch_python" --version 2>&1): $(grep -i error "$plan" | tail -n 1)"
    rm -f "$plan"
    return 1
  fi
  if speaks_of_cuda "$plan"; then
    if [ "${1:-}" = small ]; then
      torch_problem="pip would bring a CUDA build of several GB (wanted all the same? --torch pip)"
      rm -f "$plan"
      return 1
    fi
    echo "dev: pip brings a CUDA build of several GB"
  fi
  rm -f "$plan"
  echo "installing: torch==$wanted into .venv (about 200 MB for the CPU, half a minute)"
  # What an interrupted installation has left would pass for installed.
  "$torch_python" -m pip install --quiet --no-compile --force-reinstall -r "$requirement" &
  torch_installer=$!
}

# Waits for what take_pip has begun.
finish_pip() {
  local found
  wait "$torch_installer" || {
    torch_problem="pip cannot install what $requirement asks for"
    return 1
  }
  torch_installer=''
  found=$(imported_torch "$torch_python") || {
    torch_problem="the PyTorch that pip has installed cannot be imported"
    return 1
  }
  is_imported "$found"
}

take_debian() {
  need libtorch-dev libopenblas0-openmp || return 1
  torch_version=$(dpkg-query -W -f='${Version}' libtorch-dev 2>/dev/null) || return 1
  torch_version=${torch_version%%[-+]*}
  torch_kind=debian
  torch_folder=
  torch_python=/usr/bin/python3
}

take_path() {
  local given=$1 python
  torch_folder=$(realpath -e -- "$given" 2>/dev/null) || refuse_torch "--torch $given: no such folder; give a libtorch, or python, pip or debian"
  has_cmake_config "$torch_folder" || torch_folder=$torch_folder/torch # site-packages
  has_cmake_config "$torch_folder" ||
    refuse_torch "--torch $given: no share/cmake/Torch/TorchConfig.cmake in it; give a wheel's torch folder or an unpacked libtorch"
  torch_kind=path
  torch_version=$(sed -n 's/^set(PACKAGE_VERSION "\(.*\)")$/\1/p' "$torch_folder/share/cmake/Torch/TorchConfigVersion.cmake")
  # An interpreter that has it: of the virtual environment that it lies in, if any.
  torch_python=
  python=${torch_folder%/lib/python*}/bin/python3
  if [ "$python" != "$torch_folder/bin/python3" ] && imported_torch "$python" >/dev/null; then torch_python=$python; fi
  return 0
}

# Decides. What takes time goes on meanwhile: finish_torch must follow before the result is used.
choose_torch() { # CHOICE BUILD_FOLDER
  local choice=$1 memory=$2/torch_choice
  torch_problem='' torch_installer='' torch_why='' torch_remembered='' torch_insisted=$1
  if [ -z "$choice" ] && [ -f "$memory" ]; then
    choice=$(head -n 1 "$memory")
    torch_insisted=$choice
    torch_remembered=" ($2 was built with it before; choose another with --torch)"
    torch_why=" (as $2 was built before; another with --torch)"
  fi
  case "$choice" in
    "")
      if take_python; then
        torch_why=" (imported by $torch_python)"
      elif take_pip small; then
        torch_why=" (in .venv)"
      else
        fall_back
      fi
      ;;
    python) take_python || refuse_torch "--torch python: $torch_problem" ;;
    pip) take_pip || refuse_torch "--torch pip: $torch_problem" ;;
    debian) take_debian || refuse_torch "--torch debian: libtorch-dev cannot be installed here" ;;
    *) take_path "$choice" ;;
  esac
}

# Debian's, since neither python3 nor pip gives one.
fall_back() {
  [ -z "$torch_problem" ] || echo "dev: $torch_problem"
  take_debian || refuse_torch "no PyTorch: python3 imports none, ${torch_problem:-pip gives none}, and Debian's libtorch-dev cannot be installed; give one with --torch PATH"
  torch_why=" (Debian's)"
}

finish_torch() {
  if [ -n "$torch_installer" ] && ! finish_pip; then
    [ -z "$torch_insisted" ] || refuse_torch "--torch pip: $torch_problem"
    fall_back
  fi
  echo "libtorch $torch_version${torch_folder:+ in $torch_folder}$torch_why"
}

# What the build folder keeps of the choice: what to take again, and which one it was.
torch_memory() {
  case "$torch_kind" in path) echo "$torch_folder" ;; *) echo "$torch_kind" ;; esac
  echo "$torch_version $torch_folder"
}
remember_torch() { torch_memory >"$1/torch_choice"; }          # BUILD_FOLDER
same_torch() { [ "$(torch_memory)" = "$(cat "$1/torch_choice" 2>/dev/null)" ]; } # BUILD_FOLDER
