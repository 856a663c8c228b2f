#!/usr/bin/env bash
# Which PyTorch ./dev takes, with stand-ins for interpreters, pip and dpkg. Needs neither root nor the network.
# shellcheck disable=SC2317,SC2329,SC1091,SC2154 # functions are called through check; variables come from torch.sh
set -uo pipefail
source_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0

check() { # NAME CONDITION...
  local name=$1
  shift
  if "$@"; then
    echo "ok - torch: $name"
  else
    echo "not ok - torch: $name"
    failed=1
  fi
}

# A wheel's folder as CMake needs it.
make_wheel() { # FOLDER VERSION
  mkdir -p "$1/share/cmake/Torch"
  : >"$1/share/cmake/Torch/TorchConfig.cmake"
  echo "set(PACKAGE_VERSION \"$2\")" >"$1/share/cmake/Torch/TorchConfigVersion.cmake"
}

# An interpreter that knows what the tests need: an imported PyTorch, venv, and pip with a plan.
cat >"$scratch/python" <<'STUB'
#!/usr/bin/env bash
here=$(dirname "$(realpath "$0")")
case "$*" in
  *"import os, torch"*) [ -f "$here/imports" ] && { echo chatter; sed "s,^,torch:\t,; s, ,\t," "$here/imports"; } ;;
  *"pip --version"*) [ ! -f "$here/no_pip" ] ;;
  *"import ensurepip"*) ;;
  *"-m venv"*) mkdir -p "${*: -1}/bin" && cp "$0" "${*: -1}/bin/python" && cp "$here/plan" "$here/wheel" "$here/broken" "${*: -1}/bin/" 2>/dev/null || true ;;
  *"pip install --dry-run"*) [ -f "$here/plan" ] && cat "$here/plan" ;;
  *"pip install"*)
    [ ! -f "$here/broken" ] || exit 1
    echo "2.13.0+cpu $(cat "$here/wheel")" >"$here/imports"
    ;;
  --version) echo "Python 3.11.2" ;;
esac
STUB
chmod +x "$scratch/python"

# Runs choose_torch in an empty checkout whose PATH begins with the stand-ins. Files of the test: $place/bin/{imports,plan,wheel}.
new_place() {
  place=$(mktemp -d -p "$scratch")
  mkdir -p "$place/bin" "$place/tools" "$place/build/release"
  cp "$source_root/tools/torch_requirement.txt" "$place/tools/"
  cp "$scratch/python" "$place/bin/python3"
  debian=2.6.0+dfsg-7
}
choose() { # CHOICE; output, errors and status in $place
  status=0
  (
    cd "$place" || exit 1
    PATH=$place/bin:$PATH
    need() { [ -n "$debian" ] || [[ "$*" != *libtorch-dev* ]]; }
    dpkg-query() { [ -n "$debian" ] && echo "$debian"; }
    . "$source_root/tools/torch.sh"
    choose_torch "$1" build/release
    finish_torch
    if same_torch build/release; then echo yes; else echo no; fi >"$place/kept"
    echo "$torch_kind $torch_version $torch_folder" >"$place/chosen"
    remember_torch build/release
  ) >"$place/out" 2>"$place/err" || status=$?
}
chosen() { [ "$status" -eq 0 ] && [ "$(cat "$place/chosen")" = "$1" ]; }
kept() { [ "$(cat "$place/kept")" = "$1" ]; }
says() { grep -qF -- "$1" "$place/out" "$place/err"; }
refused() { [ "$status" -eq 2 ] && [ "$(wc -l <"$place/err")" -eq 1 ] && says "$1"; }

new_place
make_wheel "$place/site/torch" 2.7.1
echo "2.7.1+cpu $place/site/torch" >"$place/bin/imports"
choose ""
check "what python3 imports comes first" chosen "python 2.7.1+cpu $place/site/torch"
check "it is said" says "libtorch 2.7.1+cpu in $place/site/torch (imported by"

new_place
make_wheel "$place/site/torch" 2.5.1
echo "2.5.1 $place/site/torch" >"$place/bin/imports"
echo "Would install torch-2.13.0+cpu" >"$place/bin/plan"
make_wheel "$place/wheel/torch" 2.13.0
echo "$place/wheel/torch" >"$place/bin/wheel"
choose ""
check "one that is too old is passed over for pip's" chosen "pip 2.13.0+cpu $place/wheel/torch"
choose python
check "asked for, it is refused" refused "python3 imports no PyTorch >= 2.6"
choose ""
check "the build folder remembers pip" says "(as build/release was built before"

new_place
echo "2.6.0 /usr/lib/python3/dist-packages/torch-without-cmake" >"$place/bin/imports"
choose ""
check "Debian's Python module leads to Debian's libtorch" chosen "debian 2.6.0 "

new_place
echo "Would install nvidia-cublas-13.1 torch-2.13.0 triton-3.5" >"$place/bin/plan"
make_wheel "$place/wheel/torch" 2.13.0
echo "$place/wheel/torch" >"$place/bin/wheel"
choose ""
check "a CUDA build is left for Debian's" chosen "debian 2.6.0 "
check "and said" says "CUDA build of several GB"
choose pip
check "unless pip is asked for" chosen "pip 2.13.0+cpu $place/wheel/torch"

new_place
echo "Would install torch-2.13.0+cpu" >"$place/bin/plan"
: >"$place/bin/broken"
choose ""
check "an installation that breaks off leads to Debian's" chosen "debian 2.6.0 "
choose pip
check "unless pip is asked for, which is refused then" refused "--torch pip: pip cannot install"

new_place
choose ""
check "without PyPI Debian's is taken" chosen "debian 2.6.0 "
choose pip
check "without PyPI --torch pip is refused" refused "--torch pip: pip finds no torch=="

new_place
debian=''
choose ""
check "without both it says what to do" says "give one with --torch PATH"
choose debian
check "without Debian's libtorch --torch debian is refused" refused "libtorch-dev cannot be installed"

new_place
make_wheel "$place/lib/torch" 2.9.0
choose "$place/lib/torch"
check "a folder" chosen "path 2.9.0 $place/lib/torch"
choose "$place/lib"
check "the folder above it" chosen "path 2.9.0 $place/lib/torch"
choose ""
check "the build folder remembers the folder" chosen "path 2.9.0 $place/lib/torch"
check "a build with it is still good" kept yes
make_wheel "$place/lib/torch" 2.9.1
choose ""
check "a build with another version of it is not" kept no
choose "$place/nowhere"
check "no such folder" refused "no such folder"
choose "$place/bin"
check "a folder without libtorch" refused "no share/cmake/Torch/TorchConfig.cmake"

exit $failed
