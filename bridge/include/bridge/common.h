/* What every part of the bridge shares: borrowed views, status codes and strings that the caller frees.
 *
 * Rules of the whole interface:
 * - A shoal_view argument is borrowed for the call; a view given to a callback lives until the callback returns.
 * - 0 is success. Any other status comes with one line of text in *error, owned by the caller (shoal_string_free).
 *   `error` itself may be NULL when the text is of no use. On success *error is left alone.
 * - Handles are freed once, by the function that their section names; freeing NULL does nothing.
 * - A Rust panic never crosses: it becomes SHOAL_PANIC. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes somewhere else; text is UTF-8, without a terminating NUL. data may be NULL when size is 0. */
typedef struct shoal_view {
  const char* data;
  size_t size;
} shoal_view;

/* An int32_t on both sides, so that an unknown value is never undefined behaviour. */
typedef int32_t shoal_status;
enum {
  SHOAL_OK = 0,
  SHOAL_INVALID_ARGUMENT = 1, /* a call that makes no sense: a bad key, bytes that are not UTF-8, an unknown id */
  SHOAL_MALFORMED = 2,        /* a file that breaks its format: tokenizer.json, a chat template, a configuration */
  SHOAL_LIMIT = 3,            /* fuel, output size, recursion or regular-expression effort used up */
  SHOAL_CLOSED = 4,           /* the bus session is gone */
  SHOAL_NETWORK = 5,          /* the operating system refused: an address in use, no such interface */
  SHOAL_REFUSED = 6,          /* the template itself refused the messages: raise_exception(text) */
  SHOAL_PANIC = 7             /* a fault inside the bridge that was contained */
};

void shoal_string_free(char* text);
void shoal_tokens_free(int32_t* tokens);

#ifdef __cplusplus
}
#endif
