/* The carriers of the year, best on top. */
MODEL (
  name nyc.carrier_scorecard,
  kind FULL,
  grain carrier,
  audits (
    unique_values(columns := (carrier)),
    number_of_rows(threshold := 15),
    forall(criteria := (late_share >= 0, late_share <= 1, cancelled_share <= 1))
  )
);

WITH totals AS (
  SELECT
    carrier,
    CAST(SUM(flights) AS BIGINT) AS flights,
    CAST(SUM(late_flights) AS BIGINT) AS late_flights,
    CAST(SUM(cancelled_flights) AS BIGINT) AS cancelled_flights,
    CAST(SUM(on_time_flights + late_flights) AS BIGINT) AS arrivals,
    CAST(SUM(arrival_delay_minutes) AS BIGINT) AS arrival_delay_minutes
  FROM nyc.carrier_delays_daily
  GROUP BY
    carrier
), shares AS (
  SELECT
    carrier,
    flights,
    CAST(late_flights AS DOUBLE PRECISION) / flights AS late_share,
    CAST(cancelled_flights AS DOUBLE PRECISION) / flights AS cancelled_share,
    CAST(arrival_delay_minutes AS DOUBLE PRECISION) / NULLIF(arrivals, 0) AS average_arrival_delay
  FROM totals
)
SELECT
  RANK() OVER (ORDER BY s.average_arrival_delay) AS place,
  s.carrier,
  a.name AS airline,
  s.flights,
  s.late_share,
  s.cancelled_share,
  s.average_arrival_delay
FROM shares AS s
JOIN nyc.airlines AS a
  ON a.carrier = s.carrier;

ANALYZE @this_model;
