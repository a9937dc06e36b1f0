/* What a campaign cost, and what it brought in. */
MODEL (
  name ads.roi_analysis,
  kind FULL,
  grain campaign_id,
  audits (
    unique_values(columns := (campaign_id)),
    number_of_rows(threshold := 7),
    assert_money_not_negative
  )
);

WITH totals AS (
  SELECT
    campaign_id,
    CAST(SUM(impressions) AS BIGINT) AS impressions,
    CAST(SUM(clicks) AS BIGINT) AS clicks,
    CAST(SUM(conversions) AS BIGINT) AS conversions,
    CAST(SUM(spend) AS DECIMAL(18, 2)) AS spend,
    CAST(SUM(conversion_value) AS DECIMAL(18, 2)) AS conversion_value
  FROM ads.campaign_performance
  GROUP BY
    campaign_id
)
SELECT
  c.campaign_id,
  c.campaign_name,
  c.channel,
  t.impressions,
  t.clicks,
  t.conversions,
  t.spend,
  CAST(t.spend / NULLIF(t.clicks, 0) AS DECIMAL(18, 4)) AS cost_per_click,
  CAST(t.spend / NULLIF(t.conversions, 0) AS DECIMAL(18, 4)) AS cost_per_conversion,
  CAST(t.conversions * c.assumed_value / NULLIF(t.spend, 0) AS DECIMAL(18, 4)) AS assumed_return,
  t.conversion_value,
  CAST(t.conversion_value / NULLIF(t.spend, 0) AS DECIMAL(18, 4)) AS measured_return
FROM totals AS t
JOIN ads.campaigns AS c
  ON c.campaign_id = t.campaign_id;

AUDIT (
  name assert_money_not_negative
);

SELECT
  *
FROM @this_model
WHERE
  spend < 0 OR assumed_return < 0;
