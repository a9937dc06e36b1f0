/* Flights per carrier, a column for each airport. */
MODEL (
  name nyc.carrier_by_origin,
  kind VIEW,
  grain carrier
);

JINJA_QUERY_BEGIN;
{% set origins = ['EWR', 'JFK', 'LGA'] %}
SELECT
  carrier,
  {% for origin in origins %}
  CAST(SUM(CASE WHEN origin = '{{ origin }}' THEN 1 ELSE 0 END) AS BIGINT) AS {{ origin | lower }}_flights,
  {% endfor %}
  COUNT(*) AS flights
FROM nyc.stg_flights
GROUP BY
  carrier
JINJA_END;
