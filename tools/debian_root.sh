#!/usr/bin/env bash
# Runs commands of ./dev in a Debian system of another release: a folder made by debootstrap, entered in name spaces of its own.
#
# Three processes in a row: this script as called (locks, makes the root, passes signals on), unshare, and this script again as
# process 1 of the new name spaces (mounts, runs the command in a chroot). All mounts belong to the name space, so they are gone
# with its last process; process 1 gone, the kernel kills the rest.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: tools/debian_root.sh bookworm|trixie [--fresh] [COMMAND [ARGUMENT...]]
       tools/debian_root.sh bookworm|trixie [--fresh] -- PROGRAM [ARGUMENT...]
       tools/debian_root.sh bookworm|trixie [--fresh] --pristine [--] PROGRAM [ARGUMENT...]

Runs something in a Debian 12 (bookworm) or Debian 13 (trixie) that lies in a folder of its own. The first call makes it, which
takes a minute or two and needs the network; later calls start at once.
  COMMAND       a command of ./dev, for example test, demo or build, in this checkout
  -- PROGRAM    any program of that Debian, in this checkout
  nothing       a shell, in this checkout
  --fresh       throw the Debian away first, with what was built in it, and begin with the bare system
  --pristine    run PROGRAM in a copy of the bare system as debootstrap left it, removed afterwards, to try an installation:
                the checkout is read-only, everything else can be written
The exit status is that of the command; 2: wrong arguments or not root; 125: the Debian could not be made or entered.

What the command sees: this checkout at its own path, but build/ and .venv/ are the Debian's own, so nothing that the host or
another Debian built is used or changed. With --pristine build/ is the one that this release's Debian built, read-only. The
network is the host's. Of the host's environment it gets PIP_*, *_proxy, SSL_CERT_*, CURL_CA_BUNDLE, REQUESTS_CA_BUNDLE,
OMP_*, OPENBLAS_*, CI and TERM. A Debian starts with the smallest set of packages: ./dev installs what its command needs.

Environment:
  RUBATO_ROOTS   the folder for debian12, debian13 and what belongs to them (default: build/roots of this checkout)
  RUBATO_MIRROR  the mirror of Debian to take (default: the one in the host's apt sources, otherwise debootstrap's own)

Examples:
  tools/debian_root.sh trixie test
  tools/debian_root.sh trixie -- sh -c 'g++ --version'
  tools/debian_root.sh bookworm --pristine sh -c 'apt-get update && apt-get install -y ./build/rubato.deb && rubato --help'
  tools/debian_root.sh bookworm --pristine sh -c 'cat >/tmp/x.deb && apt-get update && apt-get install -y /tmp/x.deb' <x.deb

It needs root (otherwise it calls sudo). Files that the command writes into the checkout belong to root. Nothing stays mounted:
when no command runs, the folders can be removed with rm -rf.
TEXT
}

# What the command gets of the caller's environment.
kept_environment='PIP_.*|.*_proxy|.*_PROXY|SSL_CERT_.*|CURL_CA_BUNDLE|REQUESTS_CA_BUNDLE|OMP_.*|OPENBLAS_.*|CI|TERM'

say() { echo "debian_root: $*" >&2; }

die() { # STATUS SENTENCE...
  local status=$1
  shift
  say "$@"
  exit "$status"
}

# ---- process 1 of the name spaces ----

# What the host has at this place is seen at the same place in the root, read-only.
lend() { # PATH
  if [ -d "$1" ]; then
    mkdir -p "$root$1"
  else
    mkdir -p "$root$(dirname "$1")"
    [ ! -L "$root$1" ] || rm "$root$1" # a link would lead out of the root
    [ -e "$root$1" ] || : >"$root$1"
  fi
  mount --bind "$1" "$root$1" && mount -o remount,bind,ro "$root$1"
}

# The same, where the root has nothing there. System folders are never lent.
lend_missing() { # PATH...
  local path
  for path in "$@"; do
    path=${path#file://}
    if [[ "$path" != /*/* || "$path" == /etc/ssl/* ]] || [ ! -e "$path" ]; then continue; fi
    if [ -d "$root$path" ]; then
      [ -z "$(ls -A "$root$path")" ] || continue
    elif [ -s "$root$path" ]; then
      continue
    fi
    lend "$path"
  done
}

# pip's configuration for the whole host and the files that it names: folders of wheels, constraints, certificates.
lend_pip() {
  local files=() file words=()
  for file in /etc/pip.conf /etc/xdg/pip/pip.conf ${PIP_CONFIG_FILE:+"$PIP_CONFIG_FILE"}; do
    [ ! -f "$file" ] || files+=("$file")
  done
  if [ ${#files[@]} -gt 0 ]; then
    mapfile -t words < <(sed -e 's/^[[:space:]]*[#;].*//' -e 's/[=,[:space:]]/\n/g' "${files[@]}" |
      grep -E '^(file://)?/' || true)
  fi
  # shellcheck disable=SC2086 # these are lists of words
  lend_missing /etc/pip.conf /etc/xdg/pip ${PIP_CONFIG_FILE:-} ${PIP_FIND_LINKS:-} ${PIP_CONSTRAINT:-} ${PIP_CERT:-} \
    ${SSL_CERT_FILE:-} ${REQUESTS_CA_BUNDLE:-} ${CURL_CA_BUNDLE:-} ${words[@]+"${words[@]}"}
}

mount_system() {
  local name
  mount -t proc proc "$root/proc" 2>/dev/null || mount --rbind /proc "$root/proc"
  mount --rbind /sys "$root/sys"
  mount -t tmpfs -o mode=755,size=64m tmpfs "$root/run"
  mkdir -m 1777 "$root/run/lock"
  mount -t tmpfs -o mode=755,size=1m tmpfs "$root/dev"
  for name in null zero full random urandom tty; do
    : >"$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
  done
  mkdir "$root/dev/pts" "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts" 2>/dev/null ||
    mount --bind /dev/pts "$root/dev/pts"
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
  ln -s fd/0 "$root/dev/stdin"
  ln -s fd/1 "$root/dev/stdout"
  ln -s fd/2 "$root/dev/stderr"
  mount -t tmpfs -o mode=1777,size=4g tmpfs "$root/dev/shm" # a limit, not a reservation
  for name in /etc/resolv.conf /etc/hosts; do
    [ ! -e "$name" ] || lend "$name"
  done
}

# The folder may lie in the checkout of a user who is not root.
make_in_checkout() { # NAME
  [ -d "$checkout/$1" ] || install -d -o "$(stat -c %u "$checkout")" -g "$(stat -c %g "$checkout")" "$checkout/$1"
}

mount_checkout() { # rw | ro
  local common alternate own name
  # What git needs and has elsewhere: the clone that a worktree belongs to, the objects of a shared clone.
  common=$checkout/.git
  if [ -f "$common" ]; then
    common=$(cd "$checkout" && cd "$(sed -n 's/^gitdir: //p' .git)" && cd "$(cat commondir 2>/dev/null || echo .)" && pwd -P)
    mkdir -p "$root$common"
    mount --bind "$common" "$root$common"
    [ "$1" = rw ] || mount -o remount,bind,ro "$root$common"
  fi
  if [ -f "$common/objects/info/alternates" ]; then
    while read -r alternate; do
      [ ! -d "$alternate" ] || lend "$alternate"
    done <"$common/objects/info/alternates"
  fi

  mkdir -p "$root$checkout"
  mount --bind "$checkout" "$root$checkout"
  [ "$1" = rw ] || mount -o remount,bind,ro "$root$checkout"
  # Several checkouts may share the roots: each has its own folders.
  own=$own_folders/${checkout//\//%}
  for name in build .venv; do
    make_in_checkout "$name"
    mkdir -p "$own/$name"
    mount --bind "$own/$name" "$root$checkout/$name"
    [ "$1" = rw ] || mount -o remount,bind,ro "$root$checkout/$name"
  done
}

clean_environment() { # sets what the command sees
  local name
  for name in $(compgen -e); do
    [[ "$name" =~ ^($kept_environment)$ ]] || unset "$name" 2>/dev/null || true
  done
  export HOME=/root USER=root LOGNAME=root SHELL=/bin/bash LANG=C.UTF-8
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
}

inside() { # host|setup|rw|ro ROOT OWN_FOLDERS PROGRAM [ARGUMENT...]
  local kind=$1 status folder=/ command
  root=$2 own_folders=$3
  shift 3
  # The caller sends USR1 for a SIGINT that does not come from a terminal; from there all processes have it already.
  interrupted='' # the status for a signal that came
  trap 'interrupted=130' INT
  trap 'interrupted=130; kill -s INT -- -1 2>/dev/null || true' USR1
  trap 'trap "" TERM HUP; interrupted=143; kill -s TERM -- -1 2>/dev/null || true; { sleep 5; kill -s KILL -- -1; } &' TERM HUP
  if [ "$kind" != host ]; then
    trap '[ -z "$interrupted" ] || exit "$interrupted"
      die 125 "this machine does not let root mount what the Debian needs, or it is damaged (remove its folder, and it is made anew)"' EXIT
    mount_system
    lend_pip
    if [ "$kind" != setup ]; then
      mount_checkout "$kind"
      folder=$checkout
    fi
    trap - EXIT
    set -- chroot "$root" /usr/bin/env -C "$folder" "$@"
    clean_environment
  fi
  [ -t 0 ] || set -- setsid "$@" # a process group that has a number in here
  [ -z "$interrupted" ] || exit "$interrupted"
  trap '' INT
  env --default-signal=INT,QUIT "$@" <&0 9>&- &
  command=$!
  while :; do
    interrupted=''
    status=0
    { wait "$command" || status=$?; } 2>/dev/null # bash would tell of a death by a signal
    [ -n "$interrupted" ] || exit "$status" # otherwise a signal ended the wait, not the command
  done
}

# ---- the script as called ----

# What follows runs in a trap, where a signal may come again at any point: it starts no processes.

listens() { # <STATUS_OF_PROCESS: whether it catches SIGTERM
  local key value
  while read -r key value; do
    if [ "$key" = SigCgt: ]; then return $(((16#$value & 0x4000) == 0)); fi
  done
  return 1
}

pass_on() { # SIGNAL
  local process='' start=$SECONDS
  stopped=$1 interrupted=yes
  if [ "$1" = INT ]; then
    set -- USR1 # process 1 has another use for INT
  else
    trap '' TERM HUP # once is enough: after 5 s process 1 ends the rest
  fi
  {
    read -r process _ <"/proc/$unshare/task/$unshare/children" || true # there is no newline at its end
    # Before it has its traps, process 1 is deaf.
    while [ -n "$process" ] && kill -s 0 "$process" && ! listens <"/proc/$process/status" && ((SECONDS < start + 5)); do :; done
    kill -s "$1" "$process" || kill -s KILL "$unshare" || true
  } 2>/dev/null
}

leave_on_signals() {
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap 'exit 129' HUP
}

# Runs process 1 with these arguments in name spaces of their own; the status is the program's. They end when this process does.
enter() { # host|setup|rw|ro ROOT OWN_FOLDERS PROGRAM [ARGUMENT...]
  local status new_group on_interrupt
  stopped=''
  interrupted=''
  # With a terminal a SIGINT comes from it, to the command as to all others in the group; unshare must outlive it, or it would
  # take process 1 with it. Otherwise the command has a group of its own, so that what a group is sent reaches it once, through
  # here.
  new_group=() on_interrupt=''
  [ -t 0 ] || new_group=(setsid) on_interrupt='pass_on INT'
  env --ignore-signal=INT,QUIT,TERM,HUP setpriv --pdeathsig KILL ${new_group[@]+"${new_group[@]}"} \
    unshare --mount --propagation private --pid --fork --kill-child \
    env --default-signal=INT,QUIT,TERM,HUP bash "$script" --inside "$@" <&0 &
  unshare=$!
  # shellcheck disable=SC2064 # one of two
  trap "$on_interrupt" INT # bash may lose the status of a process that dies of the signal that ends the wait
  trap 'pass_on TERM' TERM
  trap 'pass_on HUP' HUP
  while :; do
    interrupted=''
    status=0
    { wait "$unshare" || status=$?; } 2>/dev/null
    [ -n "$interrupted" ] || break
  done
  leave_on_signals
  return $status
}

need_root() {
  [ "$(id -u)" -ne 0 ] || return 0
  command -v sudo >/dev/null || die 2 "this needs root and there is no sudo: call it as root"
  local kept
  kept=$(compgen -e | grep -xE "$kept_environment|RUBATO_ROOTS|RUBATO_MIRROR" | paste -sd,) || true
  exec sudo ${kept:+"--preserve-env=$kept"} bash "$script" "$@"
}

need_tools() {
  local missing=()
  command -v debootstrap >/dev/null || missing+=(debootstrap)
  [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
  { command -v unshare && command -v setpriv && command -v flock; } >/dev/null || missing+=(util-linux)
  if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null ||
      die 2 "this needs ${missing[*]}, which this script installs on Debian only: install them first"
    say "installing: ${missing[*]}"
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  fi
  unshare --mount --propagation private --pid --fork true 2>/dev/null ||
    die 125 "this machine does not let root make mount and process name spaces"
}

# The host's own sources as apt reads them: "URI SUITE" a line.
host_sources() {
  command -v apt-get >/dev/null || return 0
  apt-get update --print-uris 2>/dev/null | sed -nE "s#^'(https?://[^']*[^'/])/+dists/([^']*)/InRelease'.*#\1 \2#p"
}

# Lines for the root's sources.list, from those of the host: a third party also may call its suite by Debian's name, so the
# archive is known by its folder or by the updates beside it.
host_mirrors() { # SUITE
  host_sources | awk -v suite="$1" '
    BEGIN { debian = "^((old)*stable|testing|unstable|sid|bullseye|bookworm|trixie|forky)" }
    $2 ~ debian "$" { main[++count] = $1 }
    $2 ~ debian "-updates$" { updates[$1] = 1 }
    $2 ~ debian "-security$" && security == "" { security = $1 }
    END {
      for (i = 1; i <= count && mirror == ""; i++) if (main[i] ~ /\/debian$/ || main[i] in updates) mirror = main[i]
      if (mirror == "") exit
      print "deb", mirror, suite, "main"
      if (mirror in updates) print "deb", mirror, suite "-updates", "main"
      if (security != "") print "deb", security, suite "-security", "main"
    }'
}

remove() { rm -rf --one-file-system "$@"; }

# Whatever is half made or half removed bears this name, and goes at the next call.
discard() { # FOLDER
  remove "$partial"
  [ ! -e "$1" ] || mv "$1" "$partial"
  remove "$partial"
}

made() { # STATUS OF_WHAT: leaves unless all went well
  [ "$1" -ne 0 ] || return 0
  case "$stopped" in
    INT) exit 130 ;;
    TERM) exit 143 ;;
    HUP) exit 129 ;;
  esac
  [ ! -f "$partial/debootstrap/debootstrap.log" ] || cat "$partial/debootstrap/debootstrap.log" >>"$log"
  die 125 "$2 failed, see $log: $(grep -E '^E: ' "$log" | tail -n 1 | grep . || tail -n 1 "$log")"
}

make_bare() {
  local mirrors status=0 file
  if [ -n "${RUBATO_MIRROR:-}" ]; then
    mirrors="deb $RUBATO_MIRROR $suite main"
  else
    mirrors=$(host_mirrors "$suite")
  fi
  say "making Debian $suite in $root: a minute or two (log: $log)"
  remove "$partial"
  # shellcheck disable=SC2046 # a mirror or nothing
  enter host "$partial" - debootstrap --variant=minbase "$suite" "$partial" \
    $(awk 'NR == 1 { print $2 }' <<<"$mirrors") >"$log" 2>&1 </dev/null || status=$?
  made "$status" debootstrap

  [ -z "$mirrors" ] || echo "$mirrors" >"$partial/etc/apt/sources.list"
  if command -v apt-config >/dev/null; then
    apt-config dump | { grep -E '^Acquire::(https?|ftp|Check-Valid-Until|Check-Date|Retries|ForceIPv[46])\b' || true; } |
      { grep -v Auto-Detect || true; } >"$partial/etc/apt/apt.conf.d/90host"
  fi
  echo 'APT::Keep-Downloaded-Packages "false";' >"$partial/etc/apt/apt.conf.d/91rubato"
  echo force-unsafe-io >"$partial/etc/dpkg/dpkg.cfg.d/rubato"
  printf '127.0.0.1 localhost\n::1 localhost\n' >"$partial/etc/hosts"
  printf '#!/bin/sh\nexit 101 # packages start no services\n' >"$partial/usr/sbin/policy-rc.d"
  chmod 755 "$partial/usr/sbin/policy-rc.d"
  for file in /usr/local/share/ca-certificates/*.crt; do
    [ -f "$file" ] || continue
    install -D -m 644 -t "$partial/usr/local/share/ca-certificates" "$file"
  done
  mv -T "$partial" "$bare"
}

make_root() {
  local status=0
  remove "$partial"
  work cp -a --reflink=auto "$bare" "$partial"
  # Checkouts belong to other users; git reads this for root only.
  printf '[safe]\n\tdirectory = *\n' >"$partial/root/.gitconfig"
  # shellcheck disable=SC2016
  enter setup "$partial" - sh -c '
    export DEBIAN_FRONTEND=noninteractive
    if command -v update-ca-certificates; then update-ca-certificates; fi
    apt-get update && apt-get install -y --no-install-recommends ca-certificates' >>"$log" 2>&1 </dev/null || status=$?
  made "$status" "apt-get in the new root"
  mv -T "$partial" "$root"
}

# In the background, since a shell hears a signal at once only while it waits; it does not outlive this script.
work() { # PROGRAM [ARGUMENT...]
  setpriv --pdeathsig KILL "$@" &
  worker=$!
  wait "$worker"
  worker=''
}

lock() { # -s or -x
  flock -n "$1" 9 && return
  say "waiting for another command that makes or uses Debian $suite"
  work flock "$1" 9
}

leave() { # takes away what only this call uses
  trap '' INT TERM HUP
  if [ -n "$worker" ]; then
    kill "$worker" 2>/dev/null || true
    wait "$worker" 2>/dev/null || true
  fi
  if $making; then remove "$partial"; fi
  [ -z "$copy" ] || remove "$copy"
}

main() {
  local fresh=false pristine=false raw=false command=() status=0 needed kind=rw

  leave_on_signals
  case "${1:-}" in
    -h | --help | help)
      usage
      exit 0
      ;;
    bookworm) name=debian12 ;;
    trixie) name=debian13 ;;
    '')
      usage >&2
      exit 2
      ;;
    *) die 2 "there is no Debian '$1' here: it is bookworm or trixie (--help tells more)" ;;
  esac
  suite=$1
  local arguments=("$@")
  shift
  while [ $# -gt 0 ]; do
    case "$1" in
      --fresh) fresh=true ;;
      --pristine) pristine=true raw=true ;;
      -h | --help)
        usage
        exit 0
        ;;
      --)
        raw=true
        shift
        break
        ;;
      --torch | --torch=*) break ;; # belongs to ./dev
      -*) die 2 "unknown option '$1': it is --fresh, --pristine or -- (--help tells more)" ;;
      *) break ;;
    esac
    shift
  done
  if [ $# -eq 0 ]; then
    if $raw && ! $pristine; then die 2 "after -- a program must follow (--help tells more)"; fi
    if [ ! -t 0 ]; then
      usage >&2
      exit 2
    fi
    command=(bash)
  elif $raw; then
    command=("$@")
  else
    command=(./dev "$@")
  fi

  umask 022
  export PATH=$PATH:/usr/sbin:/sbin
  need_root "${arguments[@]}"
  need_tools

  local roots=${RUBATO_ROOTS:-$checkout/build/roots}
  [ -n "${RUBATO_ROOTS:-}" ] || make_in_checkout build
  mkdir -p "$roots" || die 125 "the folder $roots cannot be made"
  roots=$(cd "$roots" && pwd -P)
  [[ "$roots" != *[[:space:]]* ]] || die 2 "debootstrap takes no folder with a space ($roots): set RUBATO_ROOTS to another"
  root=$roots/$name
  bare=$root.bare partial=$root.partial log=$root.log
  making=false copy='' worker='' stopped=''
  trap leave EXIT

  # Each run holds the lock together with other runs; who makes or removes holds it alone.
  exec 9>>"$root.lock"
  if flock -n -x 9; then # no other run: what is there was left behind
    remove "$partial" "$root".pristine.*
    [ ! -d "$root/tmp" ] || find "$root/tmp" -xdev -mindepth 1 -delete
  fi
  needed=$root
  if $pristine; then needed=$bare kind=ro; fi
  while :; do
    if ! $fresh; then
      lock -s
      [ ! -d "$needed" ] || break
    fi
    lock -x # this gives up the shared lock first, so look again
    making=true
    if $fresh; then
      discard "$root"
      fresh=false
    fi
    [ -d "$bare" ] || make_bare
    [ -d "$needed" ] || make_root
    making=false
  done

  if $pristine; then
    copy=$(mktemp -d "$root.pristine.XXXXXX")
    work cp -a --reflink=auto "$bare/." "$copy"
    needed=$copy
    own_folders=$root/var/lib/rubato
    # Without a Debian in which something was built build/ is empty.
    [ -d "$own_folders/${checkout//\//%}" ] || own_folders=$copy/var/lib/rubato
  else
    own_folders=$root/var/lib/rubato
  fi
  enter "$kind" "$needed" "$own_folders" "${command[@]}" || status=$?
  exit "$status"
}

script=$(realpath "${BASH_SOURCE[0]}")
checkout=$(dirname "$(dirname "$script")")
if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  if [ "${1:-}" = --inside ]; then
    shift
    inside "$@"
  else
    main "$@"
  fi
fi
