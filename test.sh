#!/usr/bin/env bash
# Every check of this repository, in one command: formatting, lints, generated files, licences, unit tests, fuzz targets
# and the end-to-end tests with real clients; the operator on a real Kubernetes. Installs what it needs (see e2e/setup.sh)
# and says so. It listens and sends on loopback and in network namespaces of its own only, and leaves nothing running. The
# tests with pods need root.
#
#   ./test.sh              all of it
#   ./test.sh e2e -k tls   one step, with arguments for it: fmt, clippy, codegen, deny, unit, cluster, node, fuzz, e2e
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source e2e/setup.sh

FUZZ_SECONDS=${FUZZ_SECONDS:-10}

mkdir -p .cache
exec 9>.cache/lock
flock -n 9 || { echo "== another run is under way in this folder; waiting for it"; flock 9; }

slow=
stop_slow() {
  [ -z "$slow" ] || kill -- "-$slow" 2>/dev/null || true
}
trap stop_slow EXIT

step() {
  local name=$1 began=$SECONDS
  shift
  printf '\n== %s\n' "$name"
  "$@" || { printf '\n== %s FAILED after %s s\n' "$name" $((SECONDS - began)); exit 1; }
  printf '== %s: %s s\n' "$name" $((SECONDS - began))
}

start_slow() {
  set -m
  (exec 9>&-; setup_slow) >.cache/setup-slow.log 2>&1 &
  slow=$!
  set +m
}

await_slow() {
  local code=0
  wait "$slow" || code=$?
  slow=
  cat .cache/setup-slow.log
  [ "$code" = 0 ] || echo "installing the slow tools failed, see above"
  return "$code"
}

fmt() { cargo fmt --all --check "$@"; }
clippy() { cargo clippy --workspace --all-targets --locked "$@" -- -D warnings; }
codegen() { cargo xtask codegen --check "$@"; }
deny() { cargo deny --locked check --hide-inclusion-graph licenses bans sources "$@"; }
unit() { cargo test --workspace --locked "$@"; }
# Part of `unit`: the operator on a real control plane, and with real pods.
cluster() { cargo test --locked -p paifang --test cluster "$@"; }
node() { cargo test --locked -p paifang --test node "$@"; }
fuzz() { fuzz/run.sh "${1:-$FUZZ_SECONDS}"; }
# After `cargo test --workspace` the program is there already; built alone it would have other features, and be built anew.
e2e() {
  [ -n "${built:-}" ] || cargo build --locked -p paifang -p paifang-testkit
  (cd e2e && ../.cache/venv/bin/python -m pytest "$@")
}

if [ $# -gt 0 ]; then
  name=$1
  shift
  case $name in
    fmt | clippy | codegen | fuzz) step "$name" "$name" "$@" ;;
    unit | cluster | node) step "set-up" setup_quick; step "tools" setup_slow; step "$name" "$name" "$@" ;;
    deny) step "tools" setup_slow; step deny deny "$@" ;;
    e2e) step "set-up" setup_quick; step "tools" setup_slow; step e2e e2e "$@" ;;
    *) echo "unknown step $name: fmt, clippy, codegen, deny, unit, cluster, node, fuzz or e2e" >&2; exit 2 ;;
  esac
  exit 0
fi

step "set-up" setup_quick
start_slow
step "formatting" fmt
step "lints" clippy
step "generated files" codegen
step "slow tools" await_slow
step "licences, bans and sources" deny
step "unit tests" unit
built=yes
step "fuzz targets, $FUZZ_SECONDS s each" fuzz
step "end-to-end tests" e2e
printf '\n== all checks passed in %s s\n' "$SECONDS"
