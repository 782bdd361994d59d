/* SHA-256 (FIPS 180-4), with the processor's instructions for it where it has them. */
#pragma once

#include "bridge/common.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct shoal_sha256 shoal_sha256;

shoal_sha256* shoal_sha256_new(void);
void shoal_sha256_update(shoal_sha256* hash, shoal_view bytes);
/* Writes the digest of all bytes so far; the hash may go on. */
void shoal_sha256_digest(const shoal_sha256* hash, uint8_t digest[32]);
void shoal_sha256_free(shoal_sha256* hash); /* NULL is fine */

#ifdef __cplusplus
}
#endif
