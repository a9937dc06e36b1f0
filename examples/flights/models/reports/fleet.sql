/* Registered planes with their last flight. */
MODEL (
  name nyc.fleet,
  kind VIEW,
  grain tailnum
);

SELECT
  @STAR(nyc.planes, alias := p, exclude := [speed]),
  l.scheduled_at AS last_scheduled_at,
  l.carrier AS last_carrier,
  l.dest AS last_dest
FROM nyc.planes AS p
LEFT JOIN nyc.plane_latest_flight AS l
  ON l.tailnum = p.tailnum
