#!/usr/bin/env bash
# scripts/fuzz.sh SECONDS [TARGET…]: fuzzes each target for so long, guided by coverage, on the stable
# compiler. What is found is below target/fuzz/artifacts; a corpus grows in target/fuzz/corpus. With a
# nightly compiler and cargo-fuzz, `cargo fuzz run TARGET` does the same with sanitizers.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
out=${FUZZ_OUT:-$PWD/target/fuzz}
targets=("$@")
if [[ ${#targets[@]} -eq 0 ]]; then
  for file in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
# What cargo-fuzz passes, without the sanitizers that need a nightly compiler.
coverage="-C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
  -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
  -C llvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
host=$(rustc -vV | sed -n 's/^host: //p')
bins=()
for target in "${targets[@]}"; do bins+=(--bin "$target"); done
# With --target, build scripts and macros stay without instrumentation.
RUSTFLAGS="$coverage" cargo build --manifest-path fuzz/Cargo.toml --release --target "$host" \
  --target-dir "$out/build" "${bins[@]}"
declare -A words=([model]=model [audit]=model [macros]=model [unit_tests]=yaml [config]=yaml [cron]=time
  [time]=time [sql]=sql [plan_json]=json [records]=json)
failed=0
for target in "${targets[@]}"; do
  corpus=$out/corpus/$target
  mkdir -p "$corpus" "$out/artifacts/$target"
  COORD_FUZZ_SEEDS=$corpus "$out/build/$host/release/$target" -runs=0 >/dev/null 2>&1 || true
  dictionary=()
  if [[ -n ${words[$target]:-} ]]; then dictionary=("-dict=tests/fuzz/dictionaries/${words[$target]}.dict"); fi
  echo "== $target, $seconds s"
  "$out/build/$host/release/$target" "$corpus" "${dictionary[@]}" -max_total_time="$seconds" -timeout=5 \
    -rss_limit_mb=2048 -max_len=16384 -artifact_prefix="$out/artifacts/$target/" -print_final_stats=1 \
    >"$out/$target.log" 2>&1 || { failed=1; echo "$target found something:"; tail -n 5 "$out/$target.log"; }
  grep -E 'number_of_executed_units|peak_rss' "$out/$target.log" || true
  grep -E 'DONE|NEW' "$out/$target.log" | tail -n 1 || true
done
exit $failed
