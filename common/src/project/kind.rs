//! The `kind` property: `INCREMENTAL_BY_TIME_RANGE (time_column ds, batch_size 7)` and the like.

use std::collections::BTreeMap;

use crate::diagnostic::Diagnostic;
use crate::project::ddl::block::{Property, properties};
use crate::project::ddl::token::TokenKind;
use crate::project::ddl::value::Value;
use crate::project::fields::{Fields, shorten};
use crate::project::model::{Incremental, ModelKind, ScdBy, ScdType2, Seed, TimeRange, UniqueKey};
use crate::project::seed::one_character;
use crate::project::settings::ModelDefaults;
use crate::project::suggest::did_you_mean;
use crate::project::time_format::to_strftime;

const KINDS: [&str; 14] = [
    "INCREMENTAL_BY_TIME_RANGE",
    "INCREMENTAL_BY_UNIQUE_KEY",
    "INCREMENTAL_BY_PARTITION",
    "INCREMENTAL_UNMANAGED",
    "FULL",
    "VIEW",
    "SCD_TYPE_2",
    "SCD_TYPE_2_BY_TIME",
    "SCD_TYPE_2_BY_COLUMN",
    "SEED",
    "EMBEDDED",
    "EXTERNAL",
    "MANAGED",
    "CUSTOM",
];

const COMMON: [&str; 4] =
    ["on_destructive_change", "on_additive_change", "auto_restatement_cron", "disable_restatement"];
const BATCHED: [&str; 4] = ["batch_size", "batch_concurrency", "lookback", "forward_only"];
const SCD: [&str; 7] = [
    "unique_key",
    "valid_from_name",
    "valid_to_name",
    "invalidate_hard_deletes",
    "time_data_type",
    "batch_size",
    "forward_only",
];

/// The properties that a kind takes.
fn known_properties(kind: &str) -> Vec<&'static str> {
    let own: &[&str] = match kind {
        "INCREMENTAL_BY_TIME_RANGE" => {
            &["time_column", "auto_restatement_intervals", "partition_by_time_column"]
        }
        "INCREMENTAL_BY_UNIQUE_KEY" => &["unique_key", "when_matched", "merge_filter"],
        "INCREMENTAL_BY_PARTITION" => &["forward_only"],
        "INCREMENTAL_UNMANAGED" => &["insert_overwrite", "forward_only"],
        "VIEW" => return vec!["materialized"],
        "SEED" => return vec!["path", "batch_size", "csv_settings"],
        "SCD_TYPE_2" | "SCD_TYPE_2_BY_TIME" => &["updated_at_name", "updated_at_as_valid_from"],
        "SCD_TYPE_2_BY_COLUMN" => &["columns", "execution_time_as_valid_from", "updated_at_name"],
        "MANAGED" => return vec!["disable_restatement"],
        _ => return Vec::new(),
    };
    let shared: &[&str] = match kind {
        "INCREMENTAL_BY_TIME_RANGE" | "INCREMENTAL_BY_UNIQUE_KEY" => &BATCHED,
        "SCD_TYPE_2" | "SCD_TYPE_2_BY_TIME" | "SCD_TYPE_2_BY_COLUMN" => &SCD,
        _ => &[],
    };
    [own, shared, &COMMON, &["dialect"]].concat()
}

/// Reads a kind; `None` (with findings) if it can't be one.
pub(crate) fn read(
    value: &Value<'_>,
    defaults: &ModelDefaults,
    time_column_format: &str,
    fields: &mut Fields<'_>,
) -> Option<ModelKind> {
    let (name, inside) = head(value, fields)?;
    if name == "CUSTOM" || name == "DBT_CUSTOM" {
        let message = format!("kind {name} needs Python, which isn't supported yet");
        let finding = Diagnostic::error("unsupported-kind", value.location(), message);
        fields.findings.push(finding.hint("use a built-in kind"));
        return Some(ModelKind::Custom { materialization: value.text().to_owned() });
    }
    let known = known_properties(&name);
    let mut given = Vec::new();
    if let Some(inside) = inside {
        if known.is_empty() {
            let message = format!("kind {name} takes no properties");
            let finding = Diagnostic::error("unknown-kind-property", inside.location(), message);
            fields.findings.push(finding.hint(format!("write `kind {name}`")));
        } else {
            let (read, findings) = properties(inside.source, inside.tokens, &known);
            fields.findings.extend(findings);
            given = read;
        }
    }
    given.retain(|property| {
        let is_known = known.iter().any(|known| property.is(known));
        if !is_known {
            let message = format!("kind {name} has no property `{}`", property.key);
            let finding = Diagnostic::error("unknown-kind-property", property.location(), message);
            fields.findings.push(finding.hint(did_you_mean(property.key, &known)));
        }
        is_known
    });
    let mut kind = KindReader { name: &name, value: *value, given: &given, defaults, fields };
    kind.read(time_column_format)
}

/// The kind's name in upper case, and what stands in its parentheses.
fn head<'a>(value: &Value<'a>, fields: &mut Fields<'_>) -> Option<(String, Option<Value<'a>>)> {
    let (first, rest) = value.tokens.split_first()?;
    let one = Value { tokens: &value.tokens[..1], ..*value };
    let name = one.scalar().unwrap_or_default().to_ascii_uppercase();
    if first.kind == TokenKind::Macro {
        let finding = Diagnostic::error(
            "unsupported-macro",
            value.location(),
            "a macro as the kind isn't supported yet",
        );
        fields.findings.push(finding.hint("write the kind"));
        return None;
    }
    if !KINDS.contains(&name.as_str()) && name != "DBT_CUSTOM" {
        let message = format!("unknown kind `{}`", shorten(one.text()));
        let finding = Diagnostic::error("unknown-kind", value.location(), message);
        fields.findings.push(finding.hint(did_you_mean(&name, &KINDS)));
        return None;
    }
    if rest.is_empty() {
        return Some((name, None));
    }
    let rest = Value { source: value.source, tokens: rest, fallback: first.end as usize };
    let inside = rest.inside();
    if inside.is_none() {
        let message = format!("unexpected `{}` after the kind", shorten(rest.text()));
        let finding = Diagnostic::error("syntax", rest.location(), message);
        fields.findings.push(finding.hint("is a comma missing?"));
    }
    Some((name, inside))
}

struct KindReader<'k, 'a, 'f> {
    name: &'k str,
    value: Value<'a>,
    given: &'k [Property<'a>],
    defaults: &'k ModelDefaults,
    fields: &'k mut Fields<'f>,
}

impl<'a> KindReader<'_, 'a, '_> {
    fn read(&mut self, time_column_format: &str) -> Option<ModelKind> {
        Some(match self.name {
            "INCREMENTAL_BY_TIME_RANGE" => {
                ModelKind::IncrementalByTimeRange(self.time_range(time_column_format)?)
            }
            "INCREMENTAL_BY_UNIQUE_KEY" => ModelKind::IncrementalByUniqueKey(UniqueKey {
                unique_key: self.unique_key()?,
                when_matched: self.get("when_matched").map(|property| clauses(&property.value)),
                merge_filter: self.get("merge_filter").map(|property| property.value.text().to_owned()),
                common: Incremental { batch_concurrency: Some(1), ..self.common(false, false) },
            }),
            "INCREMENTAL_BY_PARTITION" => ModelKind::IncrementalByPartition(self.common(true, false)),
            "INCREMENTAL_UNMANAGED" => ModelKind::IncrementalUnmanaged {
                insert_overwrite: self.flag("insert_overwrite", false),
                common: self.common(true, true),
            },
            "VIEW" => ModelKind::View { materialized: self.flag("materialized", false) },
            "SEED" => ModelKind::Seed(self.seed()?),
            "EMBEDDED" => ModelKind::Embedded,
            "EXTERNAL" => ModelKind::External,
            "MANAGED" => ModelKind::Managed,
            "FULL" => ModelKind::Full,
            _ => ModelKind::ScdType2(Box::new(self.scd()?)),
        })
    }

    fn get(&self, key: &str) -> Option<Property<'a>> {
        self.given.iter().rev().find(|property| property.is(key)).copied()
    }

    fn flag(&mut self, key: &str, default: bool) -> bool {
        self.get(key).and_then(|property| self.fields.flag(&property)).unwrap_or(default)
    }

    fn text(&mut self, key: &str) -> Option<String> {
        self.get(key).and_then(|property| self.fields.text(&property))
    }

    fn number(&mut self, key: &str, least: u32) -> Option<u32> {
        self.get(key).and_then(|property| self.fields.number(&property, least))
    }

    fn missing(&mut self, key: &str, example: &str) {
        let message = format!("kind {} needs `{key}`", self.name);
        let finding = Diagnostic::error("missing-property", self.value.location(), message);
        self.fields.findings.push(finding.hint(format!("write `kind {} ({key} {example})`", self.name)));
    }

    fn common(&mut self, forward_only: bool, disable_restatement: bool) -> Incremental {
        let batch_concurrency = self.number("batch_concurrency", 1);
        let auto_restatement_cron = self.get("auto_restatement_cron").and_then(|property| {
            let cron = self.fields.text(&property)?;
            super::cron::check_cron(&cron, property.value.location(), self.fields.findings);
            Some(cron)
        });
        Incremental {
            batch_size: self.number("batch_size", 1),
            batch_concurrency,
            lookback: self.number("lookback", 0).unwrap_or(0),
            forward_only: self.flag("forward_only", forward_only),
            disable_restatement: self.flag("disable_restatement", disable_restatement),
            on_destructive_change: self.on_change("on_destructive_change"),
            on_additive_change: self.on_change("on_additive_change"),
            auto_restatement_cron,
            auto_restatement_intervals: self.number("auto_restatement_intervals", 1),
        }
    }

    fn on_change(&mut self, key: &str) -> Option<String> {
        let Some(property) = self.get(key) else {
            return match key {
                "on_destructive_change" => self.defaults.on_destructive_change.clone(),
                _ => self.defaults.on_additive_change.clone(),
            };
        };
        let word = self.fields.text(&property)?.to_ascii_lowercase();
        if !["error", "warn", "allow", "ignore"].contains(&word.as_str()) {
            self.fields.invalid(&property, "error, warn, allow or ignore", "choose one of them");
            return None;
        }
        Some(word)
    }

    fn time_range(&mut self, default_format: &str) -> Option<TimeRange> {
        let Some(property) = self.get("time_column") else {
            self.missing("time_column", "ds");
            return None;
        };
        let mut elements = property.value.elements().into_iter();
        let column = elements.next().map_or(property.value, |column| column);
        let time_column = self.fields.column(&Property { value: column, ..property })?;
        let time_format = match elements.next() {
            None => default_format.to_owned(),
            Some(format) => {
                let format = self.fields.text(&Property { value: format, ..property })?;
                to_strftime(self.fields.dialect, &format)
            }
        };
        let mut common = self.common(false, false);
        common.batch_concurrency = common.batch_concurrency.or(self.defaults.batch_concurrency);
        let partition_by_time_column = self.flag("partition_by_time_column", true);
        Some(TimeRange { time_column, time_format, partition_by_time_column, common })
    }

    fn unique_key(&mut self) -> Option<Vec<String>> {
        let Some(property) = self.get("unique_key") else {
            self.missing("unique_key", "id");
            return None;
        };
        Some(property.value.expressions())
    }

    fn scd(&mut self) -> Option<ScdType2> {
        let unique_key = self.unique_key()?;
        let column = |reader: &mut Self, key: &str| {
            reader.get(key).and_then(|property| reader.fields.column(&property))
        };
        let valid_from_name = column(self, "valid_from_name").unwrap_or_else(|| "valid_from".to_owned());
        let valid_to_name = column(self, "valid_to_name").unwrap_or_else(|| "valid_to".to_owned());
        let updated_at_name = column(self, "updated_at_name");
        let by = if self.name == "SCD_TYPE_2_BY_COLUMN" {
            let Some(columns) = self.get("columns") else {
                self.missing("columns", "(a, b)");
                return None;
            };
            let all = columns.value.text() == "*";
            ScdBy::Column {
                columns: if all { Vec::new() } else { columns.value.expressions() },
                execution_time_as_valid_from: self.flag("execution_time_as_valid_from", false),
                updated_at_name,
            }
        } else {
            ScdBy::Time {
                updated_at_name: updated_at_name.unwrap_or_else(|| "updated_at".to_owned()),
                updated_at_as_valid_from: self.flag("updated_at_as_valid_from", false),
            }
        };
        let time_data_type = self.get("time_data_type").map(|property| property.value.text().to_owned());
        Some(ScdType2 {
            unique_key,
            valid_from_name,
            valid_to_name,
            invalidate_hard_deletes: self.flag("invalidate_hard_deletes", false),
            time_data_type: time_data_type.unwrap_or_else(|| "TIMESTAMP".to_owned()),
            by,
            common: self.common(true, true),
        })
    }

    fn seed(&mut self) -> Option<Seed> {
        let Some(path) = self.text("path") else {
            self.missing("path", "'../seeds/file.csv'");
            return None;
        };
        let csv_settings = match self.get("csv_settings") {
            None => BTreeMap::new(),
            Some(property) => self.csv_settings(&property),
        };
        let batch_size = self.number("batch_size", 1).unwrap_or(1000);
        Some(Seed { path: path.replace('\\', "/"), batch_size, csv_settings })
    }

    fn csv_settings(&mut self, property: &Property<'a>) -> BTreeMap<String, String> {
        const KNOWN: [&str; 9] = [
            "delimiter",
            "quotechar",
            "doublequote",
            "escapechar",
            "skipinitialspace",
            "lineterminator",
            "encoding",
            "na_values",
            "keep_default_na",
        ];
        let map = self.fields.map(property);
        for key in map.keys().filter(|key| !KNOWN.contains(&key.as_str())) {
            let message = format!("csv_settings has no `{key}`");
            let finding = Diagnostic::error("unknown-kind-property", property.value.location(), message);
            self.fields.findings.push(finding.hint(did_you_mean(key, &KNOWN)));
        }
        for key in ["delimiter", "quotechar", "escapechar", "lineterminator"] {
            if let Some(Err(found)) = map.get(key).map(|written| one_character(written)) {
                let message = format!("`{key}` in csv_settings must be one character, found `{found}`");
                let finding = Diagnostic::error("invalid-value", property.value.location(), message);
                self.fields.findings.push(finding.hint(format!("write `{key} = ';'`, for example")));
            }
        }
        map
    }
}

/// A merge's WHEN clauses without the parentheses that may stand around them.
fn clauses(value: &Value<'_>) -> String {
    value.inside().unwrap_or(*value).text().to_owned()
}
