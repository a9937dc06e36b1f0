/* One view per channel, for the teams that own the channels. */
MODEL (
  name ads.@{view_name},
  kind VIEW,
  blueprints (
    (view_name := search_daily, channel := 'search'),
    (view_name := social_daily, channel := 'social'),
    (view_name := video_daily, channel := 'video')
  )
);

SELECT
  p.event_date,
  CAST(SUM(p.clicks) AS BIGINT) AS clicks,
  CAST(SUM(p.conversions) AS BIGINT) AS conversions,
  CAST(SUM(p.spend) AS DECIMAL(18, 2)) AS spend
FROM ads.campaign_performance AS p
JOIN ads.campaigns AS c
  ON c.campaign_id = p.campaign_id
WHERE
  c.channel = @channel
GROUP BY
  p.event_date
