//! Finding added tokens in text when some of them must stay text.
//!
//! The tokenizers library recognises special tokens everywhere or nowhere. A chat needs both at once: those that the
//! template wrote are control tokens, the same letters in a user's message are not. This follows the library's
//! `AddedVocabulary::extract_and_normalize` step by step and adds one rule: a special token with a cut behind one of
//! its characters is skipped.

use daachorse::{DoubleArrayAhoCorasick, DoubleArrayAhoCorasickBuilder, MatchKind};
use tokenizers::tokenizer::normalizer::Range;
use tokenizers::tokenizer::pre_tokenizer::PreTokenizedString;
use tokenizers::{AddedToken, NormalizedString, Normalizer, NormalizerWrapper, Token, Tokenizer};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Automaton = Option<DoubleArrayAhoCorasick<u32>>;

/// Where a special token may not lie across.
#[derive(Clone, Copy)]
pub enum Cuts<'a> {
    Everywhere,
    At(&'a [usize]), // rising byte offsets
}

/// Tokens that steer the model: special ones, and ordinary ones that are written like them. Some families call the
/// marks of their turns and tools ordinary, which changes what decoding leaves out, not what users may write.
pub fn is_control(token: &AddedToken) -> bool {
    let written_as = |opening, closing| token.content.starts_with(opening) && token.content.ends_with(closing);
    token.special || written_as("<|", "|>") || written_as("<｜", "｜>")
}

pub struct AddedTokens {
    tokens: std::collections::HashMap<u32, AddedToken>,
    verbatim: Automaton,   // matched against the text as it is
    normalized: Automaton, // matched against the normalized text
}

impl AddedTokens {
    pub fn of(tokenizer: &Tokenizer) -> Result<Self, Error> {
        let mut verbatim: Vec<(String, u32)> = vec![];
        let mut normalized: Vec<(String, u32)> = vec![];
        let mut tokens = std::collections::HashMap::new();
        for (&id, token) in tokenizer.get_added_tokens_decoder().iter() {
            if token.normalized {
                let mut content = NormalizedString::from(token.content.as_str());
                if let Some(normalizer) = tokenizer.get_normalizer() {
                    normalizer.normalize(&mut content)?;
                }
                normalized.push((content.get().to_string(), id));
            } else {
                verbatim.push((token.content.clone(), id));
            }
            tokens.insert(id, token.clone());
        }
        Ok(AddedTokens {
            tokens,
            verbatim: automaton(verbatim)?,
            normalized: automaton(normalized)?,
        })
    }

    /// Is `spelling` how the control token `id` is written?
    pub fn is_control_spelled(&self, id: u32, spelling: &str) -> bool {
        let token = self.tokens.get(&id);
        token.is_some_and(|token| is_control(token) && token.content == spelling)
    }

    /// Normalizes `text` and splits it at the added tokens.
    pub fn extract(
        &self,
        normalizer: Option<&NormalizerWrapper>,
        text: &str,
        cuts: Cuts,
    ) -> Result<PreTokenizedString, Error> {
        let mut pieces: PreTokenizedString = text.into();
        pieces.split(|_, piece| Ok(self.split(piece, &self.verbatim, cuts)))?;
        pieces.split(|_, mut piece| {
            if let Some(normalizer) = normalizer {
                normalizer.normalize(&mut piece)?;
            }
            Ok(self.split(piece, &self.normalized, cuts))
        })?;
        Ok(pieces)
    }

    fn split(
        &self,
        piece: NormalizedString,
        automaton: &Automaton,
        cuts: Cuts,
    ) -> Vec<(NormalizedString, Option<Vec<Token>>)> {
        let text = piece.get();
        let mut parts = vec![];
        let mut done = 0; // bytes of `text` that are in `parts`
        let mut take = |from: usize, to: usize, id: Option<u32>| {
            if let Some(slice) = piece.slice(Range::Normalized(from..to)) {
                let token = id.map(|id| vec![Token::new(id, slice.get().to_owned(), (0, to - from))]);
                parts.push((slice, token));
            }
        };
        for found in automaton
            .iter()
            .flat_map(|automaton| automaton.leftmost_find_iter(text))
        {
            let token = &self.tokens[&found.value()];
            let (mut start, mut end) = (found.start(), found.end());
            if is_control(token) && is_cut(&piece, start, end, cuts) {
                continue;
            }
            if token.single_word && (ends_with_word(&text[..start]) || starts_with_word(&text[end..])) {
                continue;
            }
            if token.lstrip {
                start = text[..start].trim_end().len().max(done);
            }
            if token.rstrip {
                end = text.len() - text[end..].trim_start().len();
            }
            if done < start {
                take(done, start, None);
            }
            take(start, end, Some(found.value()));
            done = end;
        }
        if done < text.len() {
            take(done, text.len(), None);
        }
        parts
    }
}

fn automaton(patterns: Vec<(String, u32)>) -> Result<Automaton, Error> {
    let patterns: Vec<_> = patterns
        .into_iter()
        .filter(|(content, _)| !content.is_empty())
        .collect();
    if patterns.is_empty() {
        return Ok(None);
    }
    let builder = DoubleArrayAhoCorasickBuilder::new().match_kind(MatchKind::LeftmostLongest);
    Ok(Some(
        builder.build_with_values(patterns).map_err(|error| error.to_string())?,
    ))
}

/// Is there a cut behind one of the characters that became `start..end` of the piece?
fn is_cut(piece: &NormalizedString, start: usize, end: usize, cuts: Cuts) -> bool {
    let Cuts::At(offsets) = cuts else {
        return true;
    };
    let shift = piece.offsets_original().0;
    let Some(original) = piece.convert_offsets(Range::Normalized(start..end)) else {
        return true; // made by the normalizer alone: not written by anybody
    };
    let first = offsets.partition_point(|&cut| cut <= shift + original.start);
    offsets.get(first).is_some_and(|&cut| cut <= shift + original.end)
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn ends_with_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(is_word)
}

fn starts_with_word(text: &str) -> bool {
    text.chars().next().is_some_and(is_word)
}
