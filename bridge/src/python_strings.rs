//! Python's string methods that minijinja's `pycompat` lacks or does otherwise.

use minijinja::value::{from_args, Kwargs, Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// No text of a prompt is padded so far; more is a mistake or an attack.
const MAX_WIDTH: i64 = 1 << 20;

type Answer = Result<Value, Error>;

pub fn refuse(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, text)
}

/// `None` for a method that pycompat should look for.
pub fn string_method(text: &str, method: &str, args: &[Value]) -> Option<Answer> {
    Some(match method {
        "strip" => chars_argument(args).map(|chars| strip_start(strip_end(text, chars), chars).into()),
        "lstrip" => chars_argument(args).map(|chars| strip_start(text, chars).into()),
        "rstrip" => chars_argument(args).map(|chars| strip_end(text, chars).into()),
        "split" => split_arguments(args).and_then(|(separator, most)| split(text, separator, most)),
        "rsplit" => split_arguments(args).and_then(|(separator, most)| rsplit(text, separator, most)),
        "splitlines" => splitlines(text, args),
        "join" => join(text, args),
        "title" => Ok(title(text).into()),
        "swapcase" => Ok(swapcase(text).into()),
        "casefold" => Ok(text.to_lowercase().replace('ß', "ss").into()),
        "removeprefix" => one_string(args).map(|prefix| text.strip_prefix(prefix).unwrap_or(text).into()),
        "removesuffix" => one_string(args).map(|suffix| text.strip_suffix(suffix).unwrap_or(text).into()),
        "partition" => one_string(args).map(|separator| match text.split_once(separator) {
            Some((before, after)) => triple(before, separator, after),
            None => triple(text, "", ""),
        }),
        "rpartition" => one_string(args).map(|separator| match text.rsplit_once(separator) {
            Some((before, after)) => triple(before, separator, after),
            None => triple("", "", text),
        }),
        "find" | "rfind" | "index" | "rindex" => find(text, method, args),
        "count" => count(text, args),
        "startswith" | "endswith" => touches(text, method == "startswith", args),
        "center" | "ljust" | "rjust" => pad(text, method, args),
        "zfill" => zfill(text, args),
        "expandtabs" => expandtabs(text, args),
        "isdigit" | "isdecimal" => Ok(all(text, is_digit)),
        "istitle" => Ok(Value::from(text.chars().any(is_cased) && title(text) == text)),
        "isidentifier" => Ok(is_identifier(text).into()),
        "encode" => Err(refuse("a template cannot make bytes")),
        _ => return None,
    })
}

fn one_string(args: &[Value]) -> Result<&str, Error> {
    let (text,): (&str,) = from_args(args)?;
    Ok(text)
}

fn list(parts: impl Iterator<Item = impl Into<Value>>) -> Value {
    parts.map(Into::into).collect::<Vec<Value>>().into()
}

fn triple(first: &str, second: &str, third: &str) -> Value {
    Value::from(Tuple::new(vec![first.into(), second.into(), third.into()]))
}

fn all(text: &str, test: impl Fn(char) -> bool) -> Value {
    Value::from(!text.is_empty() && text.chars().all(test))
}

/// Python counts the information separators as space too.
pub fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// Not the numbers that are no digits: fractions, Roman numerals.
fn is_digit(character: char) -> bool {
    character.is_ascii_digit()
        || (character.is_numeric() && !matches!(character, '\u{bc}'..='\u{be}' | '\u{2150}'..='\u{218f}'))
}

fn is_cased(character: char) -> bool {
    character.is_lowercase() || character.is_uppercase()
}

fn is_identifier(text: &str) -> bool {
    let mut characters = text.chars();
    let first = characters.next();
    first.is_some_and(|first| first.is_alphabetic() || first == '_')
        && characters.all(|character| character.is_alphanumeric() || character == '_')
}

fn chars_argument(args: &[Value]) -> Result<Option<&str>, Error> {
    let (chars,): (Option<&str>,) = from_args(args)?;
    Ok(chars)
}

pub fn strip<'a>(text: &'a str, chars: Option<&str>) -> &'a str {
    strip_start(strip_end(text, chars), chars)
}

fn strip_start<'a>(text: &'a str, chars: Option<&str>) -> &'a str {
    match chars {
        Some(chars) => text.trim_start_matches(|character| chars.contains(character)),
        None => text.trim_start_matches(is_space),
    }
}

fn strip_end<'a>(text: &'a str, chars: Option<&str>) -> &'a str {
    match chars {
        Some(chars) => text.trim_end_matches(|character| chars.contains(character)),
        None => text.trim_end_matches(is_space),
    }
}

/// `(sep=None, maxsplit=-1)`
fn split_arguments(args: &[Value]) -> Result<(Option<String>, usize), Error> {
    let (separator, most, options): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = match separator {
        Some(separator) => Some(separator),
        None => options.get::<Option<Value>>("sep")?,
    };
    let most = match most {
        Some(most) => Some(most),
        None => options.get::<Option<i64>>("maxsplit")?,
    };
    options.assert_all_used()?;
    let separator = match separator.filter(|separator| !separator.is_none()) {
        Some(separator) => Some(
            separator
                .as_str()
                .ok_or_else(|| refuse("a separator is a string"))?
                .to_string(),
        ),
        None => None,
    };
    if separator.as_deref() == Some("") {
        return Err(refuse("empty separator"));
    }
    Ok((separator, usize::try_from(most.unwrap_or(-1)).unwrap_or(usize::MAX)))
}

fn split(text: &str, separator: Option<String>, most: usize) -> Answer {
    if let Some(separator) = separator {
        return Ok(list(text.splitn(most.saturating_add(1), separator.as_str())));
    }
    let mut parts = vec![];
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let end = rest.find(is_space).filter(|_| parts.len() < most).unwrap_or(rest.len());
        parts.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(is_space);
    }
    Ok(list(parts.into_iter()))
}

fn rsplit(text: &str, separator: Option<String>, most: usize) -> Answer {
    let mut parts = vec![];
    if let Some(separator) = separator {
        parts.extend(text.rsplitn(most.saturating_add(1), separator.as_str()));
    } else {
        let mut rest = text.trim_end_matches(is_space);
        while !rest.is_empty() {
            let space = rest.char_indices().rfind(|&(_, character)| is_space(character));
            let start = space.filter(|_| parts.len() < most);
            let start = start.map_or(0, |(offset, character)| offset + character.len_utf8());
            parts.push(&rest[start..]);
            rest = rest[..start].trim_end_matches(is_space);
        }
    }
    Ok(list(parts.into_iter().rev()))
}

/// The lines of a text as Python's `splitlines` sees them, with their ends when `keep_ends`.
pub fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    const ENDS: [char; 10] = [
        '\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}',
    ];
    let mut found = vec![];
    let mut rest = text;
    while let Some(at) = rest.find(ENDS) {
        let end = match rest[at..].strip_prefix("\r\n") {
            Some(_) => 2,
            None => rest[at..].chars().next().map_or(0, char::len_utf8),
        };
        found.push(&rest[..if keep_ends { at + end } else { at }]);
        rest = &rest[at + end..];
    }
    if !rest.is_empty() {
        found.push(rest);
    }
    found
}

fn splitlines(text: &str, args: &[Value]) -> Answer {
    let (keep_ends, options): (Option<bool>, Kwargs) = from_args(args)?;
    let keep_ends = match keep_ends {
        Some(keep_ends) => keep_ends,
        None => options.get::<Option<bool>>("keepends")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    Ok(list(lines(text, keep_ends).into_iter()))
}

fn join(text: &str, args: &[Value]) -> Answer {
    let (values,): (&Value,) = from_args(args)?;
    let mut joined = String::new();
    for (index, value) in values.try_iter()?.enumerate() {
        if index > 0 {
            joined.push_str(text);
        }
        let item = value.as_str();
        joined.push_str(item.ok_or_else(|| refuse(format!("join: item {index} is a {}, not a string", value.kind())))?);
    }
    Ok(joined.into())
}

fn title(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut in_word = false;
    for character in text.chars() {
        if in_word {
            result.extend(character.to_lowercase());
        } else {
            result.extend(character.to_uppercase());
        }
        in_word = is_cased(character);
    }
    result
}

fn swapcase(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_uppercase() {
            result.extend(character.to_lowercase());
        } else {
            result.extend(character.to_uppercase());
        }
    }
    result
}

/// `text[start:end]` in characters, and the number of characters before it.
fn window(text: &str, start: Option<i64>, end: Option<i64>) -> (usize, &str) {
    if start.is_none() && end.is_none() {
        return (0, text);
    }
    let length = text.chars().count() as i64;
    let clamp = |index: i64| (if index < 0 { index + length } else { index }).clamp(0, length) as usize;
    let (start, end) = (clamp(start.unwrap_or(0)), clamp(end.unwrap_or(length)));
    let offset = |index: usize| text.char_indices().nth(index).map_or(text.len(), |(offset, _)| offset);
    (start, &text[offset(start)..offset(end.max(start))])
}

fn find(text: &str, method: &str, args: &[Value]) -> Answer {
    let (part, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
    let (before, text) = window(text, start, end);
    let found = if method.starts_with('r') {
        text.rfind(part)
    } else {
        text.find(part)
    };
    match found {
        Some(offset) => Ok(Value::from(before + text[..offset].chars().count())),
        None if method.ends_with("index") => Err(refuse("substring not found")),
        None => Ok(Value::from(-1)),
    }
}

fn count(text: &str, args: &[Value]) -> Answer {
    let (part, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
    Ok(Value::from(window(text, start, end).1.matches(part).count()))
}

fn touches(text: &str, at_start: bool, args: &[Value]) -> Answer {
    let (parts, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
    let text = window(text, start, end).1;
    let touches = |part: &Value| -> Result<bool, Error> {
        let part = part
            .as_str()
            .ok_or_else(|| refuse(format!("expected a string, not a {}", part.kind())))?;
        Ok(if at_start {
            text.starts_with(part)
        } else {
            text.ends_with(part)
        })
    };
    if parts.kind() != ValueKind::Seq {
        return touches(parts).map(Value::from);
    }
    for part in parts.try_iter()? {
        if touches(&part)? {
            return Ok(true.into());
        }
    }
    Ok(false.into())
}

/// How many characters `text` lacks to be `width` wide.
fn missing(text: &str, width: i64) -> Result<usize, Error> {
    if width > MAX_WIDTH {
        return Err(refuse(format!("a width of {width} is over {MAX_WIDTH}")));
    }
    Ok(usize::try_from(width).unwrap_or(0).saturating_sub(text.chars().count()))
}

pub fn pad(text: &str, method: &str, args: &[Value]) -> Answer {
    let (width, fill): (i64, Option<char>) = from_args(args)?;
    let missing = missing(text, width)?;
    let left = match method {
        "ljust" => 0,
        "rjust" => missing,
        // Python puts the odd one left of a text of odd width.
        _ => missing / 2 + (missing & width as usize & 1),
    };
    let fill = fill.unwrap_or(' ');
    let mut padded = String::from_iter(std::iter::repeat_n(fill, left));
    padded.push_str(text);
    padded.extend(std::iter::repeat_n(fill, missing - left));
    Ok(padded.into())
}

fn zfill(text: &str, args: &[Value]) -> Answer {
    let (width,): (i64,) = from_args(args)?;
    let zeros = "0".repeat(missing(text, width)?);
    Ok(match text.strip_prefix(['-', '+']) {
        Some(rest) => format!("{}{zeros}{rest}", &text[..1]),
        None => zeros + text,
    }
    .into())
}

fn expandtabs(text: &str, args: &[Value]) -> Answer {
    let (size,): (Option<i64>,) = from_args(args)?;
    let size = size.unwrap_or(8);
    missing("", size)?;
    let size = usize::try_from(size).unwrap_or(0);
    let (mut expanded, mut column) = (String::new(), 0);
    for character in text.chars() {
        match character {
            '\t' => {
                let spaces = if size == 0 { 0 } else { size - column % size };
                expanded.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            other => {
                expanded.push(other);
                column = if matches!(other, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    Ok(expanded.into())
}

/// The `indent` filter and `tojson` take a number of spaces or the text itself.
pub fn indentation(width: &Value) -> Result<String, Error> {
    if let Some(text) = width.as_str() {
        return Ok(text.to_string());
    }
    let width = i64::try_from(width.clone())?;
    Ok(" ".repeat(missing("", width)?))
}
