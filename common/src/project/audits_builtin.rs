//! The audits that every project has: queries over `@this_model` that return bad rows.

use std::collections::BTreeMap;

use crate::diagnostic::Location;
use crate::project::model::{Audit, Code, Language};
use crate::sql::Dialect;

/// What the name of an audit that only warns ends in.
const NON_BLOCKING: &str = "_non_blocking";

/// A built-in audit: its name, its arguments' defaults and its query.
struct Builtin {
    name: &'static str,
    defaults: &'static [(&'static str, &'static str)],
    query: &'static str,
}

/// Defaults of audits with a lower and an upper bound.
const BOUNDS: &[(&str, &str)] = &[("min_v", "NULL"), ("max_v", "NULL"), ("inclusive", "TRUE")];

/// Rows for which a predicate over all of `@columns`, `@criteria` or `@patterns` is true.
macro_rules! bad_rows {
    ($predicate:literal) => {
        concat!("SELECT * FROM @this_model WHERE @AND(", $predicate, ", @condition)")
    };
}

/// Rows whose value lies outside the bounds.
macro_rules! out_of_bounds {
    ($from:literal, $value:literal, $condition:literal) => {
        concat!(
            "SELECT * FROM ",
            $from,
            " WHERE @AND(@OR(",
            "@IF(@min_v IS NOT NULL, @IF(@inclusive, ",
            $value,
            " < @min_v, ",
            $value,
            " <= @min_v), NULL), ",
            "@IF(@max_v IS NOT NULL, @IF(@inclusive, ",
            $value,
            " > @max_v, ",
            $value,
            " >= @max_v), NULL)), ",
            $condition,
            ")"
        )
    };
}

const BUILTINS: [Builtin; 29] = [
    Builtin {
        name: "accepted_range",
        defaults: BOUNDS,
        query: out_of_bounds!("@this_model", "@column", "@condition"),
    },
    Builtin { name: "accepted_values", defaults: &[], query: bad_rows!("@column NOT IN @is_in") },
    Builtin {
        name: "at_least_one",
        defaults: &[],
        query: "SELECT 1 AS no_value FROM @this_model WHERE @condition HAVING COUNT(@column) = 0 AND COUNT(*) > 0",
    },
    Builtin {
        name: "chi_square",
        defaults: &[("dependent", "TRUE")],
        query: "\
WITH samples AS (
  SELECT @column_a AS x_a, @column_b AS x_b
  FROM @this_model
  WHERE @AND(@column_a IS NOT NULL, @column_b IS NOT NULL, @condition)
), cells AS (
  SELECT x_a, x_b, COUNT(*) AS observed FROM samples GROUP BY x_a, x_b
), expected AS (
  SELECT
    x_a,
    x_b,
    observed,
    1.0 * SUM(observed) OVER (PARTITION BY x_a) * SUM(observed) OVER (PARTITION BY x_b)
      / SUM(observed) OVER () AS expectation
  FROM cells
), result AS (
  SELECT
    (COUNT(DISTINCT x_a) - 1) * (COUNT(DISTINCT x_b) - 1) AS degrees_of_freedom,
    SUM((observed - expectation) * (observed - expectation) / expectation) AS chi_square
  FROM expected
)
SELECT * FROM result
WHERE NOT @IF(@dependent, chi_square > @critical_value, chi_square <= @critical_value)",
    },
    Builtin {
        name: "forall",
        defaults: &[],
        query: bad_rows!("@REDUCE(@EACH(@criteria, c -> NOT (@c)), (l, r) -> @l OR @r)"),
    },
    Builtin {
        name: "kl_divergence",
        defaults: &[],
        query: "\
WITH p AS (
  SELECT @source_column AS value, 1.0 * COUNT(*) / SUM(COUNT(*)) OVER () AS share
  FROM @this_model WHERE @condition GROUP BY @source_column
), q AS (
  SELECT @target_column AS value, 1.0 * COUNT(*) / SUM(COUNT(*)) OVER () AS share
  FROM @this_model WHERE @condition GROUP BY @target_column
), result AS (
  SELECT SUM(p.share * LN(p.share / q.share)) AS kl_divergence
  FROM p JOIN q ON p.value = q.value
)
SELECT * FROM result WHERE kl_divergence > @threshold",
    },
    Builtin {
        name: "match_like_pattern_list",
        defaults: &[],
        query: bad_rows!("@REDUCE(@EACH(@patterns, c -> NOT @column LIKE @c), (l, r) -> @l AND @r)"),
    },
    Builtin {
        name: "match_regex_pattern_list",
        defaults: &[],
        query: bad_rows!("@REDUCE(@EACH(@patterns, c -> NOT @__MATCHES(@column, @c)), (l, r) -> @l AND @r)"),
    },
    Builtin {
        name: "mean_in_range",
        defaults: BOUNDS,
        query: out_of_bounds!(
            "(SELECT AVG(@column) AS mean_value FROM @this_model WHERE @condition) AS result",
            "mean_value",
            "NULL"
        ),
    },
    Builtin {
        name: "mutually_exclusive_ranges",
        defaults: &[("partition_clause", "")],
        query: "\
WITH ranges AS (
  SELECT
    @lower_bound_column AS lower_bound,
    @upper_bound_column AS upper_bound,
    LEAD(@lower_bound_column) OVER (
      @SQL('@partition_clause') ORDER BY @lower_bound_column, @upper_bound_column
    ) AS next_lower_bound
  FROM @this_model
  WHERE @condition
)
SELECT * FROM ranges
WHERE lower_bound IS NULL OR upper_bound IS NULL OR lower_bound > upper_bound OR upper_bound > next_lower_bound",
    },
    Builtin { name: "not_accepted_values", defaults: &[], query: bad_rows!("@column IN @is_in") },
    Builtin {
        name: "not_constant",
        defaults: &[],
        query: "SELECT COUNT(DISTINCT @column) AS distinct_values FROM @this_model WHERE @condition \
                HAVING COUNT(DISTINCT @column) <= 1",
    },
    Builtin { name: "not_empty_string", defaults: &[], query: bad_rows!("@column = ''") },
    Builtin {
        name: "not_match_like_pattern_list",
        defaults: &[],
        query: bad_rows!("@REDUCE(@EACH(@patterns, c -> @column LIKE @c), (l, r) -> @l OR @r)"),
    },
    Builtin {
        name: "not_match_regex_pattern_list",
        defaults: &[],
        query: bad_rows!("@REDUCE(@EACH(@patterns, c -> @__MATCHES(@column, @c)), (l, r) -> @l OR @r)"),
    },
    Builtin {
        name: "not_null",
        defaults: &[],
        query: bad_rows!("@REDUCE(@EACH(@columns, c -> @c IS NULL), (l, r) -> @l OR @r)"),
    },
    Builtin {
        name: "not_null_proportion",
        defaults: &[],
        query: "SELECT COUNT(*) AS all_rows, COUNT(@column) AS not_null_rows FROM @this_model WHERE @condition \
                HAVING COUNT(@column) <= COUNT(*) * @threshold",
    },
    Builtin {
        name: "number_of_rows",
        defaults: &[],
        query: "SELECT COUNT(*) AS number_of_rows FROM @this_model WHERE @condition HAVING COUNT(*) <= @threshold",
    },
    Builtin {
        name: "sequential_values",
        defaults: &[("interval", "1")],
        query: "\
WITH ordered AS (
  SELECT @column AS value, LAG(@column) OVER (ORDER BY @column) AS previous_value
  FROM @this_model
  WHERE @condition
)
SELECT * FROM ordered WHERE value <> previous_value + @interval",
    },
    Builtin {
        name: "stddev_in_range",
        defaults: BOUNDS,
        query: out_of_bounds!(
            "(SELECT STDDEV(@column) AS stddev_value FROM @this_model WHERE @condition) AS result",
            "stddev_value",
            "NULL"
        ),
    },
    Builtin {
        name: "string_length_between",
        defaults: BOUNDS,
        query: out_of_bounds!("@this_model", "LENGTH(@column)", "@condition"),
    },
    Builtin { name: "string_length_equal", defaults: &[], query: bad_rows!("LENGTH(@column) <> @v") },
    Builtin {
        name: "unique_combination_of_columns",
        defaults: &[],
        query: "SELECT @EACH(@columns, c -> @c), COUNT(*) AS number_of_rows FROM @this_model WHERE @condition \
                GROUP BY @EACH(@columns, c -> @c) HAVING COUNT(*) > 1",
    },
    Builtin {
        name: "unique_values",
        defaults: &[],
        query: "\
SELECT * FROM (
  SELECT @EACH(@columns, c -> @c), @EACH(@columns, c -> ROW_NUMBER() OVER (PARTITION BY @c ORDER BY @c) AS rank_@c)
  FROM @this_model
  WHERE @condition
) AS ranked
WHERE @REDUCE(@EACH(@columns, c -> rank_@c > 1), (l, r) -> @l OR @r)",
    },
    Builtin {
        name: "valid_email",
        defaults: &[],
        query: bad_rows!(r"NOT @__MATCHES(@column, '^[a-zA-Z0-9_.+-]+@[a-zA-Z0-9-]+[.][a-zA-Z0-9.-]+$')"),
    },
    Builtin {
        name: "valid_http_method",
        defaults: &[],
        query: bad_rows!(
            "@column NOT IN ('GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'HEAD', 'OPTIONS', 'TRACE', 'CONNECT')"
        ),
    },
    Builtin {
        name: "valid_url",
        defaults: &[],
        query: bad_rows!("NOT @__MATCHES(@column, '^(https?|ftp)://[^[:space:]/$.?#].[^[:space:]]*$')"),
    },
    Builtin {
        name: "valid_uuid",
        defaults: &[],
        query: bad_rows!(
            "NOT @__MATCHES(LOWER(@column), \
             '^[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$')"
        ),
    },
    Builtin {
        name: "z_score",
        defaults: &[],
        query: "\
WITH stats AS (
  SELECT AVG(@column) AS mean, STDDEV(@column) AS deviation FROM @this_model WHERE @condition
), scored AS (
  SELECT @column AS value, (@column - mean) / NULLIF(deviation, 0) AS z_score
  FROM @this_model CROSS JOIN stats
)
SELECT * FROM scored WHERE ABS(z_score) > @threshold",
    },
];

/// The built-in audit of a name in any case; with `_non_blocking` behind it, one that only warns.
/// Its query is written in the dialect of whoever uses it.
pub fn builtin_audit(name: &str) -> Option<Audit> {
    let name = name.to_ascii_lowercase();
    let blocking = !name.ends_with(NON_BLOCKING);
    let base = name.strip_suffix(NON_BLOCKING).unwrap_or(&name);
    let index = BUILTINS.binary_search_by(|builtin| builtin.name.cmp(base)).ok()?;
    let builtin = &BUILTINS[index];
    let mut defaults: BTreeMap<String, String> =
        builtin.defaults.iter().map(|(name, sql)| ((*name).to_owned(), (*sql).to_owned())).collect();
    defaults.insert("condition".to_owned(), "TRUE".to_owned());
    Some(Audit {
        dialect: Dialect::Generic,
        skip: false,
        blocking,
        standalone: false,
        defaults,
        query: Code { text: builtin.query.to_owned(), language: Language::Sql, line: 1 },
        location: Location::file("<built-in>"),
        name,
    })
}

/// The names of all built-in audits that block, in order.
pub fn builtin_audit_names() -> impl Iterator<Item = &'static str> {
    BUILTINS.iter().map(|builtin| builtin.name)
}
