#!/bin/sh
# Tells the story of README.md with the coordctl binary in $COORDCTL, on a copy of the project, on the
# gateway in $COORDCTL_GATEWAY (the project's default one, DuckDB, if it isn't set).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
coordctl=${COORDCTL:-$here/../../target/release/coordctl}
case $coordctl in
  /*) ;;
  */*) coordctl=$(cd "$(dirname "$coordctl")" && pwd)/$(basename "$coordctl") ;;
esac
command -v "$coordctl" >/dev/null || {
  echo "no coordctl at $coordctl: build it, or set COORDCTL" >&2
  exit 1
}

gateway=${COORDCTL_GATEWAY:+--gateway $COORDCTL_GATEWAY}
export COORDCTL_NOW=2025-07-01T00:00:00Z

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
project=$work/campaign
mkdir "$project"
for part in config.yaml models seeds audits; do
  cp -R "$here/$part" "$project/"
done
cd "$project"

say() {
  printf '\n# %s\n' "$*"
}

# Shows a command, then runs it on the copy.
ctl() {
  printf '$ coordctl' >&2
  for word in "$@"; do
    case $word in
      *' '*) printf ' "%s"' "$word" >&2 ;;
      *) printf ' %s' "$word" >&2 ;;
    esac
  done
  printf '\n' >&2
  "$coordctl" --project "$project" $gateway "$@"
}

# The id of the plan for an environment. A plan's id is a hash of its content, so planning
# again without a change gives the plan that was shown.
plan_id() {
  "$coordctl" --project "$project" $gateway plan "$1" --no-prompts --format json >"$work/plan.json"
  python3 -c '
import json, sys
plan = json.load(open(sys.argv[1]))
plan = plan.get("plan", plan)
print(plan.get("plan_id") or plan["id"])' "$work/plan.json"
}

plan_and_apply() {
  ctl plan "$1" --no-prompts
  id=$(plan_id "$1")
  ctl apply "$id"
}

# Compares a query's result with what check.py computes from the events' formula.
check() {
  "$coordctl" --project "$project" $gateway fetch "$2" --format csv >"$work/$1.csv"
  python3 "$here/check.py" "$1" "$work/$1.csv"
}

expect_no_changes() {
  ctl plan "$1" --no-prompts >"$work/again.txt"
  cat "$work/again.txt"
  grep -qi 'no changes' "$work/again.txt" || {
    echo "story: expected a plan without changes for $1" >&2
    exit 1
  }
}

started=$(date +%s)

say '1. The project meets an empty warehouse: everything is new.'
plan_and_apply prod
ctl intervals
check roi 'SELECT * FROM ads.roi_analysis'
check monthly 'SELECT * FROM ads.campaign_trends_monthly'
check search 'SELECT * FROM ads.search_daily'

say '2. Planning again: nothing is left to do.'
expect_no_changes prod

say '3. What the campaigns seem to return, at 25.00 a conversion.'
ctl fetch 'SELECT campaign_name, spend, conversions, assumed_return FROM ads.roi_analysis ORDER BY campaign_id'

say '4. The change: conversion_value in campaign_performance, and its use in roi_analysis.'
diff -r "$project/models" "$here/changes/conversion_value/models" | grep '^[<>]' || true
cp -R "$here/changes/conversion_value/." "$project/"
plan_and_apply dev
check roi-with-value 'SELECT * FROM ads__dev.roi_analysis'
check roi 'SELECT * FROM ads.roi_analysis'
ctl environments

say '5. To prod: the tables that dev filled are taken as they are.'
plan_and_apply prod
check roi-with-value 'SELECT * FROM ads.roi_analysis'
check monthly 'SELECT * FROM ads.campaign_trends_monthly'
expect_no_changes prod

say '6. What the campaigns really return.'
ctl fetch 'SELECT campaign_name, spend, conversion_value, assumed_return, measured_return FROM ads.roi_analysis ORDER BY campaign_id'

say "Done in $(($(date +%s) - started)) s."
