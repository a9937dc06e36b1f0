//! Time formats of dialects in strftime terms.

use crate::sql::Dialect;

/// Codes of PostgreSQL and Redshift.
const POSTGRES: &[(&str, &str)] = &[
    ("FMDDD", "%-j"),
    ("FMDD", "%-d"),
    ("FMHH12", "%-I"),
    ("FMHH24", "%-H"),
    ("FMMI", "%-M"),
    ("FMMM", "%-m"),
    ("FMSS", "%-S"),
    ("YYYY", "%Y"),
    ("yyyy", "%Y"),
    ("YY", "%y"),
    ("yy", "%y"),
    ("DDD", "%j"),
    ("ddd", "%j"),
    ("DD", "%d"),
    ("dd", "%d"),
    ("D", "%u"),
    ("d", "%u"),
    ("HH12", "%I"),
    ("HH24", "%H"),
    ("MI", "%M"),
    ("mi", "%M"),
    ("MM", "%m"),
    ("mm", "%m"),
    ("SS", "%S"),
    ("ss", "%S"),
    ("US", "%f"),
    ("WW", "%U"),
    ("ww", "%U"),
    ("OF", "%z"),
    ("TZ", "%Z"),
    ("TMDay", "%A"),
    ("TMDy", "%a"),
    ("TMMonth", "%B"),
    ("TMMon", "%b"),
];

/// Codes of Snowflake.
const SNOWFLAKE: &[(&str, &str)] = &[
    ("YYYY", "%Y"),
    ("yyyy", "%Y"),
    ("YY", "%y"),
    ("yy", "%y"),
    ("MMMM", "%B"),
    ("mmmm", "%B"),
    ("MON", "%b"),
    ("mon", "%b"),
    ("MM", "%m"),
    ("mm", "%m"),
    ("DD", "%d"),
    ("dd", "%-d"),
    ("DY", "%a"),
    ("dy", "%w"),
    ("HH24", "%H"),
    ("hh24", "%H"),
    ("HH12", "%I"),
    ("hh12", "%I"),
    ("MI", "%M"),
    ("mi", "%M"),
    ("SS", "%S"),
    ("ss", "%S"),
    ("FF6", "%f"),
    ("ff6", "%f"),
    ("FF", "%f"),
    ("ff", "%f"),
    ("TZHTZM", "%z"),
    ("\"T\"", "T"),
    ("AM", "%p"),
    ("am", "%p"),
    ("PM", "%p"),
    ("pm", "%p"),
];

/// Codes of Spark, Databricks and (nearly) SQL Server: Java's.
const JAVA: &[(&str, &str)] = &[
    ("yyyy", "%Y"),
    ("YYYY", "%Y"),
    ("yy", "%y"),
    ("YY", "%y"),
    ("y", "%Y"),
    ("MMMM", "%B"),
    ("MMM", "%b"),
    ("MM", "%m"),
    ("M", "%-m"),
    ("DD", "%j"),
    ("D", "%-j"),
    ("dd", "%d"),
    ("d", "%-d"),
    ("HH", "%H"),
    ("H", "%-H"),
    ("hh", "%I"),
    ("h", "%-I"),
    ("mm", "%M"),
    ("m", "%-M"),
    ("ss", "%S"),
    ("s", "%-S"),
    ("SSSSSS", "%f"),
    ("ffffff", "%f"),
    ("a", "%p"),
    ("EEEE", "%A"),
    ("EEE", "%a"),
    ("EE", "%a"),
    ("E", "%a"),
    ("z", "%Z"),
    ("Z", "%z"),
];

/// Codes of MySQL and Trino, where they differ from strftime.
const MYSQL: &[(&str, &str)] = &[
    ("%M", "%B"),
    ("%c", "%-m"),
    ("%e", "%-d"),
    ("%h", "%I"),
    ("%i", "%M"),
    ("%s", "%S"),
    ("%u", "%W"),
    ("%k", "%-H"),
    ("%l", "%-I"),
    ("%T", "%H:%M:%S"),
    ("%W", "%A"),
];

/// Codes of BigQuery, where they differ from strftime.
const BIGQUERY: &[(&str, &str)] = &[
    ("%x", "%m/%d/%y"),
    ("%D", "%m/%d/%y"),
    ("%E6S", "%S.%f"),
    ("%e", "%-d"),
    ("%F", "%Y-%m-%d"),
    ("%T", "%H:%M:%S"),
    ("%c", "%a %b %e %H:%M:%S %Y"),
];

/// A format of a dialect in strftime terms. Formats with `%` in dialects whose codes have none
/// are strftime already.
pub(crate) fn to_strftime(dialect: Dialect, format: &str) -> String {
    let codes = match dialect {
        Dialect::MySql | Dialect::Trino => MYSQL,
        Dialect::BigQuery => BIGQUERY,
        Dialect::Postgres | Dialect::Redshift => POSTGRES,
        Dialect::Snowflake => SNOWFLAKE,
        Dialect::Spark | Dialect::Databricks | Dialect::TSql | Dialect::Fabric => JAVA,
        Dialect::Generic | Dialect::DuckDb | Dialect::ClickHouse | Dialect::Sqlite => &[],
    };
    let is_percent_dialect = codes.iter().any(|(code, _)| code.starts_with('%'));
    if codes.is_empty() || (format.contains('%') && !is_percent_dialect) {
        return format.to_owned();
    }
    let mut out = String::with_capacity(format.len() + 8);
    let mut rest = format;
    while let Some(first) = rest.chars().next() {
        let longest =
            codes.iter().filter(|(code, _)| rest.starts_with(code)).max_by_key(|(code, _)| code.len());
        let length = match longest {
            Some((code, strftime)) => {
                out.push_str(strftime);
                code.len()
            }
            // `%Y` stays whole, so that its letter isn't taken for a code.
            None if first == '%' => {
                let length = rest.char_indices().nth(2).map_or(rest.len(), |(at, _)| at);
                out.push_str(&rest[..length]);
                length
            }
            None => {
                out.push(first);
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_become_strftime() {
        for (dialect, format, expected) in [
            (Dialect::DuckDb, "%Y-%m-%d", "%Y-%m-%d"),
            (Dialect::Postgres, "YYYY-MM-DD HH24:MI:SS", "%Y-%m-%d %H:%M:%S"),
            (Dialect::Postgres, "%Y%m%d", "%Y%m%d"),
            (Dialect::Snowflake, "YYYYMMDD", "%Y%m%d"),
            (Dialect::Spark, "yyyy-MM-dd HH:mm:ss", "%Y-%m-%d %H:%M:%S"),
            (Dialect::BigQuery, "%F %T", "%Y-%m-%d %H:%M:%S"),
            (Dialect::MySql, "%Y-%m-%d %H:%i:%s", "%Y-%m-%d %H:%M:%S"),
        ] {
            assert_eq!(to_strftime(dialect, format), expected, "{dialect} {format}");
        }
    }
}
