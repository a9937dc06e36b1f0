//! What templates that were written for Python's Jinja ask of values: methods of texts, lists and
//! mappings, lists and mappings that grow, dates and times.

mod moment;
mod more;
mod operators;
mod text;

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use minijinja::value::{DynObject, Enumerator, Kwargs, Object, ObjectRepr, Value, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State};

use super::jinja::segments;

pub(super) use moment::{Date, DateTime};

/// Gives the values of an environment what Python's have.
pub(crate) fn add(env: &mut Environment<'_>) {
    env.set_unknown_method_callback(method);
    env.add_function(OWN, own);
    more::add(env);
}

/// The template in the engine's words, on the same lines.
pub(super) fn adapted(text: &str) -> Cow<'_, str> {
    match changeable(text) {
        Cow::Borrowed(text) => operators::spelled(text),
        Cow::Owned(text) => Cow::Owned(operators::spelled(&text).into_owned()),
    }
}

/// The function around lists and mappings that a template writes and then changes.
const OWN: &str = "changeable_";

/// The template with its `{% set x = […] %}` so that `x.append(…)` can change it, on the same lines.
fn changeable(text: &str) -> Cow<'_, str> {
    let mut changed = String::new();
    let mut copied = 0;
    for segment in segments(text) {
        let Some(value) = set_value(segment.content) else { continue };
        let start = segment.at + value.start;
        changed.push_str(&text[copied..start]);
        changed.push_str(&format!("{OWN}({})", &segment.content[value.clone()]));
        copied = segment.at + value.end;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    changed.push_str(&text[copied..]);
    Cow::Owned(changed)
}

/// Where the list or mapping lies that a `set` block gives its name to.
fn set_value(block: &str) -> Option<std::ops::Range<usize>> {
    let end = block.trim_end_matches(['-', '+']).trim_end().len();
    let inner = block[..end].trim_start_matches(['-', '+']).trim_start();
    let (name, value) = inner.strip_prefix("set")?.split_once('=')?;
    let plain = name.starts_with(char::is_whitespace)
        && name.trim().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let value = value.trim_start();
    (plain && value.starts_with(['[', '{'])).then(|| end - value.len()..end)
}

/// A list or mapping of its own, which methods can change.
fn own(value: Value) -> Result<Value, Error> {
    Ok(match value.kind() {
        ValueKind::Seq => Value::from_object(List(Mutex::new(value.try_iter()?.collect()))),
        ValueKind::Map => {
            let pairs = value.try_iter()?.map(|key| Ok((key.clone(), value.get_item(&key)?)));
            Value::from_object(Dict(Mutex::new(pairs.collect::<Result<_, Error>>()?)))
        }
        _ => value,
    })
}

fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => text::method(state, value.as_str().unwrap_or_default(), name, args),
        ValueKind::Seq => list(value, name, args),
        ValueKind::Map => mapping(value, name, args),
        _ => Err(unknown()),
    }
}

fn unknown() -> Error {
    Error::from(ErrorKind::UnknownMethod)
}

fn wrong(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

fn list(value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match name {
        "count" => {
            let (wanted,): (&Value,) = from_args(args)?;
            Ok(Value::from(value.try_iter()?.filter(|item| item == wanted).count()))
        }
        "index" => {
            let (wanted,): (&Value,) = from_args(args)?;
            let place = value.try_iter()?.position(|item| item == *wanted);
            place.map(Value::from).ok_or_else(|| wrong(format!("{wanted} is not in the list")))
        }
        "copy" => own(value.clone()),
        "append" | "extend" | "insert" | "pop" | "remove" | "clear" | "sort" | "reverse" => {
            Err(wrong(format!("only a list that `{{% set name = [] %}}` makes can {name}")))
        }
        _ => Err(unknown()),
    }
}

fn mapping(value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let entry = |key: &Value| value.get_item(key).ok().filter(|found| !found.is_undefined());
    match name {
        "get" => {
            let (key, default): (&Value, Option<Value>) = from_args(args)?;
            Ok(entry(key).or(default).unwrap_or_else(|| Value::from(())))
        }
        "keys" => Ok(value.try_iter()?.collect()),
        "values" => value.try_iter()?.map(|key| value.get_item(&key)).collect(),
        "items" => value
            .try_iter()?
            .map(|key| Ok(Value::from(vec![key.clone(), value.get_item(&key)?])))
            .collect::<Result<Value, Error>>(),
        "copy" => own(value.clone()),
        "update" | "setdefault" | "pop" | "clear" => {
            Err(wrong(format!("only a mapping that `{{% set name = {{}} %}}` makes has {name}")))
        }
        _ => Err(unknown()),
    }
}

/// A list that its methods change.
#[derive(Debug)]
struct List(Mutex<Vec<Value>>);

impl List {
    fn items(&self) -> MutexGuard<'_, Vec<Value>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place that a Python index names, which counts from the end where it is negative.
fn place(index: i64, length: usize) -> Option<usize> {
    let place = if index < 0 { index + length as i64 } else { index };
    usize::try_from(place).ok().filter(|place| *place < length)
}

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.items().get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items().clone())
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        name: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        match name {
            "append" => {
                let (item,): (Value,) = from_args(args)?;
                self.items().push(item);
            }
            "extend" => {
                let (more,): (Value,) = from_args(args)?;
                let more: Vec<Value> = more.try_iter()?.collect();
                self.items().extend(more);
            }
            "insert" => {
                let (index, item): (i64, Value) = from_args(args)?;
                let mut items = self.items();
                let length = items.len() as i64;
                let at = if index < 0 { (index + length).max(0) } else { index.min(length) };
                items.insert(at as usize, item);
            }
            "pop" => {
                let (index,): (Option<i64>,) = from_args(args)?;
                let mut items = self.items();
                let at = place(index.unwrap_or(-1), items.len());
                return at.map(|at| items.remove(at)).ok_or_else(|| wrong("there is nothing to pop"));
            }
            "remove" => {
                let (item,): (Value,) = from_args(args)?;
                let mut items = self.items();
                let at = items.iter().position(|other| *other == item);
                items.remove(at.ok_or_else(|| wrong(format!("{item} is not in the list")))?);
            }
            "clear" => self.items().clear(),
            "reverse" => self.items().reverse(),
            "sort" => self.items().sort(),
            _ => return Err(unknown()),
        }
        Ok(Value::from(()))
    }
}

/// A mapping in the order of its first writing that its methods change.
#[derive(Debug)]
struct Dict(Mutex<Vec<(Value, Value)>>);

impl Dict {
    fn pairs(&self) -> MutexGuard<'_, Vec<(Value, Value)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, key: Value, value: Value) {
        let mut pairs = self.pairs();
        match pairs.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => pairs.push((key, value)),
        }
    }
}

impl Object for Dict {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.pairs().iter().find(|(known, _)| known == key).map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.pairs().iter().map(|(key, _)| key.clone()).collect())
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        name: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        match name {
            "update" => {
                let (other, named): (Option<Value>, Kwargs) = from_args(args)?;
                if let Some(other) = other {
                    for key in other.try_iter()? {
                        self.put(key.clone(), other.get_item(&key)?);
                    }
                }
                for key in named.args() {
                    self.put(Value::from(key), named.get(key)?);
                }
                Ok(Value::from(()))
            }
            "setdefault" => {
                let (key, default): (Value, Option<Value>) = from_args(args)?;
                if let Some(known) = self.get_value(&key) {
                    return Ok(known);
                }
                let value = default.unwrap_or_else(|| Value::from(()));
                self.put(key, value.clone());
                Ok(value)
            }
            "pop" => {
                let (key, default): (Value, Option<Value>) = from_args(args)?;
                let mut pairs = self.pairs();
                match (pairs.iter().position(|(known, _)| *known == key), default) {
                    (Some(at), _) => Ok(pairs.remove(at).1),
                    (None, Some(default)) => Ok(default),
                    (None, None) => Err(wrong(format!("{key} is no key of the mapping"))),
                }
            }
            "clear" => {
                self.pairs().clear();
                Ok(Value::from(()))
            }
            _ => Err(unknown()),
        }
    }
}

/// What objects of one kind that are no containers have in common: a text, an order, fields, methods.
trait Plain: fmt::Debug + fmt::Display + Ord + Sized + Send + Sync + 'static {
    fn field(&self, name: &str) -> Option<Value>;
    fn method(&self, name: &str, args: &[Value]) -> Result<Value, Error>;
}

macro_rules! plain_object {
    ($kind:ty) => {
        impl Object for $kind {
            fn repr(self: &Arc<Self>) -> ObjectRepr {
                ObjectRepr::Plain
            }

            fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
                self.field(key.as_str()?)
            }

            fn call_method(
                self: &Arc<Self>,
                _: &mut State<'_, '_>,
                name: &str,
                args: &[Value],
            ) -> Result<Value, Error> {
                self.method(name, args)
            }

            fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<std::cmp::Ordering> {
                Some(self.as_ref().cmp(other.downcast_ref::<Self>()?))
            }

            fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self.as_ref(), f)
            }
        }
    };
}

plain_object!(Date);
plain_object!(DateTime);
plain_object!(moment::Span);

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> String {
        let mut env = Environment::new();
        add(&mut env);
        env.add_global("day", Value::from_object(Date::of("2024-01-05".parse().unwrap())));
        let noon = "2024-01-05T12:30:00.000250".parse().unwrap();
        env.add_global("noon", Value::from_object(DateTime::of(noon, true)));
        env.add_global("start_date", Value::from_object(Date::of("2024-01-01".parse().unwrap())));
        env.add_global("end_date", Value::from_object(Date::of("2024-01-03".parse().unwrap())));
        env.add_global("end_dt", Value::from_object(DateTime::of(noon, true)));
        let start = "2024-01-04T12:00:00".parse().unwrap();
        env.add_global("start_dt", Value::from_object(DateTime::of(start, true)));
        env.render_str(&adapted(text), ()).unwrap_or_else(|why| format!("{}", why.kind()))
    }

    #[test]
    fn values_have_pythons_methods() {
        for (template, expected) in [
            (
                "{{ 'aXb'.lower() }} {{ 'ab'.upper() }} {{ 'a b'.title() }} {{ 'ab'.capitalize() }}",
                "axb AB A B Ab",
            ),
            ("{{ 'a,b'.split(',') | join('-') }} {{ ' a  b '.split() | length }}", "a-b 2"),
            ("{{ 'a.b.c'.rsplit('.', 1)[0] }} {{ 'a.b.c'.split('.', 1)[1] }}", "a.b b.c"),
            ("{{ ', '.join(['a', 'b']) }} {{ 'aaa'.replace('a', 'b', 2) }}", "a, b bba"),
            ("{{ 'ab'.startswith('a') }} {{ 'ab'.endswith(('x', 'b')) }}", "True True"),
            ("{{ '{} {x:>4} {:.2f} {{}}'.format('a', 1, x='b') }}", "a    b 1.00 {}"),
            ("{{ '{0}-{1:03d}-{0!r}'.format('a', 7) }}", "a-007-'a'"),
            (
                "{{ 'xxaxx'.strip('x') }} {{ 'ab'.find('b') }} {{ '7'.zfill(3) }} {{ '12'.isdigit() }}",
                "a 1 007 True",
            ),
            ("{{ 'a_b'.removeprefix('a_') }} {{ 'a=b=c'.partition('=') | join('|') }}", "b a|=|b=c"),
            ("{{ [1, 2, 1].count(1) }} {{ [1, 2].index(2) }}", "2 1"),
            ("{% for k, v in {'b': 1, 'a': 2}.items() %}{{ k }}{{ v }}{% endfor %}", "b1a2"),
            ("{{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b', 2) }} {{ {'a': 1}.keys() | join }}", "1 2 a"),
            (
                "{% set x = [] %}{% for i in [1, 2] %}{% do x.append(i * 2) %}{% endfor %}{{ x | join(', ') }}",
                "2, 4",
            ),
            (
                "{%- set x = ['a'] -%}{% set _ = x.extend(['b']) %}{{ x + ['c'] }} {{ x | length }} {{ x[-1] }}",
                "['a', 'b', 'c'] 2 b",
            ),
            (
                "{% set d = {'b': 1} %}{% do d.update({'a': 2}) %}{% for k in d %}{{ k }}{{ d[k] }}{% endfor %}{{ d.a }}",
                "b1a22",
            ),
            ("{{ '%s-%05d' % ('a', 42) }} {{ '%.2f' % 3.14159 }}", "a-00042 3.14"),
            (
                r#"{{ {'b': [1, 'x', none, true], 'a': "it's é"} | tojson }}"#,
                r#"{"a": "it\u0027s \u00e9", "b": [1, "x", null, true]}"#,
            ),
            ("{{ 'a b_c, d' | wordcount }}", "3"),
            ("{% set j = joiner(' + ') %}{% for i in [1, 2, 3] %}{{ j() }}{{ i }}{% endfor %}", "1 + 2 + 3"),
            ("{{ [1].append(2) }}", "invalid operation"),
            ("{{ 'a'.nothing() }}", "unknown method"),
        ] {
            assert_eq!(rendered(template), expected, "{template}");
        }
    }

    #[test]
    fn dates_and_times_are_pythons() {
        for (template, expected) in [
            ("{{ day }} {{ noon }}", "2024-01-05 2024-01-05 12:30:00.000250+00:00"),
            ("{{ day.year }}-{{ day.month }} {{ noon.hour }} {{ noon.microsecond }}", "2024-1 12 250"),
            (
                "{{ day.strftime('%Y/%m/%d') }} {{ noon.strftime('%H%M%S.%f %z') }}",
                "2024/01/05 123000.000250 +0000",
            ),
            (
                "{{ noon.date() }} {{ noon.date() == day }} {{ noon.date().isoformat() }}",
                "2024-01-05 True 2024-01-05",
            ),
            (
                "{{ noon.isoformat() }} {{ day.weekday() }} {{ day.isoweekday() }}",
                "2024-01-05T12:30:00.000250+00:00 4 5",
            ),
            ("{{ day.replace(day=1) }} {{ day < day.replace(month=2) }}", "2024-01-01 True"),
            (
                "{{ noon.timestamp() }} {{ day | replace('-', '') }} {{ day ~ 'x' }}",
                "1704457800.00025 20240105 2024-01-05x",
            ),
            ("{{ (end_date - start_date).days + 1 }} {{ start_date - end_date }}", "3 -2 days, 0:00:00"),
            (
                "{{ end_dt - start_dt }} {{ (end_dt-start_dt).total_seconds() }} {{ (end_dt - start_dt).seconds }}",
                "1 day, 0:30:00.000250 88200.00025 1800",
            ),
            ("{{ end_date - start_dt }}", "invalid operation"),
            ("{{ day.strftime('%Q') }}", "invalid operation"),
            ("{{ noon.strftime('%#z') }}", "invalid operation"),
            ("{{ day.replace(day=32) }}", "invalid operation"),
        ] {
            assert_eq!(rendered(template), expected, "{template}");
        }
    }
}
