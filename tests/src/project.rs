//! Small projects in temporary folders.

use std::fmt::Write as _;
use std::path::Path;

use crate::postgres::Postgres;
use crate::process::temp_folder;

/// A project's folder; it goes when dropped.
#[derive(Debug)]
pub struct Project(tempfile::TempDir);

impl Project {
    /// A project of files: path and text.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let project = Self(temp_folder("coord-project"));
        for (path, text) in files {
            project.write(path, text);
        }
        project
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        let folder = path.parent().expect("a file is in a folder");
        std::fs::create_dir_all(folder).expect("the temporary folder can be written");
        std::fs::write(path, text).expect("the temporary folder can be written");
    }

    /// Removes a file.
    pub fn remove(&self, path: &str) {
        std::fs::remove_file(self.path().join(path)).expect("the file is there");
    }

    /// Writes a config whose one gateway `pg` is a PostgreSQL server.
    pub fn config_of_postgres(&self, postgres: &Postgres, connection: &str) {
        let password = postgres.password().unwrap_or("secret");
        self.write_config("127.0.0.1", postgres.port(), password, connection);
    }

    /// The same for a server that is reached by another address.
    pub fn config_of_postgres_at(&self, host: &str, port: u16, connection: &str) {
        self.write_config(host, port, "secret", connection);
    }

    fn write_config(&self, host: &str, port: u16, password: &str, connection: &str) {
        self.write(
            "config.yaml",
            &format!(
                "gateways:\n  pg:\n    connection:\n      type: postgres\n      host: {host}\n      port: {port}\n      user: postgres\n      password: {password}\n      database: postgres\n      {connection}\ndefault_gateway: pg\nmodel_defaults:\n  dialect: postgres\n  start: 2024-01-01\n"
            ),
        );
    }
}

/// What a model's batch runs after its query: it waits as long as the test wants, and logs itself.
/// Both are part of the batch's transaction.
pub fn logged(model: &str) -> String {
    format!(
        ";\n\nINSERT INTO public.batch_log SELECT '{model}', @start_ds, NOW(), CLOCK_TIMESTAMP() WHERE (SELECT PG_SLEEP(seconds) FROM public.pause) IS NOT NULL"
    )
}

/// Sales of 40 days: seed → daily → chained → windowed, a full model and a view. Every model but
/// seed and view logs its batches.
pub fn sales() -> Project {
    let project = Project::new(&[]);
    let mut csv = "id,day,item,amount\n".to_owned();
    for at in 0..120_u32 {
        let (month, day) = if at / 3 < 31 { (1, at / 3 + 1) } else { (2, at / 3 - 30) };
        writeln!(csv, "{at},2024-{month:02}-{day:02},item{},{}", at % 5, at * 7 % 31)
            .expect("a string can be written");
    }
    project.write("seeds/events.csv", &csv);
    project.write(
        "models/events.sql",
        "MODEL (name shop.events, kind SEED (path '../seeds/events.csv'),\n  columns (id INT, day DATE, item TEXT, amount INT));\n",
    );
    project.write("models/daily.sql", &daily(""));
    project.write(
        "models/doubled.sql",
        &format!(
            "MODEL (name shop.doubled, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 2));\n\nSELECT day, item, amount * 2 AS amount FROM shop.daily WHERE day BETWEEN @start_date AND @end_date{}",
            logged("doubled")
        ),
    );
    project.write(
        "models/rolling.sql",
        &format!(
            "MODEL (name shop.rolling, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 2));\n\n{}{}",
            rolling("shop.doubled", "d.day BETWEEN @start_date AND @end_date AND w.day BETWEEN @start_date - INTERVAL '29 days' AND @end_date AND"),
            logged("rolling")
        ),
    );
    project.write(
        "models/totals.sql",
        &format!(
            "MODEL (name shop.totals, kind FULL);\n\nSELECT item, SUM(amount) AS amount FROM shop.daily GROUP BY item{}",
            logged("totals")
        ),
    );
    project.write(
        "models/recent.sql",
        "MODEL (name shop.recent, kind VIEW);\n\nSELECT day, amount FROM shop.rolling WHERE day > '2024-01-20'\n",
    );
    project
}

/// The daily model, with more columns.
pub fn daily(columns: &str) -> String {
    format!(
        "MODEL (name shop.daily, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 2));\n\nSELECT day, item, SUM(amount)::INT AS amount{columns} FROM shop.events WHERE day BETWEEN @start_date AND @end_date GROUP BY day, item{}",
        logged("daily")
    )
}

/// A sum over 30 days, of all rows that a condition leaves.
pub fn rolling(of: &str, condition: &str) -> String {
    format!(
        "SELECT d.day, d.item, SUM(w.amount)::INT AS amount FROM {of} AS d JOIN {of} AS w ON w.item = d.item WHERE {condition} w.day BETWEEN d.day - INTERVAL '29 days' AND d.day GROUP BY d.day, d.item"
    )
}
