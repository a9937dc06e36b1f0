/* What became of each flight. Embedded: it has no table, and is a subquery of whoever reads it. */
MODEL (
  name nyc.flight_status,
  kind EMBEDDED
);

SELECT
  flight_date,
  scheduled_at,
  carrier,
  origin,
  dest,
  departure_delay,
  arrival_delay,
  CASE
    WHEN departure_delay IS NULL THEN 'cancelled'
    WHEN arrival_delay IS NULL THEN 'diverted'
    WHEN arrival_delay >= @late_minutes THEN 'late'
    ELSE 'on_time'
  END AS status
FROM nyc.stg_flights
