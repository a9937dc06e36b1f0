AUDIT (
  name assert_every_flight_has_a_status
);

SELECT
  *
FROM @this_model
WHERE
  flights <> on_time_flights + late_flights + diverted_flights + cancelled_flights
