//! What the transactional engine must know about one warehouse: a further one is one more value.

use coord_common::sql::Dialect;

use super::error::EngineError;
use super::{Relation, RelationKind};

/// How a whole table is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullReplace {
    /// `CREATE OR REPLACE TABLE … AS`.
    CreateOrReplace,
    /// One statement that deletes all rows and inserts the new ones, so that readers aren't
    /// locked out and the query still sees the old rows.
    DeleteAndInsert,
}

/// How an ADBC driver tells a query's columns without running it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Describe {
    /// The warehouse has a `DESCRIBE` statement, which answers names and types.
    Statement,
    /// By the Arrow schema of the prepared statement; types are the closest standard ones.
    ArrowSchema,
}

const DEPENDENTS: &str = "WITH RECURSIVE shows(view, depth) AS (\
     SELECT r.ev_class, 1 FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid \
     WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass \
     AND d.refobjid = {relation}::regclass AND r.ev_class <> d.refobjid \
     UNION \
     SELECT r.ev_class, s.depth + 1 FROM shows s JOIN pg_depend d ON d.refobjid = s.view \
     AND d.refclassid = 'pg_class'::regclass AND d.classid = 'pg_rewrite'::regclass \
     JOIN pg_rewrite r ON r.oid = d.objid WHERE r.ev_class <> d.refobjid) \
     SELECT n.nspname::text, c.relname::text, c.relkind::text, pg_get_viewdef(c.oid), MAX(s.depth)::text \
     FROM shows s JOIN pg_class c ON c.oid = s.view JOIN pg_namespace n ON n.oid = c.relnamespace \
     GROUP BY n.nspname, c.relname, c.relkind, c.oid ORDER BY MAX(s.depth), 1, 2";

const KEEPSAKES: &str = "WITH it AS (SELECT c.oid, c.relowner, c.relacl, c.reloptions, \
     CASE c.relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'VIEW' END AS kind, \
     format('%I.%I', n.nspname, c.relname) AS name \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass({relation})), \
     acls AS (SELECT NULL::name AS col, name, relowner, relacl AS acl FROM it UNION ALL \
     SELECT a.attname, name, relowner, a.attacl FROM it JOIN pg_attribute a ON a.attrelid = it.oid \
     WHERE a.attnum > 0 AND NOT a.attisdropped), \
     grants AS (SELECT col, format('GRANT %s%s ON %s TO %s%s', g.privilege_type, \
     CASE WHEN col IS NULL THEN '' ELSE ' (' || quote_ident(col) || ')' END, name, \
     CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END, \
     CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) AS statement \
     FROM acls, aclexplode(acls.acl) g WHERE g.grantee <> relowner), \
     comments AS (SELECT a.attname AS col, CASE WHEN d.objsubid = 0 \
     THEN format('COMMENT ON %s %s IS %L', kind, name, d.description) \
     ELSE format('COMMENT ON COLUMN %s.%I IS %L', name, a.attname, d.description) END AS statement \
     FROM it JOIN pg_description d ON d.objoid = it.oid AND d.classoid = 'pg_class'::regclass \
     LEFT JOIN pg_attribute a ON a.attrelid = it.oid AND a.attnum = d.objsubid AND d.objsubid > 0), \
     options AS (SELECT format('ALTER %s %s SET (%s)', kind, name, array_to_string(reloptions, ', ')) \
     AS statement FROM it WHERE reloptions IS NOT NULL), \
     owners AS (SELECT format('ALTER %s %s OWNER TO %I', kind, name, pg_get_userbyid(relowner)) AS statement \
     FROM it WHERE pg_get_userbyid(relowner) <> current_user) \
     SELECT col::text, statement, 1 AS at FROM comments UNION ALL SELECT NULL, statement, 2 FROM options \
     UNION ALL SELECT col::text, statement, 3 FROM grants UNION ALL SELECT NULL, statement, 4 FROM owners \
     ORDER BY at, statement";

/// How one warehouse differs from others. All of them have transactions that cover DDL; a
/// warehouse without them can't be served this way.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The warehouse's name for people.
    pub name: &'static str,
    /// The dialect, which quotes identifiers.
    pub dialect: Dialect,
    /// How many bytes of an identifier count, where there is a limit.
    pub name_limit: Option<usize>,
    /// How a whole table is replaced.
    pub full_replace: FullReplace,
    /// Whether views can be kept as tables.
    pub materialized_views: bool,
    /// Whether a transaction covers one catalog only, so that each has its own fence.
    pub transaction_per_catalog: bool,
    /// Whether an UPDATE may stand in a CTE, which saves the commit a round trip.
    pub update_in_cte: bool,
    /// How a query's columns are told, where an ADBC driver is used.
    pub describe: Describe,
    /// Whether columns are asked for on a connection of its own while another batch runs: not where a
    /// connection shares the worker's processors with the warehouse.
    pub looks_ahead: bool,
    /// Put before the raise of a token, whose loss in a crash is harmless.
    pub before_raise: Option<&'static str>,
    /// Ends the sessions of attempts that were overtaken, named by `{names}`: what they hold open
    /// would block their successor for as long as their worker hangs.
    pub end_sessions: Option<&'static str>,
    /// Ends the sessions of all attempts with tokens up to `{upto}`.
    pub end_older_sessions: Option<&'static str>,
    /// Put before a DROP, whose wait for readers of the table must not hold up everybody else.
    pub before_drop: Option<&'static str>,
    /// Put before pruning the table `{table}`, so that no new row appears meanwhile.
    pub before_prune: Option<&'static str>,
    /// Keeps other writers off the table `{table}` until the transaction ends, but no readers: where
    /// conflicts between writers aren't found by themselves.
    pub lock_writers: Option<&'static str>,
    /// Whether a statement's failure within a transaction can be undone alone.
    pub savepoints: bool,
    /// The query for the views that show a relation `{relation}`, also through others, nearest first:
    /// schema, name, kind (`v`, `m`), definition. Nothing where views follow a table by themselves.
    pub dependents: Option<&'static str>,
    /// The query for what a view `{relation}` has beside its query, where making it again loses that:
    /// column, absent where it belongs to the view; and the statement that gives it back. In the
    /// order in which they must run.
    pub keepsakes: Option<&'static str>,
    /// The query that counts schemas named `{schema}` in the connection's own catalog.
    pub schema_query: &'static str,
    /// The query for the server's version.
    pub version_query: &'static str,
}

impl Profile {
    /// PostgreSQL.
    pub const POSTGRES: Self = Self {
        name: "PostgreSQL",
        dialect: Dialect::Postgres,
        name_limit: Some(63),
        full_replace: FullReplace::DeleteAndInsert,
        materialized_views: true,
        transaction_per_catalog: false,
        update_in_cte: true,
        describe: Describe::ArrowSchema,
        looks_ahead: true,
        before_raise: Some("SET LOCAL synchronous_commit = off"),
        end_sessions: Some(
            "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name IN ({names}) \
             AND usename = session_user AND state <> 'idle' AND pid <> pg_backend_pid()",
        ),
        end_older_sessions: Some(
            "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE \
             CASE WHEN application_name ~ '^coordctl:[0-9]{1,18}$' \
             THEN CAST(SUBSTRING(application_name FROM 10) AS BIGINT) <= {upto} ELSE FALSE END \
             AND datname = current_database() AND usename = session_user AND state <> 'idle' \
             AND pid <> pg_backend_pid()",
        ),
        before_drop: Some("SET LOCAL lock_timeout = '3s'"),
        before_prune: Some("LOCK TABLE {table} IN EXCLUSIVE MODE"),
        lock_writers: Some("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"),
        savepoints: true,
        dependents: Some(DEPENDENTS),
        keepsakes: Some(KEEPSAKES),
        schema_query: "SELECT COUNT(*) FROM pg_catalog.pg_namespace WHERE nspname = {schema}",
        version_query: "SELECT version()",
    };

    /// DuckDB.
    pub const DUCKDB: Self = Self {
        name: "DuckDB",
        dialect: Dialect::DuckDb,
        name_limit: None,
        full_replace: FullReplace::CreateOrReplace,
        materialized_views: false,
        transaction_per_catalog: true,
        update_in_cte: false,
        describe: Describe::Statement,
        looks_ahead: false,
        before_raise: None,
        end_sessions: None,
        end_older_sessions: None,
        before_drop: None,
        before_prune: None,
        lock_writers: None,
        savepoints: false,
        dependents: None,
        keepsakes: None,
        schema_query: "SELECT COUNT(*) FROM information_schema.schemata \
                       WHERE catalog_name = current_database() AND schema_name = {schema}",
        version_query: "SELECT 'DuckDB ' || version()",
    };

    /// What a kind of relation is called in statements.
    pub(crate) fn word(&self, kind: RelationKind) -> &'static str {
        match kind {
            RelationKind::MaterializedView if self.materialized_views => "MATERIALIZED VIEW",
            RelationKind::View | RelationKind::MaterializedView => "VIEW",
            RelationKind::Table => "TABLE",
        }
    }

    /// An identifier, quoted.
    pub(crate) fn quote(&self, identifier: &str) -> String {
        self.dialect.quote(identifier)
    }

    /// A relation, quoted.
    pub(crate) fn relation(&self, relation: &Relation) -> String {
        let schema = self.schema(relation.catalog.as_deref(), &relation.schema);
        format!("{schema}.{}", self.quote(&relation.table))
    }

    /// A schema, quoted.
    pub(crate) fn schema(&self, catalog: Option<&str>, schema: &str) -> String {
        match catalog {
            Some(catalog) => format!("{}.{}", self.quote(catalog), self.quote(schema)),
            None => self.quote(schema),
        }
    }

    /// Columns, quoted, with commas between.
    pub(crate) fn list<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> String {
        names.into_iter().map(|name| self.quote(name)).collect::<Vec<_>>().join(", ")
    }

    /// Refuses names that the warehouse would cut short.
    pub(crate) fn check_names(&self, relation: &Relation) -> Result<(), EngineError> {
        let Some(limit) = self.name_limit else { return Ok(()) };
        match [&relation.schema, &relation.table].into_iter().find(|name| name.len() > limit) {
            None => Ok(()),
            Some(name) => {
                let size = name.len();
                let text = format!("the name `{name}` has {size} bytes, {} allows {limit}", self.name);
                Err(EngineError::permanent(text)
                    .code("42622")
                    .hint("shorten the model's name, or set `physical_table_naming_convention: hash_md5`"))
            }
        }
    }
}
