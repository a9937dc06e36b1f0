MODEL (
  name nyc.airlines,
  kind SEED (
    path '../../data/airlines.csv'
  ),
  columns (
    carrier TEXT,
    name TEXT
  ),
  grain carrier,
  audits (
    not_null(columns := (carrier, name)),
    unique_values(columns := (carrier))
  )
);
