//! The SQL of batches. Pure: texts in, texts out.

use coord_common::id::Hasher;
use coord_common::project::model::ColumnDef;

use super::error::EngineError;
use super::profile::{FullReplace, Profile};
use super::scd::{self, ScdWrite};
use super::{AUDITED, AuditQuery, BatchWrite, Bound, Relation, Write};

/// The name of the temporary table that upserts go through; it lives in one transaction.
const STAGE: &str = "__coordctl_stage";

/// A text as a SQL literal.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A query without what would end the statement around it early.
pub(crate) fn clean(query: &str) -> &str {
    query.trim().trim_end_matches(';').trim_end()
}

/// A query as a subquery. It ends in a line of its own, since its last line may be a comment.
pub(crate) fn sub(query: &str, alias: &str) -> String {
    format!("({}\n) AS {alias}", clean(query))
}

fn sub_select(query: &str) -> String {
    format!("SELECT bad FROM {}", sub(query, "_count"))
}

/// The statement that counts an audit's bad rows.
pub(crate) fn count(audit: &AuditQuery) -> String {
    let counted = format!("SELECT COUNT(*) AS bad FROM {}", sub(&audit.sql, "_audit"));
    match &audit.audited {
        // Wrapped once more: sessions tell statements that answer with rows by their first word.
        Some(rows) => sub_select(&format!("WITH {AUDITED} AS (\n{}\n)\n{counted}", clean(rows))),
        None => counted,
    }
}

/// What is known about the target and the query when the statements are made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// The target's columns, if it exists.
    pub(crate) target: Option<Vec<ColumnDef>>,
    /// Whether the target's schema is missing.
    pub(crate) schema_missing: bool,
    /// The query's columns.
    pub(crate) query: Vec<ColumnDef>,
}

/// The statements of a write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Script {
    /// Before the model's own statements: the schema and the table.
    pub(crate) create: Vec<String>,
    /// After them: the rows.
    pub(crate) data: Vec<String>,
    /// Which of `data` write rows that count.
    pub(crate) counted: Vec<usize>,
    /// Whether the target's columns may be others afterwards.
    pub(crate) reshapes: bool,
}

/// Makes a batch's statements.
pub(crate) fn script(profile: &Profile, batch: &BatchWrite, known: &Known) -> Result<Script, EngineError> {
    let builder = Builder {
        profile,
        batch,
        known,
        target: profile.relation(&batch.target),
        columns: profile.list(known.query.iter().map(|column| column.name.as_str())),
    };
    builder.script()
}

struct Builder<'a> {
    profile: &'a Profile,
    batch: &'a BatchWrite,
    known: &'a Known,
    target: String,
    columns: String,
}

impl Builder<'_> {
    fn script(&self) -> Result<Script, EngineError> {
        let mut script = Script::default();
        if self.known.schema_missing {
            script.create.push(create_schema(self.profile, &self.batch.target));
        }
        script.reshapes = self.known.target.is_none();
        match &self.batch.write {
            Write::Create { query } => self.create_table(&mut script, query),
            Write::TimeRange { query, column, low, high } => {
                self.create_table(&mut script, query);
                self.time_range(&mut script, query, column, [low, high])?;
            }
            Write::UniqueKey { query, key, matched, filter } => {
                self.create_table(&mut script, query);
                if self.batch.first || (matched.is_none() && filter.is_none()) {
                    self.staged(&mut script, query, key, Some(key));
                } else {
                    self.merge(&mut script, query, key, matched.as_deref(), filter.as_deref());
                }
            }
            Write::Partition { query, key } => {
                self.create_table(&mut script, query);
                self.staged(&mut script, query, key, None);
            }
            Write::Append { query } => {
                self.create_table(&mut script, query);
                if self.batch.first {
                    script.data.push(format!("DELETE FROM {}", self.target));
                }
                self.insert(&mut script, &format!("SELECT {} FROM {}", self.columns, sub(query, "_q")));
            }
            Write::Full { query } => self.full(&mut script, query),
            Write::Scd(write) => self.scd(&mut script, write),
            Write::View { query, materialized } => self.view(&mut script, query, *materialized),
            Write::Seed { columns, rows, batch } => self.seed(&mut script, columns, rows, *batch),
            Write::AuditOnly | Write::Migrate { .. } => {}
        }
        Ok(script)
    }

    fn create_table(&self, script: &mut Script, query: &str) {
        if self.known.target.is_none() {
            script.create.push(self.definition("CREATE TABLE IF NOT EXISTS", query));
        }
    }

    /// The statement that makes the table without rows.
    fn definition(&self, verb: &str, query: &str) -> String {
        match &self.batch.columns {
            Some(columns) => format!("{verb} {} ({})", self.target, self.definitions(columns)),
            None => {
                format!("{verb} {} AS SELECT {} FROM {} LIMIT 0", self.target, self.columns, sub(query, "_q"))
            }
        }
    }

    fn definitions(&self, columns: &[ColumnDef]) -> String {
        let definition =
            |column: &ColumnDef| format!("{} {}", self.profile.quote(&column.name), column.data_type);
        columns.iter().map(definition).collect::<Vec<_>>().join(", ")
    }

    fn insert(&self, script: &mut Script, select: &str) {
        script.counted.push(script.data.len());
        script.data.push(format!("INSERT INTO {} ({}) {select}", self.target, self.columns));
    }

    fn time_range(
        &self,
        script: &mut Script,
        query: &str,
        column: &str,
        bounds: [&Bound; 2],
    ) -> Result<(), EngineError> {
        let data_type = self.type_of(column)?;
        let [low, high] = bounds.map(|bound| cast_bound(bound.of(data_type), data_type));
        let within = format!("{} BETWEEN {low} AND {high}", self.profile.quote(column));
        script.data.push(format!("DELETE FROM {} WHERE {within}", self.target));
        let rows = format!("SELECT {} FROM {} WHERE {within}", self.columns, sub(query, "_q"));
        self.insert(script, &rows);
        Ok(())
    }

    /// The real type of a column: the table's, else as declared, else the query's.
    fn type_of(&self, column: &str) -> Result<&str, EngineError> {
        let sources = [self.known.target.as_deref(), self.batch.columns.as_deref(), Some(&self.known.query)];
        let found = sources
            .into_iter()
            .flatten()
            .find_map(|columns| columns.iter().find(|candidate| candidate.name.eq_ignore_ascii_case(column)));
        match found {
            Some(found) => Ok(&found.data_type),
            None => Err(EngineError::permanent(format!("the query has no time column `{column}`"))
                .code("42703")
                .hint("select it, or name another column in `time_column`")),
        }
    }

    /// Through a temporary table, so that the query runs once: delete what has the same keys, insert.
    fn staged(&self, script: &mut Script, query: &str, key: &[String], distinct: Option<&[String]>) {
        let (target, columns) = (&self.target, &self.columns);
        script
            .data
            .push(format!("CREATE TEMPORARY TABLE {STAGE} AS SELECT {columns} FROM {}", sub(query, "_q")));
        let keys = key.join(", ");
        script.data.push(if self.batch.first {
            format!("DELETE FROM {target}")
        } else {
            format!("DELETE FROM {target} WHERE ({keys}) IN (SELECT {keys} FROM {STAGE})")
        });
        let distinct = distinct.map_or_else(String::new, |key| format!("DISTINCT ON ({}) ", key.join(", ")));
        self.insert(script, &format!("SELECT {distinct}{columns} FROM {STAGE}"));
        script.data.push(format!("DROP TABLE {STAGE}"));
    }

    fn merge(
        &self,
        script: &mut Script,
        query: &str,
        key: &[String],
        matched: Option<&str>,
        filter: Option<&str>,
    ) {
        let [old, new] = ["__MERGE_TARGET__", "__MERGE_SOURCE__"].map(|name| self.profile.quote(name));
        let equal = key.iter().map(|part| format!("{old}.{part} = {new}.{part}"));
        let on: Vec<String> = filter.map(|filter| format!("({filter})")).into_iter().chain(equal).collect();
        let each = |text: &dyn Fn(&str) -> String| {
            let parts = self.known.query.iter().map(|column| text(&self.profile.quote(&column.name)));
            parts.collect::<Vec<_>>().join(", ")
        };
        let update =
            || format!("WHEN MATCHED THEN UPDATE SET {}", each(&|name| format!("{name} = {new}.{name}")));
        let matched = matched.map_or_else(update, str::to_owned);
        script.counted.push(script.data.len());
        script.data.push(format!(
            "MERGE INTO {} AS {old} USING {} ON {} {matched} WHEN NOT MATCHED THEN INSERT ({}) VALUES ({})",
            self.target,
            sub(query, &new),
            on.join(" AND "),
            self.columns,
            each(&|name| format!("{new}.{name}")),
        ));
    }

    fn full(&self, script: &mut Script, query: &str) {
        let (target, columns) = (&self.target, &self.columns);
        let source = sub(query, "_q");
        let rows = format!("SELECT {columns} FROM {source}");
        if self.profile.full_replace == FullReplace::CreateOrReplace {
            script.reshapes = true;
            script.counted.push(script.data.len());
            let rows = match &self.batch.columns {
                Some(declared) => format!("SELECT {} FROM {source}", self.casts(declared)),
                None => rows,
            };
            script.data.push(format!("CREATE OR REPLACE TABLE {target} AS {rows}"));
            return;
        }
        match &self.known.target {
            Some(old) if same_names(old, &self.known.query) => {
                script.counted.push(script.data.len());
                script.data.push(format!(
                    "WITH gone AS (DELETE FROM {target}) INSERT INTO {target} ({columns}) {rows}"
                ));
            }
            old => {
                script.reshapes = true;
                if old.is_some() {
                    script.data.push(format!("DROP TABLE {target}"));
                }
                script.data.push(self.definition("CREATE TABLE", query));
                self.insert(script, &rows);
            }
        }
    }

    fn scd(&self, script: &mut Script, write: &ScdWrite) {
        let own = &self.known.query;
        let columns = match (&self.known.target, &self.batch.columns) {
            (Some(found), _) => found.clone(),
            (None, Some(declared)) => declared.clone(),
            (None, None) => scd::table_columns(&write.kind, own),
        };
        if self.known.target.is_none() {
            let create = format!("CREATE TABLE IF NOT EXISTS {}", self.target);
            script.create.push(match &self.batch.columns {
                Some(declared) => format!("{create} ({})", self.definitions(declared)),
                None => format!("{create} AS {}", scd::skeleton(self.profile, &write.query, own, &columns)),
            });
        }
        if write.only_create {
            return;
        }
        let query = scd::replacement(self.profile, write, &self.target, &columns, own, self.batch.first);
        let known = Known { target: Some(columns.clone()), schema_missing: false, query: columns };
        let names = self.profile.list(known.query.iter().map(|column| column.name.as_str()));
        Builder { known: &known, columns: names, target: self.target.clone(), ..*self }.full(script, &query);
    }

    /// The query's columns, cast to the types that are declared for them.
    fn casts(&self, declared: &[ColumnDef]) -> String {
        let cast = |column: &ColumnDef| {
            let name = self.profile.quote(&column.name);
            match declared.iter().find(|candidate| candidate.name.eq_ignore_ascii_case(&column.name)) {
                Some(found) => format!("CAST({name} AS {}) AS {name}", found.data_type),
                None => name,
            }
        };
        self.known.query.iter().map(cast).collect::<Vec<_>>().join(", ")
    }

    fn view(&self, script: &mut Script, query: &str, materialized: bool) {
        let target = &self.target;
        script.reshapes = true;
        if materialized && self.profile.materialized_views {
            script.data.push(self.materialized_view(clean(query)));
        } else {
            // A view whose columns changed can't be replaced in place everywhere; where it can't,
            // the same is tried again with the view dropped (`batch::attempt`).
            script.data.push(format!("CREATE OR REPLACE VIEW {target} AS {}", clean(query)));
        }
    }

    /// Refreshes the view where it was made of the same query, which its comment tells: what shows it
    /// stands in the way of making it anew.
    fn materialized_view(&self, query: &str) -> String {
        let target = &self.target;
        let made_of = Hasher::new("materialized-view/v1").field("query", query).finish();
        let comment = literal(&format!("coordctl {made_of}"));
        // A tag that nothing within repeats, or the text between would end early.
        let mut tag = "$coordctl$".to_owned();
        while query.contains(&tag) || target.contains(&tag) {
            tag.insert(1, '_');
        }
        format!(
            "DO {tag} BEGIN IF (SELECT obj_description(to_regclass({name}), 'pg_class')) = {comment} THEN \
             REFRESH MATERIALIZED VIEW {target}; ELSE DROP MATERIALIZED VIEW IF EXISTS {target}; \
             CREATE MATERIALIZED VIEW {target} AS {query}\n; COMMENT ON MATERIALIZED VIEW {target} IS {comment}; \
             END IF; END {tag}",
            name = literal(target),
        )
    }

    fn seed(&self, script: &mut Script, columns: &[ColumnDef], rows: &[Vec<Option<String>>], batch: usize) {
        let target = &self.target;
        let definitions = self.definitions(columns);
        match &self.known.target {
            Some(old) if same_names(old, columns) => script.data.push(format!("DELETE FROM {target}")),
            old => {
                script.reshapes = true;
                if old.is_some() {
                    script.data.push(format!("DROP TABLE {target}"));
                }
                script.data.push(format!("CREATE TABLE {target} ({definitions})"));
            }
        }
        let names = self.profile.list(columns.iter().map(|column| column.name.as_str()));
        let cast = |column: &ColumnDef| {
            format!("CAST({} AS {})", self.profile.quote(&column.name), column.data_type)
        };
        let casts = columns.iter().map(cast).collect::<Vec<_>>().join(", ");
        for chunk in rows.chunks(batch.max(1)) {
            let values = chunk.iter().map(|row| value_row(row)).collect::<Vec<_>>().join(", ");
            script.counted.push(script.data.len());
            script.data.push(format!(
                "INSERT INTO {target} ({names}) SELECT {casts} FROM (VALUES {values}) AS _v ({names})"
            ));
        }
    }
}

fn value_row(row: &[Option<String>]) -> String {
    // The type is spelled out since a column of NULLs only would get another one.
    let value = |value: &Option<String>| match value {
        Some(text) => literal(text),
        None => "CAST(NULL AS VARCHAR)".to_owned(),
    };
    format!("({})", row.iter().map(value).collect::<Vec<_>>().join(", "))
}

/// The statements that make a batch's table as its model declares it.
pub(crate) fn declared_table(profile: &Profile, batch: &BatchWrite, schema_missing: bool) -> Vec<String> {
    let columns = batch.columns.iter().flatten();
    let columns = columns.map(|column| format!("{} {}", profile.quote(&column.name), column.data_type));
    let columns = columns.collect::<Vec<_>>().join(", ");
    let schema = schema_missing.then(|| create_schema(profile, &batch.target));
    let table = format!("CREATE TABLE IF NOT EXISTS {} ({columns})", profile.relation(&batch.target));
    schema.into_iter().chain([table]).collect()
}

/// The statement that makes a relation's schema.
pub(crate) fn create_schema(profile: &Profile, relation: &Relation) -> String {
    format!("CREATE SCHEMA IF NOT EXISTS {}", profile.schema(relation.catalog.as_deref(), &relation.schema))
}

/// The query that counts schemas of a name, 0 or 1.
pub(crate) fn count_schemas(profile: &Profile, catalog: Option<&str>, schema: &str) -> String {
    match catalog.filter(|_| profile.transaction_per_catalog) {
        Some(catalog) => format!(
            "SELECT COUNT(*) FROM information_schema.schemata WHERE catalog_name = {} AND schema_name = {}",
            literal(catalog),
            literal(schema)
        ),
        None => profile.schema_query.replace("{schema}", &literal(schema)),
    }
}

fn same_names(left: &[ColumnDef], right: &[ColumnDef]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.name == right.name)
}

/// A bound in a column's type. Bounds are UTC: a column with a zone must not read them in the
/// session's.
pub(crate) fn cast_bound(bound: &str, data_type: &str) -> String {
    let upper = data_type.to_ascii_uppercase();
    if upper.starts_with("TIMESTAMP")
        && (upper.starts_with("TIMESTAMPTZ") || upper.ends_with("WITH TIME ZONE"))
    {
        return format!("(CAST({bound} AS TIMESTAMP) AT TIME ZONE 'UTC')");
    }
    if upper == "DATE" {
        return format!("CAST(CAST({bound} AS TIMESTAMP) AS DATE)");
    }
    format!("CAST({bound} AS {data_type})")
}

#[cfg(test)]
mod tests {
    use coord_common::id::Token;

    use super::*;
    use crate::engine::Fence;

    fn check(profile: &Profile, write: Write, target: Option<&[&str]>, expected: &[&str]) {
        let columns = |names: &[&str]| {
            let column = |name: &&str| ColumnDef { name: (*name).to_owned(), data_type: "INT".to_owned() };
            names.iter().map(column).collect::<Vec<_>>()
        };
        let batch = BatchWrite {
            target: Relation::new("s", "t\"x"),
            write,
            pre: Vec::new(),
            post: Vec::new(),
            audits: Vec::new(),
            fence: Fence {
                slot: "a".to_owned(),
                token: Token(1),
                plan: "p".to_owned(),
                table: "t".to_owned(),
                supersedes: Vec::new(),
            },
            columns: None,
            raised: false,
            replayed_is_done: true,
            known_columns_only: false,
            first: false,
            aside: None,
        };
        let known = Known { target: target.map(columns), schema_missing: false, query: columns(&["i"]) };
        let script = script(profile, &batch, &known).unwrap();
        let all: Vec<&String> = script.create.iter().chain(&script.data).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn queries_may_end_in_a_semicolon_or_a_comment() {
        let query = "SELECT 1 AS i -- one\n;".to_owned();
        check(
            &Profile::POSTGRES,
            Write::Append { query },
            Some(&["i"]),
            &["INSERT INTO \"s\".\"t\"\"x\" (\"i\") SELECT \"i\" FROM (SELECT 1 AS i -- one\n) AS _q"],
        );
    }

    #[test]
    fn a_full_table_keeps_readers_where_it_can() {
        let full = || Write::Full { query: "q".to_owned() };
        let target = "\"s\".\"t\"\"x\"";
        check(
            &Profile::DUCKDB,
            full(),
            Some(&["i"]),
            &[&format!("CREATE OR REPLACE TABLE {target} AS SELECT \"i\" FROM (q\n) AS _q")],
        );
        check(
            &Profile::POSTGRES,
            full(),
            Some(&["i"]),
            &[&format!(
                "WITH gone AS (DELETE FROM {target}) INSERT INTO {target} (\"i\") SELECT \"i\" FROM (q\n) AS _q"
            )],
        );
        check(
            &Profile::POSTGRES,
            full(),
            Some(&["j"]),
            &[
                &format!("DROP TABLE {target}"),
                &format!("CREATE TABLE {target} AS SELECT \"i\" FROM (q\n) AS _q LIMIT 0"),
                &format!("INSERT INTO {target} (\"i\") SELECT \"i\" FROM (q\n) AS _q"),
            ],
        );
    }

    #[test]
    fn a_bound_is_a_moment_for_times_and_in_the_models_own_format_for_texts_and_numbers() {
        let bound = Bound { time: "'2024-01-01 00:00:00'".to_owned(), own: "'20240101'".to_owned() };
        for data_type in ["DATE", "timestamp with time zone", "TIMESTAMP_NS", "datetime"] {
            assert_eq!(bound.of(data_type), bound.time, "{data_type}");
        }
        for data_type in ["VARCHAR", "varchar(8)", "text", "BIGINT", "STRING"] {
            assert_eq!(bound.of(data_type), bound.own, "{data_type}");
        }
    }

    #[test]
    fn bounds_are_cast_to_the_columns_type() {
        let low = "'2024-01-01 00:00:00'";
        for (data_type, expected) in [
            ("DATE", "CAST(CAST('2024-01-01 00:00:00' AS TIMESTAMP) AS DATE)"),
            ("timestamp(3) with time zone", "(CAST('2024-01-01 00:00:00' AS TIMESTAMP) AT TIME ZONE 'UTC')"),
            ("TIMESTAMPTZ", "(CAST('2024-01-01 00:00:00' AS TIMESTAMP) AT TIME ZONE 'UTC')"),
            ("timestamp without time zone", "CAST('2024-01-01 00:00:00' AS timestamp without time zone)"),
            ("text", "CAST('2024-01-01 00:00:00' AS text)"),
        ] {
            assert_eq!(cast_bound(low, data_type), expected);
        }
    }
}
