//! What is understood of a query's text, and names changed in it.

use coord_common::interval::{Interval, Timestamp};
use coord_common::sql::{
    self, Dialect, Query, QueryChange, TimeKind, UpstreamTime, freeze_time, parse_statement, read_ranges,
};

pub(crate) const DIALECTS: [Dialect; 8] = [
    Dialect::DuckDb,
    Dialect::Postgres,
    Dialect::Generic,
    Dialect::BigQuery,
    Dialect::Snowflake,
    Dialect::Spark,
    Dialect::MySql,
    Dialect::TSql,
];

/// Everything that is asked of a query; renamed, it is a query still, which reads the new names.
pub(crate) fn sql(bytes: &[u8]) {
    let Some((first, text)) = super::choice(bytes) else { return };
    let dialect = DIALECTS[first % DIALECTS.len()];
    statement(&text, dialect);
    let _ = freeze_time(&text, dialect, Timestamp(0));
    let Ok(query) = Query::parse(&text, dialect) else { return };
    let (_, _, _) = (query.common_tables(), query.lineage(&()), query.output_columns(&()));
    for kind in [TimeKind::Timestamp, TimeKind::Day] {
        let upstream = UpstreamTime {
            relation: query.references().first().map_or_else(Vec::new, |found| {
                found.parts.iter().map(|part| part.value.to_lowercase()).collect()
            }),
            column: "ds".to_owned(),
            kind,
        };
        let batch = Interval { start: Timestamp(1_704_067_200_000), end: Timestamp(1_704_153_600_000) };
        let _ = read_ranges(&query, &upstream).of(batch);
    }
    assert_eq!(sql::compare(&query, &query), QueryChange::Equal, "`{text}`");
    renamed(&query);
}

fn renamed(query: &Query) {
    let Ok(text) = query.rewrite_tables(&mut |_| Some("\"new\".\"place\"".to_owned())) else { return };
    let again = Query::parse(&text, query.dialect());
    // A text whose tree can't be made is known by its relations alone; nothing checks the rest.
    if query.trouble().is_some() {
        return;
    }
    match again {
        Ok(again) => assert_eq!(
            again.references().len(),
            query.references().len(),
            "`{}` became `{text}`",
            query.text()
        ),
        Err(error) => panic!("`{}` became `{text}`: {error}", query.text()),
    }
}

fn statement(text: &str, dialect: Dialect) {
    let statement = parse_statement(text, dialect);
    let _ = statement.references();
    if let Ok(text) = statement.rewrite_tables(&mut |_| Some("a.b".to_owned())) {
        let _ = parse_statement(&text, dialect).references();
    }
}

pub(crate) fn texts() -> Vec<Vec<u8>> {
    let own = [
        "WITH a AS (SELECT id, ds FROM raw.events WHERE ds BETWEEN @start_ds AND @end_ds) SELECT a.*, b.x::INT AS y \
         FROM a LEFT JOIN dim.users AS b USING (id) WHERE a.ds >= @start_date - INTERVAL 30 DAY",
        "SELECT r.t.x, row_number() OVER (PARTITION BY a ORDER BY b) FROM r.t UNION ALL SELECT 1, 2 FROM (VALUES (1)) v(c)",
        "SELECT CASE WHEN a THEN 'x''y' ELSE \"Q\" END FROM c.s.t, LATERAL (SELECT 1) u -- end\n",
        "INSERT INTO a.b SELECT * FROM c.d WHERE e IN (SELECT f FROM g)",
        "SELECT DATE_TRUNC('month', ds) AS m, SUM(x) FILTER (WHERE y > 1) FROM t GROUP BY ALL HAVING COUNT(*) > 1",
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT * EXCLUDE (i) FROM n",
    ];
    let examples = super::projects::bodies();
    let mut all: Vec<Vec<u8>> = own
        .iter()
        .map(|text| (*text).to_owned())
        .chain(examples)
        .enumerate()
        .map(|(n, text)| super::chosen((n % 3) as u8, &text))
        .collect();
    all.push(super::chosen(0, &format!("SELECT {}1{}", "(".repeat(60), ")".repeat(60))));
    all
}
