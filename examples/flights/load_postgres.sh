#!/bin/sh
# Loads data/flights.csv and data/weather.csv into schema raw of the PostgreSQL database that the
# gateway "postgres" of config.yaml names. Loading again replaces the tables' rows.
set -eu

cd "$(dirname "$0")"
data=${FLIGHTS_DATA:-data}
export PGHOST="${FLIGHTS_PG_HOST:-localhost}"
export PGPORT="${FLIGHTS_PG_PORT:-5432}"
export PGUSER="${FLIGHTS_PG_USER:-postgres}"
export PGPASSWORD="${FLIGHTS_PG_PASSWORD:-}"
export PGDATABASE="${FLIGHTS_PG_DATABASE:-flights}"

# A table with a text column for each name in the file's first line, and the file's rows.
load() {
  columns=$(head -n 1 "$data/$1.csv" | sed 's/[^,]*/"&" text/g')
  cat <<SQL
CREATE TABLE IF NOT EXISTS raw.$1 ($columns);
TRUNCATE raw.$1;
\\copy raw.$1 FROM '$data/$1.csv' WITH (FORMAT csv, HEADER true)
ANALYZE raw.$1;
SQL
}

{
  echo 'SET client_min_messages = warning;'
  echo 'BEGIN;'
  echo 'CREATE SCHEMA IF NOT EXISTS raw;'
  load flights
  load weather
  echo 'COMMIT;'
} | psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --file -
echo 'loaded raw.flights and raw.weather'
