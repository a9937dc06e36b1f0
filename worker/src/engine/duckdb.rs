//! DuckDB within this process, through its ADBC entry point.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use adbc_core::Driver;
use adbc_core::options::{OptionDatabase, OptionValue};
use adbc_driver_manager::{ManagedDatabase, ManagedDriver};

use coord_common::secret::Secret;

use super::adbc::{self, AdbcConnector, SharedDatabase, of_adbc};
use super::config::{DuckDbCatalog, DuckDbConfig};
use super::error::EngineError;
use super::profile::Profile;
use super::statements::literal;

const ENTRYPOINT: &str = "duckdb_adbc_init";
/// The code of errors that say that a driver isn't installed.
pub const DRIVER_MISSING: &str = "driver-missing";

/// Where the library's path can be given.
const LIBRARY_VARIABLE: &str = "COORDCTL_DUCKDB_LIB";

/// Drivers by library. They stay loaded: a library with threads of its own can't be unloaded.
static DRIVERS: Mutex<BTreeMap<PathBuf, ManagedDriver>> = Mutex::new(BTreeMap::new());

/// Open files by path. The file's lock is the process's, so opening it twice in one process would
/// not be refused, and would destroy it.
static FILES: Mutex<BTreeMap<PathBuf, Weak<SharedDatabase>>> = Mutex::new(BTreeMap::new());

/// A file's place in [`FILES`]; given up once the file is closed.
struct Registered(PathBuf);

impl Drop for Registered {
    fn drop(&mut self) {
        FILES.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// Opens the database, made if missing.
pub(crate) fn connector(config: &DuckDbConfig) -> Result<AdbcConnector, EngineError> {
    let mut driver = driver(config.library.as_deref())?;
    let database = match &config.database {
        Some(path) if path.as_os_str() != ":memory:" => open_file(&mut driver, path)?,
        Some(_) | None => Arc::new(SharedDatabase::new(open(&mut driver, ":memory:")?, Box::new(()))),
    };
    let (once, on_connect) = setup(config);
    Ok(AdbcConnector::new(Profile::DUCKDB, database, once, on_connect))
}

fn open_file(driver: &mut ManagedDriver, path: &Path) -> Result<Arc<SharedDatabase>, EngineError> {
    let io = |error: std::io::Error| {
        EngineError::permanent(format!("failed to make the folder of `{}`: {error}", path.display()))
    };
    let absolute = std::path::absolute(path).map_err(io)?;
    if let Some(folder) = absolute.parent() {
        std::fs::create_dir_all(folder).map_err(io)?;
    }
    let key = match (absolute.parent().map(Path::canonicalize), absolute.file_name()) {
        (Some(Ok(folder)), Some(name)) => folder.join(name),
        _ => absolute,
    };
    loop {
        let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
        match files.get(&key).map(Weak::upgrade) {
            Some(Some(shared)) => return Ok(shared),
            // It is just being closed.
            Some(None) => {}
            None => {
                let database = open(driver, &key.to_string_lossy())?;
                let shared = Arc::new(SharedDatabase::new(database, Box::new(Registered(key.clone()))));
                files.insert(key, Arc::downgrade(&shared));
                return Ok(shared);
            }
        }
        drop(files);
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn open(driver: &mut ManagedDriver, path: &str) -> Result<ManagedDatabase, EngineError> {
    let options = [(OptionDatabase::Other("path".to_owned()), OptionValue::String(path.to_owned()))];
    driver.new_database_with_opts(options).map_err(|error| {
        let mut error = of_adbc(&error);
        error.message = format!("failed to open the DuckDB database `{path}`: {}", error.message);
        error
    })
}

/// Statements for the first connection, and for each.
fn setup(config: &DuckDbConfig) -> (Vec<String>, Vec<String>) {
    let set = |(name, value): (&String, &Secret)| {
        format!("SET {} = {}", Profile::DUCKDB.quote(name), literal(value.expose()))
    };
    let mut each: Vec<String> = config.settings.iter().map(set).collect();
    let mut once: Vec<String> =
        config.extensions.iter().map(|name| format!("LOAD {}", Profile::DUCKDB.quote(name))).collect();
    once.extend(each.iter().cloned());
    once.extend(config.catalogs.iter().map(attach));
    each.extend(config.catalogs.first().map(|first| format!("USE {}", Profile::DUCKDB.quote(&first.name))));
    (once, each)
}

fn attach(catalog: &DuckDbCatalog) -> String {
    let option = |(name, value): (&String, &String)| match value.as_str() {
        "" => Profile::DUCKDB.quote(name),
        value => format!("{} {}", Profile::DUCKDB.quote(name), literal(value)),
    };
    let options = catalog.options.iter().map(option).collect::<Vec<_>>().join(", ");
    let options = if options.is_empty() { options } else { format!(" ({options})") };
    format!(
        "ATTACH IF NOT EXISTS {} AS {}{options}",
        literal(&catalog.path),
        Profile::DUCKDB.quote(&catalog.name)
    )
}

fn driver(library: Option<&Path>) -> Result<ManagedDriver, EngineError> {
    let library = library.map(Path::to_owned).or_else(find_library);
    let mut drivers = DRIVERS.lock().unwrap_or_else(PoisonError::into_inner);
    // Without a path, the system's own search has the last word.
    let key = library.clone().unwrap_or_else(library_name);
    if let Some(driver) = drivers.get(&key) {
        return Ok(driver.clone());
    }
    let driver = adbc::load(&key, Some(ENTRYPOINT)).map_err(|error| match library {
        Some(_) => error.hint("run `coordctl driver add duckdb` to fetch a library that works"),
        None => EngineError::permanent("DuckDB's library is not installed")
            .code(DRIVER_MISSING)
            .hint("run `coordctl driver add duckdb`, or set COORDCTL_DUCKDB_LIB to the path of libduckdb"),
    })?;
    drivers.insert(key, driver.clone());
    Ok(driver)
}

fn library_name() -> PathBuf {
    PathBuf::from(format!("{}duckdb{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX))
}

/// The library that is set, else the newest that `coordctl driver add duckdb` fetched.
fn find_library() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(LIBRARY_VARIABLE).filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let entries = std::fs::read_dir(cache.join("coordctl/drivers")).ok()?;
    let candidates = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        let version = version_order(name.to_str()?.strip_prefix("duckdb-")?);
        let library = entry.path().join(library_name());
        library.is_file().then_some((version, library))
    });
    candidates.max().map(|(_, library)| library)
}

/// A version's numbers, so that 1.10 comes after 1.9.
fn version_order(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        assert!(version_order("1.10.0") > version_order("1.9.4"));
        assert!(version_order("2.0.0") > version_order("1.10.0"));
    }

    #[test]
    fn attaching_quotes_names_and_options() {
        let catalog = DuckDbCatalog {
            name: "a\"b".to_owned(),
            path: "x'y.db".to_owned(),
            options: BTreeMap::from([
                ("READ_ONLY".to_owned(), String::new()),
                ("TYPE".to_owned(), "sqlite".to_owned()),
            ]),
        };
        assert_eq!(
            attach(&catalog),
            "ATTACH IF NOT EXISTS 'x''y.db' AS \"a\"\"b\" (\"READ_ONLY\", \"TYPE\" 'sqlite')"
        );
    }

    #[test]
    fn a_missing_library_says_how_to_get_it() {
        let error = driver(Some(Path::new("/nowhere/libduckdb.so"))).unwrap_err();
        assert!(error.hint.unwrap().contains("coordctl driver add duckdb"));
    }
}
