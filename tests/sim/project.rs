//! Small projects drawn from a seed, and what their tables must hold in the end.

use coord_common::project::SourceFile;

use crate::node::GATEWAY;
use crate::random::Random;
use crate::warehouse::{Source, value};

/// Days of data up to the plans' end: the clock shows noon of the tenth.
pub(crate) const DAYS: i64 = 9;

/// What a model's table is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ranges of days are replaced.
    Range {
        batch: u64,
    },
    /// Days are added.
    Append,
    /// It is replaced whole.
    Full,
    View,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Model {
    /// Without schema.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// What its query says; another number is another version.
    pub(crate) tag: u64,
    /// The models that it reads; none: the world outside.
    pub(crate) ups: Vec<String>,
    /// The first of its days.
    pub(crate) from: i64,
    /// Whether it has an audit.
    pub(crate) audited: bool,
    /// How long its batches may take, in seconds.
    pub(crate) limit: Option<u64>,
}

/// The state of all models' files at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Project(pub(crate) Vec<Model>);

impl Project {
    pub(crate) fn drawn(random: &mut Random) -> Self {
        let count = random.between(2, 6);
        let from = random.between(0, 5) as i64;
        let mut models: Vec<Model> = Vec::new();
        for n in 0..count {
            let kind = match random.between(0, 10) {
                _ if n == 0 => Kind::Range { batch: random.between(1, 4) },
                0..6 => Kind::Range { batch: random.between(1, 5) },
                6..8 => Kind::Append,
                8 => Kind::View,
                _ if n + 1 == count => Kind::Full,
                _ => Kind::Range { batch: 1 },
            };
            let mut ups = Vec::new();
            if n > 0 {
                ups.push(format!("m{}", random.between(0, n)));
                let other = format!("m{}", random.between(0, n));
                if random.chance(300) && !ups.contains(&other) {
                    ups.push(other);
                }
            }
            let audited = random.chance(300) && kind != Kind::View;
            let limit = random.chance(200).then_some(5);
            models.push(Model { name: format!("m{n}"), kind, tag: 100 * n, ups, from, audited, limit });
        }
        Self(models)
    }

    /// One model of days, which says this.
    pub(crate) fn of_one(tag: u64) -> Self {
        let (kind, ups) = (Kind::Range { batch: 1 }, Vec::new());
        Self(vec![Model { name: "m0".to_owned(), kind, tag, ups, from: 0, audited: false, limit: None }])
    }

    /// The same with one model changed. Tables to which rows are added keep old rows, so what they
    /// come from stays.
    pub(crate) fn changed(&self, random: &mut Random) -> Self {
        let mut next = self.clone();
        let at = random.between(0, next.0.len() as u64) as usize;
        if !self.reaches_append(&next.0[at].name) {
            next.0[at].tag += 1 + random.between(0, 90);
        }
        next
    }

    fn reaches_append(&self, name: &str) -> bool {
        self.0.iter().any(|model| {
            let is_it = model.name == name;
            (is_it && model.kind == Kind::Append)
                || (model.ups.iter().any(|up| up == name) && self.reaches_append(&model.name))
        })
    }

    pub(crate) fn files(&self) -> Vec<SourceFile> {
        let config = format!(
            "gateways:\n  {GATEWAY}:\n    connection:\n      type: postgres\n      host: nowhere\n      port: 1\n      user: u\n      password: p\n      database: d\ndefault_gateway: {GATEWAY}\nmodel_defaults:\n  dialect: postgres\n  start: 2024-01-01\n"
        );
        let file = |path: String, text: String| SourceFile { path: path.into(), text: text.into() };
        let models = self.0.iter().map(|model| file(format!("models/{}.sql", model.name), text(model)));
        [file("config.yaml".to_owned(), config)].into_iter().chain(models).collect()
    }

    /// The first day of its data.
    pub(crate) fn first_day(&self) -> i64 {
        self.0.iter().map(|model| model.from).min().unwrap_or_default()
    }

    /// Whether a model's table has one row a day.
    pub(crate) fn is_by_day(&self, model: &str) -> bool {
        matches!(self.model(model).map(|model| model.kind), Some(Kind::Range { .. } | Kind::Append))
    }

    pub(crate) fn model(&self, name: &str) -> Option<&Model> {
        self.0.iter().find(|model| model.name == name)
    }

    /// What a model holds of a day, or in all of so many days, by the values of its rows.
    pub(crate) fn expected(&self, name: &str, day: Option<i64>, source: &Source, days: i64) -> Vec<u64> {
        let Some(model) = self.model(name) else { return Vec::new() };
        let inputs = |day: Option<i64>| -> Vec<u64> {
            if model.ups.is_empty() {
                return vec![source.of(day)];
            }
            model.ups.iter().flat_map(|up| self.expected(up, day, source, days)).collect()
        };
        match (model.kind, day) {
            (Kind::Range { .. } | Kind::Append, Some(day)) => {
                vec![value(model.tag, day, inputs(Some(day)).into_iter())]
            }
            (Kind::Range { .. } | Kind::Append, None) => {
                (model.from..days).flat_map(|day| self.expected(name, Some(day), source, days)).collect()
            }
            (Kind::Full, _) => vec![value(model.tag, 0, inputs(None).into_iter())],
            (Kind::View, day) => vec![value(model.tag, day.unwrap_or_default(), inputs(day).into_iter())],
        }
    }
}

fn text(model: &Model) -> String {
    let kind = match model.kind {
        Kind::Range { batch } => format!("INCREMENTAL_BY_TIME_RANGE (time_column ds, batch_size {batch})"),
        Kind::Append => "INCREMENTAL_UNMANAGED (disable_restatement false)".to_owned(),
        Kind::Full => "FULL".to_owned(),
        Kind::View => "VIEW".to_owned(),
    };
    let by_day = matches!(model.kind, Kind::Range { .. } | Kind::Append);
    let bounds = |alias: &str| format!("{alias}.ds BETWEEN @start_ds AND @end_ds");
    let source = ["raw.src".to_owned()];
    let ups: Vec<String> = model.ups.iter().map(|up| format!("s.{up}")).collect();
    let ups = if ups.is_empty() { source.as_slice() } else { &ups };
    let from: Vec<String> = ups.iter().enumerate().map(|(n, up)| format!("{up} AS u{n}")).collect();
    let mut query = format!("SELECT u0.ds, 'tag:{}' AS v FROM {}", model.tag, from[0]);
    for (n, up) in from.iter().enumerate().skip(1) {
        query += &format!(" JOIN {up} ON u0.ds = u{n}.ds");
    }
    if by_day {
        let all: Vec<String> = (0..from.len()).map(|n| bounds(&format!("u{n}"))).collect();
        query += &format!(" WHERE {}", all.join(" AND "));
    }
    let (name, start) = (&model.name, model.from + 1);
    let audits = if model.audited { ", audits (not_null(columns := (v)))" } else { "" };
    let limit = model.limit.map_or_else(String::new, |seconds| {
        format!(", session_properties (batch_timeout = '{seconds} seconds')")
    });
    format!(
        "MODEL (name s.{name}, kind {kind}, cron '@daily', start '2024-01-{start:02}'{audits}{limit}, columns (ds TEXT, v TEXT));\n\n{query}\n"
    )
}
