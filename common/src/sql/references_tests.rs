use super::*;
use crate::sql::Dialect;
use crate::sql::parse_statement;

fn names(sql: &str, dialect: Dialect) -> Vec<String> {
    let query = Query::parse(sql, dialect).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let joined = |r: TableRef| r.normalized(dialect).join(".");
    query.references().into_iter().map(joined).collect()
}

fn renamed(sql: &str, dialect: Dialect) -> String {
    let query = Query::parse(sql, dialect).unwrap_or_else(|e| panic!("{sql}: {e}"));
    query.rewrite_tables(&mut |r| Some(format!("phys.{}__1", r.parts.last().unwrap().value))).unwrap()
}

#[test]
fn references_are_relations_and_nothing_else() {
    let cases: &[(Dialect, &str, &[&str])] = &[
        (Dialect::DuckDb, "SELECT 1", &[]),
        (Dialect::DuckDb, "SELECT a FROM x.t JOIN \"Y\".u USING (a), v", &["x.t", "y.u", "v"]),
        (Dialect::DuckDb, "WITH a AS (SELECT * FROM t) SELECT * FROM a", &["t"]),
        (Dialect::DuckDb, "WITH t AS (SELECT * FROM t) SELECT * FROM T", &["t"]),
        (Dialect::DuckDb, "WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a, b", &["b"]),
        (
            Dialect::DuckDb,
            "WITH RECURSIVE n AS (SELECT 1 UNION ALL SELECT k + 1 FROM n) SELECT * FROM n",
            &[],
        ),
        (Dialect::TSql, "WITH n AS (SELECT 1 k UNION ALL SELECT k + 1 FROM n) SELECT * FROM n", &[]),
        (Dialect::DuckDb, "SELECT * FROM (WITH a AS (SELECT 1) SELECT * FROM a) JOIN a ON true", &["a"]),
        (
            Dialect::DuckDb,
            "WITH a AS (SELECT 1) SELECT (SELECT max(x) FROM a), (SELECT 1 FROM s.a) FROM b",
            &["s.a", "b"],
        ),
        (
            Dialect::DuckDb,
            "WITH a AS (WITH b AS (SELECT * FROM c) SELECT * FROM b) SELECT * FROM a, b",
            &["c", "b"],
        ),
        (
            Dialect::DuckDb,
            "SELECT * FROM range(3), generate_series(1, 2) AS g(x), UNNEST([1]) AS u, 'f.csv', t",
            &["t"],
        ),
        (Dialect::DuckDb, "FROM t SELECT a", &["t"]),
        (
            Dialect::DuckDb,
            "SELECT * FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.x IN (SELECT x FROM c))",
            &["a", "b", "c"],
        ),
        (Dialect::Postgres, "SELECT * FROM a, LATERAL (SELECT * FROM b WHERE b.x = a.x) AS l", &["a", "b"]),
        (Dialect::BigQuery, "SELECT * FROM `proj.ds.tbl` AS o, o.items, UNNEST(o.tags)", &["proj.ds.tbl"]),
        (Dialect::BigQuery, "SELECT * FROM `my-proj`.ds.tbl", &["my-proj.ds.tbl"]),
        (Dialect::BigQuery, "SELECT * FROM my-proj.ds.tbl", &["my-proj.ds.tbl"]),
        (Dialect::Snowflake, "SELECT * FROM db.t, LATERAL FLATTEN(input => t.x) f", &["DB.T"]),
        (Dialect::TSql, "SELECT * FROM [db].[t] WITH (NOLOCK)", &["db.t"]),
        (Dialect::Spark, "SELECT * FROM t LATERAL VIEW explode(xs) x AS y", &["t"]),
        (Dialect::Postgres, "SELECT * FROM t WHERE ds>=@start_ds AND x @> y AND ds<@end_ds", &["t"]),
        (Dialect::DuckDb, "SELECT * FROM t PIVOT (SUM(x) FOR y IN ('a'))", &["t"]),
    ];
    for (dialect, sql, expected) in cases {
        assert_eq!(names(sql, *dialect), *expected, "{dialect}: {sql}");
    }
}

#[test]
fn renaming_changes_names_only() {
    let cases = [
        (
            Dialect::DuckDb,
            "select  a -- é\n from db.t  where t.a>1",
            "select  a -- é\n from phys.t__1 AS t  where t.a>1",
        ),
        (
            Dialect::DuckDb,
            "SELECT 'é', db.t.a, t.b, db.t.* FROM db.t",
            "SELECT 'é', t.a, t.b, t.* FROM phys.t__1 AS t",
        ),
        (Dialect::Postgres, "SELECT n, /* m */ FROM t", "SELECT n /* m */ FROM phys.t__1 AS t"),
        (Dialect::DuckDb, "SELECT n, FROM t", "SELECT n, FROM phys.t__1 AS t"),
        (Dialect::Postgres, "SELECT n FROM s.Left", "SELECT n FROM phys.Left__1 AS \"left\""),
        (Dialect::DuckDb, "SELECT db.t.a[1].b FROM db.t", "SELECT t.a[1].b FROM phys.t__1 AS t"),
        (Dialect::DuckDb, "SELECT x.a FROM db.t x", "SELECT x.a FROM phys.t__1 x"),
        (
            Dialect::DuckDb,
            "SELECT a.t.x, b.t.y FROM a.t JOIN b.t ON a.t.x = b.t.x",
            "SELECT \"a__t\".x, \"b__t\".y FROM phys.t__1 AS \"a__t\" JOIN phys.t__1 AS \"b__t\" ON \"a__t\".x = \"b__t\".x",
        ),
        (Dialect::BigQuery, "SELECT `p.d.t`.a FROM `p.d.t`", "SELECT `t`.a FROM phys.t__1 AS `t`"),
        (Dialect::BigQuery, "SELECT a FROM p-1.d.t", "SELECT a FROM phys.t__1 AS t"),
        (
            Dialect::BigQuery,
            "SELECT t.a - u.b FROM p-1.d.t JOIN p-1.d.u USING (k)",
            "SELECT t.a - u.b FROM phys.t__1 AS t JOIN phys.u__1 AS u USING (k)",
        ),
        (
            Dialect::TSql,
            "SELECT [t].a FROM [db] . [t] WITH (NOLOCK)",
            "SELECT [t].a FROM phys.t__1 AS [t] WITH (NOLOCK)",
        ),
        (
            Dialect::DuckDb,
            "WITH t AS (SELECT 1 AS a) SELECT t.a FROM t",
            "WITH t AS (SELECT 1 AS a) SELECT t.a FROM t",
        ),
        (Dialect::DuckDb, "SELECT\r\n\t*\r\nFROM\tü.t", "SELECT\r\n\t*\r\nFROM\tphys.t__1 AS t"),
    ];
    for (dialect, sql, expected) in cases {
        let out = renamed(sql, dialect);
        assert_eq!(out, expected);
        Query::parse(&out, dialect).unwrap();
    }
}

#[test]
fn statements_are_renamed_or_left_raw() {
    let rename = |sql: &str| {
        let statement = parse_statement(sql, Dialect::Postgres);
        statement.rewrite_tables(&mut |_| Some("phys".to_owned())).unwrap()
    };
    assert_eq!(rename("CREATE INDEX i ON db.t (a)"), "CREATE INDEX i ON phys (a)");
    assert_eq!(rename("INSERT INTO log SELECT t.a FROM db.t"), "INSERT INTO phys SELECT t.a FROM phys AS t");
    assert_eq!(rename("this is no statement"), "this is no statement");
    let set = |sql| parse_statement(sql, Dialect::DuckDb).canonical().to_owned();
    assert_eq!(set("SET threads = 1"), set("set  threads  = 1; -- all of them"));
}

#[test]
fn canonical_ignores_format_only() {
    let form = |sql: &str, dialect| Query::parse(sql, dialect).unwrap().canonical().to_owned();
    for dialect in [Dialect::DuckDb, Dialect::BigQuery] {
        let base = form("SELECT a, b FROM t WHERE a >= 'x y'", dialect);
        for same in
            ["select a,b,\n\tfrom t -- c\nwhere a>='x y';", "SELECT /* note */ a , b FROM t WHERE a >= 'x y'"]
        {
            assert_eq!(form(same, dialect), base);
        }
        for other in [
            "SELECT a, b FROM t WHERE a >= 'x  y'",
            "SELECT a, b FROM t WHERE a > 'x y'",
            "SELECT a, b AS B FROM t WHERE a >= 'x y'",
            "SELECT /*+ hint */ a, b FROM t WHERE a >= 'x y'",
            "SELECT a, `b` FROM t WHERE a >= 'x y'",
        ] {
            if let Ok(query) = Query::parse(other, dialect) {
                assert_ne!(query.canonical(), base, "{other}");
            }
        }
    }
    let duck = |sql| form(sql, Dialect::DuckDb);
    assert_eq!(
        duck("select count(*), cast(x as date) from t"),
        duck("SELECT COUNT(*), CAST(x AS DATE) FROM t")
    );
    assert_ne!(duck("SELECT x AS Date FROM t"), duck("SELECT x AS date FROM t"));
    assert_ne!(form("SELECT x FROM Date", Dialect::BigQuery), form("SELECT x FROM date", Dialect::BigQuery));
}

#[test]
fn the_known_gaps_of_the_parser_are_bridged() {
    for (dialect, sql) in [
        (Dialect::Postgres, "SELECT a, b, FROM t"),
        (Dialect::TSql, "SELECT a, b, FROM t"),
        (Dialect::MySql, "SELECT a, b, FROM t WHERE a = @x"),
        (Dialect::Snowflake, "SELECT * EXCEPT (a) FROM t"),
        (Dialect::DuckDb, "FROM t"),
        (Dialect::DuckDb, "FROM t SELECT a WHERE b > @start_ds"),
        (Dialect::Snowflake, "SELECT @IF(a, b, c) FROM t WHERE d BETWEEN @start_ds AND @end_ds"),
        (Dialect::BigQuery, "SELECT a FROM t WHERE d=@start_date"),
    ] {
        Query::parse(sql, dialect).unwrap_or_else(|e| panic!("{dialect}: {sql}: {e}"));
    }
}

#[test]
fn errors_say_where() {
    let error = Query::parse("SELECT a\nFROM t WHERE", Dialect::DuckDb).unwrap_err();
    assert!(error.message.starts_with("expected"), "{error}");
    let error = Query::parse("SELECT a\n  FROM )", Dialect::DuckDb).unwrap_err();
    assert_eq!(error.line, 2, "{error}");
    for bad in ["", "SELECT 1; SELECT 2", "DROP TABLE t", "TABLE t"] {
        assert!(Query::parse(bad, Dialect::DuckDb).is_err(), "{bad}");
    }
}

#[test]
fn places_in_a_long_line_with_letters_beyond_ascii_are_found_at_once() {
    let columns: Vec<String> = (0..20_000).map(|n| format!("'ä' AS c{n}")).collect();
    let text = format!("SELECT {} FROM größe.tafel", columns.join(", "));
    let query = Query::parse(&text, Dialect::DuckDb).unwrap();
    let spans: Vec<&str> = query.references().into_iter().map(|found| &text[found.span]).collect();
    assert_eq!(spans, ["größe.tafel"]);
}
