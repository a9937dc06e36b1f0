MODEL (
  name nyc.carrier_delays_daily,
  kind INCREMENTAL_BY_TIME_RANGE (
    time_column flight_date,
    batch_size 31
  ),
  end '2013-12-31',
  grain (flight_date, carrier),
  audits (
    unique_combination_of_columns(columns := (flight_date, carrier)),
    assert_every_flight_has_a_status
  )
);

SELECT
  flight_date,
  carrier,
  COUNT(*) AS flights,
  @EACH(
    ['on_time', 'late', 'diverted', 'cancelled'],
    s -> CAST(SUM(CASE WHEN status = s THEN 1 ELSE 0 END) AS BIGINT) AS @{s}_flights
  ),
  CAST(SUM(arrival_delay) AS BIGINT) AS arrival_delay_minutes
FROM nyc.flight_status
WHERE
  flight_date BETWEEN @start_date AND @end_date
GROUP BY
  flight_date,
  carrier
