#!/bin/sh
# Loads data/flights.csv and data/weather.csv into the PostgreSQL database that the gateway "postgres"
# of config.yaml names. Loading again replaces the tables' rows.
set -eu

cd "$(dirname "$0")"
data=${FLIGHTS_DATA:-data}
export PGHOST="${FLIGHTS_PG_HOST:-localhost}"
export PGPORT="${FLIGHTS_PG_PORT:-5432}"
export PGUSER="${FLIGHTS_PG_USER:-postgres}"
export PGPASSWORD="${FLIGHTS_PG_PASSWORD:-}"
export PGDATABASE="${FLIGHTS_PG_DATABASE:-flights}"

# load FILE SCHEMA TABLE: a table with a text column for each name in the file's first line, and its rows.
load() {
  columns=$(head -n 1 "$data/$1.csv" | sed 's/[^,]*/"&" text/g')
  cat <<SQL
CREATE SCHEMA IF NOT EXISTS $2;
CREATE TABLE IF NOT EXISTS $2.$3 ($columns);
TRUNCATE $2.$3;
\\copy $2.$3 FROM '$data/$1.csv' WITH (FORMAT csv, HEADER true)
ANALYZE $2.$3;
SQL
}

{
  echo 'SET client_min_messages = warning;'
  echo 'BEGIN;'
  load flights raw_flights departures
  load weather raw_weather observations
  echo 'COMMIT;'
} | psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --file -
echo 'loaded raw_flights.departures and raw_weather.observations'
