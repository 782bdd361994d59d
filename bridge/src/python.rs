//! Python that chat templates use and minijinja lacks: methods of strings, lists and mappings, and three of Jinja's
//! tests.

use crate::python_strings::{refuse, string_method};
use minijinja::value::{from_args, Value, ValueKind};
use minijinja::{Error, State};

/// For `set_unknown_method_callback`: our methods first, then pycompat's.
pub fn unknown_method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let answer = match value.kind() {
        ValueKind::String => value.as_str().and_then(|text| string_method(text, method, args)),
        ValueKind::Seq if method == "index" => Some(index(value, args)),
        ValueKind::Seq | ValueKind::Map if method == "copy" => Some(from_args(args).map(|()| value.clone())),
        _ => None,
    };
    answer.unwrap_or_else(|| minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args))
}

fn index(list: &Value, args: &[Value]) -> Result<Value, Error> {
    let (wanted,): (&Value,) = from_args(args)?;
    match list.try_iter()?.position(|item| item == *wanted) {
        Some(index) => Ok(Value::from(index)),
        None => Err(refuse("index: no such item")),
    }
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
