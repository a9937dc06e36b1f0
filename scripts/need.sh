#!/bin/sh
# Makes sure that what a task needs is on this machine: scripts/need.sh build|driver|demo|test|fleet …
# Installs missing Debian packages where it may (as root, or with sudo); says what to install
# where it may not. Does nothing where nothing is missing.
set -eu

missing=
need() { # need PACKAGE COMMAND…: the package, unless the command succeeds
  package=$1
  shift
  if "$@" >/dev/null 2>&1; then return 0; fi
  case " $missing " in *" $package "*) ;; *) missing="$missing $package" ;; esac
}
there() {
  command -v "$1"
}
has_protoc() { # with the types that etcd's protocol imports, which Debian packages apart
  folder=$(mktemp -d) || return 1
  for name in descriptor struct; do echo "import \"google/protobuf/$name.proto\";"; done |
    { echo 'syntax = "proto3";'; cat; } >"$folder/probe.proto"
  status=0
  "${PROTOC:-protoc}" -I "$folder" --descriptor_set_out="$folder/out" "$folder/probe.proto" || status=1
  rm -r "$folder"
  return $status
}
has_pip() {
  python3 -m pip --version
}
has_npm_or_duckdb() { # npm fetches DuckDB's library, once
  there npm && return
  if [ -n "${COORDCTL_DUCKDB_LIB:-}" ]; then return 0; fi
  for library in "${HOME:-}"/.cache/coordctl/drivers/duckdb-*/libduckdb.so; do
    if [ -f "$library" ]; then return 0; fi
  done
  return 1
}
has_postgresql() { # its programs are not on the PATH
  for initdb in /usr/lib/postgresql/*/bin/initdb; do
    if [ -x "$initdb" ]; then return 0; fi
  done
  return 1
}

build() {
  need build-essential there cc
  need protobuf-compiler has_protoc
  need libprotobuf-dev has_protoc
}
driver() {
  need npm has_npm_or_duckdb
}
servers() {
  need etcd-server there etcd
  need etcd-client there etcdctl
  need postgresql has_postgresql
  need util-linux there setpriv
}

for task in "$@"; do
  case $task in
    build) build ;;
    driver) driver ;;
    demo) driver && need python3 there python3 ;;
    test) servers && driver && need python3 there python3 ;;
    fleet) servers && need python3 there python3 && need python3-pip has_pip ;;
    *)
      echo "usage: $0 build|driver|demo|test|fleet …" >&2
      exit 2
      ;;
  esac
done

if ! command -v cargo >/dev/null 2>&1; then
  echo "Rust is missing: install it with rustup (https://rustup.rs), then run this again." >&2
  exit 1
fi
if [ -z "$missing" ]; then exit 0; fi

by_hand() {
  echo "Missing on this machine:$missing" >&2
  echo "$1" >&2
  exit 1
}
command -v apt-get >/dev/null 2>&1 ||
  by_hand "Install what these Debian packages hold with this system's package manager, then run this again."

sudo=
if [ "$(id -u)" -ne 0 ]; then
  sudo=sudo
  # Asks for a password only where somebody can give one.
  command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v; }; } ||
    by_hand "Install them as root: apt-get update && apt-get install --yes --no-install-recommends$missing"
fi
echo "Installing Debian packages:$missing"
$sudo apt-get update -qq
# shellcheck disable=SC2086 # one word for each package
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq --no-install-recommends $missing
