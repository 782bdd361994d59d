//! Python that chat templates use and minijinja's `pycompat` lacks: further string methods, and two of Jinja's tests.

use minijinja::value::{from_args, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

/// For `set_unknown_method_callback`: pycompat's methods first, then ours.
pub fn unknown_method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match (
        value.as_str(),
        minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    ) {
        (Some(text), Err(error)) if error.kind() == ErrorKind::UnknownMethod => {
            string_method(text, method, args).unwrap_or(Err(error))
        }
        (_, outcome) => outcome,
    }
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    Some(match method {
        "removeprefix" => one_string(args).map(|prefix| text.strip_prefix(prefix).unwrap_or(text).into()),
        "removesuffix" => one_string(args).map(|suffix| text.strip_suffix(suffix).unwrap_or(text).into()),
        "partition" => one_string(args).map(|separator| match text.split_once(separator) {
            Some((before, after)) => list(&[before, separator, after]),
            None => list(&[text, "", ""]),
        }),
        "rpartition" => one_string(args).map(|separator| match text.rsplit_once(separator) {
            Some((before, after)) => list(&[before, separator, after]),
            None => list(&["", "", text]),
        }),
        "rsplit" => rsplit(text, args),
        "index" => one_string(args).and_then(|part| match text.find(part) {
            Some(offset) => Ok(Value::from(text[..offset].chars().count())),
            None => Err(Error::new(ErrorKind::InvalidOperation, "substring not found")),
        }),
        _ => return None,
    })
}

fn one_string(args: &[Value]) -> Result<&str, Error> {
    let (text,): (&str,) = from_args(args)?;
    Ok(text)
}

fn list(parts: &[&str]) -> Value {
    parts.iter().map(|&part| Value::from(part)).collect()
}

fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
    let most = usize::try_from(most.unwrap_or(-1))
        .unwrap_or(usize::MAX)
        .saturating_add(1);
    let mut parts: Vec<&str> = match separator {
        Some("") => return Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        Some(separator) => text.rsplitn(most, separator).collect(),
        None if most == usize::MAX => text.split_whitespace().rev().collect(),
        None => text.trim().rsplitn(most, char::is_whitespace).map(str::trim).collect(),
    };
    parts.reverse();
    Ok(list(&parts))
}

/// Jinja's `sequence`: what has a length and items, which strings and mappings have too.
pub fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
        || (value.kind() == ValueKind::Iterable && value.len().is_some())
}

/// Jinja's `iterable`: everything but plain values; also the undefined one.
pub fn is_iterable(value: &Value) -> bool {
    !matches!(value.kind(), ValueKind::None | ValueKind::Number | ValueKind::Bool)
}

/// Jinja's `callable`: here macros and functions, which are no plain data.
pub fn is_callable(value: &Value) -> bool {
    value.kind() == ValueKind::Plain
}
