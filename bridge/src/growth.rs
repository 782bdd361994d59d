//! How much longer a tokenizer's replacements can make a text. A few lines of tokenizer.json that replace nothing by a
//! thousand letters, three times over, would turn a word into gigabytes.

use serde_json::Value;
use tokenizers::Tokenizer;

/// Published tokenizers replace a space by the three bytes of "▁", and quotation marks by others.
const MAX_GROWTH: u64 = 4096;

pub fn is_bounded(tokenizer: &Tokenizer) -> bool {
    let normalizer = serde_json::to_value(tokenizer.get_normalizer()).unwrap_or_default();
    let decoder = serde_json::to_value(tokenizer.get_decoder()).unwrap_or_default();
    growth(&normalizer) <= MAX_GROWTH && growth(&decoder) <= MAX_GROWTH
}

/// The factor by which all steps in `value`, one after the other, can lengthen a text.
fn growth(value: &Value) -> u64 {
    match value {
        Value::Array(items) => items.iter().map(growth).fold(1, u64::saturating_mul),
        Value::Object(members) if members.contains_key("pattern") && members.contains_key("content") => {
            let content = members["content"].as_str().map_or(0, str::len) as u64;
            match members["pattern"].get("String").and_then(Value::as_str) {
                Some(pattern) if !pattern.is_empty() => content.div_ceil(pattern.len() as u64).max(1),
                _ => content + 1, // it may match nothing, between any two letters
            }
        }
        Value::Object(members) => {
            let prepended = members.get("prepend").and_then(Value::as_str).map_or(0, str::len) as u64;
            members.values().map(growth).fold(prepended + 1, u64::saturating_mul)
        }
        _ => 1,
    }
}
