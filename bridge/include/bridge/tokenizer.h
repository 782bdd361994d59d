/* A Hugging Face tokenizer.json: text to token ids and back.
 *
 * A shoal_tokenizer never changes after it was opened; any number of threads may use it at once. A shoal_decoder is
 * one stream's state: one thread at a time; it keeps its tokenizer alive. Truncation and padding sections of the file
 * are ignored. Token ids are non-negative int32_t. */
#pragma once

#include "bridge/common.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct shoal_tokenizer shoal_tokenizer;
typedef struct shoal_decoder shoal_decoder;

/* `json` is the whole of tokenizer.json; SHOAL_MALFORMED, or SHOAL_LIMIT when an id is not below `max_ids`. */
shoal_status shoal_tokenizer_open(shoal_view json, uint32_t max_ids, shoal_tokenizer** tokenizer, char** error);
void shoal_tokenizer_free(shoal_tokenizer* tokenizer);

/* One more than the largest token id. */
size_t shoal_tokenizer_vocabulary_size(const shoal_tokenizer* tokenizer);
/* -1 when no token is spelled so; the spelling is the vocabulary's own, which for byte-level BPE is not plain text. */
int32_t shoal_tokenizer_find(const shoal_tokenizer* tokenizer, shoal_view token);
/* The token's spelling in the vocabulary; NULL when there is no such id. The caller frees it. */
char* shoal_tokenizer_token(const shoal_tokenizer* tokenizer, int32_t id, size_t* size);

/* Calls `each` for every added token, in order of ids. skip_special drops the special ones. A control token steers the
 * model: special ones, and ordinary ones that are written <|…|> or <｜…｜>. */
typedef void (*shoal_tokenizer_each)(void* context, int32_t id, int special, int control, shoal_view content);
void shoal_tokenizer_added(const shoal_tokenizer* tokenizer, shoal_tokenizer_each each, void* context);

/* Which control tokens written out in the text become the token: */
typedef int32_t shoal_special;
enum {
  SHOAL_SPECIAL_RECOGNISED = 0, /* all of them, as Hugging Face does */
  SHOAL_SPECIAL_AS_TEXT = 1,    /* none: "<|im_end|>" becomes the tokens of its letters */
  SHOAL_SPECIAL_UNCUT = 2       /* those that have no cut behind one of their characters */
};

/* `add_special` (0 or 1) lets the post-processor add its tokens, such as a leading bos. `cuts` are rising byte offsets
 * into `text`, read for SHOAL_SPECIAL_UNCUT only. Added tokens that are no control tokens are words of the
 * vocabulary and are recognised always. *tokens is freed with shoal_tokens_free. */
shoal_status shoal_tokenizer_encode(const shoal_tokenizer* tokenizer, shoal_view text, int add_special,
                                    shoal_special special, const size_t* cuts, size_t cut_count, int32_t** tokens,
                                    size_t* count, char** error);

/* Unknown ids are skipped; bytes that are not UTF-8 become U+FFFD. *text is freed with shoal_string_free. */
shoal_status shoal_tokenizer_decode(const shoal_tokenizer* tokenizer, const int32_t* tokens, size_t count,
                                    int skip_special, char** text, size_t* size, char** error);

/* Decoding token by token. The pieces are whole UTF-8 characters, and together they are the text that
 * shoal_tokenizer_decode gives for all tokens at once; so a piece is empty while later tokens may still change it. */
shoal_status shoal_decoder_open(const shoal_tokenizer* tokenizer, int skip_special, shoal_decoder** decoder,
                                char** error);
void shoal_decoder_free(shoal_decoder* decoder);
shoal_status shoal_decoder_push(shoal_decoder* decoder, int32_t token, char** text, size_t* size, char** error);
/* The rest, when no token follows. The decoder then starts afresh. */
shoal_status shoal_decoder_flush(shoal_decoder* decoder, char** text, size_t* size, char** error);

#ifdef __cplusplus
}
#endif
