//! tokenizer.h over the tokenizers library.

use crate::confined::{self, Overrun};
use crate::decoder::Decoder;
use crate::errors::{caller_string, caller_tokens, contain, failing, guard, Failure, Outcome, Status, View};
use crate::growth;
use crate::special::{is_control, AddedTokens, Cuts};
use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::time::Duration;
use tokenizers::tokenizer::pre_tokenizer::OffsetType;
use tokenizers::{Model, PreTokenizer, Token, Tokenizer};

const SPECIAL_RECOGNISED: i32 = 0;
const SPECIAL_AS_TEXT: i32 = 1;
const SPECIAL_UNCUT: i32 = 2;

pub struct Opened {
    tokenizer: Arc<Tokenizer>,
    added: AddedTokens,
    vocabulary_size: usize,
}

/// Honest files need a few times their size; hostile ones announce arrays that they do not hold.
const OPEN_MEMORY_BYTES: u64 = 1 << 30;
const OPEN_MEMORY_PER_BYTE: u64 = 16;
const OPEN_TIME: Duration = Duration::from_secs(300);

fn read(json: &[u8]) -> Outcome<Tokenizer> {
    let malformed = |error| Failure::new(Status::Malformed, format!("tokenizer.json: {error}"));
    let mut tokenizer = Tokenizer::from_bytes(json).map_err(malformed)?;
    if !growth::is_bounded(&tokenizer) {
        let text = "tokenizer.json: its replacements make a text thousands of times longer";
        return Err(Failure::new(Status::Limit, text));
    }
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(failing(Status::Malformed))?;
    // Some files are read without complaint and fault at their first use.
    if let Ok(encoding) = tokenizer.encode_fast("Trial, ½ 123\n▁é  <s>", true) {
        let _ = tokenizer.decode(encoding.get_ids(), false);
    }
    Ok(tokenizer)
}

fn open(json: &[u8], max_ids: u32) -> Outcome<Opened> {
    let json = json.to_vec();
    let memory = OPEN_MEMORY_BYTES + OPEN_MEMORY_PER_BYTE * json.len() as u64;
    let tokenizer = match confined::run(memory, OPEN_TIME, move || read(&json)) {
        Ok(outcome) => outcome?,
        Err(Overrun::Fault) => return Err(Failure::new(Status::Malformed, "tokenizer.json: it cannot be read")),
        Err(Overrun::Memory) => {
            let text = format!("tokenizer.json: reading it needs more than {memory} bytes of memory");
            return Err(Failure::new(Status::Limit, text));
        }
        Err(Overrun::Time) => return Err(Failure::new(Status::Limit, "tokenizer.json: reading it takes too long")),
    };
    let largest = tokenizer.get_vocab(true).into_values().max();
    let vocabulary_size = largest.map_or(0, |id| id as usize + 1);
    if vocabulary_size > max_ids as usize {
        let text = format!(
            "tokenizer.json: token id {} is over the limit of {max_ids}",
            vocabulary_size - 1
        );
        return Err(Failure::new(Status::Limit, text));
    }
    let added = AddedTokens::of(&tokenizer).map_err(failing(Status::Malformed))?;
    Ok(Opened {
        tokenizer: Arc::new(tokenizer),
        added,
        vocabulary_size,
    })
}

impl Opened {
    fn encode(&self, text: &str, add_special: bool, special: i32, cuts: &[usize]) -> Outcome<Vec<u32>> {
        let cuts = match special {
            SPECIAL_RECOGNISED => Cuts::At(&[]),
            SPECIAL_AS_TEXT => Cuts::Everywhere,
            SPECIAL_UNCUT if cuts.is_sorted() => Cuts::At(cuts),
            SPECIAL_UNCUT => return Err(Failure::new(Status::InvalidArgument, "cuts are not in rising order")),
            other => {
                return Err(Failure::new(
                    Status::InvalidArgument,
                    format!("unknown shoal_special {other}"),
                ))
            }
        };
        let encoding = match cuts {
            Cuts::At([]) => self.tokenizer.encode_fast(text, add_special),
            cuts => self.encode_with_cuts(text, add_special, cuts),
        };
        Ok(encoding.map_err(failing(Status::InvalidArgument))?.get_ids().to_vec())
    }

    /// The library's own `encode_fast` with another way of finding the added tokens.
    fn encode_with_cuts(&self, text: &str, add_special: bool, cuts: Cuts) -> tokenizers::Result<tokenizers::Encoding> {
        let tokenizer = &*self.tokenizer;
        let mut pieces = self.added.extract(tokenizer.get_normalizer(), text, cuts)?;
        if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces)?;
        }
        pieces.tokenize(|piece| self.tokenize_as_text(piece.get()))?;
        let encoding = pieces.into_encoding(None, 0, OffsetType::None)?;
        tokenizer.post_process(encoding, None, add_special)
    }

    /// What the model makes of a piece, but never a control token: vocabularies may hold them beside the words. All
    /// that are found are cut at once, so that a text full of them does not cost the square of its length.
    fn tokenize_as_text(&self, piece: &str) -> tokenizers::Result<Vec<Token>> {
        let model = self.tokenizer.get_model();
        let mut tokens = Vec::new();
        let mut ranges = vec![0..piece.len()]; // still to do, the first one last
        while let Some(range) = ranges.pop() {
            let mut found = model.tokenize(&piece[range.clone()])?;
            for token in &mut found {
                token.offsets = (token.offsets.0 + range.start, token.offsets.1 + range.start);
            }
            let cuts = found.iter().filter(|token| self.is_control_in(token, piece));
            let mut bounds = vec![range.start];
            bounds.extend(cuts.filter_map(|token| behind_first(piece, token.offsets)));
            if bounds.len() == 1 {
                tokens.append(&mut found);
                continue;
            }
            bounds.push(range.end);
            ranges.extend(bounds.windows(2).rev().map(|ends| ends[0]..ends[1]));
        }
        Ok(tokens)
    }

    fn is_control_in(&self, token: &Token, piece: &str) -> bool {
        let spelling = piece.get(token.offsets.0..token.offsets.1);
        spelling.is_some_and(|spelling| self.added.is_control_spelled(token.id, spelling))
    }
}

/// Where the second character of `text[start..end]` begins; one character cannot be cut.
fn behind_first(text: &str, (start, end): (usize, usize)) -> Option<usize> {
    let second = start + text[start..end].chars().next().map_or(0, char::len_utf8);
    (start < second && second < end).then_some(second)
}

unsafe fn token_ids<'a>(tokens: *const i32, count: usize) -> Outcome<&'a [u32]> {
    if count == 0 {
        return Ok(&[]);
    }
    let tokens = std::slice::from_raw_parts(tokens, count);
    if let Some(token) = tokens.iter().find(|&&token| token < 0) {
        return Err(Failure::new(
            Status::InvalidArgument,
            format!("token id {token} is negative"),
        ));
    }
    // No id is negative, so the two types hold the same bits.
    Ok(std::slice::from_raw_parts(tokens.as_ptr() as *const u32, count))
}

unsafe fn give_text(given: &str, text: *mut *mut c_char, size: *mut usize) {
    *text = caller_string(given.as_bytes());
    *size = given.len();
}

#[no_mangle]
pub unsafe extern "C" fn shoal_tokenizer_open(
    json: View,
    max_ids: u32,
    tokenizer: *mut *mut Opened,
    error: *mut *mut c_char,
) -> i32 {
    guard(error, || {
        let opened = open(json.bytes(), max_ids)?;
        *tokenizer = Box::into_raw(Box::new(opened));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn shoal_tokenizer_free(tokenizer: *mut Opened) {
    if !tokenizer.is_null() {
        contain(|| drop(Box::from_raw(tokenizer)));
    }
}

#[no_mangle]
pub unsafe extern "C" fn shoal_tokenizer_vocabulary_size(tokenizer: *const Opened) -> usize {
    (*tokenizer).vocabulary_size
}

#[no_mangle]
pub unsafe extern "C" fn shoal_tokenizer_find(tokenizer: *const Opened, token: View) -> i32 {
    let mut found = -1;
    contain(|| {
        if let Ok(token) = token.text("token") {
            found = (*tokenizer).tokenizer.token_to_id(token).map_or(-1, |id| id as i32);
        }
    });
    found
}

#[no_mangle]
pub unsafe extern "C" fn shoal_tokenizer_token(tokenizer: *const Opened, id: i32, size: *mut usize) -> *mut c_char {
    let mut text = std::ptr::null_mut();
    contain(|| {
        let id = u32::try_from(id).ok();
        if let Some(token) = id.and_then(|id| (*tokenizer).tokenizer.id_to_token(id)) {
            give_text(&token, &mut text, size);
        }
    });
    text
}

#[no_mangle]
pub unsafe extern "C" fn shoal_tokenizer_added(
    tokenizer: *const Opened,
    each: extern "C" fn(*mut c_void, i32, i32, i32, View),
    context: *mut c_void,
) {
    contain(|| {
        let tokens = (*tokenizer).tokenizer.get_added_tokens_decoder();
        let mut added: Vec<_> = tokens.iter().collect();
        added.sort_by_key(|(&id, _)| id);
        for (&id, token) in added {
            let (special, control) = (token.special.into(), is_control(token).into());
            each(context, id as i32, special, control, token.content.as_str().into());
        }
    });
}

#[no_mangle]
pub unsafe extern "C" fn shoal_tokenizer_encode(
    tokenizer: *const Opened,
    text: View,
    add_special: i32,
    special: i32,
    cuts: *const usize,
    cut_count: usize,
    tokens: *mut *mut i32,
    count: *mut usize,
    error: *mut *mut c_char,
) -> i32 {
    guard(error, || {
        let text = text.text("text")?;
        let cuts = match cut_count {
            0 => &[],
            _ => std::slice::from_raw_parts(cuts, cut_count),
        };
        let ids = (*tokenizer).encode(text, add_special != 0, special, cuts)?;
        *tokens = caller_tokens(&ids);
        *count = ids.len();
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn shoal_tokenizer_decode(
    tokenizer: *const Opened,
    tokens: *const i32,
    count: usize,
    skip_special: i32,
    text: *mut *mut c_char,
    size: *mut usize,
    error: *mut *mut c_char,
) -> i32 {
    guard(error, || {
        let ids = token_ids(tokens, count)?;
        let decoded = (*tokenizer).tokenizer.decode(ids, skip_special != 0);
        give_text(&decoded.map_err(failing(Status::InvalidArgument))?, text, size);
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn shoal_decoder_open(
    tokenizer: *const Opened,
    skip_special: i32,
    decoder: *mut *mut Decoder,
    error: *mut *mut c_char,
) -> i32 {
    guard(error, || {
        let opened = Decoder::new((*tokenizer).tokenizer.clone(), skip_special != 0);
        *decoder = Box::into_raw(Box::new(opened));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn shoal_decoder_free(decoder: *mut Decoder) {
    if !decoder.is_null() {
        contain(|| drop(Box::from_raw(decoder)));
    }
}

#[no_mangle]
pub unsafe extern "C" fn shoal_decoder_push(
    decoder: *mut Decoder,
    token: i32,
    text: *mut *mut c_char,
    size: *mut usize,
    error: *mut *mut c_char,
) -> i32 {
    guard(error, || {
        let id = token_ids(&token, 1)?[0];
        let piece = (*decoder).push(id).map_err(failing(Status::InvalidArgument))?;
        give_text(&piece, text, size);
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn shoal_decoder_flush(
    decoder: *mut Decoder,
    text: *mut *mut c_char,
    size: *mut usize,
    error: *mut *mut c_char,
) -> i32 {
    guard(error, || {
        let rest = (*decoder).flush().map_err(failing(Status::InvalidArgument))?;
        give_text(&rest, text, size);
        Ok(())
    })
}
