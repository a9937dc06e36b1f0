/* One row per ad event, computed by the warehouse from integer arithmetic on the event's number.
   check.py repeats the arithmetic, so change both or neither. */
MODEL (
  name ads.raw_ad_events,
  kind INCREMENTAL_BY_TIME_RANGE (
    time_column event_date,
    batch_size 92
  ),
  grain event_id,
  audits (
    not_null(columns := (event_id, campaign_id, event_type)),
    accepted_range(column := campaign_id, min_v := 1, max_v := 8),
    accepted_values(column := event_type, is_in := ('impression', 'click', 'conversion'))
  )
);

@DEF(first_day, CAST('2024-01-01' AS DATE));
@DEF(modulus, 2147483647);

WITH slots AS (
  SELECT
    CAST(d.day_number AS BIGINT) AS day_number,
    CAST(s.slot AS BIGINT) AS slot
  FROM generate_series(@start_date - @first_day, @end_date - @first_day) AS d(day_number)
  CROSS JOIN generate_series(0, 599) AS s(slot)
), numbered AS (
  /* 380 to 480 events a day, and one more a day for every five days that pass */
  SELECT
    day_number,
    slot,
    day_number * 1000 + slot AS event_id
  FROM slots
  WHERE slot * 5 < (380 + (day_number * 37) % 101) * 5 + day_number
), first_hash AS (
  SELECT
    day_number,
    slot,
    event_id,
    (event_id * 48271 + 12345) % @modulus AS h1
  FROM numbered
), second_hash AS (
  SELECT
    day_number,
    slot,
    event_id,
    (h1 * (h1 % 65521 + 1)) % @modulus AS h2
  FROM first_hash
), drawn AS (
  SELECT
    day_number,
    slot,
    event_id,
    1 + h2 % 8 AS campaign_number,
    ((h2 * 69621) % @modulus) % 1000 AS draw,
    h2
  FROM second_hash
), events AS (
  /* of 1000 events 100 are clicks, and 14 to 42 conversions: the higher the campaign's number, the more */
  SELECT
    day_number,
    slot,
    event_id,
    campaign_number,
    h2,
    CASE
      WHEN draw < 10 + 4 * campaign_number THEN 'conversion'
      WHEN draw < 110 + 4 * campaign_number THEN 'click'
      ELSE 'impression'
    END AS event_type
  FROM drawn
)
SELECT
  CAST(event_id AS BIGINT) AS event_id,
  CAST(@first_day + CAST(day_number AS INT) AS DATE) AS event_date,
  CAST(@first_day + CAST(day_number AS INT) AS TIMESTAMP) + slot * INTERVAL '2' MINUTE AS event_time,
  CAST(campaign_number AS INT) AS campaign_id,
  CAST(event_type AS TEXT) AS event_type,
  CAST(CASE WHEN event_type = 'click' THEN 150 + h2 % 450 ELSE 0 END AS BIGINT) AS cost_cents,
  CAST(CASE WHEN event_type = 'conversion' THEN 300 * campaign_number + h2 % 3000 ELSE 0 END AS BIGINT) AS value_cents
FROM events
