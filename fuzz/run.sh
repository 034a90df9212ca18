#!/usr/bin/env bash
# Builds the fuzz targets with the pinned stable compiler and runs each for a few seconds.
#
#   fuzz/run.sh [SECONDS [TARGET…]]     default: 10 s, every target
#
# The seed is fixed, so that a run says something about the change and not about luck; FUZZ_SEED=0 picks a random one, to search.
# Coverage comes from LLVM's own pass, which stable rustc can be told to run; no nightly and no cargo-fuzz are needed.
# A finding is left in fuzz/artifacts/TARGET; to see it again: target/fuzz/…/release/TARGET FILE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-10}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | tail -n +2)

triple=$(rustc -vV | sed -n 's/^host: //p')
folder=${CARGO_TARGET_DIR:-target}/fuzz
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
 -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"

# `--target` keeps build scripts and macros free of the counters.
RUSTFLAGS=$(echo $flags) cargo build --release --manifest-path fuzz/Cargo.toml --target "$triple" --target-dir "$folder" --bins

for target in "${targets[@]}"; do
  mkdir -p "fuzz/artifacts/$target" "$folder/corpus/$target"
  seeds=()
  [ ! -d "fuzz/seeds/$target" ] || seeds=("fuzz/seeds/$target")
  printf '   %s: ' "$target"
  log=$folder/$target.log
  if "$folder/$triple/release/$target" -max_total_time="$seconds" -seed="${FUZZ_SEED:-1}" -timeout=10 -rss_limit_mb=2048 -max_len=16384 -print_final_stats=1 \
    -artifact_prefix="fuzz/artifacts/$target/" "$folder/corpus/$target" "${seeds[@]}" >"$log" 2>&1; then
    sed -n 's/^stat::number_of_executed_units: *\([0-9]*\)$/\1 inputs, no finding/p' "$log"
  else
    printf 'FAILED\n'
    tail -40 "$log"
    exit 1
  fi
done
