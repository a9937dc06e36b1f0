/* What every campaign did on every day. */
MODEL (
  name ads.campaign_performance,
  kind INCREMENTAL_BY_TIME_RANGE (
    time_column event_date,
    batch_size 20
  ),
  grain (event_date, campaign_id),
  audits (
    not_null(columns := (event_date, campaign_id)),
    unique_combination_of_columns(columns := (event_date, campaign_id)),
    assert_spend_has_clicks
  )
);

SELECT
  event_date,
  campaign_id,
  CAST(SUM(CASE WHEN event_type = 'impression' THEN 1 ELSE 0 END) AS BIGINT) AS impressions,
  CAST(SUM(CASE WHEN event_type = 'click' THEN 1 ELSE 0 END) AS BIGINT) AS clicks,
  CAST(SUM(CASE WHEN event_type = 'conversion' THEN 1 ELSE 0 END) AS BIGINT) AS conversions,
  CAST(CAST(SUM(cost_cents) AS BIGINT) * 0.01 AS DECIMAL(18, 2)) AS spend
FROM ads.raw_ad_events
WHERE
  event_date BETWEEN @start_date AND @end_date
GROUP BY
  event_date,
  campaign_id
