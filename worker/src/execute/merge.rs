//! A MERGE's own clauses, from how users write them to how warehouses take them.

/// The clauses with the names that the engine gives to both sides.
///
/// Users write `target` and `source`, which could be columns, too, where nothing follows them. Columns
/// that are set lose their qualifier: PostgreSQL and DuckDB take them bare only.
pub(super) fn merge_names(clauses: &str) -> String {
    let mut names =
        Names { text: String::with_capacity(clauses.len() + 32), depth: 0, set: None, fresh: false };
    for (n, piece) in clauses.split('\'').enumerate() {
        if n > 0 {
            names.text.push('\'');
        }
        // Every second piece lies between quotes: a text literal.
        if n % 2 == 1 {
            names.text.push_str(piece);
        } else {
            names.piece(piece);
        }
    }
    names.text
}

struct Names {
    text: String,
    /// How many parentheses are open.
    depth: i32,
    /// How many were open at the last SET.
    set: Option<i32>,
    /// Whether the last word was SET.
    fresh: bool,
}

impl Names {
    fn piece(&mut self, piece: &str) {
        let mut rest = piece;
        while let Some(start) = rest.find(|c: char| c.is_alphanumeric() || c == '_') {
            let (before, from) = rest.split_at(start);
            let end = from.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(from.len());
            let (word, after) = from.split_at(end);
            self.gap(before);
            let qualifies = after.starts_with('.') && !before.ends_with('.');
            rest = self.word(word, before, after, qualifies);
        }
        self.gap(rest);
    }

    fn gap(&mut self, text: &str) {
        self.depth += text.matches('(').count() as i32 - text.matches(')').count() as i32;
        self.text.push_str(text);
    }

    /// Writes a word; what is left after it.
    fn word<'a>(&mut self, word: &str, before: &str, after: &'a str, qualifies: bool) -> &'a str {
        let lower = word.to_ascii_lowercase();
        let starts_assignment =
            self.fresh || (self.set == Some(self.depth) && before.trim_end().ends_with(','));
        self.fresh = lower == "set";
        match lower.as_str() {
            "set" => self.set = Some(self.depth),
            "when" => self.set = None,
            "target" if qualifies && starts_assignment => return &after[1..],
            "target" if qualifies => {
                self.text.push_str("\"__MERGE_TARGET__\"");
                return after;
            }
            "source" if qualifies => {
                self.text.push_str("\"__MERGE_SOURCE__\"");
                return after;
            }
            _ => {}
        }
        self.text.push_str(word);
        after
    }
}

#[cfg(test)]
mod tests {
    use super::merge_names;

    #[test]
    fn both_sides_get_the_engines_names_and_set_columns_are_bare() {
        assert_eq!(
            merge_names(
                "WHEN MATCHED AND Source.a <> 'source.x' THEN UPDATE SET target.a = COALESCE(source.a, target.a), target.b = 1"
            ),
            r#"WHEN MATCHED AND "__MERGE_SOURCE__".a <> 'source.x' THEN UPDATE SET a = COALESCE("__MERGE_SOURCE__".a, "__MERGE_TARGET__".a), b = 1"#
        );
        assert_eq!(merge_names("target = x.source.y"), "target = x.source.y");
    }
}
