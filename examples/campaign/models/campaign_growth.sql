/* Each month beside the one before it. */
MODEL (
  name ads.campaign_growth,
  kind VIEW,
  grain (month_start, campaign_id)
);

SELECT
  month_start,
  campaign_id,
  clicks,
  LAG(clicks) OVER (PARTITION BY campaign_id ORDER BY month_start) AS clicks_month_before,
  spend,
  LAG(spend) OVER (PARTITION BY campaign_id ORDER BY month_start) AS spend_month_before
FROM ads.campaign_trends_monthly
