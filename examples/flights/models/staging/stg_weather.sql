/* Weather at the three airports, one row per airport and hour. The hour that the end of summer time
   repeats is in the file twice: its values are averaged. */
MODEL (
  name nyc.stg_weather,
  kind INCREMENTAL_BY_TIME_RANGE (
    time_column observed_at,
    batch_size 744,
    batch_concurrency 1
  ),
  cron '@hourly',
  end '2013-12-31',
  grain (observed_at, origin),
  audits (
    not_null(columns := (observed_at, origin)),
    unique_combination_of_columns(columns := (observed_at, origin)),
    accepted_range(column := humidity, min_v := 0, max_v := 100)
  )
);

/* On PostgreSQL load_postgres.sh makes raw_weather.observations. */
@IF(@gateway = 'duckdb', CREATE SCHEMA IF NOT EXISTS raw_weather);

@IF(
  @gateway = 'duckdb',
  CREATE TABLE IF NOT EXISTS raw_weather.observations AS
  SELECT * FROM read_csv(@data_dir || '/weather.csv', all_varchar = true)
);

WITH dated AS (
  SELECT
    CAST(MAKE_DATE(CAST(year AS INT), CAST(month AS INT), CAST(day AS INT)) AS TIMESTAMP) + CAST(hour AS INT) * INTERVAL '1' HOUR AS observed_at,
    origin,
    CAST(temp AS DOUBLE PRECISION) AS temperature,
    CAST(humid AS DOUBLE PRECISION) AS humidity,
    CAST(wind_speed AS DOUBLE PRECISION) AS wind_speed,
    CAST(precip AS DOUBLE PRECISION) AS precipitation,
    CAST(visib AS DOUBLE PRECISION) AS visibility
  FROM raw_weather.observations
)
SELECT
  CAST(observed_at AS TIMESTAMP) AS observed_at,
  origin,
  AVG(temperature) AS temperature,
  AVG(humidity) AS humidity,
  AVG(wind_speed) AS wind_speed,
  AVG(precipitation) AS precipitation,
  AVG(visibility) AS visibility
FROM dated
WHERE
  observed_at BETWEEN @start_ts AND @end_ts
GROUP BY
  observed_at,
  origin
