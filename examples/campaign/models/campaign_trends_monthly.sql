/* Monthly totals; a month is filled when it is over. */
MODEL (
  name ads.campaign_trends_monthly,
  kind INCREMENTAL_BY_TIME_RANGE (
    time_column month_start,
    batch_size 6
  ),
  cron '@monthly',
  grain (month_start, campaign_id),
  audits (
    unique_combination_of_columns(columns := (month_start, campaign_id))
  )
);

SELECT
  CAST(DATE_TRUNC('month', event_date) AS DATE) AS month_start,
  campaign_id,
  CAST(SUM(impressions) AS BIGINT) AS impressions,
  CAST(SUM(clicks) AS BIGINT) AS clicks,
  CAST(SUM(conversions) AS BIGINT) AS conversions,
  CAST(SUM(spend) AS DECIMAL(18, 2)) AS spend,
  CAST(COUNT(*) AS BIGINT) AS days_with_events
FROM ads.campaign_performance
WHERE
  event_date BETWEEN @start_date AND @end_date
GROUP BY
  CAST(DATE_TRUNC('month', event_date) AS DATE),
  campaign_id
