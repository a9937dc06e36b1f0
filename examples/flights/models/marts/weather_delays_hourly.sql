/* Departures of each hour beside the hour's weather. */
MODEL (
  name nyc.weather_delays_hourly,
  kind INCREMENTAL_BY_TIME_RANGE (
    time_column departure_hour,
    batch_size 744
  ),
  cron '@hourly',
  end '2013-12-31',
  grain (departure_hour, origin),
  audits (
    unique_combination_of_columns(columns := (departure_hour, origin))
  )
);

WITH departures AS (
  SELECT
    CAST(DATE_TRUNC('hour', scheduled_at) AS TIMESTAMP) AS departure_hour,
    origin,
    COUNT(*) AS flights,
    COUNT(departure_delay) AS departures,
    CAST(SUM(departure_delay) AS BIGINT) AS departure_delay_minutes
  FROM nyc.stg_flights
  WHERE
    flight_date BETWEEN @start_date AND @end_date
    AND scheduled_at BETWEEN @start_ts AND @end_ts
  GROUP BY
    CAST(DATE_TRUNC('hour', scheduled_at) AS TIMESTAMP),
    origin
), weather AS (
  SELECT
    observed_at,
    origin,
    visibility,
    wind_speed,
    precipitation
  FROM nyc.stg_weather
  WHERE
    observed_at BETWEEN @start_ts AND @end_ts
)
SELECT
  d.departure_hour,
  d.origin,
  d.flights,
  d.departures,
  d.departure_delay_minutes,
  w.visibility,
  w.wind_speed,
  w.precipitation
FROM departures AS d
LEFT JOIN weather AS w
  ON w.observed_at = d.departure_hour AND w.origin = d.origin
