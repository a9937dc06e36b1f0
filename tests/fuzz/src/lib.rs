//! What is fuzzed: functions over bytes that must neither panic, overflow the stack, hang, nor break
//! what they promise. Three drivers call them: `cargo test -p coord-fuzz` with seeds and a few
//! mutations, `make fuzz` with coverage on the stable compiler, and `cargo fuzz` with sanitizers on
//! a nightly one.

mod intervals;
mod mutate;
mod plans;
mod projects;
mod queries;
mod records;
mod times;
mod wire;

pub use mutate::Mutator;

/// One thing that is fuzzed.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: that of the libFuzzer binary, too.
    pub name: &'static str,
    /// Takes any bytes; panics where something is wrong.
    pub run: fn(&[u8]),
    /// Inputs that reach deep, from the project's own examples.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words of the language, one in a line in libFuzzer's format.
    pub dictionary: &'static str,
}

const SQL: &str = include_str!("../dictionaries/sql.dict");
const MODEL: &str = include_str!("../dictionaries/model.dict");
const YAML: &str = include_str!("../dictionaries/yaml.dict");
const TIME: &str = include_str!("../dictionaries/time.dict");
const JSON: &str = include_str!("../dictionaries/json.dict");

/// All targets.
pub const TARGETS: [Target; 12] = [
    Target { name: "model", run: projects::model, seeds: projects::models, dictionary: MODEL },
    Target { name: "audit", run: projects::audit, seeds: projects::audits, dictionary: MODEL },
    Target { name: "unit_tests", run: projects::unit_tests, seeds: projects::tests, dictionary: YAML },
    Target { name: "config", run: projects::config, seeds: projects::configs, dictionary: YAML },
    Target { name: "macros", run: projects::macros, seeds: projects::macro_texts, dictionary: MODEL },
    Target { name: "cron", run: times::cron, seeds: times::crons, dictionary: TIME },
    Target { name: "time", run: times::time, seeds: times::times, dictionary: TIME },
    Target { name: "sql", run: queries::sql, seeds: queries::texts, dictionary: SQL },
    Target { name: "intervals", run: intervals::algebra, seeds: intervals::steps, dictionary: "" },
    Target { name: "plan_json", run: plans::json, seeds: plans::texts, dictionary: JSON },
    Target { name: "wire", run: wire::messages, seeds: wire::encoded, dictionary: "" },
    Target { name: "records", run: records::stored, seeds: records::written, dictionary: JSON },
];

/// Runs the target with a name, which must be one of [`TARGETS`].
///
/// # Panics
/// Where what the target looks at does, or there is no such target.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("the name of a target");
    (target.run)(bytes);
}

/// Writes a target's seeds into the folder that `COORD_FUZZ_SEEDS` names, if it names one.
pub fn write_seeds(name: &str) {
    let Some(folder) = std::env::var_os("COORD_FUZZ_SEEDS").map(std::path::PathBuf::from) else { return };
    let seeds = TARGETS.iter().find(|target| target.name == name).map_or_else(Vec::new, |t| (t.seeds)());
    for (n, seed) in seeds.iter().enumerate() {
        // A seed that is missing only makes the search longer.
        let _ = std::fs::write(folder.join(format!("seed-{n:03}")), seed);
    }
}

/// The first byte, which chooses a variant, and the rest as text.
fn choice(bytes: &[u8]) -> Option<(usize, String)> {
    let (first, rest) = bytes.split_first()?;
    Some((usize::from(*first), String::from_utf8_lossy(rest).into_owned()))
}

/// An input of a target that begins with a choice.
fn chosen(first: u8, text: &str) -> Vec<u8> {
    [&[first], text.as_bytes()].concat()
}
