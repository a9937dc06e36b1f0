//! `init`: writes a small project that runs at once.

use std::path::Path;

use crate::args::InitArgs;
use crate::error::{CliError, CliResult};
use crate::output;
use crate::session::Session;

/// `coordctl init`.
pub(crate) fn init(session: &Session, args: &InitArgs) -> CliResult {
    let folder = match &session.global.project {
        Some(folder) => folder.clone(),
        None => std::env::current_dir()?,
    };
    let config = folder.join("config.yaml");
    if config.exists() {
        let message = format!("`{}` exists already", config.display());
        return Err(CliError::user("exists", message, "choose an empty folder with --project"));
    }
    write(&config, &config_text(&args.engine))?;
    for name in ["models", "seeds", "audits", "macros", "tests"] {
        std::fs::create_dir_all(folder.join(name))?;
    }
    if args.template == "default" {
        for (path, text) in FILES {
            write(&folder.join(path), text)?;
        }
        // Tests run in a DuckDB, which reads its own dialect only.
        if args.engine == "duckdb" {
            write(&folder.join("tests/test_best_items.yaml"), UNIT_TEST)?;
        }
    }
    output::line(&format!(
        "wrote a project to {}\nnext: coordctl --project {} plan",
        folder.display(),
        folder.display()
    ));
    Ok(())
}

fn write(path: &Path, text: &str) -> CliResult {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    Ok(std::fs::write(path, text)?)
}

fn config_text(engine: &str) -> String {
    let connection = match engine {
        "postgres" => {
            "      type: postgres\n      host: {{ env_var('PGHOST', '127.0.0.1') }}\n      port: {{ env_var('PGPORT', '5432') }}\n      user: {{ env_var('PGUSER', 'postgres') }}\n      password: \"{{ env_var('PGPASSWORD', '') }}\"\n      database: {{ env_var('PGDATABASE', 'postgres') }}\n"
        }
        _ => "      type: duckdb\n      database: db.duckdb\n",
    };
    format!(
        "gateways:\n  {engine}:\n    connection:\n{connection}\ndefault_gateway: {engine}\n\nmodel_defaults:\n  dialect: {engine}\n  start: 2024-01-01\n  cron: '@daily'\n"
    )
}

const FILES: [(&str, &str); 4] = [
    (
        "seeds/orders.csv",
        "id,item,amount,ordered_on\n1,tea,3.50,2024-01-01\n2,coffee,4.00,2024-01-01\n3,tea,3.50,2024-01-02\n4,cake,5.25,2024-01-03\n5,coffee,4.00,2024-01-05\n",
    ),
    (
        "models/orders.sql",
        "MODEL (\n  name shop.orders,\n  kind SEED (path '../seeds/orders.csv'),\n  columns (id INT, item TEXT, amount DECIMAL(10, 2), ordered_on DATE)\n);\n",
    ),
    (
        "models/daily_sales.sql",
        "MODEL (\n  name shop.daily_sales,\n  kind INCREMENTAL_BY_TIME_RANGE (time_column ordered_on),\n  end '2024-01-07',\n  audits (not_null(columns := (ordered_on)))\n);\n\nSELECT\n  ordered_on,\n  COUNT(*) AS orders,\n  SUM(amount) AS amount\nFROM shop.orders\nWHERE ordered_on BETWEEN @start_date AND @end_date\nGROUP BY ordered_on\n",
    ),
    (
        "models/best_items.sql",
        "MODEL (\n  name shop.best_items,\n  kind FULL\n);\n\nSELECT item, SUM(amount) AS amount\nFROM shop.orders\nGROUP BY item\n",
    ),
];

const UNIT_TEST: &str = "test_best_items:\n  model: shop.best_items\n  inputs:\n    shop.orders:\n      rows:\n      - {item: tea, amount: 3.50}\n      - {item: tea, amount: 4.00}\n      - {item: cake, amount: 5.25}\n  outputs:\n    query:\n      rows:\n      - {item: tea, amount: 7.50}\n      - {item: cake, amount: 5.25}\n";
