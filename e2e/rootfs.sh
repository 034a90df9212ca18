#!/usr/bin/env bash
# e2e/rootfs.sh PROGRAM FOLDER: lays out the root folder of the image. A static program stands alone; one that is not brings its loader and libraries.
set -euo pipefail

program=$1 folder=$2
certificates=/etc/ssl/certs/ca-certificates.crt

mkdir -p "$folder/etc/ssl/certs" "$folder/var/lib/paifang"
install -m 0755 "$program" "$folder/paifang"
# What is left are the names of functions, for a backtrace; line tables are four fifths of the size.
strip --strip-debug "$folder/paifang"

# Prints the path of the loader and of each library, one a line; nothing for a static program.
libraries() {
  if readelf --program-headers --wide "$1" | grep -q 'Requesting program interpreter'; then
    ldd "$1" | grep --only-matching '/[^ ]*'
  fi
}
for library in $(libraries "$program"); do
  install -D -m 0755 "$(readlink -f "$library")" "$folder$library"
done

[ -s "$certificates" ] || { echo "$certificates is missing: install the package ca-certificates" >&2; exit 1; }
install -m 0644 "$certificates" "$folder$certificates"
# Without this file the C library has a default of its own; this is what a pod's /etc/hosts and resolv.conf are meant for.
echo 'hosts: files dns' >"$folder/etc/nsswitch.conf"
echo 'paifang:x:65532:65532:paifang:/:/nonexistent' >"$folder/etc/passwd"
echo 'paifang:x:65532:' >"$folder/etc/group"
