//! Encodings of seeds' files, as `csv_settings (encoding = 'cp1252')` names them.

/// How a file's bytes are text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Utf8,
    Latin1,
    Windows1252,
    /// Little-endian unless a byte order mark says otherwise.
    Utf16 {
        big: bool,
    },
}

/// What bytes 0x80 to 0x9f are in Windows' Western code page, where it isn't Latin 1.
const WINDOWS: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}',
    '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

impl Encoding {
    /// The encoding of a name that Python knows; nothing for one that isn't supported.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let name: String = name.to_ascii_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
        Some(match name.as_str() {
            "utf8" | "utf8sig" | "u8" | "ascii" | "usascii" => Self::Utf8,
            "latin1" | "latin" | "l1" | "iso88591" | "88591" | "cp819" => Self::Latin1,
            "cp1252" | "windows1252" | "1252" => Self::Windows1252,
            "utf16" | "u16" | "utf16le" => Self::Utf16 { big: false },
            "utf16be" => Self::Utf16 { big: true },
            _ => return None,
        })
    }

    /// The name of the encoding that a model's file states for its seed.
    pub(crate) fn stated(model: &str) -> Option<&str> {
        let lower = model.to_ascii_lowercase();
        let after = lower.find("encoding")? + "encoding".len();
        let value = model[after..].trim_start().trim_start_matches([':', '=']).trim_start();
        let quote = value.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        value[1..].split(quote).next()
    }

    /// A file's text; nothing where its bytes aren't in the encoding.
    pub(crate) fn decode(self, bytes: Vec<u8>) -> Option<String> {
        match self {
            Self::Utf8 => String::from_utf8(bytes).ok(),
            Self::Latin1 => Some(bytes.into_iter().map(char::from).collect()),
            Self::Windows1252 => {
                let windows = |byte: u8| match byte {
                    0x80..=0x9f => WINDOWS[usize::from(byte - 0x80)],
                    byte => char::from(byte),
                };
                Some(bytes.into_iter().map(windows).collect())
            }
            Self::Utf16 { big } => {
                let (big, bytes) = match bytes.as_slice() {
                    [0xfe, 0xff, rest @ ..] => (true, rest),
                    [0xff, 0xfe, rest @ ..] => (false, rest),
                    all => (big, all),
                };
                let unit = |pair: &[u8]| match big {
                    true => u16::from_be_bytes([pair[0], pair[1]]),
                    false => u16::from_le_bytes([pair[0], pair[1]]),
                };
                let whole = bytes.len().is_multiple_of(2);
                whole
                    .then(|| bytes.chunks_exact(2).map(unit).collect::<Vec<u16>>())
                    .and_then(|units| String::from_utf16(&units).ok())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_pythons() {
        for (name, expected) in [
            ("latin-1", Some(Encoding::Latin1)),
            ("ISO-8859-1", Some(Encoding::Latin1)),
            ("cp1252", Some(Encoding::Windows1252)),
            ("UTF-8-SIG", Some(Encoding::Utf8)),
            ("utf_16", Some(Encoding::Utf16 { big: false })),
            ("shift_jis", None),
        ] {
            assert_eq!(Encoding::named(name), expected, "{name}");
        }
    }

    #[test]
    fn the_stated_encoding_is_found_however_it_is_written() {
        for (model, expected) in [
            ("csv_settings (encoding = 'latin-1')", Some("latin-1")),
            ("csv_settings (delimiter = ';', ENCODING := \"cp1252\")", Some("cp1252")),
            ("csv_settings (delimiter = ';')", None),
            ("-- the encoding is fine", None),
        ] {
            assert_eq!(Encoding::stated(model), expected, "{model}");
        }
    }

    #[test]
    fn bytes_become_text() {
        for (encoding, bytes, expected) in [
            (Encoding::Utf8, &b"\xc3\xa9"[..], Some("é")),
            (Encoding::Utf8, b"\xe9", None),
            (Encoding::Latin1, b"\xe9\x80", Some("é\u{80}")),
            (Encoding::Windows1252, b"\xe9\x80\x9f", Some("é€Ÿ")),
            (Encoding::Utf16 { big: false }, b"\xff\xfea\0\xac\x20", Some("a€")),
            (Encoding::Utf16 { big: false }, b"\xfe\xff\0a", Some("a")),
            (Encoding::Utf16 { big: true }, b"\0a", Some("a")),
            (Encoding::Utf16 { big: true }, b"\0a\0", None),
        ] {
            assert_eq!(encoding.decode(bytes.to_vec()).as_deref(), expected, "{encoding:?} {bytes:?}");
        }
    }
}
