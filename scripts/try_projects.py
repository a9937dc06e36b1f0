#!/usr/bin/env python3
"""Tries coordctl on a folder of checkouts of SQLMesh projects, beside SQLMesh itself.

    scripts/try_projects.py FOLDER [--coordctl target/debug/coordctl] [--sqlmesh PYTHON] [--only TEXT] [--json OUT]

It fetches nothing, needs no warehouse and writes nothing into the checkouts: each project is copied to a
temporary folder first. For each folder that has a SQLMesh config it asks whether coordctl loads it (`dag`), renders
every model that has a query (`render`) and plans it on an empty state (`plan`). With a Python that has
SQLMesh, the same question of loading is put to SQLMesh, and the dependencies of each model are compared.
Drivers that aren't installed are replaced by empty ones, so that SQLMesh loads projects for any warehouse.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CONFIGS = ["config.yaml", "config.yml", "sqlmesh.yaml", "sqlmesh.yml", "config.py"]
LEFT_OUT = {".git", ".venv", "venv", "node_modules", "site-packages", ".cache", "__pycache__", ".coordctl", "logs"}
KEYS = ("gateways:", "gateway:", "model_defaults:", "default_connection:", "default_gateway:", "sqlmesh")
LIMIT = 180  # seconds for each question
COPIED = 8 << 20  # bytes: larger files are data, left out unless they are seeds

# Run by the Python that has SQLMesh: prints {models: {name: {kind, depends_on}}, error}.
PROBE = r'''
import importlib.abc, importlib.machinery, json, sys, types, warnings, logging, os
from unittest.mock import MagicMock
warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)
DRIVERS = ("psycopg2", "google", "snowflake", "databricks", "pymysql", "MySQLdb", "pymssql", "pyodbc", "trino", "pyspark",
           "clickhouse_connect", "redshift_connector", "pyathena", "mssql_python", "cryptography")
class Stub(types.ModuleType):
    __path__ = []
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Exception,), {}) if name.endswith(("Error", "Exception")) else MagicMock()
class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in DRIVERS else None
    def create_module(self, spec):
        return Stub(spec.name)
    def exec_module(self, module):
        pass
sys.meta_path.append(Finder())
root = sys.argv[1]
os.chdir(root)
out = {"models": {}, "error": None}
try:
    import sqlmesh.core.engine_adapter.base as base
    from sqlmesh.core.engine_adapter import DuckDBEngineAdapter
    from sqlmesh import Context
    from sqlmesh.core.console import set_console, NoopConsole
    set_console(NoopConsole())
    asked = {}
    def unreachable(cls):
        for sub in cls.__subclasses__():
            unreachable(sub)
            if issubclass(sub, DuckDBEngineAdapter) or issubclass(DuckDBEngineAdapter, sub):
                continue
            sub.get_current_catalog = lambda self: "of_the_warehouse"
    unreachable(base.EngineAdapter)
    import google.auth
    google.auth.default = lambda *a, **k: (MagicMock(), "of_the_warehouse")
    from sqlmesh.core.config import Config, DuckDBConnectionConfig
    Config.get_state_connection = lambda self, gateway=None: DuckDBConnectionConfig()
    # A data base file or service that isn't here is as good as an empty one.
    import sqlmesh.core.config.connection as connection
    def attached(self):
        def init(cursor):
            for name, options in (self.catalogs or {}).items():
                if name not in ("memory",):
                    cursor.execute(f"ATTACH IF NOT EXISTS ':memory:' AS \"{name}\"")
            if self.catalogs:
                cursor.execute(f"USE \"{next(iter(self.catalogs))}\"")
        return init
    def no_files(self):
        import duckdb
        path = getattr(self, "database", None)
        if getattr(self, "type_", "") == "motherduck":
            path = None
        def connect():
            conn = duckdb.connect(":memory:")
            name = None
            if path and path not in (":memory:",) and not path.startswith("md:"):
                name = os.path.basename(path).split(".")[0]
            if path and path.startswith("md:"):
                name = path[3:].split("?")[0]
            if getattr(self, "type_", "") == "motherduck":
                name = (getattr(self, "database", None) or "").replace("md:", "").split("?")[0] or None
            if name and name not in ("memory",):
                name = name + "_db" if name in ("main", "temp", "system") else name
                conn.execute(f"ATTACH ':memory:' AS \"{name}\"")
                conn.execute(f"USE \"{name}\"")
            return conn
        return connect
    for name in ("BaseDuckDBConnectionConfig", "DuckDBConnectionConfig", "MotherDuckConnectionConfig"):
        sub = getattr(connection, name, None)
        if sub is not None:
            sub._cursor_init = property(attached)
            sub._connection_factory = property(no_files)
            sub._connection_factory_with_kwargs = property(lambda self, f=no_files: (lambda **k: f(self)()))
    context = Context(paths=[root])
    for fqn, model in context.models.items():
        entry = {"kind": model.kind.name.value if hasattr(model.kind.name, "value") else str(model.kind.name),
                 "depends_on": sorted(model.depends_on), "python": bool(model.is_python)}
        try:
            if model.is_sql and model.render_query() is None:
                entry["render_error"] = "no query"
        except Exception as error:
            entry["render_error"] = str(error)[:300]
        out["models"][fqn] = entry
except BaseException as error:
    import traceback
    text = traceback.format_exc() if os.environ.get("TRY_DEBUG") else (str(error) or type(error).__name__)
    out["error"] = text[-3000:] if os.environ.get("TRY_DEBUG") else text[:600]
print("\n@@" + json.dumps(out))
sys.stdout.flush()
os._exit(0)
'''


def roots(folder):
    """Folders with a SQLMesh config below a folder."""
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT and not name.startswith("."))
        configs = [name for name in CONFIGS if name in files]
        if not configs:
            continue
        text = (Path(path) / configs[0]).read_text(errors="replace")
        if configs[0] == "config.py":
            belongs = "sqlmesh" in text and (Path(path) / "models").is_dir()
        else:
            belongs = any(line.startswith(KEYS) for line in text.splitlines())
        if belongs:
            yield Path(path)


def copy(root, to):
    """A project without what is no part of it, and without large data."""
    for path, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        target = to / os.path.relpath(path, root)
        target.mkdir(parents=True, exist_ok=True)
        for name in files:
            source = Path(path) / name
            is_data = name.endswith((".db", ".duckdb", ".wal", ".parquet")) or source.is_symlink()
            if not is_data and (source.stat().st_size <= COPIED or name.endswith(".csv")):
                shutil.copyfile(source, target / name)


def ask(command, environment, folder):
    """(exit code, standard output, standard error) of a program, which is stopped after LIMIT."""
    try:
        done = subprocess.run(command, capture_output=True, env=environment, cwd=folder, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return 124, "", f"no answer in {LIMIT} s"
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def first_error(output, errors):
    """The reason that coordctl gives."""
    for line in (errors + "\n" + output).splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        found = found.get("error", found)
        for finding in found.get("findings") or [found]:
            if isinstance(finding, dict) and finding.get("severity", "error") == "error" and "message" in finding:
                at = finding.get("at") or {}
                place = at if isinstance(at, str) else f"{at.get('path', '')}:{at.get('line', '')}"
                return f"{finding.get('code')}: {place}: {finding['message']}"
    panics = [line for line in errors.splitlines() if "panicked" in line or line.startswith("error")]
    return (panics or errors.splitlines() or ["nothing was said"])[0][:300]


def documents(text):
    """The last JSON document of an output."""
    decoder, at, found = json.JSONDecoder(), 0, None
    while (at := text.find("{", at)) >= 0:
        try:
            found, end = decoder.raw_decode(text[at:])
            at += end
        except ValueError:
            at += 1
    return found or {}


def surroundings(root, unset):
    """The environment of both programs: without settings of theirs, with a value for each variable that files name."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SQLMESH__", "COORDCTL_"))}
    for path in [] if unset else [*root.glob("*.y*ml"), *root.rglob("models/**/*.sql")]:
        for name in re.findall(r"env_var\(\s*['\"](\w+)['\"]\s*\)", path.read_text(errors="replace")):
            value = "5432" if "PORT" in name.upper() else "{}" if "JSON" in name.upper() else "value"
            environment.setdefault(name, value)
    return environment


def try_coordctl(program, root, scratch, environment):
    base = [program, "--project", str(root), "--format", "json", "--state", str(scratch)]
    result = {"load": None, "render": None, "plan": None, "models": {}, "render_errors": {}}
    code, output, errors = ask(base + ["lint"], environment, root)
    findings = [finding for finding in documents(output).get("findings", []) if finding["severity"] == "error"]
    result["errors"] = [f"{f['code']}: {f['at']['path']}:{f['at']['line']}: {f['message']}" for f in findings]
    if code and not findings:
        result["errors"] = [first_error(output, errors)]
    code, output, errors = ask(base + ["dag"], environment, root)
    for model in documents(output).get("models", []):
        result["models"][model["model"]] = model
    if code or result["errors"]:
        result["load"] = (result["errors"] or [first_error(output, errors)])[0]
    code, output, errors = ask(base + ["render"], environment, root)
    rendered = documents(output).get("models", [])
    result["render_errors"] = {m["model"]: m["error"]["message"] for m in rendered if "error" in m}
    if code or result["render_errors"]:
        broken = [f"{name}: {text}" for name, text in result["render_errors"].items()]
        result["render"] = (broken or [first_error(output, errors)])[0]
    code, output, errors = ask(base + ["plan", "--no-prompts"], environment, root)
    if code:
        result["plan"] = first_error(output, errors)
    return result


def try_sqlmesh(python, root, environment):
    environment = dict(environment, SQLMESH__DISABLE_ANONYMIZED_ANALYTICS="1", MAX_FORK_WORKERS="1")
    code, output, errors = ask([python, "-c", PROBE, str(root)], environment, root)
    for line in output.splitlines():
        if line.startswith("@@"):
            return json.loads(line[2:])
    return {"models": {}, "error": errors.strip().splitlines()[-1] if errors.strip() else f"exit code {code}"}


def plain(name):
    """A name without quotes, and without a catalog that only the warehouse knows."""
    parts, part, quoted = [], "", False
    for char in name:
        if char == '"':
            quoted = not quoted
        elif char == "." and not quoted:
            parts.append(part)
            part = ""
        else:
            part += char
    parts.append(part)
    return ".".join(parts[1:] if parts[0] == "of_the_warehouse" else parts)


def full(name, model):
    """A name of coordctl's with the catalog that it leaves out."""
    catalog = model["catalog"]
    return f"{catalog}.{name}" if catalog and name.count(".") == 1 else name


def compare(sqlmesh, ours):
    """(models compared, [(model, only SQLMesh's, only ours)])."""
    different, compared = [], 0
    mine = {full(name, model): model for name, model in ours["models"].items()}
    for fqn, entry in sqlmesh["models"].items():
        if entry["kind"] in ("SEED", "EXTERNAL") or entry["python"]:
            continue
        compared += 1
        model = mine.get(plain(fqn))
        if model is None:
            different.append((plain(fqn), ["missing"], []))
            continue
        theirs = {plain(name) for name in entry["depends_on"]} - {plain(fqn)}
        found = {full(name, model) for name in model["depends_on"]} - {plain(fqn)}
        if theirs != found:
            different.append((plain(fqn), sorted(theirs - found), sorted(found - theirs)))
    return compared, different


def needs_python(root):
    """Why a project isn't pure SQL with a YAML config, if so."""
    if (root / "config.py").exists() and not any((root / name).exists() for name in CONFIGS[:4]):
        return "config.py"
    words = {"models": "@model", "macros": "@macro", "signals": "@signal", "materializations": "Materialization"}
    for folder, word in words.items():
        for path in sorted((root / folder).rglob("*.py")):
            if word in path.read_text(errors="replace"):
                return str(path.relative_to(root))
    if (root / "dbt_project.yml").exists():
        return "dbt"
    return None


def one(root, name, arguments):
    with tempfile.TemporaryDirectory(prefix="try-") as temporary:
        # The whole checkout, as seeds may lie beside the project.
        checkout, scratch = Path(temporary) / "checkout", Path(temporary) / "state"
        copy(arguments.folder.resolve() / Path(name).parts[0], checkout)
        project = checkout.joinpath(*Path(name).parts[1:])
        scratch.mkdir()
        environment = surroundings(project, arguments.unset)
        row = {"project": name, "python": needs_python(project)}
        row["ours"] = try_coordctl(arguments.coordctl, project, scratch, environment)
        if arguments.sqlmesh:
            row["sqlmesh"] = try_sqlmesh(arguments.sqlmesh, project, environment)
            row["compared"], row["different"] = compare(row["sqlmesh"], row["ours"])
    return row


def show(row, arguments):
    ours, theirs = row["ours"], row.get("sqlmesh")
    mark = lambda reason: "-" if reason else "yes"
    cells = [row["project"][:58].ljust(58), "python" if row["python"] else "sql"]
    if theirs is not None:
        cells += [mark(theirs["error"]), f"{row['compared'] - len(row['different'])}/{row['compared']}"]
    cells += [mark(ours["load"]), mark(ours["render"]), mark(ours["plan"]), str(len(ours["models"]))]
    print("  ".join(cell.ljust(6) for cell in cells), flush=True)
    limit = arguments.show
    if theirs and theirs["error"]:
        print("    sqlmesh:", " ".join(theirs["error"].split())[: 3000 if os.environ.get("TRY_DEBUG") else 300])
    if row["python"]:
        print("    needs Python:", row["python"])
    for error in ours["errors"][:limit]:
        print("    load:", error)
    for model, error in list(ours["render_errors"].items())[:limit]:
        print(f"    render: {model}: {error}")
    if ours["render"] and not ours["render_errors"] and ours["render"] not in ours["errors"]:
        print("    render:", ours["render"])
    if ours["plan"] and ours["plan"] not in ours["errors"]:
        print("    plan:", ours["plan"])
    for model, missing, extra in row.get("different", [])[:limit] if theirs and not theirs["error"] else []:
        print(f"    depends_on of {model}: only SQLMesh {missing}, only coordctl {extra}")


def totals(rows, arguments):
    loaded = [row for row in rows if not row["python"] and not (row.get("sqlmesh") or {}).get("error")]
    who = "that SQLMesh loads" if arguments.sqlmesh else "tried"
    print(f"\n{len(rows)} projects; {len(loaded)} are pure SQL with a YAML config {who}; of these:")
    share = lambda count, of: f"{count} of {of} ({100 * count / of:.1f} %)" if of else "none"
    for what in ("load", "render", "plan"):
        print(f"  {what}: {share(sum(not row['ours'][what] for row in loaded), len(loaded))}")
    all_three = sum(not any(row["ours"][what] for what in ("load", "render", "plan")) for row in loaded)
    print(f"  all three: {share(all_three, len(loaded))}")
    if arguments.sqlmesh:
        models = sum(row["compared"] for row in loaded)
        print(f"  models with equal dependencies: {share(models - sum(len(r['different']) for r in loaded), models)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--coordctl", default="target/debug/coordctl", type=lambda path: str(Path(path).resolve()))
    parser.add_argument("--sqlmesh", metavar="PYTHON", help="a Python with SQLMesh, to compare with")
    parser.add_argument("--only", default="", help="only projects with this in their path")
    parser.add_argument("--show", type=int, default=3, help="how many reasons of each kind to show")
    parser.add_argument("--unset", action="store_true", help="leave environment variables that configs name unset")
    parser.add_argument("--json", type=Path, help="where to write all results")
    arguments = parser.parse_args()
    names = "project".ljust(58), "needs", *(["sqlmesh", "equal"] if arguments.sqlmesh else []), "load", "render", "plan", "models"
    print("  ".join(name.ljust(6) for name in names))
    rows = []
    for root in roots(arguments.folder.resolve()):
        name = str(root.relative_to(arguments.folder.resolve()))
        if arguments.only not in name:
            continue
        rows.append(one(root, name, arguments))
        show(rows[-1], arguments)
    totals(rows, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
