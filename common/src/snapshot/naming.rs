//! Names in the warehouse: physical tables and the views over them.

use serde::{Deserialize, Serialize};

use crate::id::{EnvironmentName, Hasher, ModelName, PlanId, Version};
use crate::project::Settings;
use crate::project::settings::{SuffixTarget, TableNaming};
use crate::task::Relation;

/// PostgreSQL's limit on a name in bytes, the smallest among the engines served; longer names are
/// shortened on every engine alike, so a project's names don't depend on where it runs.
const MAX_NAME: usize = 63;

/// How a snapshot's physical tables are called, all but the version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Naming {
    /// The catalog, where the model's isn't the connection's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalog: Option<String>,
    /// The schema that holds physical tables.
    pub schema: String,
    /// The table's name up to the version.
    pub stem: String,
}

impl Naming {
    /// The names that a project's settings give to a model's tables.
    pub fn of(model: &ModelName, settings: &Settings) -> Self {
        let schema = model.schema().unwrap_or("default");
        let stem = match settings.physical_table_naming_convention {
            TableNaming::SchemaAndTable => clean(&format!("{schema}__{}", model.table())),
            TableNaming::TableOnly => clean(model.table()),
            TableNaming::HashMd5 => {
                let hash = Hasher::new("table-name/v1").field("name", model.as_str()).finish();
                format!("coord_{:016x}", (hash.0 >> 64) as u64)
            }
        };
        Self { catalog: model.catalog().map(str::to_owned), schema: settings.physical_schema(schema), stem }
    }

    /// The physical table of a version; `dev` is the throwaway one of development environments.
    ///
    /// The name ends in the version's first 64 bits: tables of one model collide with a chance of
    /// 2⁻⁶⁴ per pair, and names stay readable.
    pub fn relation(&self, version: Version, dev: bool) -> Relation {
        let suffix = format!("__{:016x}{}", (version.0.0 >> 64) as u64, if dev { "__dev" } else { "" });
        Relation {
            catalog: self.catalog.clone(),
            schema: self.schema.clone(),
            table: shorten(&self.stem, MAX_NAME - suffix.len()) + &suffix,
        }
    }
}

/// Where a plan computes a table aside: beside the one that readers see, under a name of its own.
pub fn aside_relation(published: &Relation, plan: PlanId) -> Relation {
    beside(published, &format!("__aside_{:012x}", (plan.0.0 >> 80) as u64))
}

/// The view of a table's published rows together with those that a plan computed aside.
pub fn merged_relation(published: &Relation, plan: PlanId) -> Relation {
    beside(published, &format!("__merged_{:012x}", (plan.0.0 >> 80) as u64))
}

fn beside(relation: &Relation, suffix: &str) -> Relation {
    Relation { table: shorten(&relation.table, MAX_NAME - suffix.len()) + suffix, ..relation.clone() }
}

/// The view that shows a model in an environment.
pub fn view_relation(model: &ModelName, environment: &EnvironmentName, settings: &Settings) -> Relation {
    let mut relation = Relation {
        catalog: model.catalog().map(str::to_owned),
        schema: model.schema().unwrap_or("default").to_owned(),
        table: model.table().to_owned(),
    };
    let Some(suffix) = environment.suffix() else { return relation };
    match settings.environment_suffix_target {
        SuffixTarget::Schema => relation.schema += &suffix,
        SuffixTarget::Table => relation.table += &suffix,
        SuffixTarget::Catalog => {
            let catalog = relation.catalog.take().or_else(|| settings.default_catalog(None));
            relation.catalog = Some(catalog.unwrap_or_default() + &suffix);
        }
    }
    relation
}

fn clean(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

/// Cuts a name to `max` bytes; a cut name ends in a hash of the whole, so two stay two.
fn shorten(name: &str, max: usize) -> String {
    if name.len() <= max {
        return name.to_owned();
    }
    let tail = format!("_{:08x}", Hasher::new("short/v1").field("name", name).finish().0 as u32);
    let mut cut = max - tail.len();
    while !name.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{tail}", &name[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Hash128;

    #[test]
    fn tables_aside_have_names_of_their_own() {
        let published = Relation::new("s", "x".repeat(60));
        let plans = [1_u128 << 127, 1 << 120].map(|number| PlanId(Hash128(number)));
        let names: std::collections::BTreeSet<Relation> = plans
            .iter()
            .flat_map(|plan| [aside_relation(&published, *plan), merged_relation(&published, *plan)])
            .collect();
        assert_eq!(names.len(), 4);
        assert!(names.iter().all(|name| name.table.len() == 63 && name.schema == "s"));
    }

    #[test]
    fn long_names_are_shortened_and_stay_apart() {
        let naming = |stem: &str| Naming { catalog: None, schema: "s".into(), stem: stem.into() };
        let version = Version(Hash128(0xab << 64));
        let long = "x".repeat(100);
        let one = naming(&format!("{long}a")).relation(version, true).table;
        let two = naming(&format!("{long}b")).relation(version, true).table;
        assert_eq!(one.len(), 63);
        assert_ne!(one, two);
        assert_eq!(naming("db__m").relation(version, false).table, "db__m__00000000000000ab");
    }
}
