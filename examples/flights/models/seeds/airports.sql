MODEL (
  name nyc.airports,
  kind SEED (
    path '../../data/airports.csv'
  ),
  columns (
    faa TEXT,
    name TEXT,
    lat DOUBLE PRECISION,
    lon DOUBLE PRECISION,
    alt INT,
    tz INT,
    dst TEXT,
    tzone TEXT
  ),
  grain faa,
  audits (
    unique_values(columns := (faa)),
    accepted_range(column := lat, min_v := -90, max_v := 90)
  )
);
