#!/bin/sh
# Get libqatzip, Intel's library for QAT compression.
#
# Debian 13 and later, Ubuntu 24.04 and later: installed with apt (needs root).
# Debian 12, which has none: Debian 13's packages are unpacked into a folder where the program finds
# them; the system itself, its libc too, stays as it is (no root needed). In a clone that is .qatzip/
# beside this project, for an installed package $XDG_CACHE_HOME/ramferry/qatzip or
# ~/.cache/ramferry/qatzip (qat/library.py looks there, and loads nothing that others can write to).
# Anything else: says what to install.
set -eu

say() { echo "get_qatzip: $*"; }
fail() { echo "get_qatzip: $*" >&2; exit 1; }

here=$(cd "$(dirname "$0")/.." && pwd)
packages="libqatzip3 libqat4 libusdm0"
if [ -e "$here/pyproject.toml" ]; then
    folder=$here/.qatzip
else
    cache=
    case ${HOME:-} in
        /*) if [ -d "$HOME" ] && [ -O "$HOME" ]; then cache=$HOME/.cache/ramferry; fi ;;
    esac
    case ${XDG_CACHE_HOME:-} in
        /*) cache=$XDG_CACHE_HOME/ramferry ;;
    esac
    folder=${cache:+$cache/qatzip}
fi

if [ -n "$folder" ] && [ -e "$folder/libqatzip.so.3" ]; then
    say "already in $folder"
    exit 0
fi
if ldconfig -p 2>/dev/null | grep -q 'libqatzip\.so\.3'; then
    say "already on the loader's path"
    exit 0
fi
[ "$(uname -m)" = x86_64 ] || fail "libqatzip exists for x86-64 only; this host is $(uname -m)"
[ -r /etc/os-release ] || fail "no /etc/os-release: install libqatzip 1.2 or later by hand"
. /etc/os-release

install_with_apt() {
    [ "$(id -u)" = 0 ] || fail "run as root: apt-get install libqatzip3"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libqatzip3
    say "installed with apt"
}

# What is unpacked is loaded later: the cache folder must be this user's own, and nobody else may write to it.
make_cache() {
    [ -n "$cache" ] || fail "no home to unpack into: set XDG_CACHE_HOME to a folder of your own"
    (umask 077 && mkdir -p "$cache") || fail "$cache cannot be made: set XDG_CACHE_HOME to a folder of your own"
    { [ -d "$cache" ] && [ ! -L "$cache" ] && [ -O "$cache" ] && [ -w "$cache" ]; } ||
        fail "$cache is not a folder of your own to write to: remove it, or set XDG_CACHE_HOME to another"
    umask 077
}

unpack_from_debian_13() {
    [ -e "$here/pyproject.toml" ] || make_cache
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' HUP INT TERM
    # The machine's own mirror: where apt already gets "bookworm" from.
    mirror=$(apt-get indextargets --format '$(SUITE) $(CODENAME) $(COMPONENT) $(REPO_URI)' 2>/dev/null |
        awk '($1 == "bookworm" || $2 == "bookworm") && $3 == "main" { print $4; exit }')
    [ -n "$mirror" ] || fail "apt has no Debian mirror for bookworm: run apt-get update, then again"
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/debs"
    : > "$work/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" > "$work/sources.list"
    apt_private() {
        apt-get -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
            -o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status" \
            -o Dir::Cache="$work/cache" -o APT::Sandbox::User="" -o APT::Get::List-Cleanup=0 "$@"
    }
    apt_private update -qq || fail "Debian 13's package list could not be read from the machine's mirror"
    # shellcheck disable=SC2086
    (cd "$work/debs" && apt_private download -qq $packages) || fail "could not download $packages"
    mkdir -p "$work/root" "$work/out"
    for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/root"; done
    find "$work/root/usr/lib" -name '*.so.*' -exec cp -a {} "$work/out/" \;
    [ -e "$work/out/libqatzip.so.3" ] || fail "the packages hold no libqatzip.so.3"
    rm -rf "$folder"
    mv "$work/out" "$folder"
    say "unpacked Debian 13's $packages into $folder"
    if ! ldconfig -p | grep -q 'liblz4\.so\.1' || ! ldconfig -p | grep -q 'libnuma\.so\.1'; then
        say "it also needs liblz4-1 and libnuma1: apt-get install liblz4-1 libnuma1"
        if [ "$(id -u)" = 0 ]; then
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends liblz4-1 libnuma1
        fi
    fi
}

case "${ID:-}:${VERSION_ID:-}" in
    debian:12) unpack_from_debian_13 ;;
    debian:*|ubuntu:24.*|ubuntu:25.*|ubuntu:26.*) install_with_apt ;;
    *)
        fail "on ${PRETTY_NAME:-this system}, install libqatzip 1.2 or later (soname libqatzip.so.3) from the" \
            "distribution (package qatzip or libqatzip3), or build github.com/intel/QATzip, and put it on the" \
            "loader's path or name it in QATZIP_LIBRARY"
        ;;
esac
