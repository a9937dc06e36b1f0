use chrono::NaiveDate;
use proptest::prelude::*;

use super::*;
use crate::interval::Timestamp;
use crate::sql::Dialect;

fn time(text: &str) -> Timestamp {
    let (day, clock) = text.split_once(' ').unwrap_or((text, "00:00:00"));
    let parsed = chrono::NaiveDateTime::parse_from_str(&format!("{day} {clock}"), "%Y-%m-%d %H:%M:%S%.f");
    Timestamp(parsed.unwrap().and_utc().timestamp_millis())
}

fn batch(start: &str, end: &str) -> Interval {
    Interval::new(time(start), time(end)).unwrap()
}

fn read_as(sql: &str, dialect: Dialect, kind: TimeKind) -> ReadRange {
    let query = Query::parse(sql, dialect).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let upper = dialect == Dialect::Snowflake;
    let case = |s: &str| if upper { s.to_uppercase() } else { s.to_owned() };
    let relation = vec![case("db"), case("up")];
    read_ranges(&query, &UpstreamTime { relation, column: case("ds"), kind })
}

/// The range read by the batch of 2024-03-15, as text.
fn read(sql: &str, dialect: Dialect, kind: TimeKind) -> String {
    let range = read_as(sql, dialect, kind);
    if let ReadRange::Whole { why } = &range {
        return format!("whole: {why}");
    }
    let show = |t: Timestamp| match t {
        Timestamp::MIN => String::new(),
        Timestamp::MAX => String::new(),
        t => t.to_datetime().format("%Y-%m-%d %H:%M:%S%.f").to_string().replace(" 00:00:00", ""),
    };
    match range.range(batch("2024-03-15", "2024-03-16")) {
        Some(r) => format!("{}..{}", show(r.start), show(r.end)),
        None => "nothing".to_owned(),
    }
}

#[test]
fn conditions_become_windows() {
    let day = "2024-03-15..2024-03-16";
    let cases = [
        ("ds BETWEEN @start_ds AND @end_ds", day),
        ("ds BETWEEN '@start_ds' AND '@end_ds'", day),
        ("ds BETWEEN @start_date AND @end_date", day),
        ("ds BETWEEN @start_ts AND @end_ts", day),
        ("ds BETWEEN @start_dt AND @end_dt", day),
        ("(ds >= @start_ds) AND (ds <= @end_ds AND x = 1)", day),
        ("@start_ds <= ds AND @end_ds >= ds", day),
        ("ds = @end_ds", day),
        ("ds = @start_date", day),
        ("ds IN (@start_ds, @end_ds)", day),
        ("ds >= @start_ts AND ds < @end_ts", day),
        ("ds > @start_ds AND ds < @end_ds", "nothing"),
        ("ds >= @start_ds", "2024-03-15.."),
        ("ds <= @end_ds", "..2024-03-16"),
        ("ds < @start_ds", "..2024-03-15"),
        ("ds <= @start_ts", "..2024-03-15.001"),
        ("ds BETWEEN @start_date - INTERVAL 30 DAY AND @end_date", "2024-02-14..2024-03-16"),
        ("ds BETWEEN @start_date - INTERVAL '30' DAY AND @end_date", "2024-02-14..2024-03-16"),
        ("ds BETWEEN @start_date - INTERVAL '30 days' AND @end_date", "2024-02-14..2024-03-16"),
        ("ds BETWEEN CAST(@start_ds AS DATE) - 30 AND CAST(@end_ds AS DATE)", "2024-02-14..2024-03-16"),
        ("ds BETWEEN '@start_ds'::date - 30 AND @end_ds::date", "2024-02-14..2024-03-16"),
        (
            "ds >= (@start_date - INTERVAL 1 MONTH) AND ds < @end_date + INTERVAL 1 DAY",
            "2024-02-15..2024-03-16",
        ),
        ("ds >= DATE_TRUNC('month', @start_date) AND ds <= @end_date", "2024-03-01..2024-03-16"),
        (
            "ds >= DATE_TRUNC('month', @start_date - INTERVAL 1 MONTH) AND ds <= @end_ds",
            "2024-02-01..2024-03-16",
        ),
        (
            "ds >= DATE_TRUNC('month', @start_date) - INTERVAL 1 DAY AND ds <= @end_ds",
            "2024-02-29..2024-03-16",
        ),
        ("ds <= DATE_TRUNC('month', @end_date)", "..2024-03-02"),
        ("ds >= DATE_TRUNC('week', @start_date)", "2024-03-09.."),
        ("CAST(ds AS DATE) BETWEEN @start_date AND @end_date", day),
        ("ds::date = @start_date", day),
        ("DATE(ds) >= @start_date AND ds::date < @end_date + 1", day),
        ("DATE_TRUNC('month', ds) = DATE_TRUNC('month', @start_date)", "2024-03-01..2024-04-01"),
        ("DATE_TRUNC('hour', ds) <= @end_ts", "..2024-03-16"),
        ("DATE_TRUNC('week', ds) <= @end_ds", "..2024-03-22"),
        ("CAST(ds AS TIMESTAMP) BETWEEN @start_ts AND @end_ts", day),
        (
            "ds BETWEEN @start_ds AND @end_ds OR ds BETWEEN @start_date - 7 AND @end_date - 7",
            "2024-03-08..2024-03-16",
        ),
        ("ds BETWEEN @start_ds AND @end_ds AND (x OR ds = '2024-01-01')", day),
        ("ds >= '2020-01-01' AND ds BETWEEN @start_ds AND @end_ds", day),
        ("up.ds BETWEEN @start_ds AND @end_ds AND NOT up.ds = @start_ds", day),
        ("db.up.ds BETWEEN @start_ds AND @end_ds", day),
    ];
    for (condition, expected) in cases {
        let sql = format!("SELECT * FROM db.up WHERE {condition}");
        assert_eq!(read(&sql, Dialect::DuckDb, TimeKind::Timestamp), expected, "{condition}");
    }
}

#[test]
fn dialects_write_dates_in_their_ways() {
    let month = "2024-02-14..2024-03-16";
    let cases = [
        (Dialect::BigQuery, "ds >= DATE_SUB(@start_date, INTERVAL 30 DAY) AND ds <= @end_date", month),
        (Dialect::BigQuery, "ds >= DATE_SUB(DATE '@start_ds', INTERVAL 30 DAY) AND ds <= @end_date", month),
        (
            Dialect::BigQuery,
            "ds >= DATE_TRUNC(@start_date, MONTH) AND ds <= @end_date",
            "2024-03-01..2024-03-16",
        ),
        (Dialect::BigQuery, "ds>=TIMESTAMP(@start_ts) AND ds<=TIMESTAMP(@end_ts)", "2024-03-15..2024-03-16"),
        (Dialect::Snowflake, "ds >= DATEADD(day, -30, @start_date) AND ds <= @end_date", month),
        (Dialect::Snowflake, "ds >= DATEADD('day', -30, @start_ds::date) AND ds <= @end_ds::date", month),
        (Dialect::TSql, "ds >= DATEADD(DAY, -30, @start_date) AND ds <= @end_date", month),
        (
            Dialect::TSql,
            "ds BETWEEN CAST(@start_ts AS DATETIME2) AND CAST(@end_ts AS DATETIME2)",
            "2024-03-15..2024-03-16",
        ),
        (
            Dialect::TSql,
            "CONVERT(DATE, ds) BETWEEN CONVERT(DATE, @start_ds) AND @end_date",
            "2024-03-15..2024-03-16",
        ),
        (Dialect::TSql, "[ds] BETWEEN @start_ds AND @end_ds", "2024-03-15..2024-03-16"),
        (Dialect::Databricks, "ds >= date_sub(@start_date, 30) AND ds <= @end_date", month),
        (Dialect::Spark, "ds >= date_add(@start_ds, -30) AND ds <= @end_ds", month),
        (Dialect::Spark, "ds >= add_months(@start_date, -1) AND ds <= @end_ds", "2024-02-15..2024-03-16"),
        (Dialect::Trino, "ds >= date_add('day', -30, @start_date) AND ds <= @end_date", month),
        (Dialect::Postgres, "ds>=@start_date-INTERVAL '30 days' AND ds<=@end_date", month),
        (Dialect::Postgres, "ds >= INTERVAL '-30 days' + @start_date AND ds <= @end_date", month),
        (Dialect::MySql, "ds >= DATE_SUB(@start_date, INTERVAL 30 DAY) AND ds <= @end_date", month),
        (Dialect::MySql, "DATE(ds) BETWEEN @start_date AND @end_date", "2024-03-14..2024-03-16"),
        (Dialect::ClickHouse, "ds BETWEEN @start_date AND @end_date", "2024-03-15..2024-03-16"),
    ];
    for (dialect, condition, expected) in cases {
        let sql = format!("SELECT x FROM db.up WHERE {condition}");
        assert_eq!(read(&sql, dialect, TimeKind::Day), expected, "{dialect}: {condition}");
    }
}

#[test]
fn days_widen_what_is_finer() {
    let hour = batch("2024-03-15 05:00:00", "2024-03-15 06:00:00");
    let sql = "SELECT * FROM db.up WHERE ds BETWEEN @start_ts AND @end_ts";
    assert_eq!(read_as(sql, Dialect::DuckDb, TimeKind::Timestamp).range(hour), Some(hour));
    let day = batch("2024-03-15", "2024-03-16");
    assert_eq!(read_as(sql, Dialect::DuckDb, TimeKind::Day).range(hour), Some(day));
    let sql = "SELECT * FROM db.up WHERE ds BETWEEN @start_ds AND @end_ds";
    assert_eq!(read_as(sql, Dialect::DuckDb, TimeKind::Timestamp).range(hour), Some(day));
    let back = "SELECT * FROM db.up WHERE ds >= @start_ts - INTERVAL 1 HOUR AND ds < @end_ts";
    let two = batch("2024-03-15 04:00:00", "2024-03-15 06:00:00");
    assert_eq!(read_as(back, Dialect::DuckDb, TimeKind::Timestamp).range(hour), Some(two));
    assert!(matches!(read_as(sql, Dialect::DuckDb, TimeKind::Opaque), ReadRange::Whole { .. }));
}

/// `W(x)` stands for a condition that bounds `x` to the batch's day.
fn expand(sql: &str) -> String {
    let mut out = sql.to_owned();
    while let Some(at) = out.find("W(") {
        let end = at + out[at..].find(')').unwrap();
        let column = out[at + 2..end].to_owned();
        out.replace_range(at..=end, &format!("{column} BETWEEN @start_ds AND @end_ds"));
    }
    out
}

#[test]
fn every_path_must_be_bounded() {
    let bounded = [
        "SELECT * FROM db.up AS u WHERE W(u.ds)",
        "SELECT * FROM db.up WHERE W(ds) ORDER BY x LIMIT 3",
        "SELECT * FROM up WHERE W(ds)",
        "SELECT * FROM cat.db.up WHERE W(ds)",
        "SELECT DISTINCT ON (x) * FROM db.up WHERE W(ds) QUALIFY row_number() OVER (ORDER BY x) = 1",
        "SELECT x, SUM(y) FROM db.up WHERE W(ds) GROUP BY x HAVING SUM(y) > 1",
        "WITH a AS (SELECT * FROM db.up WHERE W(ds)) SELECT * FROM a JOIN a AS b USING (x)",
        "WITH a AS (SELECT * FROM db.up) SELECT * FROM a WHERE W(ds)",
        "WITH a AS (SELECT x, ds AS d FROM db.up), b AS (SELECT d AS e FROM a) SELECT * FROM b WHERE W(e)",
        "WITH a AS (SELECT u.ds, SUM(x) AS x FROM db.up AS u GROUP BY u.ds) SELECT * FROM a WHERE W(ds)",
        "WITH a AS (SELECT ds, SUM(x) AS x FROM db.up GROUP BY 1) SELECT * FROM a WHERE W(a.ds)",
        "WITH a AS (SELECT ds, SUM(x) AS x FROM db.up GROUP BY ALL) SELECT * FROM a WHERE W(ds)",
        "WITH a AS (SELECT DISTINCT ds FROM db.up) SELECT * FROM a WHERE W(ds)",
        "WITH a AS (SELECT ds FROM db.up UNION ALL SELECT d FROM other) SELECT * FROM a WHERE W(ds)",
        "WITH a AS (SELECT d FROM other UNION ALL SELECT ds FROM db.up) SELECT * FROM a WHERE W(d)",
        "SELECT * FROM db.up WHERE W(ds) UNION ALL SELECT * FROM db.up AS u WHERE W(u.ds)",
        "SELECT * FROM (SELECT u.*, d.y FROM db.up AS u JOIN d USING (id)) AS s WHERE W(s.ds)",
        "SELECT * FROM db.up AS u JOIN d ON u.id = d.id AND W(u.ds)",
        "SELECT * FROM d JOIN db.up AS u ON u.id = d.id WHERE W(u.ds)",
        "SELECT * FROM d JOIN db.up ON up.id = d.id WHERE W(ds)",
        "SELECT * FROM d LEFT JOIN db.up AS u ON u.id = d.id AND W(u.ds)",
        "SELECT * FROM d LEFT JOIN db.up AS u ON u.id = d.id WHERE W(u.ds)",
        "SELECT * FROM db.up AS u LEFT JOIN d ON u.id = d.id WHERE W(u.ds)",
        "SELECT * FROM db.up AS u RIGHT JOIN d ON u.id = d.id AND W(u.ds)",
        "SELECT * FROM d FULL JOIN (SELECT * FROM db.up WHERE W(ds)) AS u USING (id)",
        "SELECT * FROM f JOIN db.up AS u ON u.ds = f.ds WHERE W(f.ds)",
        "SELECT * FROM f LEFT JOIN db.up AS u ON u.ds = f.ds WHERE W(f.ds)",
        "SELECT * FROM f, db.up AS u WHERE f.ds = u.ds AND W(f.ds)",
        "SELECT * FROM f JOIN g ON f.ds = g.d JOIN db.up AS u ON u.ds = g.d WHERE W(f.ds)",
        "SELECT * FROM db.up AS a JOIN db.up AS b ON a.ds = b.ds WHERE W(a.ds)",
        "SELECT * FROM d WHERE EXISTS (SELECT 1 FROM db.up AS u WHERE u.id = d.id AND W(u.ds))",
        "SELECT * FROM d WHERE id IN (SELECT id FROM db.up WHERE W(ds))",
        "SELECT (SELECT MAX(x) FROM db.up WHERE W(ds)) AS m FROM d",
        "SELECT * FROM d ANTI JOIN db.up AS u ON u.id = d.id AND W(u.ds)",
        "SELECT * FROM db.up AS u SEMI JOIN d ON u.id = d.id AND W(u.ds)",
        "SELECT * FROM d, LATERAL (SELECT * FROM db.up AS u WHERE u.id = d.id AND W(u.ds)) AS l",
        "WITH unused AS (SELECT * FROM db.up WHERE W(ds)) SELECT 1 FROM db.up WHERE W(ds)",
        "SELECT * FROM (d JOIN db.up AS u ON u.id = d.id) WHERE W(u.ds)",
        "SELECT SUM(x) OVER (ORDER BY ds) FROM db.up WHERE W(ds)",
        "WITH RECURSIVE r AS (SELECT x FROM db.up WHERE W(ds) UNION ALL SELECT x + 1 FROM r) SELECT * FROM r",
    ];
    for sql in bounded {
        let sql = expand(sql);
        assert_eq!(read(&sql, Dialect::DuckDb, TimeKind::Day), "2024-03-15..2024-03-16", "{sql}");
    }
}

#[test]
fn what_is_not_proven_is_the_whole() {
    let whole = [
        "SELECT * FROM db.up",
        "SELECT * FROM other WHERE W(ds)",
        "SELECT * FROM db.up WHERE W(ds) OR x = 1",
        "SELECT * FROM db.up WHERE NOT (W(ds))",
        "SELECT * FROM db.up WHERE ds NOT BETWEEN @start_ds AND @end_ds",
        "SELECT * FROM db.up WHERE ds <> @start_ds",
        "SELECT * FROM db.up WHERE W(other_ds)",
        "SELECT * FROM db.up WHERE COALESCE(ds, x) BETWEEN @start_ds AND @end_ds",
        "SELECT * FROM db.up WHERE CASE WHEN x THEN W(ds) END",
        "SELECT * FROM db.up WHERE ds >= (SELECT MAX(ds) FROM d)",
        "SELECT * FROM db.up WHERE ds >= @execution_ds",
        "SELECT * FROM db.up WHERE ds >= @start_epoch AND ds <= @end_epoch",
        "SELECT * FROM db.up WHERE ds AT TIME ZONE 'Asia/Tokyo' BETWEEN @start_ts AND @end_ts",
        "SELECT * FROM db.up WHERE CAST(ds AS VARCHAR) BETWEEN @start_ds AND @end_ds",
        "SELECT * FROM db.up WHERE strftime(ds, '%Y') BETWEEN @start_ds AND @end_ds",
        "SELECT * FROM db.up WHERE ds + INTERVAL 1 DAY BETWEEN @start_ds AND @end_ds",
        "SELECT * FROM db.up WHERE meta.ds BETWEEN @start_ds AND @end_ds",
        "SELECT * FROM db.up AS u(ds, x) WHERE W(ds)",
        "SELECT * FROM db.up TABLESAMPLE (10 ROWS) WHERE W(ds)",
        "SELECT SUM(x) FILTER (WHERE W(ds)) FROM db.up",
        "SELECT x FROM db.up GROUP BY x HAVING MAX(ds) BETWEEN @start_ds AND @end_ds",
        "SELECT *, row_number() OVER (ORDER BY ds) AS n FROM db.up QUALIFY W(ds)",
        "SELECT * FROM db.up AS u LEFT JOIN d ON u.id = d.id AND W(u.ds)",
        "SELECT * FROM d RIGHT JOIN db.up AS u ON u.id = d.id AND W(u.ds)",
        "SELECT * FROM d FULL JOIN db.up AS u ON u.id = d.id AND W(u.ds)",
        "SELECT * FROM db.up AS u ANTI JOIN d ON u.id = d.id AND W(u.ds)",
        "SELECT * FROM db.up AS a JOIN db.up AS b ON a.id = b.id WHERE W(a.ds)",
        "SELECT * FROM db.up AS a JOIN db.up AS b ON a.id = b.id WHERE W(ds)",
        "SELECT * FROM f LEFT JOIN db.up AS u ON u.ds <= f.ds WHERE W(f.ds)",
        "SELECT * FROM db.up AS u LEFT JOIN f ON u.ds = f.ds AND W(f.ds)",
        "SELECT * FROM db.up AS u FULL JOIN f ON u.ds = f.ds AND W(f.ds)",
        "SELECT * FROM f, db.up AS u WHERE (f.ds = u.ds OR x) AND W(f.ds)",
        "SELECT * FROM db.up WHERE W(ds) UNION ALL SELECT * FROM db.up",
        "SELECT * FROM db.up WHERE W(ds) AND x > (SELECT AVG(x) FROM db.up)",
        "SELECT * FROM d WHERE EXISTS (SELECT 1 FROM db.up AS u WHERE u.ds = d.ds) AND W(d.ds)",
        "WITH a AS (SELECT * FROM db.up) SELECT * FROM a WHERE W(ds) UNION ALL SELECT * FROM a",
        "WITH a AS (SELECT * FROM db.up LIMIT 5) SELECT * FROM a WHERE W(ds)",
        "WITH a AS (SELECT *, SUM(x) OVER (ORDER BY ds) FROM db.up) SELECT * FROM a WHERE W(ds)",
        "WITH a AS (SELECT x, MAX(ds) AS ds FROM db.up GROUP BY x) SELECT * FROM a WHERE W(ds)",
        "WITH a AS (SELECT MAX(x), ds FROM db.up) SELECT * FROM a WHERE W(ds)",
        "WITH a AS (SELECT x AS ds, ds AS y FROM db.up) SELECT * FROM a WHERE W(ds)",
        "WITH a AS (SELECT *, x AS ds FROM db.up) SELECT * FROM a WHERE W(ds)",
        "WITH a AS (SELECT * REPLACE (x AS ds) FROM db.up) SELECT * FROM a WHERE W(ds)",
        "WITH a AS (SELECT * RENAME (x AS ds) FROM db.up) SELECT * FROM a WHERE W(ds)",
        "WITH a(ds, x) AS (SELECT x, ds FROM db.up) SELECT * FROM a WHERE W(ds)",
        "WITH a AS (SELECT DISTINCT ON (x) x, ds FROM db.up) SELECT * FROM a WHERE W(ds)",
        "WITH a AS (SELECT ds, x FROM db.up GROUP BY ROLLUP (ds, x)) SELECT * FROM a WHERE W(ds)",
        "WITH a AS (SELECT d, x FROM o UNION ALL SELECT x, ds FROM db.up) SELECT * FROM a WHERE W(d)",
        "WITH a AS (SELECT ds FROM o UNION ALL BY NAME SELECT ds FROM db.up) SELECT * FROM a WHERE W(ds)",
        "WITH RECURSIVE r AS (SELECT ds FROM db.up UNION ALL SELECT ds + 1 FROM r) SELECT * FROM r WHERE W(ds)",
        "WITH unused AS (SELECT * FROM db.up) SELECT 1 FROM db.up WHERE W(ds)",
        "SELECT * FROM db.up PIVOT (SUM(x) FOR y IN ('a')) WHERE W(ds)",
        "SELECT * FROM (db.up AS u JOIN d USING (id)) AS j WHERE W(u.ds)",
        "SELECT * FROM d, LATERAL (SELECT d.ds AS e, u.ds FROM db.up AS u) AS l WHERE W(l.ds)",
        "SELECT * FROM t ORDER BY (SELECT MAX(x) FROM db.up WHERE W(ds))",
        "SELECT u.ds FROM d AS u, db.up WHERE W(u.ds)",
        "SELECT * FROM db.up JOIN d USING (ds) WHERE W(ds)",
    ];
    for sql in whole {
        let sql = expand(sql);
        let range = read(&sql, Dialect::DuckDb, TimeKind::Day);
        assert!(range.starts_with("whole: "), "{sql}: {range}");
    }
    for (dialect, sql) in [
        (Dialect::MySql, "SELECT * FROM db.up WHERE ds <= CAST(@end_ts AS DATETIME)"),
        (Dialect::MySql, "SELECT * FROM db.up WHERE ds <= CAST(@end_ts AS DATE)"),
        (Dialect::MySql, "SELECT * FROM db.up WHERE ds >= @start_date - 30"),
        (Dialect::BigQuery, "SELECT * FROM db.up WHERE DATE_TRUNC(day, MONTH) = @start_date"),
        (Dialect::BigQuery, "SELECT * FROM db.up WHERE DATE(ds, 'Asia/Tokyo') = @start_date"),
        (Dialect::Snowflake, "SELECT * FROM db.up WHERE CONVERT_TIMEZONE('UTC', 'CET', ds) >= @start_date"),
        (Dialect::DuckDb, "SELECT * FROM db.up POSITIONAL JOIN d WHERE ds = @start_date"),
        (
            Dialect::Snowflake,
            "SELECT * FROM d ASOF JOIN db.up AS u MATCH_CONDITION (d.t >= u.ds) ON d.i = u.i \
             WHERE u.ds BETWEEN @start_date AND @end_date",
        ),
        (Dialect::TSql, "SELECT * FROM db.up WHERE ds <= CAST(@end_ts AS DATETIME)"),
        (Dialect::Postgres, "SELECT * FROM db.up WHERE ds <= CAST(@end_ts AS TIMESTAMP(0))"),
        (Dialect::ClickHouse, "SELECT x AS ds FROM db.up WHERE ds <= @end_date"),
        (Dialect::ClickHouse, "SELECT x FROM d LEFT JOIN db.up AS u ON u.i = d.i WHERE u.ds <= @end_date"),
    ] {
        let range = read(sql, dialect, TimeKind::Day);
        assert!(range.starts_with("whole: "), "{sql}: {range}");
    }
}

/// A condition as SQL and as its naive meaning.
#[derive(Debug, Clone)]
struct Value {
    sql: String,
    base: bool,
    day: bool,
    steps: Vec<u8>,
}

const US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * US;

fn naive_trunc(t: i64, unit: &str) -> i64 {
    use chrono::Datelike;
    let at = chrono::DateTime::from_timestamp_micros(t).unwrap().naive_utc();
    let day = at.date();
    let first = |y, m, d| NaiveDate::from_ymd_opt(y, m, d).unwrap().and_hms_opt(0, 0, 0).unwrap();
    let cut = match unit {
        "hour" => return t - t.rem_euclid(3600 * US),
        "day" => day.and_hms_opt(0, 0, 0).unwrap(),
        "week" => day.week(chrono::Weekday::Mon).first_day().and_hms_opt(0, 0, 0).unwrap(),
        "month" => first(day.year(), day.month(), 1),
        "quarter" => first(day.year(), (day.month() - 1) / 3 * 3 + 1, 1),
        _ => first(day.year(), 1, 1),
    };
    cut.and_utc().timestamp_micros()
}

fn naive_months(t: i64, n: i32) -> i64 {
    use chrono::{Datelike, Timelike};
    let at = chrono::DateTime::from_timestamp_micros(t).unwrap().naive_utc();
    let total = at.year() * 12 + i32::try_from(at.month0()).unwrap() + n;
    let (year, month) = (total.div_euclid(12), u32::try_from(total.rem_euclid(12)).unwrap() + 1);
    let day = (1..=at.day()).rev().find_map(|d| NaiveDate::from_ymd_opt(year, month, d)).unwrap();
    let clock = i64::from(at.num_seconds_from_midnight()) * US + i64::from(at.nanosecond() / 1000);
    day.and_hms_opt(0, 0, 0).unwrap().and_utc().timestamp_micros() + clock
}

impl Value {
    fn build(start: bool, day: bool, steps: Vec<u8>) -> Self {
        let side = if start { "start" } else { "end" };
        let mut sql = format!("@{side}_{}", if day { "date" } else { "ts" });
        for step in &steps {
            sql = match step {
                0 => format!("({sql} - INTERVAL 3 DAY)"),
                1 => format!("({sql} + INTERVAL '36 hours')"),
                2 => format!("({sql} - INTERVAL 1 MONTH)"),
                3 => format!("({sql} + INTERVAL '2 months')"),
                4 => format!("DATE_TRUNC('month', {sql})"),
                5 => format!("DATE_TRUNC('week', {sql})"),
                6 => format!("CAST({sql} AS DATE)"),
                7 => format!("DATE_TRUNC('quarter', {sql})"),
                _ => format!("DATE_TRUNC('hour', {sql})"),
            };
        }
        Self { sql, base: start, day, steps }
    }

    fn at(&self, batch: Interval) -> i64 {
        let mut t = if self.base { batch.start.0 * 1000 } else { batch.end.0 * 1000 - 1 };
        if self.day {
            t = naive_trunc(t, "day");
        }
        for step in &self.steps {
            t = match step {
                0 => t - 3 * DAY_US,
                1 => t + 36 * 3600 * US,
                2 => naive_months(t, -1),
                3 => naive_months(t, 2),
                4 => naive_trunc(t, "month"),
                5 => naive_trunc(t, "week"),
                6 => naive_trunc(t, "day"),
                7 => naive_trunc(t, "quarter"),
                _ => naive_trunc(t, "hour"),
            };
        }
        t
    }
}

#[derive(Debug, Clone)]
enum Condition {
    Compare {
        cut: u8,
        op: u8,
        value: Value,
        flipped: bool,
    },
    Between {
        cut: u8,
        low: Value,
        high: Value,
    },
    /// Something about other columns: either way.
    Else(bool),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    Not(Box<Condition>),
}

fn cut_sql(cut: u8) -> &'static str {
    ["ds", "CAST(ds AS DATE)", "DATE_TRUNC('month', ds)", "DATE_TRUNC('week', ds)", "DATE_TRUNC('hour', ds)"]
        [usize::from(cut)]
}

fn cut_at(cut: u8, t: i64) -> i64 {
    match cut {
        0 => t,
        1 => naive_trunc(t, "day"),
        2 => naive_trunc(t, "month"),
        3 => naive_trunc(t, "week"),
        _ => naive_trunc(t, "hour"),
    }
}

impl Condition {
    fn sql(&self) -> String {
        match self {
            Self::Compare { cut, op, value, flipped } => {
                let (ops, back) = (["<", "<=", ">", ">=", "="], [">", ">=", "<", "<=", "="]);
                let at = usize::from(*op);
                if *flipped {
                    format!("{} {} {}", value.sql, back[at], cut_sql(*cut))
                } else {
                    format!("{} {} {}", cut_sql(*cut), ops[at], value.sql)
                }
            }
            Self::Between { cut, low, high } => {
                format!("{} BETWEEN {} AND {}", cut_sql(*cut), low.sql, high.sql)
            }
            Self::Else(value) => format!("x = {}", i32::from(*value)),
            Self::And(a, b) => format!("({}) AND ({})", a.sql(), b.sql()),
            Self::Or(a, b) => format!("({} OR {})", a.sql(), b.sql()),
            Self::Not(a) => format!("NOT ({})", a.sql()),
        }
    }

    fn holds(&self, t: i64, batch: Interval) -> bool {
        match self {
            Self::Compare { cut, op, value, .. } => {
                let (a, b) = (cut_at(*cut, t), value.at(batch));
                [a < b, a <= b, a > b, a >= b, a == b][usize::from(*op)]
            }
            Self::Between { cut, low, high } => (low.at(batch)..=high.at(batch)).contains(&cut_at(*cut, t)),
            Self::Else(value) => *value,
            Self::And(a, b) => a.holds(t, batch) && b.holds(t, batch),
            Self::Or(a, b) => a.holds(t, batch) || b.holds(t, batch),
            Self::Not(a) => !a.holds(t, batch),
        }
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    (any::<bool>(), any::<bool>(), prop::collection::vec(0u8..9, 0..4))
        .prop_map(|(start, day, steps)| Value::build(start, day, steps))
}

fn any_condition() -> impl Strategy<Value = Condition> {
    let leaf = prop_oneof![
        4 => (0u8..5, 0u8..5, any_value(), any::<bool>())
            .prop_map(|(cut, op, value, flipped)| Condition::Compare { cut, op, value, flipped }),
        2 => (0u8..5, any_value(), any_value())
            .prop_map(|(cut, low, high)| Condition::Between { cut, low, high }),
        1 => any::<bool>().prop_map(Condition::Else),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            3 => (inner.clone(), inner.clone()).prop_map(|(a, b)| Condition::And(a.into(), b.into())),
            2 => (inner.clone(), inner.clone()).prop_map(|(a, b)| Condition::Or(a.into(), b.into())),
            1 => inner.prop_map(|a| Condition::Not(a.into())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Whatever the condition, the rows that satisfy it lie in the range read.
    #[test]
    fn no_row_that_qualifies_is_outside(
        condition in any_condition(),
        hour in 0i64..24 * 800,
        hours in prop::sample::select(vec![1i64, 3, 24, 48, 24 * 7]),
        days in any::<bool>(),
        offsets in prop::collection::vec((-150i64..150, 0i64..24, -1i64..2), 40),
    ) {
        let sql = format!("SELECT * FROM db.up WHERE {}", condition.sql());
        let kind = if days { TimeKind::Day } else { TimeKind::Timestamp };
        let range = read_as(&sql, Dialect::DuckDb, kind);
        let start = time("2023-12-01").0 + hour * 3_600_000;
        let batch = Interval::new(Timestamp(start), Timestamp(start + hours * 3_600_000)).unwrap();
        let read = range.range(batch);
        for (day, clock, tick) in offsets {
            let base = naive_trunc(start * 1000, "day") + day * DAY_US;
            let row = if days { base } else { base + clock * 3600 * US + tick };
            if condition.holds(row, batch) {
                let inside = read.is_some_and(|r| r.start.0 * 1000 <= row && row < r.end.0 * 1000);
                prop_assert!(inside, "{sql}\n{batch}: row at {row} is not in {read:?}");
                if days {
                    let whole = read.is_some_and(|r| row + DAY_US <= r.end.0 * 1000);
                    prop_assert!(whole, "{sql}\n{batch}: the day of {row} is cut by {read:?}");
                }
            }
        }
    }
}
