//! What each change means for rows that exist, and so which table a snapshot reads and fills.
//!
//! The rules are SQLMesh's (its categorizer and plan builder, 0.236.4), for its default mode
//! (`full`): what can't be proven harmless is breaking.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::change::Diff;
use super::{Change, Choice, PlanInput};
use crate::id::{Hasher, ModelName, Version};
use crate::interval::Timestamp;
use crate::project::model::{ModelKind, ModelSource};
use crate::project::settings::Categorize;
use crate::snapshot::{
    Category, Informed, Naming, Previous, Snapshot, SnapshotRecord, outputs, query_change,
};
use crate::sql::QueryChange;

/// How many earlier snapshots a record remembers, as SQLMesh does.
const REMEMBERED: usize = 10;

/// Every proposed model's record, by name; those that the state holds are reused.
pub(super) type Records = BTreeMap<ModelName, Arc<SnapshotRecord>>;

/// What changes mean.
pub(super) struct Categorized {
    /// The record of each proposed model.
    pub(super) records: Records,
    /// Direct changes whose meaning is up to the user and isn't said: taken for breaking until it is.
    pub(super) undecided: Vec<ModelName>,
}

pub(super) fn categorize(
    input: &PlanInput<'_>,
    order: &[ModelName],
    diff: &Diff,
    effective_from: Option<Timestamp>,
) -> Categorized {
    let mut undecided = Vec::new();
    let unknown = reaching_unknown_columns(input, order, diff);
    let mut rules =
        Rules { input, diff, effective_from, unknown, upstream: BTreeMap::new(), records: BTreeMap::new() };
    for name in order {
        let snapshot = &input.proposed[name];
        rules.note_upstream(snapshot);
        let record = match input.records.get(&snapshot.id) {
            Some(known) => known.clone(),
            None => {
                let (record, decided) = new_record(&rules, snapshot);
                if !decided {
                    undecided.push(name.clone());
                }
                Arc::new(record)
            }
        };
        rules.records.insert(name.clone(), record);
    }
    Categorized { records: rules.records, undecided }
}

/// What categories follow from.
struct Rules<'a> {
    input: &'a PlanInput<'a>,
    diff: &'a Diff,
    /// From when on rows follow new snapshots.
    effective_from: Option<Timestamp>,
    /// Models that have unknown columns somewhere below: nothing there can be proven safe.
    unknown: BTreeSet<ModelName>,
    /// For each model what is new above it, at any distance.
    upstream: BTreeMap<ModelName, Upstream>,
    records: Records,
}

/// New snapshots above a model, at any distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Upstream {
    any: bool,
    all_forward_only: bool,
    all_metadata: bool,
}

impl Rules<'_> {
    fn is_new(&self, record: &SnapshotRecord) -> bool {
        !self.input.records.contains_key(&record.id())
    }

    fn note_upstream(&mut self, snapshot: &Snapshot) {
        let mut above = Upstream { any: false, all_forward_only: true, all_metadata: true };
        for parent in snapshot.upstream() {
            let (Some(record), Some(further)) = (self.records.get(parent), self.upstream.get(parent)) else {
                continue;
            };
            above.any |= further.any;
            above.all_forward_only &= further.all_forward_only;
            above.all_metadata &= further.all_metadata;
            if self.is_new(record) {
                above.any = true;
                above.all_forward_only &= record.forward_only;
                above.all_metadata &= record.category == Category::Metadata;
            }
        }
        self.upstream.insert(snapshot.name().clone(), above);
    }
}

/// The record of a snapshot that the state doesn't hold, and whether its category is sure.
fn new_record(rules: &Rules<'_>, snapshot: &Arc<Snapshot>) -> (SnapshotRecord, bool) {
    let input = rules.input;
    let name = snapshot.name();
    let old = rules.diff.before.get(name).and_then(|id| input.records.get(id));
    let (category, forward_only) = match old {
        Some(old) => category(rules, snapshot, old),
        None => (Some(Category::Breaking), input.options.forward_only),
    };
    let decided = category.is_some();
    let category = category.unwrap_or(Category::Breaking);
    let unchanged = matches!(category, Category::IndirectNonBreaking | Category::Metadata);
    let implied = snapshot.fingerprint.to_version();
    let version = match old {
        Some(old) if forward_only || unchanged => old.version,
        None if is_forward_only(&snapshot.model.kind) => stable_version(snapshot),
        _ => implied,
    };
    let is_view = matches!(snapshot.model.kind, ModelKind::View { .. } | ModelKind::Embedded);
    let view = match (&snapshot.model.kind, category) {
        (ModelKind::View { materialized: false }, Category::IndirectNonBreaking) if !forward_only => {
            Some(implied)
        }
        // It keeps its version, but is no table that could change in place: nobody is to see the new
        // definition before the pointer moves, nor when it goes back.
        (ModelKind::View { .. }, category)
            if forward_only && category != Category::Metadata && version != implied =>
        {
            Some(implied)
        }
        (ModelKind::View { .. }, _) if version != implied => old.and_then(|old| old.view),
        _ => None,
    };
    let dev_version = match old {
        Some(old) if unchanged && !is_view => old.dev_version,
        _ => implied,
    };
    let naming = match old {
        // A kept table keeps its name, even when settings changed since.
        Some(old) if old.version == version => old.naming.clone(),
        _ => Naming::of(name, input.settings),
    };
    let record = SnapshotRecord {
        snapshot: snapshot.clone(),
        category,
        forward_only,
        version,
        view,
        dev_version,
        previous: old.map(|old| history(old)).unwrap_or_default(),
        naming,
        created: input.now,
        // A table of its own has no rows from before the change.
        effective_from: rules
            .effective_from
            .filter(|_| forward_only && takes_effective_date(&snapshot.model.kind)),
    };
    (record, decided)
}

/// Kinds that can be computed again from a date on.
fn takes_effective_date(kind: &ModelKind) -> bool {
    let disabled = kind.incremental().is_some_and(|common| common.disable_restatement);
    let whole = kind.full_history_restatement_only() && kind.incremental().is_some();
    !kind.is_symbolic() && !disabled && !whole
}

/// The snapshots before one that follows `old`.
fn history(old: &SnapshotRecord) -> Vec<Previous> {
    let last = Previous {
        id: old.id(),
        fingerprint: old.snapshot.fingerprint,
        version: old.version,
        category: old.category,
        forward_only: old.forward_only,
    };
    let surplus = (old.previous.len() + 1).saturating_sub(REMEMBERED);
    old.previous.iter().skip(surplus).cloned().chain([last]).collect()
}

/// The kind says that changes keep the table.
pub(super) fn is_forward_only(kind: &ModelKind) -> bool {
    kind.incremental().is_some_and(|common| common.forward_only)
}

/// A new forward-only model's version depends on its name and kind alone, so that development
/// environments agree on it.
fn stable_version(snapshot: &Snapshot) -> Version {
    Version(
        Hasher::new("stable-version/v1")
            .field("name", snapshot.name().as_str())
            .field("settings", snapshot.settings.to_string())
            .finish(),
    )
}

/// What a change means, and whether it keeps the table all the same.
/// (not where that is up to the user).
fn category(rules: &Rules<'_>, new: &Snapshot, old: &SnapshotRecord) -> (Option<Category>, bool) {
    let change = rules.diff.changes.get(new.name()).copied();
    if breaking_kind_change(&old.snapshot, new) {
        let sure = || Some(Category::Breaking).filter(|_| !rules.input.options.no_auto_categorization);
        return (chosen(rules, new).or_else(sure), false);
    }
    let modified = matches!(change, Some(Change::DirectlyModified | Change::IndirectlyModified));
    let is_seed = matches!(new.model.source, ModelSource::Seed(_));
    let asked = rules.input.options.forward_only || (modified && is_forward_only(&new.model.kind));
    let forward_only = asked && !is_seed;
    match change {
        Some(Change::DirectlyModified) => (direct(rules, new, &old.snapshot), forward_only),
        Some(Change::IndirectlyModified) => {
            let above = rules.upstream.get(new.name());
            let inherited = above.is_some_and(|above| above.any && above.all_forward_only);
            let (category, forward_only) = indirect(rules, new, old, forward_only || inherited);
            (Some(category), forward_only)
        }
        _ => (Some(Category::Metadata), forward_only),
    }
}

/// Whether the old table can't serve the new kind.
pub(super) fn breaking_kind_change(old: &Snapshot, new: &Snapshot) -> bool {
    let (was, is) = (&old.model.kind, &new.model.kind);
    was.name() != is.name()
        && !(was.incremental().is_some()
            && is.incremental().is_some()
            && old.model.partitioned_by() == new.model.partitioned_by())
}

/// What the user says of a direct change.
fn chosen(rules: &Rules<'_>, new: &Snapshot) -> Option<Category> {
    rules.input.options.categorize.get(new.name()).map(|choice| match choice {
        Choice::Breaking => Category::Breaking,
        Choice::NonBreaking => Category::NonBreaking,
    })
}

/// What a direct change means: the user's word, else what can be shown as far as the settings let us
/// decide.
fn direct(rules: &Rules<'_>, new: &Snapshot, old: &Snapshot) -> Option<Category> {
    if let Some(choice) = chosen(rules, new) {
        return Some(choice);
    }
    let settings = &rules.input.settings.plan;
    let mode = match new.model.source {
        ModelSource::Query(_) => settings.categorize_sql,
        ModelSource::Seed(_) => settings.categorize_seed,
        ModelSource::External => settings.categorize_external,
    };
    match mode {
        _ if rules.input.options.no_auto_categorization => None,
        Categorize::Off => None,
        // Only what is proven harmless is decided.
        Categorize::Semi => {
            Some(shown(rules, new, old)).filter(|category| *category == Category::NonBreaking)
        }
        Categorize::Full => Some(shown(rules, new, old)),
    }
}

/// Harmless where that can be shown, else breaking.
fn shown(rules: &Rules<'_>, new: &Snapshot, old: &Snapshot) -> Category {
    if old.model.lookback() != new.model.lookback() || rules.unknown.contains(new.name()) {
        return Category::Breaking;
    }
    match (&old.model.source, &new.model.source) {
        (ModelSource::Seed(_), ModelSource::Seed(_)) => seed(old, new),
        (ModelSource::External, ModelSource::External) => external(old, new),
        _ => query(rules, old, new),
    }
}

fn query(rules: &Rules<'_>, old: &Snapshot, new: &Snapshot) -> Category {
    let before = |name: &ModelName| {
        let record = rules.diff.before.get(name).and_then(|id| rules.input.records.get(id))?;
        record.snapshot.columns.as_deref()
    };
    let now = |name: &ModelName| rules.input.proposed.get(name)?.columns.as_deref();
    match query_change((old, &before), (new, &now)) {
        Ok(QueryChange::Equal | QueryChange::Additive) if !keeps_columns((old, &before), (new, &now)) => {
            Category::Breaking
        }
        Ok(QueryChange::Equal | QueryChange::Additive) => Category::NonBreaking,
        Ok(QueryChange::Other) | Err(_) => Category::Breaking,
    }
}

/// Whether the old columns are still there in their order, as far as both are known: the same text
/// selects others when a star stands for others, and a name that the text gives isn't the engine's.
fn keeps_columns(old: Informed<'_, '_>, new: Informed<'_, '_>) -> bool {
    let (Some(was), Some(is)) = (outputs(old), outputs(new)) else { return true };
    let mut left = is.iter();
    was.iter().all(|column| left.any(|other| other == column))
}

/// A seed's change is harmless when all old columns keep their values.
fn seed(old: &Snapshot, new: &Snapshot) -> Category {
    let columns = |snapshot: &Snapshot| crate::project::seed::column_values(&snapshot.model).ok();
    match (columns(old), columns(new)) {
        (Some(was), Some(is)) if was.iter().all(|(name, values)| is.get(name) == Some(values)) => {
            Category::NonBreaking
        }
        _ => Category::Breaking,
    }
}

/// An external's change is harmless when no column vanished or changed its type.
fn external(old: &Snapshot, new: &Snapshot) -> Category {
    let now = new.model.columns.as_deref().unwrap_or_default();
    let kept = old.model.columns.as_deref().unwrap_or_default().iter().all(|column| now.contains(column));
    if kept { Category::NonBreaking } else { Category::Breaking }
}

/// Models that lack columns themselves, or that change a model further down that lacks them.
fn reaching_unknown_columns(input: &PlanInput<'_>, order: &[ModelName], diff: &Diff) -> BTreeSet<ModelName> {
    let mut found = BTreeSet::new();
    for name in order.iter().rev() {
        let snapshot = &input.proposed[name];
        let known = |name: &ModelName| input.proposed.get(name)?.columns.as_deref();
        let lacks = outputs((snapshot, &known)).is_none();
        let indirectly = diff.changes.get(name) == Some(&Change::IndirectlyModified);
        if (lacks && indirectly) || found.contains(name) {
            found.extend(snapshot.upstream().cloned());
        }
        if lacks {
            found.insert(name.clone());
        }
    }
    found
}

/// What an upstream change means for a model that didn't change itself.
fn indirect(rules: &Rules<'_>, new: &Snapshot, old: &SnapshotRecord, forward_only: bool) -> (Category, bool) {
    if matches!(new.model.kind, ModelKind::View { materialized: true }) && !forward_only {
        // A materialized view takes long to fill: a new one is made aside and switched to.
        return (Category::IndirectBreaking, false);
    }
    let parents = new.upstream().filter_map(|parent| rules.records.get(parent));
    let fresh: Vec<Category> =
        parents.filter(|parent| rules.is_new(parent)).map(|parent| parent.category).collect();
    let category = if fresh.iter().any(|category| is_breaking(*category)) {
        Category::IndirectBreaking
    } else if fresh.is_empty() {
        orphaned(rules, new, old)
    } else if rules.upstream.get(new.name()).is_some_and(|above| above.all_metadata) {
        Category::Metadata
    } else {
        Category::IndirectNonBreaking
    };
    (category, forward_only)
}

fn is_breaking(category: Category) -> bool {
    matches!(category, Category::Breaking | Category::IndirectBreaking)
}

/// For a model none of whose parents is new, because each changed in a plan of its own: what
/// happened to them since the model was planned before.
fn orphaned(rules: &Rules<'_>, new: &Snapshot, old: &SnapshotRecord) -> Category {
    let mut worst = None;
    for parent in new.upstream() {
        let Some(record) = rules.records.get(parent) else { continue };
        let seen = rules.diff.before.get(parent).filter(|_| old.snapshot.parents.contains(parent));
        let Some(seen) = seen else { return Category::IndirectBreaking };
        if *seen == record.id() {
            continue;
        }
        let Some(at) = record.previous.iter().position(|previous| previous.id == *seen) else {
            return Category::IndirectBreaking;
        };
        let since = record.previous[at + 1..].iter().map(|previous| previous.category);
        for category in since.chain([record.category]) {
            match category {
                category if is_breaking(category) => return Category::IndirectBreaking,
                Category::Metadata => worst = worst.or(Some(Category::Metadata)),
                _ => worst = Some(Category::IndirectNonBreaking),
            }
        }
    }
    worst.unwrap_or(Category::IndirectBreaking)
}
