/* A carrier's last seven days, as of each day on which it flew. */
MODEL (
  name nyc.carrier_delays_7d,
  kind INCREMENTAL_BY_TIME_RANGE (
    time_column flight_date,
    batch_size 31
  ),
  end '2013-12-31',
  grain (flight_date, carrier),
  audits (
    unique_combination_of_columns(columns := (flight_date, carrier)),
    accepted_range(column := late_share, min_v := 0, max_v := 1)
  )
);

WITH windowed AS (
  SELECT
    flight_date,
    carrier,
    SUM(flights) OVER (PARTITION BY carrier ORDER BY flight_date RANGE BETWEEN INTERVAL '6' DAY PRECEDING AND CURRENT ROW) AS flights,
    SUM(late_flights) OVER (PARTITION BY carrier ORDER BY flight_date RANGE BETWEEN INTERVAL '6' DAY PRECEDING AND CURRENT ROW) AS late_flights
  FROM nyc.carrier_delays_daily
  WHERE
    flight_date BETWEEN @start_date - INTERVAL '6' DAY AND @end_date
)
SELECT
  flight_date,
  carrier,
  CAST(flights AS BIGINT) AS flights,
  CAST(late_flights AS BIGINT) AS late_flights,
  CAST(CAST(late_flights AS DOUBLE PRECISION) / flights AS DOUBLE PRECISION) AS late_share
FROM windowed
WHERE
  flight_date BETWEEN @start_date AND @end_date
