#!/usr/bin/env bash
# Takes away everything that one cluster of the tests has left: processes, containers, mounts, control groups, network
# namespaces, files. Only what is recorded in its state folder, or carries its name, is touched.
#
#   reap.sh now STATE     the caller holds the lock of STATE/alive, or is sure that nobody uses it
#   reap.sh watch STATE   waits until standard input ends, which it does when the owner does, however it ends
#
# Written for bash, since it must outlive the process that started it. Its logs end up in STATE/../logs.
set -uo pipefail

mode=$1 state=$2
name=$(basename "$state")
run=/run/paifang/$name
netns=paifang-$name

if [ "$mode" = watch ]; then
  cat >/dev/null
  { exec 9<"$state/alive"; } 2>/dev/null || exit 0
  flock 9
  [ -e "$state/alive" ] || exit 0
fi
[ -d "$state" ] || exit 0

# The start time tells a process from a later one with the same id.
began() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

end_recorded() {
  local file pid start
  for file in "$state"/pids/*; do
    [ -e "$file" ] || continue
    read -r pid start <"$file" || true
    [ "$(began "$pid")" = "$start" ] && kill -KILL "$pid" 2>/dev/null
    rm -f "$file"
  done
}

# Containers outlive containerd: their shims are known by the socket they were given.
shims() {
  local entry pid
  for entry in /proc/[0-9]*/cmdline; do
    if { tr '\0' ' ' <"$entry"; } 2>/dev/null | grep -q -- "^[^ ]*containerd-shim.* -address $run/"; then
      pid=${entry#/proc/}
      echo "${pid%/cmdline}"
    fi
  done
}

end_shims() {
  local try pids
  for try in $(seq 100); do
    pids=$(shims)
    [ -n "$pids" ] || break
    # shellcheck disable=SC2086
    kill -KILL $pids 2>/dev/null
    sleep 0.05
  done
}

end_containers() {
  local try pids root group
  for try in $(seq 100); do
    pids=$(find /sys/fs/cgroup/*/"$netns" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u)
    [ -n "$pids" ] || break
    # shellcheck disable=SC2086
    kill -KILL $pids 2>/dev/null
    sleep 0.05
  done
  for root in /sys/fs/cgroup/*/"$netns"; do
    [ -d "$root" ] || continue
    find "$root" -depth -type d -exec rmdir {} \; 2>/dev/null
  done
}

end_namespace() {
  [ -e "/run/netns/$netns" ] || return 0
  local try pids
  for try in $(seq 100); do
    pids=$(ip netns pids "$netns" 2>/dev/null)
    [ -n "$pids" ] || break
    # shellcheck disable=SC2086
    kill -KILL $pids 2>/dev/null
    sleep 0.05
  done
  ip netns delete "$netns"
}

# Deepest first. A mount that is still busy is detached; it goes with its last user.
unmount() {
  local point
  awk -v a="$state/" -v b="$run/" 'index($5, a) == 1 || index($5, b) == 1 { print $5 }' /proc/self/mountinfo | sort -r |
    while read -r point; do
      umount "$point" 2>/dev/null || umount -l "$point"
    done
}

forget_files() {
  local file socket
  for file in "$run"/containerd/io.containerd.runtime.v2.task/*/*/address; do
    [ -e "$file" ] || continue
    socket=$(cat "$file")
    rm -f "${socket#unix://}"
  done
  rm -f /var/lib/cni/results/"$netns"-*
  find /var/log/containers -maxdepth 1 -type l -lname "$state/*" -delete 2>/dev/null
  # What kubelet sets for the whole machine.
  if [ -e "$state/sysctls" ]; then
    while IFS='=' read -r file socket; do
      echo "$socket" >"$file" 2>/dev/null
    done <"$state/sysctls"
  fi
}

# The logs of the last clusters are kept: a test that failed is explained there.
keep_logs() {
  local logs
  logs=$(dirname "$state")/logs
  mkdir -p "$logs"
  rm -rf "${logs:?}/$name"
  mv "$state/logs" "$logs/$name" 2>/dev/null
  find "$logs" -mindepth 1 -maxdepth 1 -type d -printf '%T@ %p\n' | sort -rn | tail -n +9 | cut -d' ' -f2- | xargs -r -d '\n' rm -rf
}

end_recorded
end_shims
end_containers
end_namespace
unmount
forget_files
keep_logs
rm -rf --one-file-system "${run:?}"
rm -rf --one-file-system "${state:?}"
rmdir /run/paifang 2>/dev/null
[ ! -e "$state" ]
