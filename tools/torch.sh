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

# Prints "VERSION FOLDER" of the PyTorch that interpreter $1 imports.
imported_torch() {
  "$1" -c 'import os, torch; print(torch.__version__, os.path.dirname(torch.__file__))' 2>/dev/null
}

has_cmake_config() { [ -f "$1/share/cmake/Torch/TorchConfig.cmake" ]; }

refuse_torch() {
  echo "dev: $1" >&2
  exit 2
}

# The PyTorch of `python3`, if it is new enough. Debian's own has no CMake files of its own: it is Debian's libtorch.
take_python() {
  local found python
  python=$(command -v python3) || return 1
  found=$(imported_torch "$python") || return 1
  torch_version=${found%% *}
  torch_folder=${found#* }
  version_at_least "$torch_version" "$oldest_python_torch" || return 1
  has_cmake_config "$torch_folder" || return 1
  torch_kind=python
  torch_python=$python
}

# The pinned PyTorch in .venv, installed if need be. With "small": not where pip would bring a CUDA build.
take_pip() { # [small]
  local wanted found plan python
  wanted=$(sed -n 's/^torch==//p' "$requirement")
  torch_python=$PWD/.venv/bin/python
  found=$(imported_torch "$torch_python") || found=
  if [ "${found%%[+ ]*}" != "$wanted" ]; then
    python=$(command -v python3) || { need python3; python=$(command -v python3) || return 1; }
    if ! [ -x "$torch_python" ]; then
      "$python" -c 'import ensurepip' 2>/dev/null || need python3-venv
      "$python" -m venv .venv >/dev/null 2>&1 || { torch_problem="'$python -m venv' fails"; return 1; }
    fi
    if ! plan=$("$torch_python" -m pip install --dry-run -r "$requirement" 2>&1); then
      torch_problem="pip finds no torch==$wanted for $("$python" --version)"
      return 1
    fi
    if grep -qiE '\b(nvidia-|cuda-|triton-)' <<<"$plan"; then
      if [ "${1:-}" = small ]; then
        torch_problem="pip would bring a CUDA build of several GB (wanted all the same? --torch pip)"
        return 1
      fi
      echo "dev: pip brings a CUDA build of several GB"
    fi
    echo "installing: torch==$wanted into .venv (about 200 MB for the CPU, half a minute)"
    "$torch_python" -m pip install --quiet --no-compile -r "$requirement" &
    torch_installer=$!
    torch_kind=pip
    return 0
  fi
  torch_kind=pip
  torch_version=${found%% *}
  torch_folder=${found#* }
}

# Waits for what take_pip has begun.
finish_pip() {
  local found
  wait "$torch_installer" || { torch_problem="pip cannot install what $requirement asks for"; return 1; }
  torch_installer=
  found=$(imported_torch "$torch_python") || { torch_problem="the PyTorch that pip has installed cannot be imported"; return 1; }
  torch_version=${found%% *}
  torch_folder=${found#* }
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
}

# Decides. What takes time goes on meanwhile: finish_torch must follow before the result is used.
choose_torch() { # CHOICE BUILD_FOLDER
  local choice=$1 memory=$2/torch_choice
  torch_problem='' torch_installer='' torch_why='' torch_insisted=$1
  if [ -z "$choice" ] && [ -f "$memory" ]; then
    choice=$(head -n 1 "$memory")
    torch_insisted=$choice
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
    python) take_python || refuse_torch "--torch python: python3 imports no PyTorch >= $oldest_python_torch that has its CMake files; use --torch pip" ;;
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
