/* Flights that left New York City's airports in 2013, with types. Times are the airport's local
   time, also where SQLMesh and coordctl speak of UTC. */
MODEL (
  name nyc.stg_flights,
  kind INCREMENTAL_BY_TIME_RANGE (
    time_column flight_date,
    batch_size 31,
    batch_concurrency 1
  ),
  end '2013-12-31',
  grain (flight_date, carrier, flight_number, origin),
  audits (
    not_null(columns := (flight_date, carrier, flight_number, origin, dest)),
    unique_combination_of_columns(columns := (flight_date, carrier, flight_number, origin)),
    accepted_values(column := origin, is_in := ('EWR', 'JFK', 'LGA')),
    assert_departed_has_plane
  )
);

/* On PostgreSQL load_postgres.sh makes raw_flights.departures. */
@IF(@gateway = 'duckdb', CREATE SCHEMA IF NOT EXISTS raw_flights);

@IF(
  @gateway = 'duckdb',
  CREATE TABLE IF NOT EXISTS raw_flights.departures AS
  SELECT * FROM read_csv(@data_dir || '/flights.csv', all_varchar = true)
);

WITH dated AS (
  SELECT
    MAKE_DATE(CAST(year AS INT), CAST(month AS INT), CAST(day AS INT)) AS flight_date,
    CAST(hour AS INT) AS scheduled_hour,
    CAST(minute AS INT) AS scheduled_minute,
    carrier,
    CAST(flight AS INT) AS flight_number,
    tailnum,
    origin,
    dest,
    CAST(dep_delay AS INT) AS departure_delay,
    CAST(arr_delay AS INT) AS arrival_delay,
    CAST(air_time AS INT) AS air_time,
    CAST(distance AS INT) AS distance
  FROM raw_flights.departures
)
SELECT
  CAST(flight_date AS DATE) AS flight_date,
  CAST(flight_date AS TIMESTAMP) + scheduled_hour * INTERVAL '1' HOUR + scheduled_minute * INTERVAL '1' MINUTE AS scheduled_at,
  carrier,
  flight_number,
  tailnum,
  origin,
  dest,
  departure_delay,
  arrival_delay,
  air_time,
  distance
FROM dated
WHERE
  flight_date BETWEEN @start_date AND @end_date;

AUDIT (
  name assert_departed_has_plane
);

SELECT
  *
FROM @this_model
WHERE
  tailnum IS NULL AND NOT departure_delay IS NULL;
