#!/usr/bin/env bash
# e2e/image.sh PROGRAM NAME [ARCHIVE]: builds the image NAME from a program that is there, with the Dockerfile's stage `prebuilt`: nothing is pulled.
# With ARCHIVE, also writes it there, as a file that `ctr images import` reads. Prints the image's size in bytes, and the files in it.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=$1 name=$2 archive=${3:-}
home=$root/.cache/buildah
mkdir -p "$home"
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

buildah() { command buildah --root "$home/root" --runroot "$home/run" --storage-driver vfs "$@"; }

"$root/e2e/rootfs.sh" "$program" "$context/rootfs"
# One store, so one build at a time; crates/testkit waits for the same lock.
exec 9>"$home/lock"
flock 9
buildah build --quiet --isolation chroot --target prebuilt --tag "$name" --file "$root/Dockerfile" --ignorefile /dev/null "$context" >/dev/null
if [ -n "$archive" ]; then
  mkdir -p "$(dirname "$archive")"
  rm -f "$archive.new"
  buildah push --quiet "$name" "docker-archive:$archive.new:$name"
  mv "$archive.new" "$archive"
fi
echo "$name: $(buildah inspect --type image --format '{{.OCIv1.Config.User}}' "$name"), $(du -sb "$context/rootfs" | cut -f1) bytes"
(cd "$context/rootfs" && find . -type f -printf '%10s  /%P\n' | sort -rn)
