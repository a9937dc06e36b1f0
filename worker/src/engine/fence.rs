//! The rows in the warehouse that decide who may commit.
//!
//! An attempt first *raises* its token in a transaction of its own; its data transaction ends with
//! an UPDATE of the same column, which must hit the row with its own token still in it. Whoever
//! was overtaken hits nothing, or conflicts. Both must assign the same column: DuckDB finds
//! conflicts per column, and none between an UPDATE and a DELETE of a row.

use coord_common::id::Token;

use super::error::{Class, EngineError};
use super::profile::Profile;
use super::session::{Answer, Session};
use super::statements::literal;
use super::{Fence, Relation};

/// Where the fence rows and the environments' sequence numbers are.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    /// The quoted schema.
    schema: String,
    /// The quoted table of fence rows. `done` is the token that completed the work, 0 if none did.
    fence: String,
    /// The quoted table of the least tokens that may make rows, by what the slots belong to.
    floor: String,
    /// The quoted table of environments.
    pub(crate) environment: String,
}

/// What the fence row says once an attempt has raised its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Raised {
    /// Who holds the row.
    holder: u64,
    /// The token that completed the work for this plan, 0 if none did.
    pub(crate) done: u64,
    /// How many rows that wrote.
    pub(crate) rows: u64,
}

impl Ledger {
    pub(crate) fn new(profile: &Profile, catalog: Option<&str>, schema: &str) -> Self {
        let table = |name: &str| {
            profile.relation(&Relation {
                catalog: catalog.map(str::to_owned),
                schema: schema.to_owned(),
                table: name.to_owned(),
            })
        };
        Self {
            schema: profile.schema(catalog, schema),
            fence: table("_fence"),
            floor: table("_floor"),
            environment: table("_environment"),
        }
    }

    /// A query that fails where the tables are missing.
    pub(crate) fn probe(&self) -> String {
        format!("SELECT 1 FROM {}, {}, {} WHERE 1 = 0", self.fence, self.floor, self.environment)
    }

    /// Statements that make the schema, first, and the tables.
    pub(crate) fn create(&self) -> Vec<String> {
        let Self { schema, fence, floor, environment } = self;
        vec![
            format!("CREATE SCHEMA IF NOT EXISTS {schema}"),
            format!(
                "CREATE TABLE IF NOT EXISTS {fence} (slot VARCHAR PRIMARY KEY, tok BIGINT NOT NULL, \
                 done BIGINT NOT NULL, plan VARCHAR NOT NULL, rows BIGINT NOT NULL, owner VARCHAR NOT NULL)"
            ),
            format!("CREATE TABLE IF NOT EXISTS {floor} (owner VARCHAR PRIMARY KEY, tok BIGINT NOT NULL)"),
            format!(
                "CREATE TABLE IF NOT EXISTS {environment} (env VARCHAR PRIMARY KEY, seq BIGINT NOT NULL)"
            ),
        ]
    }

    /// Raises the token and says what the row then holds. For work that may be done `once` only,
    /// whichever plan it was done for counts.
    ///
    /// # Errors
    /// [`Class::Stale`] where a greater token holds the row; [`Class::Permanent`] where a lost
    /// attempt at other work that overlaps this was done, and this may be done once only.
    pub(crate) async fn raise(
        &self,
        session: &mut dyn Session,
        profile: &Profile,
        of: &Fence,
        once: bool,
    ) -> Result<Raised, EngineError> {
        // Lost attempts first: once they are shut out, what they committed is there to be seen.
        for slot in &of.supersedes {
            let lost = Fence { slot: slot.clone(), supersedes: Vec::new(), ..of.clone() };
            let raised = self.raise_one(session, profile, &lost, once).await?;
            if once && raised.done != 0 {
                return Err(partly_done(of, slot));
            }
        }
        self.raise_one(session, profile, of, once).await
    }

    /// Forgets within a transaction what was done under all other slots of the same table.
    pub(crate) fn forget_others(&self, of: &Fence) -> String {
        let (slot, owner) = (literal(&of.slot), literal(&of.table));
        format!("UPDATE {} SET done = 0 WHERE owner = {owner} AND slot <> {slot} AND done <> 0", self.fence)
    }

    /// Tokens of unfinished attempts that raising `of` overtakes.
    pub(crate) async fn overtaken(
        &self,
        session: &mut dyn Session,
        of: &Fence,
    ) -> Result<Vec<Token>, EngineError> {
        let slots: Vec<String> = [&of.slot].into_iter().chain(&of.supersedes).map(|s| literal(s)).collect();
        let (fence, slots, token) = (&self.fence, slots.join(", "), of.token);
        let ask = format!("SELECT tok FROM {fence} WHERE slot IN ({slots}) AND done = 0 AND tok < {token}");
        let answers = session.run(&[ask]).await?;
        let cells = answers.iter().flat_map(|answer| answer.rows.rows.iter().flatten().flatten());
        Ok(cells.filter_map(|cell| cell.parse().ok().map(Token)).collect())
    }

    async fn raise_one(
        &self,
        session: &mut dyn Session,
        profile: &Profile,
        of: &Fence,
        once: bool,
    ) -> Result<Raised, EngineError> {
        let raised = match profile.before_raise {
            Some(setting) => self.raise_in_one_go(session, setting, of, once).await?,
            None => self.raise_step_by_step(session, of, once).await?,
        };
        held_by(raised, of)
    }

    /// One round trip, for warehouses where rows can be upserted safely.
    async fn raise_in_one_go(
        &self,
        session: &mut dyn Session,
        setting: &str,
        of: &Fence,
        once: bool,
    ) -> Result<Raised, EngineError> {
        match session.run(&self.raise_statements(setting, of, once)).await {
            Ok(answers) => raised(&answers, of),
            Err(error) => {
                // A failed statement leaves the explicit transaction open.
                let _ = session.run(&["ROLLBACK".to_owned()]).await;
                Err(error)
            }
        }
    }

    /// The statements of [`Ledger::raise_in_one_go`]; [`raised`] reads their answers. More may follow
    /// in the same round trip.
    pub(crate) fn raise_statements(&self, setting: &str, of: &Fence, once: bool) -> Vec<String> {
        let (slot, plan, owner, token) = (literal(&of.slot), literal(&of.plan), literal(&of.table), of.token);
        let (fence, above) = (&self.fence, self.above_floor(of));
        let done = if once { "f.done" } else { "CASE WHEN f.plan = EXCLUDED.plan THEN f.done ELSE 0 END" };
        vec![
            name_session(token),
            "BEGIN".to_owned(),
            setting.to_owned(),
            format!(
                "INSERT INTO {fence} AS f (slot, tok, done, plan, rows, owner) \
                 SELECT {slot}, {token}, 0, {plan}, 0, {owner} {above} ON CONFLICT (slot) DO UPDATE SET \
                 tok = EXCLUDED.tok, done = {done}, \
                 plan = EXCLUDED.plan WHERE f.tok < EXCLUDED.tok"
            ),
            self.read(of),
            "COMMIT".to_owned(),
        ]
    }

    /// A plain UPDATE where the row exists: the one form that DuckDB finds conflicts with. Where it
    /// doesn't, nobody has raised a token yet, so nobody can commit, and a plain INSERT will do.
    async fn raise_step_by_step(
        &self,
        session: &mut dyn Session,
        of: &Fence,
        once: bool,
    ) -> Result<Raised, EngineError> {
        let (slot, plan, owner, token) = (literal(&of.slot), literal(&of.plan), literal(&of.table), of.token);
        let fence = &self.fence;
        let held = session.run(&[self.read(of)]).await?;
        match held.first().and_then(parse) {
            Some(held) if held.holder >= token.0 => return Ok(held),
            Some(_) => {
                let done = if once {
                    "done".to_owned()
                } else {
                    format!("CASE WHEN plan = {plan} THEN done ELSE 0 END")
                };
                let raise = format!(
                    "UPDATE {fence} SET tok = {token}, done = {done}, \
                     plan = {plan} WHERE slot = {slot} AND tok < {token}"
                );
                let answers = session.run(&[raise, self.read(of)]).await?;
                return answers.get(1).and_then(parse).ok_or_else(unreadable);
            }
            None => {}
        }
        let insert = format!(
            "INSERT INTO {fence} (slot, tok, done, plan, rows, owner) \
             SELECT {slot}, {token}, 0, {plan}, 0, {owner} {}",
            self.above_floor(of)
        );
        // Another attempt may make the row at the same time: then it is there at the second try.
        let answers = session.run(&[insert]).await.map_err(|error| match error.code.as_deref() {
            Some("23000" | "23505") => EngineError::transient(error.message).code("40001"),
            _ => error,
        })?;
        if answers.first().is_none_or(|answer| answer.changed != 1) {
            return Err(stale(of));
        }
        Ok(Raised { holder: token.0, done: 0, rows: 0 })
    }

    /// The condition that the token may make a row.
    fn above_floor(&self, of: &Fence) -> String {
        let (floor, owner, token) = (&self.floor, literal(&of.table), of.token);
        format!("WHERE NOT EXISTS (SELECT 1 FROM {floor} WHERE owner IN ({owner}, '') AND tok >= {token})")
    }

    /// Statements that shut older tokens out of a table and forget its slots, all but the lock
    /// that some warehouses need first. The rows are raised before they go: that is what conflicts
    /// with an older attempt's commit.
    pub(crate) fn close(&self, owner: &str, token: Token) -> [String; 3] {
        let (fence, shut_out) = (&self.fence, literal(owner));
        let raise = format!("UPDATE {fence} SET tok = {token} WHERE owner = {shut_out} AND tok < {token}");
        [raise, self.forget(owner, token), self.raise_floor(owner, token)]
    }

    fn forget(&self, owner: &str, upto: Token) -> String {
        format!("DELETE FROM {} WHERE owner = {} AND tok <= {upto}", self.fence, literal(owner))
    }

    fn raise_floor(&self, owner: &str, upto: Token) -> String {
        let (floor, owner) = (&self.floor, literal(owner));
        format!(
            "INSERT INTO {floor} (owner, tok) VALUES ({owner}, {upto}) \
             ON CONFLICT (owner) DO UPDATE SET tok = EXCLUDED.tok WHERE {floor}.tok < EXCLUDED.tok"
        )
    }

    /// A query for how many slots of a table newer tokens hold.
    pub(crate) fn newer(&self, owner: &str, token: Token) -> String {
        let (fence, floor, owner) = (&self.fence, &self.floor, literal(owner));
        // Whoever is below everybody's floor is older than all.
        format!(
            "SELECT (SELECT COUNT(*) FROM {fence} WHERE owner = {owner} AND tok > {token}) \
             + (SELECT COUNT(*) FROM {floor} WHERE owner = '' AND tok > {token})"
        )
    }

    /// Shuts out all tokens up to one, whatever they are for: rows that are there get this one, and rows
    /// that aren't can be made by greater ones only. What was done stays on record. Doing it again is
    /// harmless; nothing is locked where it has been done.
    pub(crate) async fn shut_out(
        &self,
        session: &mut dyn Session,
        profile: &Profile,
        upto: Token,
    ) -> Result<(), EngineError> {
        let (fence, floor) = (&self.fence, &self.floor);
        let ask = format!("SELECT COUNT(*) FROM {floor} WHERE owner = '' AND tok >= {upto}");
        if session.run(&[ask]).await?.first().and_then(Answer::cell) != Some("0") {
            return Ok(());
        }
        if let Some(end) = profile.end_older_sessions {
            // Best effort: without the right to, what they hold is waited for.
            let _ = session.run(&[end.replace("{upto}", &upto.to_string())]).await;
        }
        let mut go = vec!["BEGIN".to_owned()];
        go.extend(self.lock(profile));
        go.push(format!("UPDATE {fence} SET tok = {upto} WHERE tok < {upto}"));
        go.push(self.raise_floor("", upto));
        go.push("COMMIT".to_owned());
        let shut = session.run(&go).await.map(|_| ());
        if shut.is_err() && !session.is_broken() {
            let _ = session.run(&["ROLLBACK".to_owned()]).await;
        }
        shut
    }

    /// What keeps new slots from appearing until the transaction ends, where that is needed.
    pub(crate) fn lock(&self, profile: &Profile) -> Option<String> {
        profile.before_prune.map(|statement| statement.replace("{table}", &self.fence))
    }

    /// Deletes rows up to a token and raises the floor to it, so that none of them comes back.
    pub(crate) async fn prune(
        &self,
        session: &mut dyn Session,
        profile: &Profile,
        owner: &str,
        upto: Token,
    ) -> Result<(), EngineError> {
        let mut go = vec!["BEGIN".to_owned()];
        go.extend(self.lock(profile));
        go.extend([self.raise_floor(owner, upto), self.forget(owner, upto)]);
        go.push("COMMIT".to_owned());
        session.run(&go).await.map(|_| ())
    }

    /// Reads the row.
    fn read(&self, of: &Fence) -> String {
        format!("SELECT tok, done, rows FROM {} WHERE slot = {}", self.fence, literal(&of.slot))
    }

    /// Marks the work as done if its token still holds the row, and changes no row otherwise. It is done
    /// once under a token: what a lost connection still carries may arrive after the same token's next
    /// try.
    fn claim(&self, of: &Fence, rows: u64) -> String {
        let (fence, slot, token) = (&self.fence, literal(&of.slot), of.token);
        format!(
            "UPDATE {fence} SET tok = {token}, done = {token}, rows = {rows} \
             WHERE slot = {slot} AND tok = {token} AND done <> {token}"
        )
    }

    /// Commits the open transaction if the tokens still hold all rows.
    ///
    /// # Errors
    /// [`Class::Stale`] where a greater token holds one of them. The caller rolls back.
    pub(crate) async fn commit_all(
        &self,
        session: &mut dyn Session,
        of: &[Fence],
        rows: u64,
    ) -> Result<(), EngineError> {
        let checks: Vec<String> = of.iter().map(|of| self.claim(of, rows)).collect();
        let answers = session.run(&checks).await?;
        if let Some((lost, _)) = of.iter().zip(&answers).find(|(_, answer)| answer.changed != 1) {
            return Err(stale(lost));
        }
        session.run(&["COMMIT".to_owned()]).await.map(|_| ())
    }

    /// Commits the open transaction if the token still holds the row.
    ///
    /// # Errors
    /// [`Class::Stale`] where a greater token holds the row. The caller rolls back.
    pub(crate) async fn commit(
        &self,
        session: &mut dyn Session,
        profile: &Profile,
        of: &Fence,
        rows: u64,
    ) -> Result<(), EngineError> {
        let update = self.claim(of, rows);
        let commit = "COMMIT".to_owned();
        if profile.update_in_cte {
            // Dividing by the number of rows hit makes the statement fail where there are none, and
            // with it what follows: check and commit need one round trip.
            let guarded = format!("WITH hit AS ({update} RETURNING 1) SELECT 1 / COUNT(*) FROM hit");
            return match session.run(&[guarded, commit]).await {
                Ok(_) => Ok(()),
                Err(error) if error.code.as_deref() == Some("22012") => Err(stale(of)),
                Err(error) => Err(error),
            };
        }
        let hit = session.run(&[update]).await?.first().map_or(0, |answer| answer.changed);
        if hit != 1 {
            return Err(stale(of));
        }
        session.run(&[commit]).await.map(|_| ())
    }
}

/// What the answers to [`Ledger::raise_statements`] say, whatever follows them.
///
/// # Errors
/// [`Class::Stale`] where a greater token holds the row, or the floor is as high.
pub(crate) fn raised(answers: &[Answer], of: &Fence) -> Result<Raised, EngineError> {
    // No row at all: the token is not above the floor.
    held_by(answers.get(4).and_then(parse).ok_or_else(|| stale(of))?, of)
}

fn held_by(raised: Raised, of: &Fence) -> Result<Raised, EngineError> {
    if raised.holder == of.token.0 { Ok(raised) } else { Err(stale(of)) }
}

/// What the session of an attempt calls itself.
fn session_name(token: Token) -> String {
    format!("coordctl:{token}")
}

/// The statement by which the session of an attempt takes its name, where a warehouse knows names.
pub(crate) fn name_session(token: Token) -> String {
    format!("SET application_name = {}", literal(&session_name(token)))
}

/// The statement that ends the sessions of attempts that can't commit any more.
pub(crate) fn end_sessions(profile: &Profile, overtaken: &[Token]) -> Option<String> {
    if overtaken.is_empty() {
        return None;
    }
    let names: Vec<String> = overtaken.iter().map(|token| literal(&session_name(*token))).collect();
    Some(profile.end_sessions?.replace("{names}", &names.join(", ")))
}

fn parse(answer: &Answer) -> Option<Raised> {
    let row = answer.rows.rows.first()?;
    let number = |at: usize| row.get(at)?.as_deref()?.parse::<i64>().ok()?.try_into().ok();
    Some(Raised { holder: number(0)?, done: number(1)?, rows: number(2)? })
}

pub(crate) fn stale(of: &Fence) -> EngineError {
    let text = format!("token {} no longer holds `{}`", of.token, of.slot);
    EngineError::new(Class::Stale, text)
}

fn partly_done(of: &Fence, slot: &str) -> EngineError {
    let text = format!("a lost attempt has added the rows of `{slot}`, a part of `{}`", of.slot);
    EngineError::permanent(text)
        .hint("apply the plan of that attempt again, which counts them as done; or restate the model")
}

fn unreadable() -> EngineError {
    EngineError::transient("the fence row could not be read back")
}
