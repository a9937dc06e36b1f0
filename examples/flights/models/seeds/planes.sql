MODEL (
  name nyc.planes,
  kind SEED (
    path '../../data/planes.csv'
  ),
  columns (
    tailnum TEXT,
    year INT,
    type TEXT,
    manufacturer TEXT,
    model TEXT,
    engines INT,
    seats INT,
    speed INT,
    engine TEXT
  ),
  grain tailnum,
  audits (
    unique_values(columns := (tailnum))
  )
);
