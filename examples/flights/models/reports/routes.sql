MODEL (
  name nyc.routes,
  kind VIEW,
  grain (origin, dest)
);

SELECT
  f.origin,
  f.dest,
  a.name AS destination,
  COUNT(*) AS flights,
  COUNT(DISTINCT f.carrier) AS carriers,
  AVG(CAST(f.distance AS DOUBLE PRECISION)) AS average_distance
FROM nyc.stg_flights AS f
LEFT JOIN nyc.airports AS a
  ON a.faa = f.dest
GROUP BY
  f.origin,
  f.dest,
  a.name
