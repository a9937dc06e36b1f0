//! A warehouse in memory: tables of one row a day, views, fences, and transactions whose statements
//! see what was committed when they ran, as in PostgreSQL.

use std::collections::{BTreeMap, BTreeSet};

use coord_common::id::Token;
use coord_common::task::Relation;
use worker::engine::{BatchWrite, Beside, Fence, Kept, Publication, Published, ViewSwitch, Write};

use crate::fault::Mutant;
use crate::random::mix;

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    id: u64,
    /// Days since the start of the data; 0 in tables without time.
    pub(crate) day: i64,
    pub(crate) value: u64,
    /// The attempt that wrote it.
    pub(crate) token: Token,
}

/// A table, or a view by its query.
#[derive(Debug, Clone)]
pub(crate) enum Object {
    Table(Vec<Row>),
    View(String),
    /// The rows of a table aside, together with those that stay: all that are outside of some days.
    Merged {
        published: String,
        aside: String,
        days: Vec<(i64, i64)>,
    },
}

/// What the outside world holds of each day; another number, other rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Source(BTreeMap<i64, u64>);

impl Source {
    /// What models read of a day.
    pub(crate) fn of(&self, day: Option<i64>) -> u64 {
        let day = day.unwrap_or(-1);
        mix(self.0.get(&day).copied().unwrap_or_default() ^ 0xabcd ^ day as u64)
    }

    /// Gives some days other rows.
    pub(crate) fn change(&mut self, days: std::ops::Range<i64>) {
        for day in days {
            *self.0.entry(day).or_default() += 0x1_0000;
        }
    }
}

#[derive(Debug, Clone, Default)]
struct FenceRow {
    tok: u64,
    done: u64,
    plan: String,
    rows: u64,
}

/// Everything in it.
#[derive(Default)]
pub(crate) struct Warehouse {
    objects: BTreeMap<String, Object>,
    fences: BTreeMap<String, FenceRow>,
    floors: BTreeMap<String, u64>,
    owners: BTreeMap<String, String>,
    environments: BTreeMap<String, u64>,
    /// What each view of an environment shows, and since which flip.
    pub(crate) views: BTreeMap<String, (u64, String)>,
    /// The relation of each table's id.
    pub(crate) relations: BTreeMap<String, String>,
    pub(crate) source: Source,
    next_id: u64,
}

/// What a fence says once a token was raised.
pub(crate) struct Raised {
    pub(crate) done: u64,
    pub(crate) rows: u64,
    /// Whether a lost attempt at other work that overlaps was done.
    pub(crate) partly: bool,
}

/// What a transaction has done so far; nobody else sees it.
pub(crate) struct Draft {
    relation: String,
    /// Rows that its DELETE saw.
    deleted: BTreeSet<u64>,
    inserted: Vec<(i64, u64)>,
    /// A view's query, instead of rows.
    view: Option<String>,
    /// What its table stands beside, if it does.
    beside: Option<Beside>,
    /// Whether it empties a table to which rows are added otherwise.
    first: bool,
    pub(crate) rows: u64,
}

/// The first fence that a greater token holds.
#[derive(Debug)]
pub(crate) struct Stale(pub(crate) String);

pub(crate) fn name(relation: &Relation) -> String {
    format!("{}.{}", relation.schema, relation.table)
}

/// What a query reads: names after FROM and JOIN, unquoted.
pub(crate) fn sources(query: &str) -> Vec<String> {
    let words: Vec<&str> = query.split(|c: char| c.is_whitespace() || "(),".contains(c)).collect();
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let is_from = |word: &str| word.eq_ignore_ascii_case("from") || word.eq_ignore_ascii_case("join");
    let found = words.windows(2).filter(|pair| is_from(pair[0]));
    found.map(|pair| pair[1].replace('"', "")).collect()
}

/// The number that stands for a query's own text: `'tag:7'`.
fn tag(query: &str) -> u64 {
    let rest = query.split("'tag:").nth(1).unwrap_or_default();
    rest.split('\'').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// The days of a query's or a write's bounds, both inclusive.
fn days(low: &str, high: &str) -> Option<(i64, i64)> {
    let day = |text: &str| {
        let text = text.trim_matches('\'').get(..10)?;
        let number = |at: std::ops::Range<usize>| text.get(at)?.parse::<i64>().ok();
        // The data is of January 2024, which is far enough.
        ((number(0..4)?, number(5..7)?) == (2024, 1)).then_some(number(8..10)? - 1)
    };
    Some((day(low)?, day(high)?))
}

/// The days between which a query looks.
fn days_of_query(query: &str) -> Option<(i64, i64)> {
    let rest = query.split("BETWEEN ").nth(1)?;
    let (low, rest) = rest.split_once(" AND ")?;
    days(low, rest.get(..12)?)
}

/// A row's value: it depends on its query's text and on all that it reads.
pub(crate) fn value(tag: u64, day: i64, inputs: impl Iterator<Item = u64>) -> u64 {
    inputs.fold(mix(tag ^ ((day as u64) << 32)), |value, input| mix(value ^ input))
}

/// The rows of a day, or all of them, by their values.
fn picked<'a>(
    relation: &str,
    rows: impl Iterator<Item = &'a Row>,
    day: Option<i64>,
) -> Result<Vec<u64>, String> {
    let rows = rows.filter(|row| day.is_none_or(|day| row.day == day));
    let mut found: Vec<(i64, u64)> = rows.map(|row| (row.day, row.value)).collect();
    found.sort_unstable();
    match found.is_empty() {
        true => Err(format!("{relation} has no row of day {day:?}")),
        false => Ok(found.into_iter().map(|(_, value)| value).collect()),
    }
}

fn is_within((low, high): (i64, i64), row: &Row) -> bool {
    low <= row.day && row.day <= high
}

impl Warehouse {
    pub(crate) fn object(&self, relation: &str) -> Option<&Object> {
        self.objects.get(relation)
    }

    /// The rows of a day, or all of them, by their values.
    ///
    /// # Errors
    /// The relation that isn't there, or has no row of the day.
    pub(crate) fn read(&self, relation: &str, day: Option<i64>) -> Result<Vec<u64>, String> {
        if relation == "raw.src" {
            return Ok(vec![self.source.of(day)]);
        }
        match self.objects.get(relation) {
            None => Err(format!("{relation} isn't there")),
            Some(Object::View(query)) => {
                let from = sources(query);
                let inputs =
                    from.iter().map(|source| self.read(source, day)).collect::<Result<Vec<_>, _>>()?;
                let day_or_none = day.unwrap_or_default();
                Ok(vec![value(tag(query), day_or_none, inputs.into_iter().flatten())])
            }
            Some(Object::Table(rows)) => picked(relation, rows.iter(), day),
            Some(Object::Merged { published, aside, days }) => {
                let stay = self.rows(published).iter();
                let stay = stay.filter(|row| !days.iter().any(|range| is_within(*range, row)));
                picked(relation, stay.chain(self.rows(aside)), day)
            }
        }
    }

    /// A table's rows; none where there is no such table.
    fn rows(&self, relation: &str) -> &[Row] {
        match self.objects.get(relation) {
            Some(Object::Table(rows)) => rows,
            Some(Object::View(_) | Object::Merged { .. }) | None => &[],
        }
    }

    fn compute(&self, query: &str, day: Option<i64>) -> Result<(i64, u64), String> {
        let from = sources(query);
        let inputs = from.iter().map(|source| self.read(source, day)).collect::<Result<Vec<_>, _>>()?;
        let at = day.unwrap_or_default();
        Ok((at, value(tag(query), at, inputs.into_iter().flatten())))
    }

    /// Raises a token, first over lost attempts.
    ///
    /// # Errors
    /// Where a greater token is in the way.
    pub(crate) fn raise(&mut self, fence: &Fence, once: bool) -> Result<Raised, Stale> {
        let mut partly = false;
        for slot in &fence.supersedes {
            partly |= once && self.raise_one(slot, fence, once)?.done != 0;
        }
        Ok(Raised { partly, ..self.raise_one(&fence.slot, fence, once)? })
    }

    fn raise_one(&mut self, slot: &str, of: &Fence, once: bool) -> Result<Raised, Stale> {
        let token = of.token.0;
        if !self.fences.contains_key(slot) && self.floors.get(&of.table).is_some_and(|floor| *floor >= token)
        {
            return Err(Stale(slot.to_owned()));
        }
        self.owners.insert(slot.to_owned(), of.table.clone());
        let row = self.fences.entry(slot.to_owned()).or_default();
        if row.tok > token {
            return Err(Stale(slot.to_owned()));
        }
        if row.tok < token {
            if !once && row.plan != of.plan {
                row.done = 0;
            }
            row.tok = token;
            row.plan.clone_from(&of.plan);
        }
        Ok(Raised { done: row.done, rows: row.rows, partly: false })
    }

    /// Runs the statements of a batch: what they see is what is committed now.
    ///
    /// # Errors
    /// What they read and isn't there.
    pub(crate) fn draft(&mut self, batch: &BatchWrite) -> Result<Draft, String> {
        let relation = name(&batch.target);
        let existing: Vec<Row> = self.rows(&relation).to_vec();
        let mut draft = Draft {
            relation,
            deleted: BTreeSet::new(),
            inserted: Vec::new(),
            view: None,
            beside: batch.aside.clone(),
            first: batch.first && matches!(batch.write, Write::Append { .. }),
            rows: 0,
        };
        match &batch.write {
            Write::Create { .. } | Write::AuditOnly | Write::Migrate { .. } => {}
            Write::TimeRange { query, low, high, .. } => {
                let (low, high) = (&low.time, &high.time);
                let range = days(low, high).ok_or_else(|| format!("odd bounds {low} {high}"))?;
                draft.deleted =
                    existing.iter().filter(|row| is_within(range, row)).map(|row| row.id).collect();
                for day in range.0..=range.1 {
                    draft.inserted.push(self.compute(query, Some(day))?);
                }
            }
            Write::Append { query } => {
                let range = days_of_query(query).ok_or_else(|| format!("no bounds in {query}"))?;
                if batch.first {
                    draft.deleted = existing.iter().map(|row| row.id).collect();
                }
                for day in range.0..=range.1 {
                    draft.inserted.push(self.compute(query, Some(day))?);
                }
            }
            Write::Full { query } => {
                draft.deleted = existing.iter().map(|row| row.id).collect();
                draft.inserted.push(self.compute(query, None)?);
            }
            Write::View { query, .. } => draft.view = Some(query.clone()),
            other => return Err(format!("not simulated: {other:?}")),
        }
        draft.rows = draft.inserted.len() as u64;
        Ok(draft)
    }

    /// Checks the fence and commits, as one.
    ///
    /// # Errors
    /// Where a greater token holds the fence: nothing is changed then.
    pub(crate) fn commit(&mut self, fence: &Fence, draft: Draft, mutant: Mutant) -> Result<(), Stale> {
        let ours = |row: &&mut FenceRow| row.tok == fence.token.0 && row.done != fence.token.0;
        let row = self.fences.get_mut(&fence.slot).filter(ours);
        match row {
            Some(row) => (row.done, row.rows) = (fence.token.0, draft.rows),
            None if mutant == Mutant::Fence => {}
            None => return Err(Stale(fence.slot.clone())),
        }
        if draft.first {
            // What was done under other slots of the table went with its rows.
            for (slot, row) in &mut self.fences {
                if *slot != fence.slot && self.owners.get(slot) == Some(&fence.table) {
                    row.done = 0;
                }
            }
        }
        self.relations.insert(fence.table.clone(), draft.relation.clone());
        if let Some(query) = draft.view {
            self.objects.insert(draft.relation, Object::View(query));
            return Ok(());
        }
        if let Some(beside) = draft.beside.as_ref().filter(|_| !self.objects.contains_key(&draft.relation)) {
            self.make_aside(&draft.relation, beside);
        }
        let first_id = self.next_id;
        self.next_id += draft.inserted.len() as u64;
        let table = self.objects.entry(draft.relation).or_insert_with(|| Object::Table(Vec::new()));
        if let Object::Table(rows) = table {
            rows.retain(|row| !draft.deleted.contains(&row.id));
            let new = draft.inserted.into_iter().zip(first_id..);
            rows.extend(new.map(|((day, value), id)| Row { id, day, value, token: fence.token }));
        }
        Ok(())
    }

    /// Makes a table aside, with the view of it and of the rows that stay.
    fn make_aside(&mut self, relation: &str, beside: &Beside) {
        let published = name(&beside.published);
        let rows = match &beside.kept {
            Kept::Copy => self.rows(&published).to_vec(),
            Kept::Nothing => Vec::new(),
            Kept::Outside { ranges, merged, .. } => {
                let days = ranges.iter().filter_map(|[low, high]| days(&low.time, &high.time)).collect();
                let view = Object::Merged { published, aside: relation.to_owned(), days };
                self.objects.insert(name(merged), view);
                Vec::new()
            }
        };
        self.objects.insert(relation.to_owned(), Object::Table(rows));
    }

    /// The greatest token that was ever raised over a slot.
    pub(crate) fn holder(&self, slot: &str) -> u64 {
        self.fences.get(slot).map_or(0, |row| row.tok)
    }

    /// Points views elsewhere, unless a later flip did; whether it was this one's turn.
    pub(crate) fn switch(&mut self, switch: &ViewSwitch) -> bool {
        let seq = self.environments.entry(switch.environment.clone()).or_default();
        if *seq >= switch.seq {
            return *seq == switch.seq;
        }
        *seq = switch.seq;
        for change in &switch.views {
            self.views.insert(name(&change.view), (switch.seq, name(&change.target)));
        }
        for dropped in &switch.drop {
            self.views.remove(&name(dropped));
        }
        true
    }

    /// The flip that an environment's views show.
    pub(crate) fn shown(&self, environment: &str) -> u64 {
        self.environments.get(environment).copied().unwrap_or_default()
    }

    /// Drops a table for good and shuts older tokens out.
    pub(crate) fn discard(&mut self, table: &str, relation: &str, token: Token) -> Result<(), Stale> {
        let mut slots = self.owners.iter().filter(|(_, owner)| *owner == table).map(|(slot, _)| slot);
        if let Some(newer) = slots.find(|slot| self.holder(slot) > token.0) {
            return Err(Stale(newer.clone()));
        }
        self.shut(table, token);
        self.objects.remove(relation);
        Ok(())
    }

    /// Raises the fences of a publication; whether an earlier attempt has done it.
    pub(crate) fn raise_publication(&mut self, publication: &Publication) -> Result<bool, Stale> {
        let fences = publication_fences(publication);
        let mut done = false;
        for (n, fence) in fences.iter().enumerate() {
            let raised = self.raise(fence, false)?;
            done |= n == 0 && raised.done != 0;
        }
        Ok(done)
    }

    /// Puts what was computed aside in place, all at once; or a part of the tables only, where that
    /// is the mutant.
    pub(crate) fn publish(&mut self, publication: &Publication, mutant: Mutant) -> Result<(), Stale> {
        let fences = publication_fences(publication);
        let lost = fences.iter().find(|fence| self.holder(&fence.slot) != fence.token.0);
        if let Some(lost) = lost.filter(|_| mutant != Mutant::Fence) {
            return Err(Stale(lost.slot.clone()));
        }
        for table in &publication.tables {
            if !publication.discard {
                self.put_in_place(table);
            }
            if mutant == Mutant::Publication {
                return Ok(());
            }
        }
        for table in &publication.tables {
            self.objects.remove(&name(&table.relation));
            if let Kept::Outside { merged, .. } = &table.beside.kept {
                self.objects.remove(&name(merged));
            }
            self.shut(&table.aside, publication.token);
        }
        for fence in &fences {
            if let Some(row) = self.fences.get_mut(&fence.slot) {
                row.done = publication.token.0;
            }
        }
        Ok(())
    }

    fn put_in_place(&mut self, table: &Published) {
        let Some(Object::Table(new)) = self.objects.get(&name(&table.relation)).cloned() else { return };
        let Some(Object::Table(rows)) = self.objects.get_mut(&name(&table.beside.published)) else { return };
        match &table.beside.kept {
            Kept::Nothing | Kept::Copy => rows.clear(),
            Kept::Outside { ranges, .. } => {
                let ranges: Vec<_> =
                    ranges.iter().filter_map(|[low, high]| days(&low.time, &high.time)).collect();
                rows.retain(|row| !ranges.iter().any(|range| is_within(*range, row)));
            }
        }
        rows.extend(new);
    }

    /// Removes the fences of a table; nobody with this token or an older one makes them again.
    fn shut(&mut self, table: &str, token: Token) {
        let own = self.owners.iter().filter(|(_, owner)| *owner == table);
        for slot in own.map(|(slot, _)| slot.clone()).collect::<Vec<_>>() {
            self.fences.remove(&slot);
            self.owners.remove(&slot);
        }
        let floor = self.floors.entry(table.to_owned()).or_default();
        *floor = token.0.max(*floor);
    }
}

fn publication_fences(publication: &Publication) -> Vec<Fence> {
    let fence = |slot: String, table: &str, supersedes: &[String]| Fence {
        slot,
        token: publication.token,
        plan: publication.plan.clone(),
        table: table.to_owned(),
        supersedes: supersedes.to_vec(),
    };
    let tables = publication.tables.iter();
    let each = tables
        .filter(|_| !publication.discard)
        .map(|it| fence(format!("{}:publish", it.table), &it.table, &it.supersedes));
    [fence(publication.slot.clone(), &publication.slot, &[])].into_iter().chain(each).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_tell_what_they_read() {
        let query = r#"SELECT ds, 'tag:7' AS v FROM "s"."a__1" AS a JOIN s.b__2 ON TRUE WHERE ds BETWEEN '2024-01-03' AND '2024-01-05'"#;
        assert_eq!(sources(query), ["s.a__1", "s.b__2"]);
        assert_eq!(tag(query), 7);
        assert_eq!(days_of_query(query), Some((2, 4)));
    }
}
