#!/usr/bin/env bash
# Runs the whole fault suite, the long cases too, and adds up what was injected and survived.
# FAULTS_ARGS are arguments of the test binary, such as a filter.
set -uo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086
cargo test --locked -p coord-tests --test faults -- --include-ignored --nocapture ${FAULTS_ARGS:-} 2>&1 | tee "$log"
status=${PIPESTATUS[0]}

echo
echo 'Survived, by case:'
grep -ao 'SURVIVED .*' "$log" | sed 's/^SURVIVED /  /' | sort
echo
echo 'Survived in all:'
grep -ao 'SURVIVED .*' "$log" | tr ' ' '\n' | grep = |
  awk -F= '$1 == "resumed" { resumed += $2; next } { sum[$1] += $2; all += $2 } END { for (kind in sum) printf "  %6d  %s\n", sum[kind], kind; printf "  %6d  faults in all\n", all; printf "  %6d  times a plan had failed and was applied again\n", resumed }' | sort -k2
exit "$status"
