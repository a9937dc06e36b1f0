//! A model of which nothing is said beyond its name and kind.

use std::collections::BTreeMap;

use crate::diagnostic::Location;
use crate::id::ModelName;
use crate::sql::Dialect;

use super::model::{About, Model, ModelKind, ModelSource, Storage};
use super::settings::ModelDefaults;

/// What a model is by the project's defaults alone; without audits and statements.
pub(crate) fn plain(
    defaults: &ModelDefaults,
    name: ModelName,
    kind: ModelKind,
    dialect: Dialect,
    location: Location,
) -> Model {
    Model {
        name,
        kind,
        dialect,
        cron: defaults.cron.clone().unwrap_or_else(|| "@daily".to_owned()),
        cron_tz: defaults.cron_tz.clone(),
        interval_unit: defaults.interval_unit,
        start: defaults.start.clone(),
        end: None,
        allow_partials: defaults.allow_partials.unwrap_or(false),
        about: About { owner: defaults.owner.clone(), ..About::default() },
        stamp: None,
        columns: None,
        audits: Vec::new(),
        signals: Vec::new(),
        depends_on: Vec::new(),
        storage: Storage::default(),
        gateway: None,
        optimize_query: None,
        other: BTreeMap::new(),
        blueprint: BTreeMap::new(),
        pre_statements: Vec::new(),
        source: ModelSource::External,
        post_statements: Vec::new(),
        on_virtual_update: Vec::new(),
        closed: false,
        audit_definitions: BTreeMap::new(),
        signal_definitions: BTreeMap::new(),
        location,
    }
}
