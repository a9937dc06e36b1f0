/* How long departures wait at which visibility. */
MODEL (
  name nyc.weather_impact,
  kind FULL,
  grain visibility_band,
  audits (
    unique_values(columns := (visibility_band)),
    not_null(columns := (visibility_band))
  )
);

@DEF(low, 2);
@DEF(middle, 8);

WITH banded AS (
  SELECT
    CASE
      WHEN visibility IS NULL THEN 'unknown'
      WHEN visibility < @low THEN 'low'
      WHEN visibility < @middle THEN 'middle'
      ELSE 'high'
    END AS visibility_band,
    flights,
    departures,
    departure_delay_minutes
  FROM nyc.weather_delays_hourly
)
SELECT
  visibility_band,
  CAST(SUM(flights) AS BIGINT) AS flights,
  CAST(SUM(departures) AS BIGINT) AS departures,
  CAST(CAST(SUM(departure_delay_minutes) AS DOUBLE PRECISION) / NULLIF(SUM(departures), 0) AS DOUBLE PRECISION) AS average_departure_delay
FROM banded
GROUP BY
  visibility_band
