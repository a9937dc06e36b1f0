use super::*;

struct Known;

impl Schemas for Known {
    fn columns(&self, relation: &[String]) -> Option<&[ColumnDef]> {
        use std::sync::LazyLock;
        static COLUMNS: LazyLock<Vec<ColumnDef>> = LazyLock::new(|| {
            ["a INT", "b TEXT", "c DATE"]
                .iter()
                .filter_map(|text| text.split_once(' '))
                .map(|(name, data_type)| ColumnDef { name: name.into(), data_type: data_type.into() })
                .collect()
        });
        (relation == ["db", "t"]).then(|| COLUMNS.as_slice())
    }
}

fn parse(sql: &str, dialect: Dialect) -> Query {
    Query::parse(sql, dialect).unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// `name:type` of every column.
fn columns(sql: &str, dialect: Dialect) -> Option<String> {
    let columns = parse(sql, dialect).output_columns(&Known)?;
    let text = |c: OutputColumn| format!("{}:{}", c.name, c.data_type.unwrap_or_default());
    Some(columns.into_iter().map(text).collect::<Vec<_>>().join(" "))
}

/// `name=sources` of every column; `?` where more may be unknown, `...` where columns are.
fn lineage(sql: &str, dialect: Dialect) -> String {
    let lineage = parse(sql, dialect).lineage(&Known);
    let mut texts: Vec<String> = lineage
        .columns
        .iter()
        .map(|(name, column)| {
            let sources: Vec<String> = column.sources.iter().map(|(r, c)| format!("{r}.{c}")).collect();
            format!("{name}={}{}", sources.join("+"), if column.unknown { "?" } else { "" })
        })
        .collect();
    texts.extend((!lineage.complete).then(|| "...".to_owned()));
    texts.join(" ")
}

#[test]
fn columns_have_names_and_certain_types() {
    let cases = [
        ("SELECT a, b AS x, a + 1 AS y FROM db.t", Some("a:INT x:TEXT y:")),
        ("SELECT * FROM db.t", Some("a:INT b:TEXT c:DATE")),
        ("SELECT * EXCLUDE (b) REPLACE (CAST(c AS TIMESTAMP) AS c) FROM db.t", Some("a:INT c:TIMESTAMP")),
        ("SELECT * RENAME (a AS z) FROM db.t", Some("z:INT b:TEXT c:DATE")),
        ("SELECT x.* FROM db.t AS x(p, q)", Some("p:INT q:TEXT c:DATE")),
        ("SELECT * FROM other", None),
        ("SELECT a, COUNT(*) FROM db.t", None),
        (
            "SELECT k::BIGINT AS k, 1 AS one, 'x' AS s, TRUE AS t FROM other",
            Some("k:BIGINT one:INT s:TEXT t:BOOLEAN"),
        ),
        ("SELECT a FROM db.t UNION ALL SELECT b FROM db.t", Some("a:")),
        ("SELECT * FROM db.t AS x JOIN db.t AS y USING (a)", Some("a:INT b:TEXT c:DATE b:TEXT c:DATE")),
        ("FROM db.t", Some("a:INT b:TEXT c:DATE")),
        ("WITH q(z) AS (SELECT a FROM db.t) SELECT * FROM q", Some("z:INT")),
    ];
    for (sql, expected) in cases {
        assert_eq!(columns(sql, Dialect::DuckDb).as_deref(), expected, "{sql}");
    }
    assert_eq!(
        columns("SELECT a AS \"Mixed\", b AS Other FROM DB.T", Dialect::Snowflake).as_deref(),
        Some("Mixed: OTHER:")
    );
}

#[test]
fn sources_are_followed_or_said_to_be_unknown() {
    let cases = [
        ("SELECT x + y AS z FROM other", "z=other.x+other.y"),
        ("SELECT x FROM other, another", "x=?"),
        ("SELECT o.x, p.y FROM other AS o, another AS p", "x=other.x y=another.y"),
        ("SELECT a, x FROM db.t, other", "a=db.t.a x=other.x"),
        ("SELECT * FROM other", "..."),
        ("WITH q AS (SELECT * FROM other) SELECT x FROM q", "x=other.x"),
        ("SELECT a + 1 AS p, p * 2 AS q FROM db.t", "p=db.t.a q=db.t.a"),
        ("SELECT nowhere FROM db.t", "nowhere=?"),
        ("SELECT (SELECT MAX(x) FROM other WHERE other.k = t.a) AS m FROM db.t", "m=other.x"),
        ("SELECT list_transform(xs, x -> x + a) AS l FROM db.t, other", "l=db.t.a+other.xs"),
        ("SELECT DATE_TRUNC(month, c) AS m FROM db.t", "m=db.t.c"),
        ("SELECT s.b[1].field AS f FROM other AS s", "f=other.b"),
        ("SELECT f.z FROM read_csv('x.csv') AS f", "z=?"),
        ("SELECT a FROM db.t NATURAL JOIN db.t AS u", "a=db.t.a"),
        ("SELECT k, v FROM db.t UNPIVOT (v FOR k IN (a, b))", "k= v=db.t.a+db.t.b"),
        (
            "WITH RECURSIVE r AS (SELECT a FROM db.t UNION ALL SELECT a + x FROM r, other) SELECT a FROM r",
            "a=db.t.a+other.x",
        ),
    ];
    for (sql, expected) in cases {
        assert_eq!(lineage(sql, Dialect::DuckDb), expected, "{sql}");
    }
    let bigquery = "SELECT i, o.k FROM other AS o, UNNEST(o.items) AS i WITH OFFSET AS n";
    assert_eq!(lineage(bigquery, Dialect::BigQuery), "i=other.items k=other.k");
    let path = "SELECT i.sku FROM other AS o, o.items AS i";
    assert_eq!(lineage(path, Dialect::BigQuery), "sku=other.items");
    let view = "SELECT y FROM other LATERAL VIEW explode(xs) v AS y";
    assert_eq!(lineage(view, Dialect::Spark), "y=other.xs");
}
