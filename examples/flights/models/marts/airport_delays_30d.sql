/* An airport's last thirty days, as of each day. */
MODEL (
  name nyc.airport_delays_30d,
  kind INCREMENTAL_BY_TIME_RANGE (
    time_column flight_date,
    batch_size 31
  ),
  end '2013-12-31',
  grain (flight_date, origin),
  audits (
    unique_combination_of_columns(columns := (flight_date, origin)),
    accepted_range(column := days, min_v := 1, max_v := 30)
  )
);

WITH windowed AS (
  SELECT
    flight_date,
    origin,
    COUNT(*) OVER last_30_days AS days,
    SUM(departures) OVER last_30_days AS departures,
    SUM(departure_delay_minutes) OVER last_30_days AS departure_delay_minutes
  FROM nyc.airport_delays_daily
  WHERE
    flight_date BETWEEN @start_date - INTERVAL '29' DAY AND @end_date
  WINDOW last_30_days AS (PARTITION BY origin ORDER BY flight_date ROWS BETWEEN 29 PRECEDING AND CURRENT ROW)
)
SELECT
  flight_date,
  origin,
  CAST(days AS BIGINT) AS days,
  CAST(departures AS BIGINT) AS departures,
  CAST(CAST(departure_delay_minutes AS DOUBLE PRECISION) / NULLIF(departures, 0) AS DOUBLE PRECISION) AS average_departure_delay
FROM windowed
WHERE
  flight_date BETWEEN @start_date AND @end_date
