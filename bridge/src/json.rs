//! The `tojson` filter as transformers defines it: Python's `json.dumps(value, ensure_ascii=False)` without HTML
//! escaping; and how Python prints values where a template prints them.

use crate::python_strings::indentation;
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Error, ErrorKind};

const MAX_DEPTH: usize = 100;

/// `value | tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`
pub fn tojson(value: &Value, places: Rest<Value>, options: Kwargs) -> Result<Value, Error> {
    let argument = |place: usize, name: &str| -> Result<Option<Value>, Error> {
        let value = match places.get(place) {
            Some(value) => Some(value.clone()),
            None => options.get::<Option<Value>>(name)?,
        };
        Ok(value.filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let is_set = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let indent = argument(1, "indent")?;
    let mut writer = Writer {
        item_separator: if indent.is_some() { "," } else { ", " }.to_string(),
        key_separator: ": ".to_string(),
        indent: indent.as_ref().map(indentation).transpose()?,
        ascii: is_set(argument(0, "ensure_ascii")?),
        sort_keys: is_set(argument(3, "sort_keys")?),
        text: String::new(),
    };
    if let Some(separators) = argument(2, "separators")? {
        writer.item_separator = separators.get_item_by_index(0)?.to_string();
        writer.key_separator = separators.get_item_by_index(1)?.to_string();
    }
    options.assert_all_used()?;
    writer.value(value, 0)?;
    Ok(Value::from(writer.text))
}

struct Writer {
    indent: Option<String>,
    ascii: bool,
    sort_keys: bool,
    item_separator: String,
    key_separator: String,
    text: String,
}

impl Writer {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::new(ErrorKind::InvalidOperation, "tojson: nested too deeply"));
        }
        match value.kind() {
            ValueKind::Map => self.map(value, depth)?,
            ValueKind::Seq | ValueKind::Iterable => self.sequence(value, depth)?,
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.text.push_str(&json_number(value)),
            kind => {
                let text = format!("tojson: a value of type {kind} is not JSON serializable");
                return Err(Error::new(ErrorKind::InvalidOperation, text));
            }
        }
        Ok(())
    }

    fn map(&mut self, map: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = map.try_iter()?.collect();
        if self.sort_keys {
            keys.sort();
        }
        self.text.push('{');
        for (index, key) in keys.iter().enumerate() {
            self.begin_item(index, depth);
            match key.kind() {
                ValueKind::String => self.string(key.as_str().unwrap_or_default()),
                _ => {
                    self.text.push('"');
                    self.value(key, depth + 1)?;
                    self.text.push('"');
                }
            }
            self.text.push_str(&self.key_separator);
            self.value(&map.get_item(key)?, depth + 1)?;
        }
        self.end(keys.is_empty(), depth);
        self.text.push('}');
        Ok(())
    }

    fn sequence(&mut self, sequence: &Value, depth: usize) -> Result<(), Error> {
        self.text.push('[');
        let mut empty = true;
        for (index, item) in sequence.try_iter()?.enumerate() {
            self.begin_item(index, depth);
            self.value(&item, depth + 1)?;
            empty = false;
        }
        self.end(empty, depth);
        self.text.push(']');
        Ok(())
    }

    fn begin_item(&mut self, index: usize, depth: usize) {
        if index > 0 {
            self.text.push_str(&self.item_separator);
        }
        self.new_line(depth + 1);
    }

    fn end(&mut self, empty: bool, depth: usize) {
        if !empty {
            self.new_line(depth);
        }
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.text.push('\n');
            for _ in 0..depth {
                self.text.push_str(indent);
            }
        }
    }

    fn string(&mut self, string: &str) {
        self.text.push('"');
        for character in string.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                control if (control as u32) < 0x20 => self.escape(control),
                other if self.ascii && (other as u32) > 0x7e => self.escape(other),
                other => self.text.push(other),
            }
        }
        self.text.push('"');
    }

    fn escape(&mut self, character: char) {
        let mut units = [0; 2];
        for unit in character.encode_utf16(&mut units) {
            self.text.push_str(&format!("\\u{unit:04x}"));
        }
    }
}

/// Python's `str(value)`: what `{{ value }}` prints.
pub fn python_str(value: &Value) -> String {
    match value.kind() {
        ValueKind::String => value.as_str().unwrap_or_default().to_string(),
        ValueKind::Undefined => String::new(),
        _ => python_repr(value, 0),
    }
}

fn python_repr(value: &Value, depth: usize) -> String {
    let items = |value: &Value| -> Vec<Value> { value.try_iter().map(Iterator::collect).unwrap_or_default() };
    match value.kind() {
        _ if depth > MAX_DEPTH => "...".to_string(),
        ValueKind::None => "None".to_string(),
        ValueKind::Undefined => "Undefined".to_string(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_string(),
        ValueKind::Number => python_number(value),
        ValueKind::String => python_quoted(value.as_str().unwrap_or_default()),
        ValueKind::Seq => {
            let parts: Vec<String> = items(value).iter().map(|item| python_repr(item, depth + 1)).collect();
            match (value.is_tuple(), parts.len()) {
                (false, _) => format!("[{}]", parts.join(", ")),
                (true, 1) => format!("({},)", parts[0]),
                (true, _) => format!("({})", parts.join(", ")),
            }
        }
        ValueKind::Map => {
            let part = |key: &Value| {
                let member = value.get_item(key).unwrap_or_default();
                format!("{}: {}", python_repr(key, depth + 1), python_repr(&member, depth + 1))
            };
            format!("{{{}}}", items(value).iter().map(part).collect::<Vec<_>>().join(", "))
        }
        _ => value.to_string(),
    }
}

fn python_quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut quoted = String::from(quote);
    for character in text.chars() {
        match character {
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            other if other == quote => quoted.extend(['\\', other]),
            hidden if !is_printable(hidden) => match hidden as u32 {
                code @ ..=0xff => quoted.push_str(&format!("\\x{code:02x}")),
                code @ ..=0xffff => quoted.push_str(&format!("\\u{code:04x}")),
                code => quoted.push_str(&format!("\\U{code:08x}")),
            },
            other => quoted.push(other),
        }
    }
    quoted.push(quote);
    quoted
}

/// As far as texts go: neither controls, nor spaces but the plain one, nor marks without a shape of their own, nor
/// private characters.
fn is_printable(character: char) -> bool {
    let shapeless = matches!(character, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e000}'..='\u{f8ff}'
        | '\u{e0000}'..='\u{10ffff}');
    character == ' ' || !(character.is_control() || character.is_whitespace() || shapeless)
}

fn json_number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(number) if number.is_nan() => "NaN".to_string(),
        Ok(number) if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.to_string(),
        _ => python_number(value),
    }
}

/// Integers as they are; floats as Python's `repr`: shortest digits, an exponent below 1e-4 and from 1e16 on.
fn python_number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let Ok(number) = f64::try_from(value.clone()) else {
        return value.to_string();
    };
    if number.is_nan() {
        return "nan".to_string();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_string();
    }
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let scientific = format!("{number:e}");
        let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        return format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    format!("{number:?}")
}
