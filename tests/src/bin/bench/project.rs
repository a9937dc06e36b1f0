//! Projects with as much of everything as a measurement asks for.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// How models depend on each other.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// Layers in which each model reads two of the layer before.
    Layered {
        /// How many layers.
        layers: usize,
    },
    /// Each model reads the one before.
    Chain,
}

/// What executes the queries.
#[derive(Debug, Clone)]
pub enum Warehouse {
    /// Nothing does.
    Noop,
    /// A file beside the project.
    DuckDb,
    /// A server on this machine.
    Postgres {
        /// Its port.
        port: u16,
        /// The database.
        database: String,
    },
}

impl Warehouse {
    fn dialect(&self) -> &'static str {
        match self {
            Self::Noop | Self::DuckDb => "duckdb",
            Self::Postgres { .. } => "postgres",
        }
    }
}

/// A project to be written: one seed, and models that are computed day by day.
#[derive(Debug, Clone)]
pub struct Project {
    /// The schema of its models.
    pub schema: &'static str,
    /// How its models depend on each other.
    pub shape: Shape,
    /// How many models there are beside the seed.
    pub models: usize,
    /// Days to compute, from the first of January 2024; each is a batch.
    pub days: usize,
    /// Whether batches of a model may run at the same time.
    pub parallel: bool,
    /// How long each query takes, in milliseconds; PostgreSQL only.
    pub work_millis: u32,
    /// How many batches run at once.
    pub concurrency: usize,
    /// What executes them.
    pub warehouse: Warehouse,
}

impl Project {
    /// Batches that a first plan computes, the seed's among them.
    pub fn batches(&self) -> usize {
        self.models * self.days + 1
    }

    /// The "now" at which all days have passed.
    pub fn execution_time(&self) -> String {
        format!("{} 00:00:00", day(self.days))
    }

    /// Writes all files.
    ///
    /// # Errors
    /// As the file system refuses.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder.join("models"))?;
        fs::create_dir_all(folder.join("seeds"))?;
        fs::write(folder.join("config.yaml"), self.config(folder))?;
        let mut seed = "ds,id,v\n".to_owned();
        for number in 0..self.days {
            writeln!(seed, "{},0,{}", day(number), number * 7919 % 1_000_003)?;
        }
        fs::write(folder.join("seeds/events.csv"), seed)?;
        let head = format!(
            "MODEL (name {}.events, kind SEED (path '../seeds/events.csv'), \
             columns (ds DATE, id INT, v BIGINT));\n",
            self.schema
        );
        fs::write(folder.join("models/events.sql"), head)?;
        for number in 0..self.models {
            let file: PathBuf = folder.join(format!("models/{}.sql", name(number)));
            fs::write(file, self.model(number))?;
        }
        Ok(())
    }

    fn config(&self, folder: &Path) -> String {
        let connection = match &self.warehouse {
            Warehouse::Noop => "type: noop".to_owned(),
            Warehouse::DuckDb => format!("type: duckdb\n      database: {}/db.duckdb", folder.display()),
            Warehouse::Postgres { port, database } => format!(
                "type: postgres\n      host: 127.0.0.1\n      port: {port}\n      user: postgres\n      \
                 password: x\n      database: {database}"
            ),
        };
        format!(
            "gateways:\n  local:\n    connection:\n      {connection}\n      concurrent_tasks: {}\n\
             default_gateway: local\n\
             model_defaults:\n  dialect: {}\n  start: '2024-01-01'\n  cron: '@daily'\n\
             disable_anonymized_analytics: true\nplan:\n  no_diff: true\n",
            self.concurrency,
            self.warehouse.dialect(),
        )
    }

    fn model(&self, number: usize) -> String {
        let schema = self.schema;
        let concurrency = if self.parallel { "" } else { ", batch_concurrency 1" };
        let head = format!(
            "MODEL (\n  name {schema}.{},\n  kind INCREMENTAL_BY_TIME_RANGE (time_column ds, batch_size 1{concurrency})\n);\n\n",
            name(number)
        );
        let work = match self.work_millis {
            0 => String::new(),
            millis => {
                let seconds = f64::from(millis) / 1000.0;
                format!("\n  AND (SELECT CAST(pg_sleep({seconds}) AS TEXT)) IS NOT NULL")
            }
        };
        let query = match self.parents(number) {
            (first, None) => format!(
                "SELECT CAST(a.ds AS DATE) AS ds, CAST(a.id AS INT) AS id,\n  \
                 CAST((a.v + {number}) % 1000003 AS BIGINT) AS v\nFROM {schema}.{first} AS a\n\
                 WHERE a.ds BETWEEN @start_ds AND @end_ds"
            ),
            (first, Some(second)) => format!(
                "SELECT CAST(a.ds AS DATE) AS ds, CAST(a.id AS INT) AS id,\n  \
                 CAST((a.v + b.v + {number}) % 1000003 AS BIGINT) AS v\nFROM {schema}.{first} AS a\n\
                 JOIN {schema}.{second} AS b ON a.ds = b.ds AND a.id = b.id\n\
                 WHERE a.ds BETWEEN @start_ds AND @end_ds AND b.ds BETWEEN @start_ds AND @end_ds"
            ),
        };
        format!("{head}{query}{work}\n")
    }

    /// What a model reads.
    fn parents(&self, number: usize) -> (String, Option<String>) {
        let width = match self.shape {
            Shape::Chain => 1,
            Shape::Layered { layers } => self.models.div_ceil(layers.max(1)),
        };
        if number < width {
            return ("events".to_owned(), None);
        }
        let above = number / width * width - width;
        let straight = above + number % width;
        let other = above + (number * 7 + 3) % width;
        (name(straight), (other != straight).then(|| name(other)))
    }
}

fn name(number: usize) -> String {
    format!("m{number:05}")
}

/// A day's date, counted from the first of January 2024.
fn day(number: usize) -> String {
    let (mut year, mut rest) = (2024, number);
    loop {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let months = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        for (month, length) in months.into_iter().enumerate() {
            if rest < length {
                return format!("{year}-{:02}-{:02}", month + 1, rest + 1);
            }
            rest -= length;
        }
        year += 1;
    }
}
