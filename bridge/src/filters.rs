//! Jinja's filters where minijinja has others, or none.

use crate::json::python_str;
use crate::python_strings::{indentation, lines, pad, refuse, strip};
use minijinja::value::{Kwargs, Tuple, Value, ValueKind};
use minijinja::{Environment, Error};

pub fn add_to(environment: &mut Environment) {
    minijinja_contrib::add_to_environment(environment);
    environment.add_filter("string", |value: &Value| python_str(value));
    environment.add_filter("pprint", |value: &Value| python_str(value));
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("wordcount", |text: &Value| words(&python_str(text)));
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("trim", trim);
    environment.add_filter("indent", indent);
    environment.add_filter("replace", replace);
    environment.add_filter("center", center);
    environment.add_filter("first", first);
    environment.add_filter("items", items);
    environment.add_filter("dictsort", dictsort);
    for name in ["e", "escape", "forceescape"] {
        environment.add_filter(name, escape);
    }
}

/// An argument that may be given by place or by name.
fn named<'a, T: minijinja::value::ArgType<'a, Output = T>>(
    given: Option<T>,
    options: &'a Kwargs,
    name: &'a str,
) -> Result<Option<T>, Error> {
    match given {
        Some(value) => Ok(Some(value)),
        None => options.get::<Option<T>>(name),
    }
}

fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() {
        return Ok(0);
    }
    let missing = || refuse(format!("a {} has no length", value.kind()));
    value.len().ok_or_else(missing)
}

fn words(text: &str) -> usize {
    let mut in_word = false;
    text.chars()
        .filter(|&character| {
            let begins = !in_word && (character.is_alphanumeric() || character == '_');
            in_word = character.is_alphanumeric() || character == '_';
            begins
        })
        .count()
}

/// `(value, default_value='', boolean=False)`
fn default(value: &Value, other: Option<Value>, boolean: Option<bool>, options: Kwargs) -> Result<Value, Error> {
    let other = named(other, &options, "default_value")?;
    let boolean = named(boolean, &options, "boolean")?.unwrap_or(false);
    options.assert_all_used()?;
    let missing = value.is_undefined() || (boolean && !value.is_true());
    Ok(if missing {
        other.unwrap_or_else(|| "".into())
    } else {
        value.clone()
    })
}

/// Python's `float(text)`, which knows underscores and `inf`.
fn parse_float(text: &str) -> Option<f64> {
    strip(text, None).replace('_', "").parse().ok()
}

fn to_float(value: &Value) -> Option<f64> {
    match value.kind() {
        ValueKind::String => parse_float(value.as_str()?),
        ValueKind::Bool => Some(if value.is_true() { 1.0 } else { 0.0 }),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        _ => None,
    }
}

/// Python's `int(text, base)`.
fn parse_int(text: &str, base: u32) -> Option<i128> {
    let text = strip(text, None).replace('_', "").to_lowercase();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(&text)),
    };
    let prefixed = [("0x", 16), ("0o", 8), ("0b", 2)];
    let known = prefixed
        .into_iter()
        .find(|(prefix, of)| digits.starts_with(prefix) && (base == 0 || base == *of));
    let (digits, base) = known.map_or((digits, base), |(prefix, of)| (&digits[prefix.len()..], of));
    let base = if base == 0 { 10 } else { base };
    if !(2..=36).contains(&base) || digits.starts_with(['-', '+']) {
        return None;
    }
    let number = i128::from_str_radix(digits, base).ok()?;
    Some(if negative { -number } else { number })
}

/// `(value, default=0, base=10)`
fn int(value: &Value, other: Option<Value>, base: Option<u32>, options: Kwargs) -> Result<Value, Error> {
    let other = named(other, &options, "default")?;
    let base = named(base, &options, "base")?.unwrap_or(10);
    options.assert_all_used()?;
    if value.is_integer() && value.kind() == ValueKind::Number {
        return Ok(value.clone());
    }
    if let Some(number) = value.as_str().and_then(|text| parse_int(text, base)) {
        return Ok(Value::from(number));
    }
    let number = to_float(value).filter(|number| number.abs() < 1e38);
    Ok(number.map_or_else(
        || other.unwrap_or_else(|| 0.into()),
        |number| Value::from(number as i128),
    ))
}

/// `(value, default=0.0)`
fn float(value: &Value, other: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let other = named(other, &options, "default")?;
    options.assert_all_used()?;
    Ok(to_float(value).map_or_else(|| other.unwrap_or_else(|| 0.0.into()), Value::from))
}

fn trim(value: &Value, chars: Option<String>, options: Kwargs) -> Result<String, Error> {
    let chars = named(chars, &options, "chars")?;
    options.assert_all_used()?;
    Ok(strip(&python_str(value), chars.as_deref()).to_string())
}

/// `(s, width=4, first=False, blank=False)`
fn indent(
    value: &Value,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    options: Kwargs,
) -> Result<String, Error> {
    let indentation = indentation(&named(width, &options, "width")?.unwrap_or_else(|| 4.into()))?;
    let first = named(first, &options, "first")?.unwrap_or(false);
    let blank = named(blank, &options, "blank")?.unwrap_or(false);
    options.assert_all_used()?;
    let text = python_str(value) + "\n";
    let mut result = String::new();
    for (index, line) in lines(&text, false).into_iter().enumerate() {
        if index > 0 {
            result.push('\n');
        }
        if if index == 0 { first } else { blank || !line.is_empty() } {
            result.push_str(&indentation);
        }
        result.push_str(line);
    }
    Ok(result)
}

/// `(s, old, new, count=None)`
fn replace(value: &Value, old: &str, new: &str, count: Option<i64>) -> String {
    let text = python_str(value);
    match count.and_then(|count| usize::try_from(count).ok()) {
        Some(count) => text.replacen(old, new, count),
        None => text.replace(old, new),
    }
}

fn center(value: &Value, width: Option<i64>, options: Kwargs) -> Result<Value, Error> {
    let width = named(width, &options, "width")?.unwrap_or(80);
    options.assert_all_used()?;
    pad(&python_str(value), "center", &[width.into()])
}

fn first(value: &Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Ok(Value::UNDEFINED);
    }
    Ok(value.try_iter()?.next().unwrap_or(Value::UNDEFINED))
}

fn pair(key: Value, value: Value) -> Value {
    Value::from(Tuple::new(vec![key, value]))
}

fn pairs(map: &Value) -> Result<Vec<(Value, Value)>, Error> {
    if map.kind() != ValueKind::Map {
        return Err(refuse(format!("a {} has no items", map.kind())));
    }
    map.try_iter()?
        .map(|key| Ok((key.clone(), map.get_item(&key)?)))
        .collect()
}

fn items(map: &Value) -> Result<Value, Error> {
    if map.is_undefined() {
        return Ok(Value::from(Vec::<Value>::new()));
    }
    Ok(pairs(map)?
        .into_iter()
        .map(|(key, value)| pair(key, value))
        .collect::<Vec<_>>()
        .into())
}

/// `(value, case_sensitive=False, by='key', reverse=False)`
fn dictsort(
    map: &Value,
    case_sensitive: Option<bool>,
    by: Option<String>,
    reverse: Option<bool>,
    options: Kwargs,
) -> Result<Value, Error> {
    let case_sensitive = named(case_sensitive, &options, "case_sensitive")?.unwrap_or(false);
    let by = named(by, &options, "by")?;
    let reverse = named(reverse, &options, "reverse")?.unwrap_or(false);
    options.assert_all_used()?;
    let by_value = match by.as_deref() {
        None | Some("key") => false,
        Some("value") => true,
        Some(_) => return Err(refuse("dictsort: by is 'key' or 'value'")),
    };
    let rank = |(key, value): &(Value, Value)| {
        let ranked = if by_value { value } else { key };
        match ranked.as_str().filter(|_| !case_sensitive) {
            Some(text) => Value::from(text.to_lowercase()),
            None => ranked.clone(),
        }
    };
    let mut pairs = pairs(map)?;
    if reverse {
        pairs.sort_by_cached_key(|pair| std::cmp::Reverse(rank(pair)));
    } else {
        pairs.sort_by_cached_key(rank);
    }
    Ok(pairs
        .into_iter()
        .map(|(key, value)| pair(key, value))
        .collect::<Vec<_>>()
        .into())
}

/// As MarkupSafe writes them.
fn escape(value: &Value) -> String {
    let mut escaped = String::new();
    for character in python_str(value).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&#39;"),
            '"' => escaped.push_str("&#34;"),
            other => escaped.push(other),
        }
    }
    escaped
}
