AUDIT (
  name assert_spend_has_clicks
);

/* Clicks are what costs money: spend without clicks, or the reverse, is a wrong row. */
SELECT
  *
FROM @this_model
WHERE
  (spend > 0 AND clicks = 0) OR (spend = 0 AND clicks > 0)
