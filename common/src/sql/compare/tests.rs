//! Pairs of queries and what their difference means.

use super::*;
use crate::sql::Dialect;

fn change(old: &str, new: &str) -> QueryChange {
    let parse = |sql: &str| Query::parse(sql, Dialect::DuckDb).unwrap();
    compare(&parse(old), &parse(new))
}

struct Known(Vec<crate::project::model::ColumnDef>);

impl Schemas for Known {
    fn columns(&self, relation: &[String]) -> Option<&[crate::project::model::ColumnDef]> {
        (relation != ["unknown"]).then_some(self.0.as_slice())
    }
}

/// With `a`, `b` and `c` in every table.
fn informed(old: &str, new: &str) -> QueryChange {
    let column =
        |name: &str| crate::project::model::ColumnDef { name: name.to_owned(), data_type: "INT".to_owned() };
    let known = Known(["a", "b", "c"].map(column).into());
    let parse = |sql: &str| Query::parse(sql, Dialect::DuckDb).unwrap();
    compare_known((&parse(old), &known), (&parse(new), &known))
}

#[test]
fn what_a_reader_sees_to_be_the_same_is_the_same() {
    let same = [
        ("SELECT a FROM t", "SELECT t.a AS a FROM t AS t"),
        ("SELECT * FROM t", "SELECT a, b, c FROM t"),
        ("SELECT * EXCLUDE (b) FROM t", "SELECT t.a, c FROM t"),
        ("SELECT a + 1 FROM t", "SELECT a + 1 AS _col_0 FROM t"),
        ("SELECT a, SUM(b) AS s FROM t GROUP BY 1", "SELECT a, SUM(b) AS s FROM t GROUP BY t.a"),
        ("SELECT a AS x FROM t GROUP BY x", "SELECT a AS x FROM t GROUP BY a"),
        ("SELECT a, b FROM t ORDER BY 2", "SELECT a, b FROM t ORDER BY b ASC NULLS LAST"),
        ("SELECT t.a FROM t JOIN u USING (a)", "SELECT t.a FROM t JOIN u ON u.a = t.a"),
        ("SELECT t.a FROM t JOIN u ON 1 = 1", "SELECT t.a FROM t CROSS JOIN u"),
        (
            "WITH x(p) AS (SELECT a FROM t) SELECT p FROM x",
            "WITH x AS (SELECT a AS p FROM t) SELECT x.p FROM x",
        ),
        ("SELECT a FROM t WHERE a > 1 AND b = 2", "SELECT a FROM t WHERE 2 = b AND (1 < a) AND TRUE"),
        (
            "SELECT a FROM t WHERE NOT (a > 1 AND (b = 2 OR c = 3))",
            "SELECT a FROM t WHERE a <= 1 OR (b <> 2 AND c <> 3)",
        ),
        (
            "SELECT a FROM t WHERE a = 1 AND (b = 2 AND c = 3)",
            "SELECT a FROM t WHERE a = 1 AND b = 2 AND c = 3",
        ),
        ("SELECT a FROM t WHERE NOT (a > 1 OR b <> 2)", "SELECT a FROM t WHERE b = 2 AND a <= 1"),
        ("SELECT a FROM t WHERE a BETWEEN 1 AND 2", "SELECT a FROM t WHERE a >= 1 AND a <= 2"),
        ("SELECT a FROM t WHERE a + 1 > 2 * 5", "SELECT a FROM t WHERE a > 9"),
        ("SELECT a FROM t WHERE a > 1 AND a > 2", "SELECT a FROM t WHERE a > 2"),
        ("SELECT a::INT8 AS x FROM t", "SELECT CAST(a AS BIGINT) AS x FROM t"),
        ("SELECT CASE a WHEN 1 THEN b END AS x FROM t", "SELECT CASE WHEN a = 1 THEN b END AS x FROM t"),
        ("SELECT IFNULL(a, 0) AS x FROM t", "SELECT COALESCE(a, 0) AS x FROM t"),
        (
            "SELECT a FROM t WHERE b > DATE '2024-01-01'",
            "SELECT a FROM t WHERE b > CAST('2024-01-01' AS DATE)",
        ),
        ("SELECT DATE '2024-01-01' AS d FROM t", "SELECT '2024-01-01'::DATE AS d FROM t"),
        (
            "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.b = t.b)",
            "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u WHERE t.b = u.b)",
        ),
    ];
    for (old, new) in same {
        assert_eq!(informed(old, new), QueryChange::Equal, "{old} -> {new}");
    }
}

#[test]
fn what_may_differ_differs() {
    let other = [
        ("SELECT t.a FROM t, u", "SELECT u.a FROM t, u"),
        ("SELECT a FROM t, u", "SELECT t.a FROM t, u"),
        ("SELECT a FROM t", "SELECT t.a FROM t AS x"),
        ("SELECT a FROM t WHERE a < 5 AND a <= 5", "SELECT a FROM t WHERE a <= 5"),
        ("SELECT a FROM t WHERE a < 5 OR a <= 5", "SELECT a FROM t WHERE a < 5"),
        ("SELECT a FROM t WHERE a - b > c", "SELECT a FROM t WHERE a - (b > c)"),
        ("SELECT a - (b - c) AS x FROM t", "SELECT a - b - c AS x FROM t"),
        (
            "SELECT a FROM t WHERE (a = 1 AND b = 2) OR c = 3",
            "SELECT a FROM t WHERE a = 1 AND b = 2 OR c = 3",
        ),
        ("SELECT a FROM t WHERE 1 - a = 2", "SELECT a FROM t WHERE a = 3"),
        ("SELECT a, b FROM t ORDER BY b", "SELECT a, b FROM t ORDER BY b DESC"),
        ("SELECT a AS b, b AS x FROM t ORDER BY t.b", "SELECT a AS b, b AS x FROM t ORDER BY b"),
        ("SELECT a FROM unknown WHERE (a > 1)", "SELECT a FROM unknown WHERE a > 1"),
        ("SELECT a FROM t LEFT JOIN u ON TRUE", "SELECT a FROM t CROSS JOIN u"),
    ];
    for (old, new) in other {
        assert_eq!(informed(old, new), QueryChange::Other, "{old} -> {new}");
    }
}

#[test]
fn grain_and_places_decide() {
    use QueryChange::{Additive, Equal, Other};
    let cases = [
        ("SELECT a FROM t", "SELECT a, COUNT(*) AS n FROM t", Other),
        ("SELECT SUM(a) AS s FROM t", "SELECT SUM(a) AS s, COUNT(*) AS n FROM t", Additive),
        ("SELECT a FROM t", "SELECT a, GENERATE_SERIES(1, 3) AS n FROM t", Other),
        ("SELECT a FROM t", "SELECT a, SUM(b) OVER () AS s FROM t", Additive),
        ("SELECT a FROM t", "SELECT a, (SELECT MAX(b) FROM u) AS m FROM t", Additive),
        ("SELECT a, SUM(b) AS s FROM t GROUP BY ALL", "SELECT a, SUM(b) AS s, c FROM t GROUP BY ALL", Other),
        (
            "SELECT a, SUM(b) AS s FROM t GROUP BY ALL",
            "SELECT a, SUM(b) AS s, MAX(c) AS m FROM t GROUP BY ALL",
            Additive,
        ),
        (
            "SELECT a FROM t UNION ALL SELECT a FROM u",
            "SELECT b, a FROM t UNION ALL SELECT b, a FROM u",
            Additive,
        ),
        (
            "SELECT a FROM t UNION ALL SELECT a FROM u",
            "SELECT b, a FROM t UNION ALL SELECT a, b FROM u",
            Other,
        ),
        (
            "WITH c AS (SELECT a FROM t) SELECT * FROM c ORDER BY 1 LIMIT 5",
            "WITH c AS (SELECT b, a FROM t) SELECT * FROM c ORDER BY 1 LIMIT 5",
            Other,
        ),
        (
            "SELECT * FROM (SELECT a FROM t) NATURAL JOIN u",
            "SELECT * FROM (SELECT a, b FROM t) NATURAL JOIN u",
            Other,
        ),
        (
            "WITH c(x) AS (SELECT a FROM t) SELECT x FROM c",
            "WITH c(x) AS (SELECT b, a FROM t) SELECT x FROM c",
            Other,
        ),
        ("SELECT DISTINCT a FROM t", "SELECT DISTINCT a, b FROM t", Additive),
        ("SELECT DISTINCT ON (a) a FROM t", "SELECT DISTINCT ON (a) a, b FROM t", Additive),
        ("SELECT a FROM t UNION SELECT a FROM u", "SELECT a, b FROM t UNION SELECT a, b FROM u", Additive),
        (
            "WITH c AS (SELECT a FROM t) SELECT * FROM c",
            "WITH c AS (SELECT a, b FROM t) SELECT * FROM c",
            Additive,
        ),
        (
            "WITH c AS (SELECT a FROM t) SELECT HASH(*) AS h, COUNT(*) AS n FROM c",
            "WITH c AS (SELECT a, b FROM t) SELECT HASH(*) AS h, COUNT(*) AS n FROM c",
            Other,
        ),
        (
            "WITH c AS (SELECT a FROM t) SELECT COUNT(*) AS n FROM c",
            "WITH c AS (SELECT a, b FROM t) SELECT COUNT(*) AS n FROM c",
            Additive,
        ),
        (
            "WITH c AS (SELECT a FROM t) SELECT TO_JSON(x) AS j FROM c AS x",
            "WITH c AS (SELECT a, b FROM t) SELECT TO_JSON(x) AS j FROM c AS x",
            Other,
        ),
        ("SELECT s FROM (SELECT a FROM t) AS s", "SELECT s FROM (SELECT a, b FROM t) AS s", Other),
        ("SELECT s.a FROM (SELECT a FROM t) AS s", "SELECT s.a FROM (SELECT a, b FROM t) AS s", Additive),
        ("SELECT t.a FROM x.t", "SELECT t.a FROM x.t AS t", Equal),
        ("SELECT t.a FROM x.t", "SELECT t.a FROM x.t AS t(a)", Other),
        ("SELECT Sum(a) AS s FROM T", "select sum(\"a\") s from t;", Equal),
        ("SELECT a FROM t", "SELECT A.a FROM t AS A", Other),
    ];
    for (old, new, expected) in cases {
        assert_eq!(change(old, new), expected, "{old} -> {new}");
    }
}

#[test]
fn columns_of_bigquery_have_no_case_and_tables_have_one() {
    let change = |old: &str, new: &str| {
        let parse = |sql: &str| Query::parse(sql, Dialect::BigQuery).unwrap();
        compare(&parse(old), &parse(new))
    };
    let select = "SELECT x.A AS b FROM d.T AS X WHERE `C` = 1";
    assert_eq!(change(select, "SELECT X.a AS B FROM d.T AS x WHERE c = 1"), QueryChange::Equal);
    assert_eq!(change(select, "SELECT x.A AS b FROM d.t AS X WHERE `C` = 1"), QueryChange::Other);
    let own = "SELECT a FROM d.T AS T";
    assert_eq!(change("SELECT a FROM d.T", own), QueryChange::Equal);
    let call = "SELECT d.F(a) AS b FROM d.t";
    assert_eq!(change(call, "SELECT d.f(a) AS b FROM d.t"), QueryChange::Other);
    let packed = "SELECT ARRAY(SELECT AS STRUCT a FROM d.t) AS l FROM d.u";
    assert_eq!(
        change(packed, "SELECT ARRAY(SELECT AS STRUCT a, b FROM d.t) AS l FROM d.u"),
        QueryChange::Other
    );
}
