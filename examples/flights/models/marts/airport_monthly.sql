MODEL (
  name nyc.airport_monthly,
  kind INCREMENTAL_BY_TIME_RANGE (
    time_column month_start,
    batch_size 3
  ),
  cron '@monthly',
  end '2013-12-31',
  grain (month_start, origin),
  audits (
    unique_combination_of_columns(columns := (month_start, origin))
  )
);

SELECT
  CAST(DATE_TRUNC('month', flight_date) AS DATE) AS month_start,
  origin,
  CAST(SUM(flights) AS BIGINT) AS flights,
  CAST(SUM(cancelled_flights) AS BIGINT) AS cancelled_flights,
  CAST(CAST(SUM(departure_delay_minutes) AS DOUBLE PRECISION) / NULLIF(SUM(departures), 0) AS DOUBLE PRECISION) AS average_departure_delay
FROM nyc.airport_delays_daily
WHERE
  flight_date BETWEEN @start_date AND @end_date
GROUP BY
  CAST(DATE_TRUNC('month', flight_date) AS DATE),
  origin
