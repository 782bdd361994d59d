//! Decoding token by token, such that the pieces add up to the decoding of all tokens at once.

use std::sync::Arc;
use tokenizers::{DecoderWrapper, Tokenizer};

type Error = Box<dyn std::error::Error + Send + Sync>;

pub struct Decoder {
    tokenizer: Arc<Tokenizer>,
    skip_special: bool,
    state: State,
}

enum State {
    /// Byte-level BPE: every token is bytes; what is not yet a whole character waits in `pending`.
    Bytes { pending: Vec<u8> },
    /// Any other decoder: decode a window of tokens, and emit what comes after the text of its first `context` ones.
    /// The context keeps decoders honest that treat the first token differently (a stripped leading space).
    Window {
        tokens: Vec<u32>,
        context: usize,
        byte_fallback: bool,
    },
}

impl Decoder {
    pub fn new(tokenizer: Arc<Tokenizer>, skip_special: bool) -> Self {
        let state = match tokenizer.get_decoder() {
            Some(DecoderWrapper::ByteLevel(_)) => State::Bytes { pending: vec![] },
            decoder => State::Window {
                tokens: vec![],
                context: 0,
                byte_fallback: serde_json::to_string(&decoder).is_ok_and(|json| json.contains("ByteFallback")),
            },
        };
        Decoder {
            tokenizer,
            skip_special,
            state,
        }
    }

    pub fn push(&mut self, id: u32) -> Result<String, Error> {
        let Some(token) = self.tokenizer.id_to_token(id) else {
            return Ok(String::new()); // as decode() does
        };
        if self.skip_special && self.tokenizer.get_added_vocabulary().is_special_token(&token) {
            return Ok(String::new());
        }
        match &mut self.state {
            State::Bytes { pending } => {
                pending.extend(token_bytes(&token));
                Ok(take_whole_characters(pending))
            }
            State::Window {
                tokens,
                context,
                byte_fallback,
            } => {
                tokens.push(id);
                // A run of byte tokens is decoded as a whole: one bad byte spoils all of it.
                if *byte_fallback && is_byte_token(&token) {
                    return Ok(String::new());
                }
                let piece = beyond_context(&self.tokenizer, tokens, *context)?;
                if piece.is_empty() || piece.ends_with('\u{fffd}') {
                    return Ok(String::new());
                }
                tokens.drain(..*context);
                *context = tokens.len();
                Ok(piece)
            }
        }
    }

    pub fn flush(&mut self) -> Result<String, Error> {
        match &mut self.state {
            State::Bytes { pending } => {
                let rest = String::from_utf8_lossy(pending).into_owned();
                pending.clear();
                Ok(rest)
            }
            State::Window { tokens, context, .. } => {
                let piece = beyond_context(&self.tokenizer, tokens, *context)?;
                tokens.clear();
                *context = 0;
                Ok(piece)
            }
        }
    }
}

fn beyond_context(tokenizer: &Tokenizer, tokens: &[u32], context: usize) -> Result<String, Error> {
    let before = tokenizer.decode(&tokens[..context], false)?;
    let all = tokenizer.decode(tokens, false)?;
    // A decoder that rewrites what it already said cannot be streamed exactly; what is said stays said.
    Ok(all.strip_prefix(before.as_str()).unwrap_or_default().to_string())
}

fn is_byte_token(token: &str) -> bool {
    token.len() == 6 && token.starts_with("<0x") && token.ends_with('>') && u8::from_str_radix(&token[3..5], 16).is_ok()
}

/// The bytes of a token in GPT-2's byte alphabet; a token with any other character is its own text.
fn token_bytes(token: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(alphabet_byte).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

/// GPT-2 writes printable bytes as themselves and the 68 others as U+0100, U+0101 … in order.
fn alphabet_byte(character: char) -> Option<u8> {
    let code = character as u32;
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),        // 0x00 ..= 0x20
        0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8), // 0x7f ..= 0xa0
        0x143 => Some(0xad),
        _ => None,
    }
}

/// Removes and returns all of `pending` that no later byte can change, bad bytes as U+FFFD as `from_utf8_lossy` does.
fn take_whole_characters(pending: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut rest = 0;
    loop {
        match std::str::from_utf8(&pending[rest..]) {
            Ok(valid) => {
                text.push_str(valid);
                rest = pending.len();
                break;
            }
            Err(error) => {
                let valid_end = rest + error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&pending[rest..valid_end]));
                let Some(bad) = error.error_len() else {
                    rest = valid_end; // the beginning of a character
                    break;
                };
                text.push('\u{fffd}');
                rest = valid_end + bad;
            }
        }
    }
    pending.drain(..rest);
    text
}
