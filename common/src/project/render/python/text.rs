//! Methods of Python's texts.

use minijinja::value::{Kwargs, Rest, Value, from_args};
use minijinja::{Error, State};

use super::{place, unknown, wrong};

pub(super) fn method(
    state: &mut State<'_, '_>,
    text: &str,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(change) = simple(text, name) {
        from_args::<()>(args)?;
        return Ok(change);
    }
    match name {
        "strip" | "lstrip" | "rstrip" => strip(text, name, args),
        "split" | "rsplit" => split(text, name == "rsplit", args),
        "partition" | "rpartition" => partition(text, name == "rpartition", args),
        "splitlines" => {
            from_args::<()>(args)?;
            Ok(text.lines().map(Value::from).collect())
        }
        "replace" => {
            let (old, new, count): (&str, &str, Option<i64>) = from_args(args)?;
            Ok(Value::from(match count.and_then(|count| usize::try_from(count).ok()) {
                Some(count) => text.replacen(old, new, count),
                None => text.replace(old, new),
            }))
        }
        "join" => {
            let (items,): (&Value,) = from_args(args)?;
            state.apply_filter("join", &[items.clone(), Value::from(text)])
        }
        "startswith" | "endswith" => {
            let (wanted,): (&Value,) = from_args(args)?;
            let fits =
                |part: &str| if name == "startswith" { text.starts_with(part) } else { text.ends_with(part) };
            Ok(Value::from(match wanted.as_str() {
                Some(part) => fits(part),
                None => wanted.try_iter()?.any(|part| part.as_str().is_some_and(fits)),
            }))
        }
        "removeprefix" => {
            let (part,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(part).unwrap_or(text)))
        }
        "removesuffix" => {
            let (part,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(part).unwrap_or(text)))
        }
        "count" => {
            let (part,): (&str,) = from_args(args)?;
            let chars = text.chars().count();
            Ok(Value::from(if part.is_empty() { chars + 1 } else { text.matches(part).count() }))
        }
        "find" | "rfind" | "index" | "rindex" => find(text, name, args),
        "center" | "ljust" | "rjust" | "zfill" => pad(text, name, args),
        "format" => {
            let (given, named): (Rest<Value>, Kwargs) = from_args(args)?;
            Ok(Value::from(format(text, &given.0, &named)?))
        }
        _ => Err(unknown()),
    }
}

/// Methods without arguments.
fn simple(text: &str, name: &str) -> Option<Value> {
    let all = |test: fn(char) -> bool| Value::from(!text.is_empty() && text.chars().all(test));
    let cased = |test: fn(char) -> bool| {
        let mut letters = text.chars().filter(|c| c.is_alphabetic()).peekable();
        Value::from(letters.peek().is_some() && letters.all(test))
    };
    Some(match name {
        "lower" | "casefold" => Value::from(text.to_lowercase()),
        "upper" => Value::from(text.to_uppercase()),
        "title" => Value::from(title(text)),
        "capitalize" => {
            let mut chars = text.chars();
            let first: String = chars.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
            Value::from(first + &chars.as_str().to_lowercase())
        }
        "swapcase" => Value::from(
            text.chars()
                .map(|c| {
                    if c.is_uppercase() { c.to_lowercase().to_string() } else { c.to_uppercase().to_string() }
                })
                .collect::<String>(),
        ),
        "isalnum" => all(char::is_alphanumeric),
        "isalpha" => all(char::is_alphabetic),
        "isdigit" | "isnumeric" | "isdecimal" => all(char::is_numeric),
        "isspace" => all(char::is_whitespace),
        "islower" => cased(char::is_lowercase),
        "isupper" => cased(char::is_uppercase),
        _ => return None,
    })
}

/// Each run of letters with a capital.
fn title(text: &str) -> String {
    let mut within = false;
    let mut titled = String::with_capacity(text.len());
    for c in text.chars() {
        if within {
            titled.extend(c.to_lowercase());
        } else {
            titled.extend(c.to_uppercase());
        }
        within = c.is_alphabetic();
    }
    titled
}

fn strip(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let (chars,): (Option<&str>,) = from_args(args)?;
    let goes = |c: char| chars.map_or(c.is_whitespace(), |chars| chars.contains(c));
    Ok(Value::from(match name {
        "lstrip" => text.trim_start_matches(goes),
        "rstrip" => text.trim_end_matches(goes),
        _ => text.trim_matches(goes),
    }))
}

fn split(text: &str, from_end: bool, args: &[Value]) -> Result<Value, Error> {
    let (by, most): (Option<&str>, Option<i64>) = from_args(args)?;
    let parts = most.and_then(|most| usize::try_from(most).ok()).map_or(usize::MAX, |most| most + 1);
    let Some(by) = by else {
        return Ok(words(text, from_end, parts).into_iter().map(Value::from).collect());
    };
    if by.is_empty() {
        return Err(wrong("a text can't be split at an empty one"));
    }
    Ok(if from_end {
        let mut found: Vec<&str> = text.rsplitn(parts, by).collect();
        found.reverse();
        found.into_iter().map(Value::from).collect()
    } else {
        text.splitn(parts, by).map(Value::from).collect()
    })
}

/// The words of a text, the last (or first) of which may be several.
fn words(text: &str, from_end: bool, parts: usize) -> Vec<&str> {
    let (mut found, mut rest) = (Vec::new(), text.trim());
    while !rest.is_empty() {
        let gap = if from_end { rest.rfind(char::is_whitespace) } else { rest.find(char::is_whitespace) };
        let Some(gap) = gap.filter(|_| found.len() + 1 < parts) else {
            found.push(rest);
            break;
        };
        let wide = rest[gap..].chars().next().map_or(1, char::len_utf8);
        let (word, left) =
            if from_end { (&rest[gap + wide..], &rest[..gap]) } else { (&rest[..gap], &rest[gap + wide..]) };
        found.push(word);
        rest = left.trim();
    }
    if from_end {
        found.reverse();
    }
    found
}

fn partition(text: &str, from_end: bool, args: &[Value]) -> Result<Value, Error> {
    let (by,): (&str,) = from_args(args)?;
    let halves = if from_end { text.rsplit_once(by) } else { text.split_once(by) };
    let parts = match halves {
        Some((head, tail)) => [head, by, tail],
        None if from_end => ["", "", text],
        None => [text, "", ""],
    };
    Ok(parts.into_iter().map(Value::from).collect())
}

fn find(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let (part,): (&str,) = from_args(args)?;
    let at = if name.starts_with('r') { text.rfind(part) } else { text.find(part) };
    match at {
        Some(at) => Ok(Value::from(text[..at].chars().count())),
        None if name.ends_with("find") => Ok(Value::from(-1)),
        None => Err(wrong(format!("'{part}' is not in '{text}'"))),
    }
}

fn pad(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let (width, fill): (usize, Option<&str>) = from_args(args)?;
    let missing = within(width)?.saturating_sub(text.chars().count());
    let fill = fill.unwrap_or(if name == "zfill" { "0" } else { " " });
    let (left, right) = match name {
        "ljust" => (0, missing),
        "center" => (missing / 2 + (missing & width & 1), missing - missing / 2 - (missing & width & 1)),
        _ => (missing, 0),
    };
    if name == "zfill" && text.starts_with(['-', '+']) {
        return Ok(Value::from(format!("{}{}{}", &text[..1], fill.repeat(left), &text[1..])));
    }
    Ok(Value::from(format!("{}{text}{}", fill.repeat(left), fill.repeat(right))))
}

/// Bounds what a template can make a text grow to.
fn within(width: usize) -> Result<usize, Error> {
    if width > 10_000 {
        Err(wrong("a text can't be padded to more than 10000 characters"))
    } else {
        Ok(width)
    }
}

/// `'{} {name:>4}'.format(…)`.
fn format(pattern: &str, given: &[Value], named: &Kwargs) -> Result<String, Error> {
    let (mut out, mut rest, mut next) = (String::new(), pattern, 0);
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let (brace, after) = rest[at..].split_at(1);
        if after.starts_with(brace) {
            out.push_str(brace);
            rest = &after[1..];
            continue;
        }
        let end = after.find('}').filter(|_| brace == "{");
        let end = end.ok_or_else(|| wrong("the format has a single brace"))?;
        let (field, spec) = after[..end].split_once(':').unwrap_or((&after[..end], ""));
        let (name, shown) = field.split_once('!').unwrap_or((field, ""));
        let value = if name.is_empty() {
            next += 1;
            given.get(next - 1).cloned()
        } else if let Ok(index) = name.parse::<i64>() {
            place(index, given.len()).map(|at| given[at].clone())
        } else {
            named.peek::<Value>(name).ok()
        };
        let value = value.ok_or_else(|| wrong(format!("the format's '{{{field}}}' has no value")))?;
        let quoted =
            if shown == "r" { value.as_str().map(|text| Value::from(format!("'{text}'"))) } else { None };
        out.push_str(&formatted(&quoted.unwrap_or(value), spec)?);
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// One value as its format says: `[[fill]align][0][width][,][.digits][d|f|s|%|x]`.
fn formatted(value: &Value, spec: &str) -> Result<String, Error> {
    let unreadable = || wrong(format!("the format '{spec}' can't be read"));
    let chars: Vec<char> = spec.chars().collect();
    let is_align = |at: usize| chars.get(at).is_some_and(|c| "<>^".contains(*c));
    let (mut fill, mut align, mut at) = match (is_align(1), is_align(0)) {
        (true, _) => (chars[0], Some(chars[1]), 2),
        (_, true) => (' ', Some(chars[0]), 1),
        _ => (' ', None, 0),
    };
    if chars.get(at) == Some(&'0') && align.is_none() {
        (fill, align, at) = ('0', Some('>'), at + 1);
    }
    let number = |at: &mut usize| {
        let digits: String = chars[*at..].iter().take_while(|c| c.is_ascii_digit()).collect();
        *at += digits.len();
        digits.parse::<usize>().ok()
    };
    let width = within(number(&mut at).unwrap_or(0))?;
    let grouped = chars.get(at) == Some(&',');
    at += usize::from(grouped);
    let digits = if chars.get(at) == Some(&'.') {
        at += 1;
        Some(within(number(&mut at).ok_or_else(unreadable)?)?)
    } else {
        None
    };
    let kind = chars[at..].iter().collect::<String>();
    let as_float = || f64::try_from(value.clone()).map_err(|_| unreadable());
    let text = match (kind.as_str(), digits) {
        ("f", digits) => format!("{:.*}", digits.unwrap_or(6), as_float()?),
        ("%", digits) => format!("{:.*}%", digits.unwrap_or(6), as_float()? * 100.0),
        ("d", None) => i64::try_from(value.clone()).map_err(|_| unreadable())?.to_string(),
        ("x", None) => format!("{:x}", i64::try_from(value.clone()).map_err(|_| unreadable())?),
        ("" | "s", None) => value.to_string(),
        ("" | "s", Some(most)) if value.as_str().is_some() => value.to_string().chars().take(most).collect(),
        _ => return Err(unreadable()),
    };
    let text = if grouped { with_thousands(&text) } else { text };
    let missing = width.saturating_sub(text.chars().count());
    let (left, right) = match align.unwrap_or(if value.is_number() { '>' } else { '<' }) {
        '<' => (0, missing),
        '^' => (missing / 2, missing - missing / 2),
        _ => (missing, 0),
    };
    let filled = |count: usize| std::iter::repeat_n(fill, count).collect::<String>();
    Ok(format!("{}{text}{}", filled(left), filled(right)))
}

fn with_thousands(number: &str) -> String {
    let end = number.find('.').unwrap_or(number.len());
    let start = usize::from(number.starts_with('-'));
    let mut out = number[..start].to_owned();
    for (at, digit) in number[start..end].chars().enumerate() {
        if at > 0 && (end - start - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + &number[end..]
}
