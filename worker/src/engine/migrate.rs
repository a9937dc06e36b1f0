//! Giving a table other columns in place, within the transaction of a batch: what changes, whether
//! the model's properties permit it, and what happens to views that show the table.

use coord_common::project::model::ColumnDef;
use coord_common::task::{ColumnChanges, Policies, Policy};
use tracing::warn;

use super::error::EngineError;
use super::profile::Profile;
use super::session::Session;
use super::statements::{Known, clean, literal};
use super::{Migration, Relation};

/// A name that no column or view of a user has.
const MIRROR: &str = "__coordctl_mirror";

/// The statements that change a relation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Steps {
    statements: Vec<String>,
    /// Whether views may stay while they run: columns only come.
    keeps_views: bool,
    /// The same with what goes later, where that is anything.
    later: Option<Box<Steps>>,
}

impl Steps {
    pub(crate) fn is_empty(&self) -> bool {
        self.statements.is_empty() && self.later.is_none()
    }

    /// Everything that must be possible in the end, where that is more than what is done now.
    pub(crate) fn take_later(&mut self) -> Option<Self> {
        self.later.take().map(|later| *later)
    }

    /// Whether views stay as they are.
    pub(crate) fn keeps_views(&self) -> bool {
        self.keeps_views
    }
}

/// A view that shows a relation, maybe through others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dependent {
    pub(crate) view: Relation,
    pub(crate) materialized: bool,
    definition: String,
    /// Whether it shows all columns of the relation, and nothing else.
    mirror: bool,
}

/// The query whose columns have the declared names and types.
pub(crate) fn typed_nulls(profile: &Profile, declared: &[ColumnDef]) -> String {
    let column =
        |column: &ColumnDef| format!("CAST(NULL AS {}) AS {}", column.data_type, profile.quote(&column.name));
    format!("SELECT {}", declared.iter().map(column).collect::<Vec<_>>().join(", "))
}

/// What must be done to a relation.
///
/// # Errors
/// Columns would go or come although the model forbids it.
pub(crate) fn steps(
    profile: &Profile,
    target: &Relation,
    query: &str,
    migration: &Migration,
    known: &Known,
) -> Result<Steps, EngineError> {
    let name = profile.relation(target);
    let (policies, kept, later) = match migration {
        Migration::View { materialized } => {
            return Ok(view(profile, &name, query, *materialized, known.target.is_some()));
        }
        Migration::Table { policies, kept, later } => (policies, kept, *later),
    };
    let Some(table) = &known.target else {
        let text = format!("the table `{target}` is gone, so its columns can't be changed");
        return Err(EngineError::permanent(text)
            .code("42P01")
            .hint("plan again: the table will be made anew"));
    };
    let lacks = |column: &ColumnDef| !has(table, &column.name) && !has(&known.query, &column.name);
    let query: Vec<ColumnDef> =
        known.query.iter().chain(kept.iter().filter(|column| lacks(column))).cloned().collect();
    let kept: Vec<String> = kept.iter().map(|column| column.name.clone()).collect();
    let changes = ColumnChanges::between(table, &query, &kept);
    let destroyed: Vec<&ColumnDef> = changes.destroyed().collect();
    check(policies.destructive, "lose", "destructive", target, &destroyed)?;
    check(policies.additive, "get", "additive", target, &changes.added.iter().collect::<Vec<_>>())?;
    let all = alterations(profile, &name, &changes, policies, true);
    if !later || changes.dropped.is_empty() || policies.destructive == Policy::Ignore {
        return Ok(all);
    }
    let now = alterations(profile, &name, &changes, policies, false);
    Ok(Steps { later: Some(Box::new(all)), ..now })
}

fn has(columns: &[ColumnDef], name: &str) -> bool {
    columns.iter().any(|column| column.name.eq_ignore_ascii_case(name))
}

/// The statements that change a table's columns; `drops`: with columns that only go. One whose type
/// can't hold the values starts anew at once, as batches need it.
fn alterations(
    profile: &Profile,
    name: &str,
    changes: &ColumnChanges,
    policies: &Policies,
    drops: bool,
) -> Steps {
    let mut steps = Steps { keeps_views: true, ..Steps::default() };
    let gone: Vec<&ColumnDef> = changes.dropped.iter().filter(|_| drops).chain(&changes.retyped).collect();
    let mut alter = |what: String| steps.statements.push(format!("ALTER TABLE {name} {what}"));
    let add = |column: &ColumnDef| {
        let data_type = if column.data_type.contains("NULL") { "VARCHAR" } else { &column.data_type };
        format!("ADD COLUMN {} {data_type}", profile.quote(&column.name))
    };
    if policies.destructive != Policy::Ignore {
        for column in &gone {
            alter(format!("DROP COLUMN {}", profile.quote(&column.name)));
        }
        changes.retyped.iter().for_each(|column| alter(add(column)));
    }
    for column in &changes.widened {
        let quoted = profile.quote(&column.name);
        alter(format!("ALTER COLUMN {quoted} TYPE {}", column.data_type));
    }
    if policies.additive != Policy::Ignore {
        changes.added.iter().for_each(|column| alter(add(column)));
    }
    let dropping = policies.destructive != Policy::Ignore && !gone.is_empty();
    steps.keeps_views = !dropping && changes.widened.is_empty();
    steps
}

fn view(profile: &Profile, name: &str, query: &str, materialized: bool, exists: bool) -> Steps {
    let query = clean(query);
    let kind = if materialized && profile.materialized_views { "MATERIALIZED VIEW" } else { "VIEW" };
    let statements = if profile.dependents.is_none() {
        vec![format!("CREATE OR REPLACE VIEW {name} AS {query}")]
    } else {
        let drop = exists.then(|| format!("DROP {kind} {name}"));
        drop.into_iter().chain([format!("CREATE {kind} {name} AS {query}")]).collect()
    };
    Steps { statements, ..Steps::default() }
}

fn check(
    policy: Policy,
    verb: &str,
    kind: &str,
    target: &Relation,
    columns: &[&ColumnDef],
) -> Result<(), EngineError> {
    let names: Vec<String> = columns.iter().map(|column| format!("`{}`", column.name)).collect();
    match policy {
        Policy::Warn if !names.is_empty() => {
            warn!(table = %target, columns = names.join(", "), "a forward-only change is {kind}");
            Ok(())
        }
        Policy::Error if !names.is_empty() => {
            let text = format!("the table `{target}` would {verb} {}", names.join(", "));
            Err(EngineError::permanent(text).hint(format!(
                "plan with --allow-{kind}-model, or set on_{kind}_change of the model to allow, warn or ignore"
            )))
        }
        Policy::Error | Policy::Warn | Policy::Allow | Policy::Ignore => Ok(()),
    }
}

/// Asks for the views that show a relation, nearest first.
pub(crate) async fn dependents(
    session: &mut dyn Session,
    profile: &Profile,
    question: &str,
    target: &Relation,
) -> Result<Vec<Dependent>, EngineError> {
    let name = profile.relation(target);
    let found = session.run(&[question.replace("{relation}", &literal(&name))]).await?;
    let rows = found.into_iter().next().map(|answer| answer.rows.rows).unwrap_or_default();
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    // The server's own text for a view of all columns tells which views are just that.
    let mirror = session
        .run(&[
            format!("CREATE TEMPORARY VIEW {MIRROR} AS SELECT * FROM {name}"),
            format!("SELECT pg_get_viewdef('{MIRROR}'::regclass)"),
            format!("DROP VIEW {MIRROR}"),
        ])
        .await?;
    let all = mirror.get(1).and_then(|answer| answer.cell()).unwrap_or_default().to_owned();
    let read = |row: Vec<Option<String>>| {
        let mut cells = row.into_iter().map(Option::unwrap_or_default);
        let (schema, table) = (cells.next()?, cells.next()?);
        let materialized = cells.next()? == "m";
        let definition = cells.next()?;
        let mirror = definition == all;
        Some(Dependent { view: Relation::new(schema, table), materialized, definition, mirror })
    };
    Ok(rows.into_iter().filter_map(read).collect())
}

/// The statements, with views taken out of their way and made again.
///
/// # Errors
/// A materialized view is in the way: making it again would compute it again.
pub(crate) fn with_dependents(
    profile: &Profile,
    target: &Relation,
    steps: Steps,
    dependents: &[Dependent],
) -> Result<Vec<String>, EngineError> {
    let mut statements = steps.statements;
    if statements.is_empty() {
        return Ok(statements);
    }
    let all = format!("SELECT * FROM {}", profile.relation(target));
    if steps.keeps_views {
        let mirrors = dependents.iter().filter(|dependent| dependent.mirror);
        statements.extend(mirrors.map(|dependent| {
            format!("CREATE OR REPLACE VIEW {} AS {all}", profile.relation(&dependent.view))
        }));
        return Ok(statements);
    }
    if let Some(blocker) = dependents.iter().find(|dependent| dependent.materialized) {
        let text = format!("the materialized view `{}` shows columns of `{target}`", blocker.view);
        return Err(EngineError::permanent(text).code("2BP01").hint("drop it, and make it again afterwards"));
    }
    let drops = dependents.iter().rev();
    let mut go: Vec<String> =
        drops.map(|dependent| format!("DROP VIEW {}", profile.relation(&dependent.view))).collect();
    go.append(&mut statements);
    go.extend(dependents.iter().map(|dependent| made_again(profile, target, dependent)));
    Ok(go)
}

/// The statement that makes a view again which shows a relation.
pub(crate) fn made_again(profile: &Profile, target: &Relation, dependent: &Dependent) -> String {
    let view = profile.relation(&dependent.view);
    if dependent.mirror {
        return format!("CREATE VIEW {view} AS SELECT * FROM {}", profile.relation(target));
    }
    format!("CREATE VIEW {view} AS {}", clean(&dependent.definition))
}

/// Says what was going on.
pub(crate) fn explain(mut error: EngineError, target: &Relation) -> EngineError {
    error.message = format!("failed to change the columns of `{target}`: {}", error.message);
    if error.hint.is_none() && error.code.as_deref() == Some("42703") {
        error.hint =
            Some("a view still shows a column that would go: change or drop that view first".to_owned());
    }
    error
}
