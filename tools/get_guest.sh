#!/bin/sh
# Get what a small live Linux guest is made of: Debian's cloud kernel, busybox, and one static program.
#
# Debian and Ubuntu: two packages are downloaded with apt and unpacked, nothing is installed (no root
# needed); the program (tools/qemu/guest/writer.c) is compiled with cc. The result is .guest/ beside
# this project, or for an installed package ~/.cache/ramferry/guest: vmlinuz, busybox, writer.
# Anything else: put those three there by hand.
set -eu

say() { echo "get_guest: $*"; }
fail() { echo "get_guest: $*" >&2; exit 1; }

here=$(cd "$(dirname "$0")/.." && pwd)
if [ -e "$here/pyproject.toml" ]; then
    folder=$here/.guest
else
    folder=${XDG_CACHE_HOME:-${HOME:?set HOME}/.cache}/ramferry/guest
fi
source=$here/tools/qemu/guest/writer.c
if [ -e "$folder/vmlinuz" ] && [ -e "$folder/busybox" ] && [ "$folder/writer" -nt "$source" ]; then
    say "already here: $folder"
    exit 0
fi
for tool in apt-get dpkg-deb cc; do
    command -v "$tool" >/dev/null 2>&1 || fail "$tool is missing: put vmlinuz, busybox and writer into $folder"
done
[ "$(uname -m)" = x86_64 ] || fail "the guest is an x86-64 one"
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM
cd "$work"
find_kernel() {
    for every in linux-image-cloud-amd64 linux-image-virtual; do
        name=$(apt-cache depends "$every" 2>/dev/null | awk '/Depends: linux-image-[0-9]/ { print $2; exit }')
        [ -z "$name" ] || break
    done
}
download() { apt-get -o APT::Sandbox::User="" download -qq "$name" busybox-static >/dev/null 2>&1; }
find_kernel
if [ "$(id -u)" = 0 ] && { [ -z "$name" ] || ! download; }; then
    apt-get update -qq >/dev/null 2>&1 || :
    find_kernel
fi
[ -n "$name" ] || fail "apt knows no kernel for virtual machines: run apt-get update, then again"
[ -n "$(find . -name 'busybox-static*.deb')" ] || download ||
    fail "$name and busybox-static could not be downloaded: run apt-get update, then again"
for package in ./*.deb; do
    dpkg-deb -x "$package" unpacked
done
cc -O2 -static -o writer "$source" || fail "no static program could be built: install gcc and libc6-dev"
mkdir -p "$folder"
cp unpacked/boot/vmlinuz-* "$folder/vmlinuz"
cp "$(find unpacked -type f -path "*bin/busybox" | head -n 1)" "$folder/busybox"
mv writer "$folder/writer"
say "kernel $name, busybox and the writer are in $folder"
