#!/usr/bin/env python3
"""Records what SQLMesh makes of SCD type 2 models whose source changes from day to day.

usage: record.py > cases.json        (needs sqlmesh and duckdb)
"""
import json
import random
import sys
import tempfile
from pathlib import Path

import duckdb
from sqlmesh import Context

DAYS = 6
COLUMNS = [("id", "INT"), ("region", "TEXT"), ("name", "TEXT"), ("amount", "INT"), ("updated_at", "TIMESTAMP")]


def case(name, by, key=("id",), hard_deletes=False, time_type="TIMESTAMP", nulls=False, updated_at="TIMESTAMP", **options):
    return dict(name=name, by=by, key=list(key), hard_deletes=hard_deletes, time_type=time_type, nulls=nulls,
                updated_at=updated_at, options=options)


CASES = [
    case("by time", "time"),
    case("by time, deletes close", "time", hard_deletes=True),
    case("by time, from the update on", "time", updated_at_as_valid_from=True),
    case("by time, from the update on, deletes close", "time", hard_deletes=True, updated_at_as_valid_from=True),
    case("by time, two keys", "time", key=("id", "region"), hard_deletes=True),
    case("by time, an expression as the key", "time", key=("COALESCE(id, -1)",), hard_deletes=True),
    case("by time, nulls", "time", hard_deletes=True, nulls=True),
    case("by time, dates", "time", hard_deletes=True, updated_at="DATE"),
    case("by time, date validity", "time", hard_deletes=True, time_type="DATE"),
    case("by columns", "column", columns="(name, amount)"),
    case("by one column, deletes close", "column", columns="(amount)", hard_deletes=True),
    case("by all columns", "column", columns="*", hard_deletes=True),
    case("by columns, from the execution on", "column", columns="(name)", execution_time_as_valid_from=True),
    case("by columns, from the execution on, deletes close", "column", columns="(name, amount)", hard_deletes=True,
         execution_time_as_valid_from=True),
    case("by columns, nulls", "column", columns="*", hard_deletes=True, nulls=True),
    case("by columns, two keys, nulls", "column", key=("id", "region"), columns="(name)", hard_deletes=True, nulls=True),
    case("by columns, a column that tells when", "column", columns="(name, amount)", updated_at_name="updated_at"),
    case("by columns, a column that tells when, deletes close", "column", columns="(name, amount)", hard_deletes=True,
         updated_at_name="updated_at"),
]


def days(rng, nulls, keys):
    rows = {}
    for day in range(1, DAYS + 1):
        for n in range(1, 6):
            roll = rng.random()
            if roll < 0.3:
                rows.pop(n, None)
            elif roll < 0.75:
                at = max(1, day - rng.choice([0, 0, 0, 1]))
                name = None if nulls and rng.random() < 0.4 else rng.choice("abc")
                amount = None if nulls and rng.random() < 0.3 else rng.randint(1, 3)
                number = None if nulls and n == 5 else n
                region = None if nulls and n == 4 else ("north" if n % 2 else "south")
                rows[n] = [number, region, name, amount, f"2024-01-{at:02} {rng.randint(0, 5):02}:00:00"]
        yield [[None if v is None else str(v) for v in row] for _, row in sorted(rows.items())]


def kind(case):
    lines = [f"unique_key ({', '.join(case['key'])})", f"invalidate_hard_deletes {str(case['hard_deletes']).lower()}",
             f"time_data_type {case['time_type']}"]
    lines += [f"{key} {str(value).lower() if isinstance(value, bool) else value}" for key, value in case["options"].items()]
    return f"SCD_TYPE_2_BY_{case['by'].upper()} ({', '.join(lines)})"


def types(case):
    return COLUMNS[:-1] + [("updated_at", case["updated_at"])]


def record(case, seed):
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        root, data = Path(folder), Path(folder) / "data.db"
        (root / "models").mkdir()
        (root / "config.yaml").write_text(
            f"gateways: {{g: {{connection: {{type: duckdb, database: '{data}'}}, "
            f"state_connection: {{type: duckdb, database: '{folder}/state.db'}}}}}}\n"
            "model_defaults: {dialect: duckdb, start: '2024-01-01'}\n")
        selected = ", ".join(f"CAST({name} AS {kind}) AS {name}" for name, kind in types(case))
        (root / "models/m.sql").write_text(f"MODEL (name s.m, kind {kind(case)});\nSELECT {selected} FROM raw.src\n")
        steps = []
        for day, rows in enumerate(days(rng, case["nulls"], case["key"]), 1):
            with duckdb.connect(str(data)) as db:
                db.execute("CREATE SCHEMA IF NOT EXISTS raw")
                db.execute("CREATE OR REPLACE TABLE raw.src (" + ", ".join(f"{n} VARCHAR" for n, _ in COLUMNS) + ")")
                if rows:
                    db.executemany("INSERT INTO raw.src VALUES (?, ?, ?, ?, ?)", rows)
            now = f"2024-01-{day + 1:02} 08:30:00"
            context = Context(paths=[str(root)])
            context.plan(auto_apply=True, no_prompts=True, execution_time=now, skip_tests=True)
            context.close()
            with duckdb.connect(str(data)) as db:
                names = [n for n, _ in COLUMNS] + ["valid_from", "valid_to"]
                cells = ", ".join(f"CAST({n} AS VARCHAR)" for n in names)
                table = sorted(db.execute(f"SELECT {cells} FROM s.m").fetchall(), key=lambda row: [v or "" for v in row])
            steps.append({"execution": now, "source": rows, "expected": table})
    return {"name": case["name"], "kind": kind(case), "columns": types(case), "steps": steps}


def main():
    real, sys.stdout = sys.stdout, sys.stderr
    found = [record(case, 100 + n) for n, case in enumerate(CASES)]
    sys.stdout = real
    print("[")
    for n, one in enumerate(found):
        steps = ",\n  ".join(json.dumps(step) for step in one.pop("steps"))
        print(json.dumps(one)[:-1] + f', "steps": [\n  {steps}\n]}}' + ("," if n + 1 < len(found) else ""))
    print("]")


main()
