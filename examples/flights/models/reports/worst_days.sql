/* Days whose departures waited longest, beside the thirty days before. */
MODEL (
  name nyc.worst_days,
  kind VIEW,
  grain (flight_date, origin)
);

SELECT
  d.flight_date,
  d.origin,
  d.departures,
  d.cancelled_flights,
  CAST(d.departure_delay_minutes AS DOUBLE PRECISION) / NULLIF(d.departures, 0) AS average_departure_delay,
  r.average_departure_delay AS average_departure_delay_30d
FROM nyc.airport_delays_daily AS d
JOIN nyc.airport_delays_30d AS r
  ON r.flight_date = d.flight_date AND r.origin = d.origin
