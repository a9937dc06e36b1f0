/* Weeks from Sunday to Saturday, under the date of the Saturday. The range that is read starts six days
   before the range that is written, so that a week is whole wherever a batch begins. */
MODEL (
  name nyc.carrier_weekly,
  kind INCREMENTAL_BY_TIME_RANGE (
    time_column week_end
  ),
  cron '@weekly',
  end '2014-01-04',
  grain (week_end, carrier),
  audits (
    unique_combination_of_columns(columns := (week_end, carrier))
  )
);

WITH weeks AS (
  SELECT
    CAST(flight_date + (6 - CAST(EXTRACT(DOW FROM flight_date) AS INT)) AS DATE) AS week_end,
    carrier,
    flights,
    cancelled_flights
  FROM nyc.carrier_delays_daily
  WHERE
    flight_date BETWEEN @start_date - INTERVAL '6' DAY AND @end_date
)
SELECT
  week_end,
  carrier,
  CAST(SUM(flights) AS BIGINT) AS flights,
  CAST(SUM(cancelled_flights) AS BIGINT) AS cancelled_flights
FROM weeks
WHERE
  week_end BETWEEN @start_date AND @end_date
GROUP BY
  week_end,
  carrier
