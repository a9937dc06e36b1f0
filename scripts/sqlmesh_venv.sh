#!/bin/sh
# Makes a virtual environment with SQLMesh, for comparisons: BENCH_SQLMESH=<folder>/bin/python.
set -eu
folder=${1:?usage: sqlmesh_venv.sh FOLDER}
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet 'sqlmesh[postgres]==0.236.4'
echo "BENCH_SQLMESH=$folder/bin/python"
