#!/bin/sh
# Get qemu-system-x86_64, the peer that tools.peer_qemu measures beside this product.
#
# Debian 13 and later, Ubuntu: installed with apt (needs root).
# Debian 12, whose own QEMU is too old: installed from bookworm-backports on the machine's own
# mirror; apt's configuration and package lists stay as they are.
# Anything else: says what to install.
set -eu

say() { echo "get_qemu: $*"; }
fail() { echo "get_qemu: $*" >&2; exit 1; }

if command -v qemu-system-x86_64 >/dev/null 2>&1; then
    say "already here: $(qemu-system-x86_64 --version | head -n 1)"
    exit 0
fi
[ -r /etc/os-release ] || fail "no /etc/os-release: install qemu-system-x86_64 9.0 or later by hand"
. /etc/os-release
export DEBIAN_FRONTEND=noninteractive

needs_root() {
    [ "$(id -u)" = 0 ] || fail "run as root: $1"
}

install_from_backports() {
    needs_root "QEMU 10 comes from bookworm-backports"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' HUP INT TERM
    # The machine's own mirror: where apt already gets "bookworm" from.
    mirror=$(apt-get indextargets --format '$(SUITE) $(CODENAME) $(COMPONENT) $(REPO_URI)' 2>/dev/null |
        awk '($1 == "bookworm" || $2 == "bookworm") && $3 == "main" { print $4; exit }')
    [ -n "$mirror" ] || fail "apt has no Debian mirror for bookworm: run apt-get update, then again"
    mkdir -p "$work/lists/partial"
    for suite in bookworm bookworm-updates bookworm-backports; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
    done > "$work/sources.list"
    apt_beside() {
        apt-get -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
            -o Dir::State::lists="$work/lists" -o APT::Sandbox::User="" "$@"
    }
    apt_beside update -qq || fail "the package lists could not be read from the machine's mirror"
    apt_beside install -y -qq --no-install-recommends -t bookworm-backports qemu-system-x86 >/dev/null ||
        fail "could not install qemu-system-x86 from bookworm-backports"
}

install_with_apt() {
    needs_root "apt-get install --no-install-recommends qemu-system-x86"
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends qemu-system-x86 >/dev/null
}

case "${ID:-}:${VERSION_ID:-}" in
    debian:12) install_from_backports ;;
    debian:*|ubuntu:*) install_with_apt ;;
    *) fail "on ${PRETTY_NAME:-this system}, install qemu-system-x86_64 9.0 or later from the distribution" ;;
esac
say "installed: $(qemu-system-x86_64 --version | head -n 1)"
