/* Chat templates: Jinja as Hugging Face transformers renders it.
 *
 * trim_blocks and lstrip_blocks are on; Python's string and dict methods, loop controls, `tojson` as json.dumps,
 * `raise_exception`, `strftime_now` and the {% generation %} mark are there; None, True and False print as in Python.
 * A template is hostile until proven otherwise: it runs on a thread of its own under the limits below, and running
 * over one is SHOAL_LIMIT. A template never changes after it was opened; threads may share it. */
#pragma once

#include "bridge/common.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct shoal_template shoal_template;

typedef struct shoal_template_limits {
  uint64_t fuel;         /* template instructions */
  uint64_t memory_bytes; /* held at once */
  uint64_t output_bytes; /* of the rendered text */
  uint64_t time_ms;      /* for what costs little fuel and much time */
} shoal_template_limits;

/* SHOAL_MALFORMED names the line. */
shoal_status shoal_template_open(shoal_view source, const shoal_template_limits* limits, shoal_template** parsed,
                                 char** error);
void shoal_template_free(shoal_template* parsed);

/* `variables` is a JSON object. `unix_seconds` is what strftime_now shows, in UTC. SHOAL_REFUSED carries the text of
 * raise_exception; other faults of the template with these variables are SHOAL_INVALID_ARGUMENT. *text is freed with
 * shoal_string_free. */
shoal_status shoal_template_render(const shoal_template* parsed, shoal_view variables, int64_t unix_seconds,
                                   char** text, size_t* size, char** error);

#ifdef __cplusplus
}
#endif
