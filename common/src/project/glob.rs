//! Globs of `ignore_patterns`.

/// Whether a path matches a glob, wholly or with its last parts: `*` and `?` stay within a part,
/// `**` spans parts.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> =
        pattern.trim_start_matches("./").split('/').filter(|part| !part.is_empty()).collect();
    let parts: Vec<&str> = path.split('/').collect();
    (0..parts.len()).any(|from| parts_match(&pattern, &parts[from..]))
}

fn parts_match(pattern: &[&str], parts: &[&str]) -> bool {
    match (pattern.split_first(), parts.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => {
            parts_match(rest, parts) || (!parts.is_empty() && parts_match(pattern, &parts[1..]))
        }
        (Some((first, rest)), Some((part, others))) => {
            part_matches(first.as_bytes(), part.as_bytes()) && parts_match(rest, others)
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// Whether a text matches a pattern whose `*` and `?` stand for anything.
pub(crate) fn text_matches(pattern: &str, text: &str) -> bool {
    part_matches(pattern.as_bytes(), text.as_bytes())
}

fn part_matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            part_matches(rest, text) || (!text.is_empty() && part_matches(pattern, &text[1..]))
        }
        (Some((b'?', rest)), Some((_, others))) => part_matches(rest, others),
        (Some((b'[', rest)), Some((byte, others))) => match rest.iter().position(|byte| *byte == b']') {
            Some(end) => in_class(&rest[..end], *byte) && part_matches(&rest[end + 1..], others),
            None => *byte == b'[' && part_matches(rest, others),
        },
        (Some((expected, rest)), Some((byte, others))) => expected == byte && part_matches(rest, others),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn in_class(class: &[u8], byte: u8) -> bool {
    let (negated, class) = match class {
        [b'!' | b'^', rest @ ..] => (true, rest),
        class => (false, class),
    };
    let ranges = class.windows(3).any(|range| range[1] == b'-' && (range[0]..=range[2]).contains(&byte));
    (ranges || class.contains(&byte)) != negated
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn globs_match_whole_paths_or_their_ends() {
        for (pattern, path, expected) in [
            ("models/drafts/*", "models/drafts/a.sql", true),
            ("drafts/*.sql", "models/drafts/a.sql", true),
            ("models/*.sql", "models/drafts/a.sql", false),
            ("models/**/a.sql", "models/x/y/a.sql", true),
            ("**/drafts/**", "models/drafts/x/a.sql", true),
            ("a?[0-9].sql", "models/ab7.sql", true),
            ("a[!0-9].sql", "models/a7.sql", false),
            ("*.py", "models/a.sql", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }
}
