//! How a table's columns differ from those that a query gives, and what a model's properties say
//! about such changes. Shared by planning, which knows columns as texts tell them, and by workers,
//! which ask the warehouse.

use super::Allowed;
use crate::project::model::{ColumnDef, Model, ModelKind};

/// What to do about a change of a table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Refuse it.
    Error,
    /// Do it, and say so.
    Warn,
    /// Do it.
    Allow,
    /// Leave the table as it is; what doesn't fit stays out of it.
    Ignore,
}

/// What to do about changes of a table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policies {
    /// Where columns go, or lose their values since their type can't be changed.
    pub destructive: Policy,
    /// Where columns come.
    pub additive: Policy,
}

impl Policies {
    /// What a model says, and what a plan allows beyond that; what a model ignores stays ignored.
    pub fn of(model: &Model, allowed: Allowed) -> Self {
        let common = model.kind.incremental();
        let destructive = match common {
            Some(common) => policy(common.on_destructive_change.as_deref(), Policy::Error),
            None => Policy::Allow,
        };
        let additive = common
            .map_or(Policy::Allow, |common| policy(common.on_additive_change.as_deref(), Policy::Allow));
        let unless =
            |policy, allowed| if allowed && policy != Policy::Ignore { Policy::Allow } else { policy };
        Self {
            destructive: unless(destructive, allowed.destructive),
            additive: unless(additive, allowed.additive),
        }
    }
}

fn policy(word: Option<&str>, absent: Policy) -> Policy {
    match word {
        Some("error") => Policy::Error,
        Some("warn") => Policy::Warn,
        Some("allow") => Policy::Allow,
        Some("ignore") => Policy::Ignore,
        _ => absent,
    }
}

/// How the columns of a table differ from those that a query gives. Their order doesn't count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ColumnChanges {
    /// Columns that the table lacks.
    pub added: Vec<ColumnDef>,
    /// Columns that the query doesn't give any more.
    pub dropped: Vec<ColumnDef>,
    /// Columns whose new type holds every value of the old one; with the new type.
    pub widened: Vec<ColumnDef>,
    /// Columns whose new type doesn't; with the new type. They are dropped and added.
    pub retyped: Vec<ColumnDef>,
}

impl ColumnChanges {
    /// Compares a table's columns with a query's; types that aren't known don't differ. `kept` are
    /// columns that the table has for itself.
    pub fn between(table: &[ColumnDef], query: &[ColumnDef], kept: &[String]) -> Self {
        let mut found = Self::default();
        for new in query {
            let Some(old) = named(table, &new.name) else {
                found.added.push(new.clone());
                continue;
            };
            let (was, is) = (normal(&old.data_type), normal(&new.data_type));
            let unknown = |text: &str| text.is_empty() || text == "UNKNOWN" || text.contains("NULL");
            if was == is || unknown(&was) || unknown(&is) {
                continue;
            }
            let changed = ColumnDef { name: old.name.clone(), data_type: new.data_type.clone() };
            if widens(&was, &is) { found.widened.push(changed) } else { found.retyped.push(changed) }
        }
        let own = |name: &str| kept.iter().any(|kept| kept.eq_ignore_ascii_case(name));
        let gone = table.iter().filter(|old| named(query, &old.name).is_none() && !own(&old.name));
        found.dropped = gone.cloned().collect();
        found
    }

    /// The columns that lose their values.
    pub fn destroyed(&self) -> impl Iterator<Item = &ColumnDef> {
        self.dropped.iter().chain(&self.retyped)
    }
}

/// Columns that a kind adds to what its query gives.
pub fn added_by_kind(kind: &ModelKind) -> Vec<String> {
    match kind {
        ModelKind::ScdType2(scd) => vec![scd.valid_from_name.clone(), scd.valid_to_name.clone()],
        _ => Vec::new(),
    }
}

fn named<'a>(columns: &'a [ColumnDef], name: &str) -> Option<&'a ColumnDef> {
    columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
}

/// A type by one of its names.
fn normal(data_type: &str) -> String {
    let upper = data_type.trim().to_ascii_uppercase();
    let (name, rest) = match upper.find('(') {
        Some(at) => (upper[..at].trim_end(), upper[at..].replace(' ', "")),
        None => (upper.as_str(), String::new()),
    };
    let name = match name {
        "INT" | "INT4" | "SIGNED" | "SERIAL" => "INTEGER",
        "INT8" | "LONG" | "BIGSERIAL" => "BIGINT",
        "INT2" | "SHORT" => "SMALLINT",
        "INT1" => "TINYINT",
        "FLOAT4" | "FLOAT" => "REAL",
        "FLOAT8" | "DOUBLE PRECISION" => "DOUBLE",
        "NUMERIC" => "DECIMAL",
        "BOOL" | "LOGICAL" => "BOOLEAN",
        "STRING" | "TEXT" | "CHARACTER VARYING" | "BPCHAR" | "CHAR" | "CHARACTER" => "VARCHAR",
        "DATETIME" | "TIMESTAMP WITHOUT TIME ZONE" => "TIMESTAMP",
        "TIMESTAMP WITH TIME ZONE" => "TIMESTAMPTZ",
        other => other,
    };
    // How long a text may be, the warehouse knows.
    if name == "VARCHAR" { name.to_owned() } else { format!("{name}{rest}") }
}

/// Whether a type holds every value of another; both by their normal names.
fn widens(from: &str, to: &str) -> bool {
    const INTEGERS: [&str; 5] = ["TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"];
    let rank = |name: &str| INTEGERS.iter().position(|integer| *integer == name);
    match (rank(from), rank(to)) {
        (Some(old), Some(new)) => return old < new,
        (Some(old), None) if to == "DOUBLE" => return old <= 2,
        (Some(old), None) if to == "REAL" => return old <= 1,
        (Some(old), None) => {
            let digits = [3, 5, 10, 19, 39][old];
            return to == "VARCHAR" || decimal(to).is_some_and(|(whole, _)| whole >= digits);
        }
        _ => {}
    }
    match (decimal(from), decimal(to)) {
        (Some(old), Some(new)) => old.0 <= new.0 && old.1 <= new.1,
        _ => to == "VARCHAR" || matches!((from, to), ("REAL", "DOUBLE") | ("DATE", "TIMESTAMP")),
    }
}

/// How many digits a decimal type holds before and after the point.
fn decimal(data_type: &str) -> Option<(u32, u32)> {
    let inside = data_type.strip_prefix("DECIMAL(")?.strip_suffix(')')?;
    let (precision, scale) = inside.split_once(',').unwrap_or((inside, "0"));
    let (precision, scale): (u32, u32) = (precision.parse().ok()?, scale.parse().ok()?);
    Some((precision.checked_sub(scale)?, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(text: &str) -> Vec<ColumnDef> {
        let define = |pair: &str| {
            let (name, data_type) = pair.trim().split_once(' ').unwrap_or((pair.trim(), ""));
            ColumnDef { name: name.to_owned(), data_type: data_type.to_owned() }
        };
        text.split(';').map(define).collect()
    }

    #[test]
    fn columns_come_go_and_change_their_types() {
        let table = columns("a INT; b TEXT; c DOUBLE; Valid_To DATE");
        let query = columns("C double precision; A BIGINT; d DATE");
        let found = ColumnChanges::between(&table, &query, &["valid_to".to_owned()]);
        assert_eq!(found.added, columns("d DATE"));
        assert_eq!(found.dropped, columns("b TEXT"));
        assert_eq!(found.widened, columns("a BIGINT"));
        assert_eq!(found.retyped, []);
    }

    #[test]
    fn a_type_widens_only_where_every_value_fits() {
        for (from, to, fits) in [
            ("INT", "BIGINT", true),
            ("BIGINT", "INT", false),
            ("INTEGER", "DOUBLE", true),
            ("BIGINT", "DOUBLE", false),
            ("INT", "DECIMAL(12, 2)", true),
            ("INT", "DECIMAL(11, 2)", false),
            ("DECIMAL(10,2)", "DECIMAL(12,3)", true),
            ("DECIMAL(10,2)", "DECIMAL(12,5)", false),
            ("DATE", "TIMESTAMP", true),
            ("TIMESTAMP", "DATE", false),
            ("BOOLEAN", "TEXT", true),
            ("TEXT", "INT", false),
        ] {
            let changes =
                ColumnChanges::between(&columns(&format!("a {from}")), &columns(&format!("a {to}")), &[]);
            assert_eq!(
                (changes.widened.len(), changes.retyped.len()),
                (fits.into(), (!fits).into()),
                "{from} {to}"
            );
        }
    }

    #[test]
    fn types_that_are_not_known_do_not_differ() {
        let changes = ColumnChanges::between(&columns("a INT; b \"NULL\""), &columns("a ; b DATE"), &[]);
        assert_eq!(changes, ColumnChanges::default());
    }
}
