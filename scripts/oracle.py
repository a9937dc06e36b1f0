#!/usr/bin/env python3
"""Replays SQLMesh's recorded scenarios through coordctl, and says of each difference whether it is listed.

usage: oracle.py FOLDER COORDCTL [ARGUMENT of compare.py ...]
FOLDER holds compare.py and cases/. Differences are listed in docs/differences.md, in the table of recorded
steps: `| random/000 | 2 | reason |`. Only a case's first differing step counts: later ones follow from it.
Exit code: 0 when every difference is listed, 1 otherwise.
"""
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROW = re.compile(r"^\| *((?:classic|random)/\d+) *\| *(\d+) *\| *(.+?) *\|$")


def listed() -> dict:
    text = (Path(__file__).parent.parent / "docs/differences.md").read_text()
    rows = [ROW.match(line) for line in text.splitlines()]
    return {(row[1], int(row[2])): row[3] for row in rows if row}


def main() -> int:
    folder, coordctl, more = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        command = [sys.executable, str(folder / "compare.py"), "--cmd", coordctl, "--first", "-j", "2"]
        subprocess.run([*command, "--json", out.name, *more], check=False)
        results = json.loads(Path(out.name).read_text())["results"]
    known = listed()
    unlisted = 0
    steps = sum(result["steps"] for result in results)
    print(f"{len(results)} scenarios with {steps} steps; of those that differ:")
    for result in (result for result in results if result["bad"]):
        step = min(bad[0] for bad in result["bad"])
        reason = known.get((result["id"], step))
        unlisted += reason is None
        print(f"  {result['id']} step {step}: {'listed: ' + reason if reason else 'NOT LISTED'}")
    print(f"{unlisted} scenarios differ in what isn't listed")
    return 1 if unlisted else 0


if __name__ == "__main__":
    sys.exit(main())
