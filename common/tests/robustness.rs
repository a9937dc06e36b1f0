//! Whatever stands in a project's files, reading it ends in models and findings.

use std::collections::BTreeMap;

use coord_common::project::{ProjectInput, SourceFile, load};
use coord_common::snapshot::{Snapshots, build};
use proptest::prelude::*;

const CONFIG: &str = "gateways:\n  local:\n    connection: {type: duckdb, database: wh.db}\nmodel_defaults:\n  \
                      dialect: duckdb\n  start: 2024-01-01\nvariables: {days: 7}\n";
const MODELS: [&str; 5] = [
    "MODEL (name a.b, kind INCREMENTAL_BY_TIME_RANGE (time_column (d, '%Y-%m-%d'), batch_size 3), cron '@hourly',\n  \
     audits (not_null(columns := (x, y))), columns (x int, s struct<a int>), enabled: true);\n@DEF(n, 1);\n\
     SELECT x::int, @EACH([p, q], c -> @c AS @{c}_n), d FROM a.c AS c JOIN a.s USING (x)\n\
     WHERE d BETWEEN @start_ds AND @end_ds AND x IS DISTINCT FROM @n;\nDROP TABLE IF EXISTS t;",
    "MODEL (name a.@{who}, kind @IF(@days > 3, FULL, VIEW), blueprints ((who := 'm', n := 1), (who := o, n := 2)));\n\
     SELECT @n AS n, COALESCE(*COLUMNS(*)), 'é' AS \"ü\" FROM (FROM x.y USING SAMPLE 5%) AS t QUALIFY n > 1",
    "MODEL (name a.j);\nJINJA_QUERY_BEGIN;\nSELECT {% for i in [1, 2] %}{{ i }} AS c{{ i }},{% endfor %} '{{ gateway() }}' AS g\nJINJA_END;",
    "MODEL (name a.k, kind INCREMENTAL_BY_UNIQUE_KEY (unique_key (x, y), when_matched WHEN MATCHED THEN UPDATE SET \
     target.x = source.x, target.y = source.y), dialect tsql);\nSELECT [x], [y z] FROM [a].[b] INNER HASH JOIN c ON 1 = 1 /* c */ -- d",
    "MODEL (name a.s, kind SEED (path '../seeds/s.csv', csv_settings (delimiter = ';')), columns (x int, d date));",
];
const EXTERNAL: &str = "- name: x.y\n  columns:\n    p: int\n    q: text\n- name: '`z`.w'\n";
const SEED: &str = "x;d\n1;2024-01-01\n\"2\";\"a\"\"b\"\n";

/// A change of a text: what is at a place is replaced.
#[derive(Debug, Clone)]
struct Edit {
    file: usize,
    place: prop::sample::Index,
    length: usize,
    with: String,
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let words = prop::sample::select(vec![
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "{{",
        "{%",
        "'",
        "\"",
        "`",
        "$$",
        "--",
        "/*",
        "*/",
        "@",
        "@{",
        "@IF(",
        "@EACH(",
        ";",
        ",",
        ".",
        ":",
        ":=",
        "=>",
        "->",
        "MODEL (",
        "SELECT",
        "FROM",
        "WITH x AS (",
        "PIVOT",
        "\u{0}",
        "\u{feff}",
        "ß",
        "🦆",
        "- ",
        "\n",
        "\t",
        "%",
        "#",
        "\\",
        "JINJA_END",
        "name",
        "kind",
        "NULL",
    ]);
    let with = prop_oneof![words.prop_map(str::to_owned), ".{0,4}"];
    let edit = (0..8usize, any::<prop::sample::Index>(), 0..12usize, with)
        .prop_map(|(file, place, length, with)| Edit { file, place, length, with });
    prop::collection::vec(edit, 1..6)
}

fn files() -> Vec<(String, String)> {
    let models =
        MODELS.iter().enumerate().map(|(at, text)| (format!("models/m{at}.sql"), (*text).to_owned()));
    let others = [("config.yaml", CONFIG), ("external_models.yaml", EXTERNAL), ("seeds/s.csv", SEED)];
    models.chain(others.map(|(path, text)| (path.to_owned(), text.to_owned()))).collect()
}

fn read(files: &[(String, String)]) -> (Snapshots, usize) {
    let files: Vec<SourceFile> = files
        .iter()
        .map(|(path, text)| SourceFile { path: path.as_str().into(), text: text.as_str().into() })
        .collect();
    let (project, mut findings) = load(&ProjectInput { files: &files, env: &BTreeMap::new(), gateway: None });
    let (snapshots, more) = build(&project);
    findings.extend(more);
    (snapshots, findings.iter().filter(|finding| finding.is_error()).count())
}

#[test]
fn the_files_are_sound_before_they_are_changed() {
    let (snapshots, errors) = read(&files());
    assert_eq!((snapshots.order.len(), errors), (8, 0), "{:?}", snapshots.order);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_change_of_a_file_stops_the_program(edits in edits()) {
        let mut files = files();
        for edit in edits {
            let text = &mut files[edit.file].1;
            let chars: Vec<char> = text.chars().collect();
            let from = edit.place.index(chars.len() + 1);
            let to = (from + edit.length).min(chars.len());
            *text = chars[..from].iter().chain(&edit.with.chars().collect::<Vec<_>>()).chain(&chars[to..]).collect();
        }
        let (snapshots, _) = read(&files);
        prop_assert!(snapshots.order.len() <= 64);
    }
}
