//! Slowly changing dimensions of type 2: one query that says what the whole table becomes.
//!
//! Rows that were closed before stay as they are. The open rows and the model's query meet by key:
//! what changed is closed and opened anew, what is new is opened, and what vanished is closed
//! where the model asks for it.

use coord_common::project::model::{ColumnDef, ScdBy, ScdType2};

use super::profile::Profile;
use super::statements::{cast_bound, sub};

/// The time since which rows are valid whose past isn't known.
const EPOCH: &str = "'1970-01-01 00:00:00'";

/// One evaluation of an SCD type 2 model.
#[derive(Debug, Clone)]
pub struct ScdWrite {
    /// The model's query, without the columns that say when a row is valid.
    pub query: String,
    /// How changes are seen, and what the columns are called.
    pub kind: ScdType2,
    /// The execution time as a SQL literal, in UTC.
    pub execution: String,
    /// Whether the table is only made where it is missing, and left as it is otherwise.
    pub only_create: bool,
}

/// The columns of a table that doesn't exist yet: the query's, and when a row is valid. Types that
/// aren't known are empty.
pub(crate) fn table_columns(kind: &ScdType2, query: &[ColumnDef]) -> Vec<ColumnDef> {
    let untyped =
        query.iter().map(|column| ColumnDef { name: column.name.clone(), data_type: String::new() });
    kind.with_validity(&untyped.collect::<Vec<_>>())
}

/// The query for an empty table with these columns.
pub(crate) fn skeleton(profile: &Profile, query: &str, own: &[ColumnDef], columns: &[ColumnDef]) -> String {
    let column = |column: &ColumnDef| {
        let name = profile.quote(&column.name);
        let selected = has(own, &column.name);
        match (column.data_type.as_str(), selected) {
            ("", _) => name,
            (data_type, true) => format!("CAST({name} AS {data_type}) AS {name}"),
            (data_type, false) => format!("CAST(NULL AS {data_type}) AS {name}"),
        }
    };
    let columns = columns.iter().map(column).collect::<Vec<_>>().join(", ");
    format!("SELECT {columns} FROM {} LIMIT 0", sub(query, "_q"))
}

fn has(columns: &[ColumnDef], name: &str) -> bool {
    columns.iter().any(|column| column.name.eq_ignore_ascii_case(name))
}

/// The query for what the table becomes.
///
/// `table` are the table's columns, `own` those of the model's query, `target` is the table as SQL.
/// `first`: what the table holds counts for nothing.
pub(crate) fn replacement(
    profile: &Profile,
    write: &ScdWrite,
    target: &str,
    table: &[ColumnDef],
    own: &[ColumnDef],
    first: bool,
) -> String {
    let kind = &write.kind;
    let time_type = table
        .iter()
        .find(|column| column.name.eq_ignore_ascii_case(&kind.valid_from_name))
        .map(|column| column.data_type.as_str())
        .filter(|data_type| !data_type.is_empty());
    let managed = [&kind.valid_from_name, &kind.valid_to_name];
    let data =
        table.iter().filter(|column| managed.iter().all(|name| !column.name.eq_ignore_ascii_case(name)));
    let text = Text {
        profile,
        write,
        own,
        data: data.collect(),
        time_type: time_type.unwrap_or(&kind.time_data_type).to_owned(),
        first,
    };
    let with = [
        format!("_source AS ({})", text.source()),
        format!("_rows AS ({})", text.rows(target)),
        format!("_closed AS (SELECT * FROM _rows WHERE {} IS NOT NULL)", text.valid_to()),
        format!("_open AS (SELECT * FROM _rows WHERE {} IS NULL)", text.valid_to()),
        format!("_gone AS ({})", text.gone()),
        format!("_met AS ({})", text.met()),
        format!(
            "_all AS (SELECT {} FROM _closed UNION ALL {} UNION ALL {})",
            text.outputs(),
            text.kept(),
            text.reopened()
        ),
    ];
    let cast = |column: &ColumnDef| {
        let name = profile.quote(&column.name);
        match column.data_type.as_str() {
            "" => name,
            data_type => format!("CAST({name} AS {data_type}) AS {name}"),
        }
    };
    let columns = table.iter().map(cast).collect::<Vec<_>>().join(", ");
    format!("WITH {} SELECT {columns} FROM _all", with.join(", "))
}

struct Text<'a> {
    profile: &'a Profile,
    write: &'a ScdWrite,
    /// The columns of the model's query.
    own: &'a [ColumnDef],
    /// The table's columns but those of validity.
    data: Vec<&'a ColumnDef>,
    time_type: String,
    first: bool,
}

impl Text<'_> {
    fn kind(&self) -> &ScdType2 {
        &self.write.kind
    }

    fn valid_from(&self) -> String {
        self.profile.quote(&self.kind().valid_from_name)
    }

    fn valid_to(&self) -> String {
        self.profile.quote(&self.kind().valid_to_name)
    }

    fn updated_at(&self) -> Option<&str> {
        match &self.kind().by {
            ScdBy::Time { updated_at_name, .. } => Some(updated_at_name),
            ScdBy::Column { .. } => None,
        }
    }

    /// The columns whose values are compared, by which any SQL expression is meant.
    fn compared(&self) -> Vec<String> {
        match &self.kind().by {
            ScdBy::Time { .. } => Vec::new(),
            ScdBy::Column { columns, .. } if columns.is_empty() => {
                self.data.iter().map(|column| self.profile.quote(&column.name)).collect()
            }
            ScdBy::Column { columns, .. } => columns.clone(),
        }
    }

    /// Keys and compared values, computed once on either side, so that the rest only names them.
    fn computed(&self) -> String {
        let keys = self.kind().unique_key.iter().enumerate().map(|(n, key)| format!(", {key} AS _key{n}"));
        let compared = self.compared();
        let checks = compared.iter().enumerate().map(|(n, check)| format!(", {check} AS _check{n}"));
        keys.chain(checks).collect()
    }

    fn each(&self, text: impl Fn(usize, &str) -> String) -> String {
        let columns = self.data.iter().enumerate();
        columns.map(|(n, column)| text(n, &self.profile.quote(&column.name))).collect::<Vec<_>>().join(", ")
    }

    fn outputs(&self) -> String {
        format!("{}, {}, {}", self.each(|_, name| name.to_owned()), self.valid_from(), self.valid_to())
    }

    /// The model's rows, one per key, in the table's columns and types.
    fn source(&self) -> String {
        let selected = self.each(|n, name| {
            let ColumnDef { name: column, data_type } = self.data[n];
            let is_time = self.updated_at().is_some_and(|time| time.eq_ignore_ascii_case(column));
            let value = if has(self.own, column) { name } else { "NULL" };
            match data_type.as_str() {
                "" if is_time => format!("CAST({value} AS {}) AS {name}", self.time_type),
                "" => format!("{value} AS {name}"),
                data_type => format!("CAST({value} AS {data_type}) AS {name}"),
            }
        });
        let keys = self.kind().unique_key.join(", ");
        let (names, computed) = (self.each(|_, name| name.to_owned()), self.computed());
        let rows = sub(&self.write.query, "_q");
        format!(
            "SELECT DISTINCT ON ({keys}) TRUE AS _exists, {names}{computed} \
             FROM (SELECT {selected} FROM {rows}) AS _typed"
        )
    }

    fn rows(&self, target: &str) -> String {
        let none = if self.first { " WHERE 1 = 0" } else { "" };
        format!("SELECT {}{} FROM {target}{none}", self.outputs(), self.computed())
    }

    fn keys(&self, text: impl Fn(usize) -> String, between: &str) -> String {
        (0..self.kind().unique_key.len()).map(text).collect::<Vec<_>>().join(between)
    }

    /// When the last row of a key was closed.
    fn gone(&self) -> String {
        let keys = self.keys(|n| format!("_key{n}"), ", ");
        format!("SELECT {keys}, MAX({}) AS _until FROM _closed GROUP BY {keys}", self.valid_to())
    }

    /// Open rows (`_o…`) beside the model's (`_n…`).
    fn met(&self) -> String {
        let old = self.each(|n, name| format!("o.{name} AS _o{n}"));
        let new = self.each(|n, name| format!("n.{name} AS _n{n}"));
        let keys = self.keys(|n| format!("o._key{n} AS _okey{n}, n._key{n} AS _nkey{n}"), ", ");
        let checks: String = (0..self.compared().len())
            .map(|n| format!(", o._check{n} AS _ocheck{n}, n._check{n} AS _ncheck{n}"))
            .collect();
        let on = self.keys(|n| format!("o._key{n} = n._key{n}"), " AND ");
        format!(
            "SELECT n._exists, o.{} AS _from, o.{} AS _to, {old}, {new}, {keys}{checks} \
             FROM _open AS o FULL JOIN _source AS n ON {on}",
            self.valid_from(),
            self.valid_to(),
        )
    }

    fn position(&self, name: &str) -> usize {
        let found = self.data.iter().position(|column| column.name.eq_ignore_ascii_case(name));
        // Without it the name isn't valid, and the warehouse says so.
        found.unwrap_or(self.data.len())
    }

    fn execution(&self) -> String {
        match &self.kind().by {
            ScdBy::Column { updated_at_name: Some(name), .. } => {
                format!("CAST(_n{} AS {})", self.position(name), self.time_type)
            }
            _ => cast_bound(&self.write.execution, &self.time_type),
        }
    }

    /// Whether an open row's key has other values now.
    fn changed(&self) -> String {
        match self.updated_at() {
            Some(name) => {
                let at = self.position(name);
                format!("_n{at} > _o{at}")
            }
            None => {
                let keys = self.keys(|n| format!("_okey{n} IS NOT NULL AND _nkey{n} IS NOT NULL"), " AND ");
                let checks: Vec<String> = (0..self.compared().len())
                    .map(|n| format!("_ncheck{n} IS DISTINCT FROM _ocheck{n}"))
                    .collect();
                format!("{keys} AND ({})", checks.join(" OR "))
            }
        }
    }

    /// The open rows, closed where they changed or vanished, and new ones.
    fn kept(&self) -> String {
        let columns = self.each(|n, name| format!("COALESCE(_o{n}, _n{n}) AS {name}"));
        let on = self.keys(|n| format!("_nkey{n} = g._key{n}"), " AND ");
        format!(
            "SELECT {columns}, {} AS {}, {} AS {} FROM _met LEFT JOIN _gone AS g ON {on}",
            self.opened_at(),
            self.valid_from(),
            self.closed_at(),
            self.valid_to(),
        )
    }

    fn opened_at(&self) -> String {
        let epoch = cast_bound(EPOCH, &self.time_type);
        match &self.kind().by {
            ScdBy::Time { updated_at_name, updated_at_as_valid_from } => {
                let updated = format!("_n{}", self.position(updated_at_name));
                let start = if *updated_at_as_valid_from { &updated } else { &epoch };
                format!(
                    "CASE WHEN _from IS NOT NULL THEN _from WHEN g._until > {updated} THEN g._until \
                     WHEN g._until IS NOT NULL THEN {updated} ELSE {start} END"
                )
            }
            ScdBy::Column { execution_time_as_valid_from, .. } => {
                let start =
                    if *execution_time_as_valid_from || !self.first { self.execution() } else { epoch };
                format!("COALESCE(_from, {start})")
            }
        }
    }

    fn closed_at(&self) -> String {
        let deleted = if self.kind().invalidate_hard_deletes {
            format!("WHEN _exists IS NULL THEN {} ", self.execution())
        } else {
            String::new()
        };
        let changed_at = match self.updated_at() {
            Some(name) => format!("_n{}", self.position(name)),
            None => self.execution(),
        };
        format!("CASE WHEN {} THEN {changed_at} {deleted}ELSE _to END", self.changed())
    }

    /// The new values of rows that changed.
    fn reopened(&self) -> String {
        let columns = self.each(|n, name| format!("_n{n} AS {name}"));
        let from = match self.updated_at() {
            Some(name) => format!("_n{}", self.position(name)),
            None => self.execution(),
        };
        format!(
            "SELECT {columns}, {from} AS {}, CAST(NULL AS {}) AS {} FROM _met WHERE {}",
            self.valid_from(),
            self.time_type,
            self.valid_to(),
            self.changed()
        )
    }
}
