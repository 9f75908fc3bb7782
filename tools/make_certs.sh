#!/bin/sh
# Certificates for a lab: make_certs.sh DIR NAME [NAME ...]
#
# Makes a certificate authority in DIR, and a certificate for the receiver (server-*.pem) and one for the
# sender (client-*.pem), both valid for every NAME: host names and addresses of the two hosts. Copy DIR to
# both, without ca-key.pem. The file names are those of Cloud Hypervisor's migration.
set -eu
umask 077

if [ $# -lt 2 ]; then
    echo "usage: $0 DIR NAME [NAME ...]   (names or addresses of both hosts)" >&2
    exit 2
fi
command -v openssl >/dev/null || { echo "error: openssl is needed: apt-get install openssl" >&2; exit 2; }
dir=$1
shift
mkdir -p "$dir"
if [ -e "$dir/ca-key.pem" ]; then
    echo "error: $dir has an authority already; name another folder" >&2
    exit 2
fi

names=
for name in "$@"; do
    case $name in
    *:*) kind=IP ;;
    *[!0-9.]*) kind=DNS ;;
    *) kind=IP ;;
    esac
    names="$names${names:+,}$kind:$name"
done
key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc"

# shellcheck disable=SC2086
openssl req -x509 $key -keyout "$dir/ca-key.pem" -out "$dir/ca-cert.pem" -days 365 \
    -subj "/CN=ramferry lab" -addext basicConstraints=critical,CA:TRUE \
    -addext keyUsage=critical,keyCertSign 2>/dev/null

for side in server client; do
    # shellcheck disable=SC2086
    openssl req $key -keyout "$dir/$side-key.pem" -out "$dir/$side.csr" -subj "/CN=$1" 2>/dev/null
    printf 'basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=%sAuth\nsubjectAltName=%s\n' \
        "$side" "$names" >"$dir/$side.ext"
    openssl x509 -req -in "$dir/$side.csr" -CA "$dir/ca-cert.pem" -CAkey "$dir/ca-key.pem" \
        -out "$dir/$side-cert.pem" -days 365 -extfile "$dir/$side.ext" 2>/dev/null
    rm "$dir/$side.csr" "$dir/$side.ext"
done
echo "made ca-cert.pem, server-*.pem and client-*.pem in $dir for $*"
