//! Drivers repeat in their errors what they were given: what is secret of it is taken out before an
//! error leaves the engines' room.

use std::sync::Arc;

use async_trait::async_trait;
use coord_common::id::Token;
use coord_common::project::model::ColumnDef;
use coord_common::sql::Dialect;
use tokio_util::sync::CancellationToken;

use super::config::EngineConfig;
use super::{
    BatchReport, BatchWrite, Discard, Engine, EngineError, Outcome, Publication, Relation, RelationKind,
    Rows, Switched, ViewSwitch,
};

/// Shorter ones would take half of every message with them, and protect nothing.
const SHORTEST: usize = 4;
/// What stands in the place of a secret.
const MASK: &str = "***";

/// The secrets of a connection.
#[derive(Clone)]
pub(super) struct Scrubber(Arc<[String]>);

impl Scrubber {
    /// What of a configuration must not show: passwords, and addresses that may hold some.
    pub(super) fn of(config: &EngineConfig) -> Self {
        let mut secrets = Vec::new();
        match config {
            EngineConfig::Postgres(config) => {
                secrets.extend(config.password.iter().map(|secret| secret.expose().to_owned()));
                // A password that everybody can read beside it is none.
                secrets.retain(|text| ![&config.user, &config.database, &config.host].contains(&text));
            }
            EngineConfig::DuckDb(config) => {
                let addresses = config.catalogs.iter().map(|catalog| &catalog.path);
                for address in addresses.filter(|path| path.contains([':', '='])) {
                    secrets.extend(within_address(address));
                }
                let settings = config.settings.iter().filter(|(name, _)| is_secret(name));
                secrets.extend(settings.map(|(_, value)| value.expose().to_owned()));
                let options = config.catalogs.iter().flat_map(|catalog| &catalog.options);
                secrets.extend(options.filter(|(name, _)| is_secret(name)).map(|(_, value)| value.clone()));
            }
            EngineConfig::Adbc(config) => {
                secrets.extend(config.options.values().map(|secret| secret.expose().to_owned()));
            }
            EngineConfig::Noop => {}
        }
        secrets.retain(|secret| secret.len() >= SHORTEST);
        // The longest first: one may be part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets.into())
    }

    /// A text without secrets.
    fn text(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret, MASK))
    }

    /// An error without secrets.
    pub(super) fn error(&self, mut error: EngineError) -> EngineError {
        error.message = self.text(&error.message);
        error.hint = error.hint.map(|hint| self.text(&hint));
        error
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "secret", "token", "key", "credential", "pwd"].iter().any(|word| name.contains(word))
}

/// Passwords in an address: `password=…` among its words, and `user:…@` in a URL.
fn within_address(address: &str) -> Vec<String> {
    let mut found = Vec::new();
    for word in address.split([' ', '&', '?', ';', ',']) {
        if let Some((name, value)) = word.split_once('=')
            && is_secret(name)
        {
            found.push(value.trim_matches(['\'', '"']).to_owned());
        }
    }
    if let Some((login, _)) = address.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@'))
        && let Some((_, password)) = login.split_once(':')
    {
        found.push(password.to_owned());
    }
    found
}

/// An engine whose errors hold no secrets.
pub(super) struct Scrubbed {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) scrubber: Scrubber,
}

#[async_trait]
impl Engine for Scrubbed {
    fn dialect(&self) -> Dialect {
        self.engine.dialect()
    }

    fn concurrency(&self) -> usize {
        self.engine.concurrency()
    }

    async fn look_ahead(&self, write: &mut BatchWrite) {
        self.engine.look_ahead(write).await;
    }

    async fn run_batch(
        &self,
        write: &BatchWrite,
        cancel: &CancellationToken,
    ) -> Result<BatchReport, EngineError> {
        self.engine.run_batch(write, cancel).await.map_err(|error| self.scrubber.error(error))
    }

    async fn switch_views(
        &self,
        switch: &ViewSwitch,
        cancel: &CancellationToken,
    ) -> Result<Switched, EngineError> {
        self.engine.switch_views(switch, cancel).await.map_err(|error| self.scrubber.error(error))
    }

    async fn publish(
        &self,
        publication: &Publication,
        cancel: &CancellationToken,
    ) -> Result<Outcome, EngineError> {
        self.engine.publish(publication, cancel).await.map_err(|error| self.scrubber.error(error))
    }

    async fn drop_relations(&self, relations: &[(Relation, RelationKind)]) -> Vec<(Relation, EngineError)> {
        let kept = self.engine.drop_relations(relations).await;
        kept.into_iter().map(|(relation, error)| (relation, self.scrubber.error(error))).collect()
    }

    async fn discard(&self, discard: &Discard, cancel: &CancellationToken) -> Result<(), EngineError> {
        self.engine.discard(discard, cancel).await.map_err(|error| self.scrubber.error(error))
    }

    async fn prune(&self, catalog: Option<&str>, table: &str, upto: Token) -> Result<(), EngineError> {
        self.engine.prune(catalog, table, upto).await.map_err(|error| self.scrubber.error(error))
    }

    fn shut_out(&self, upto: Token) {
        self.engine.shut_out(upto);
    }

    async fn query(&self, sql: &str) -> Result<Rows, EngineError> {
        self.engine.query(sql).await.map_err(|error| self.scrubber.error(error))
    }

    async fn describe(&self, sql: &str) -> Result<Vec<ColumnDef>, EngineError> {
        self.engine.describe(sql).await.map_err(|error| self.scrubber.error(error))
    }

    async fn columns(&self, relation: &Relation) -> Result<Option<Vec<ColumnDef>>, EngineError> {
        self.engine.columns(relation).await.map_err(|error| self.scrubber.error(error))
    }

    async fn ping(&self) -> Result<String, EngineError> {
        self.engine.ping().await.map_err(|error| self.scrubber.error(error))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use coord_common::secret::Secret;

    use super::*;
    use crate::engine::{DuckDbCatalog, DuckDbConfig, PostgresConfig};

    fn scrubbed(config: &EngineConfig, message: &str) -> String {
        let error = EngineError::permanent(message).hint(message);
        let error = Scrubber::of(config).error(error);
        assert_eq!(error.hint.as_deref(), Some(error.message.as_str()));
        error.message
    }

    #[test]
    fn a_password_does_not_show_in_what_a_driver_says() {
        let mut config = PostgresConfig::new("h", 1, "ann", "db");
        config.password = Some(Secret::new("hunter2"));
        let said = "cannot parse \"host=h password=hunter2\" (hunter2)";
        let shown = scrubbed(&EngineConfig::Postgres(config.clone()), said);
        assert_eq!(shown, "cannot parse \"host=h password=***\" (***)");
        config.password = Some(Secret::new("ann"));
        assert_eq!(scrubbed(&EngineConfig::Postgres(config), "no role ann"), "no role ann");
    }

    #[test]
    fn passwords_within_addresses_do_not_show() {
        let catalog = |path: &str, options: &[(&str, &str)]| {
            let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            DuckDbCatalog { name: "c".to_owned(), path: path.to_owned(), options: options.collect() }
        };
        let mut config = DuckDbConfig::new(None);
        config.catalogs = vec![
            catalog("host=h user=u password='one-canary' dbname=d", &[]),
            catalog("postgres://u:two-canary@h/d", &[]),
            catalog("md:db?motherduck_token=three-canary", &[]),
            catalog("file.db", &[("ENCRYPTION_KEY", "four-canary")]),
        ];
        config.settings = BTreeMap::from([("s3_secret_access_key".to_owned(), Secret::new("five-canary"))]);
        let said = "one-canary two-canary three-canary four-canary five-canary file.db";
        assert_eq!(scrubbed(&EngineConfig::DuckDb(config), said), "*** *** *** *** *** file.db");
    }
}
