/* The flight that each plane was last scheduled for: later batches replace the rows of earlier ones. */
MODEL (
  name nyc.plane_latest_flight,
  kind INCREMENTAL_BY_UNIQUE_KEY (
    unique_key tailnum,
    batch_size 92
  ),
  end '2013-12-31',
  grain tailnum,
  audits (
    not_null(columns := (tailnum, scheduled_at)),
    unique_values(columns := (tailnum))
  )
);

WITH ranked AS (
  SELECT
    tailnum,
    scheduled_at,
    carrier,
    flight_number,
    origin,
    dest,
    ROW_NUMBER() OVER (PARTITION BY tailnum ORDER BY scheduled_at DESC, carrier, flight_number, origin) AS position
  FROM nyc.stg_flights
  WHERE
    flight_date BETWEEN @start_date AND @end_date AND NOT tailnum IS NULL
)
SELECT
  tailnum,
  scheduled_at,
  carrier,
  flight_number,
  origin,
  dest
FROM ranked
WHERE
  position = 1
