MODEL (
  name ads.campaigns,
  kind SEED (
    path '../seeds/campaigns.csv'
  ),
  columns (
    campaign_id INT,
    campaign_name TEXT,
    channel TEXT,
    assumed_value DECIMAL(18, 2)
  ),
  grain campaign_id,
  audits (
    unique_values(columns := (campaign_id)),
    accepted_values(column := channel, is_in := ('search', 'social', 'video'))
  )
);
