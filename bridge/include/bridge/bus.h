/* The control plane's bus: keys with bytes, queries with replies, and liveliness, over Zenoh.
 *
 * Threads: every function may be called from any thread. Callbacks run on the session's receive threads, or on the
 *   calling thread when sender and receiver share a session; in order per sender and key, at the same time for
 *   different senders. A callback must not throw, must not block and must not call shoal_bus_close or
 *   shoal_bus_undeclare; shoal_bus_put, shoal_bus_get and shoal_bus_reply are allowed.
 * Ownership: `drop(context)` runs exactly once for every context handed over, after its last callback, on any thread,
 *   also when the call that took it fails (then before that call returns). `drop` may be NULL.
 * Keys are Zenoh key expressions: "shoal/home/node/1", with * for one chunk and ** for any number in subscriptions. */
#pragma once

#include "bridge/common.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct shoal_bus shoal_bus;
typedef struct shoal_bus_declaration shoal_bus_declaration; /* subscriber, queryable, token or watch */
typedef struct shoal_bus_query shoal_bus_query;

typedef int32_t shoal_bus_kind;
enum {
  SHOAL_BUS_PUT = 0,    /* a value; for a liveliness watch: the token appeared */
  SHOAL_BUS_DELETE = 1, /* a watched token vanished */
  SHOAL_BUS_ERROR = 2   /* an error reply to shoal_bus_get; the payload says why, the key is empty */
};

/* Flags of shoal_bus_put. By default a put is batched with others for some microseconds, and when a receiver is slow
 * it waits (up to Zenoh's own limit) rather than losing the value. */
enum {
  SHOAL_BUS_EXPRESS = 1,  /* leave at once */
  SHOAL_BUS_DROPPABLE = 2 /* when a link is congested, lose the value instead of waiting */
};

typedef void (*shoal_bus_on_sample)(void* context, shoal_bus_kind kind, shoal_view key, shoal_view payload);
/* The callee owns `query` and ends it with shoal_bus_query_free, at once or later. */
typedef void (*shoal_bus_on_query)(void* context, shoal_bus_query* query, shoal_view key, shoal_view payload);
typedef void (*shoal_bus_drop)(void* context);

/* Opens a session with a Zenoh configuration in JSON5 ("" or "{}" for the defaults). Blocks for the configured
 * scouting delay at most. SHOAL_MALFORMED for the configuration, SHOAL_NETWORK for what the system refuses. */
shoal_status shoal_bus_open(shoal_view config_json5, shoal_bus** bus, char** error);
/* Waits until no callback of this session runs any more, then frees it. Declarations that are still held become inert
 * and are yet to be freed with shoal_bus_undeclare. */
void shoal_bus_close(shoal_bus* bus);

/* The session's id: up to 32 hexadecimal digits and a NUL. */
void shoal_bus_id(const shoal_bus* bus, char id[33]);
/* How many peers are connected now. */
size_t shoal_bus_peer_count(const shoal_bus* bus);

shoal_status shoal_bus_put(const shoal_bus* bus, shoal_view key, shoal_view payload, uint32_t flags, char** error);

shoal_status shoal_bus_subscribe(const shoal_bus* bus, shoal_view key, shoal_bus_on_sample on_sample, void* context,
                                 shoal_bus_drop drop, shoal_bus_declaration** declaration, char** error);

/* Answers queries for keys that match `key`. `complete` (0 or 1) declares that it holds every value under `key`. */
shoal_status shoal_bus_queryable(const shoal_bus* bus, shoal_view key, int complete, shoal_bus_on_query on_query,
                                 void* context, shoal_bus_drop drop, shoal_bus_declaration** declaration,
                                 char** error);
/* Any number of replies from any thread until the query is freed. `key` must lie within the query's key. */
shoal_status shoal_bus_reply(const shoal_bus_query* query, shoal_view key, shoal_view payload, char** error);
shoal_status shoal_bus_reply_error(const shoal_bus_query* query, shoal_view payload, char** error);
/* Ends the stream of replies. */
void shoal_bus_query_free(shoal_bus_query* query);

/* Asks every matching queryable (`all` = 1) or the nearest complete one (`all` = 0). Returns at once; `on_reply` runs
 * per reply and `on_done(context)`, which is this context's drop, after the last one or at the timeout. A queryable
 * that is silent until the timeout shows as one SHOAL_BUS_ERROR reply ("Timeout"). */
shoal_status shoal_bus_get(const shoal_bus* bus, shoal_view key, shoal_view payload, uint32_t timeout_ms, int all,
                           shoal_bus_on_sample on_reply, void* context, shoal_bus_drop on_done, char** error);

/* `key` is alive until this is undeclared, the session closes, or the process or its links are lost. */
shoal_status shoal_bus_token(const shoal_bus* bus, shoal_view key, shoal_bus_declaration** declaration, char** error);
/* Reports tokens that appear and vanish under `key`; with `history` = 1 first those that are alive already. */
shoal_status shoal_bus_watch(const shoal_bus* bus, shoal_view key, int history, shoal_bus_on_sample on_change,
                             void* context, shoal_bus_drop drop, shoal_bus_declaration** declaration, char** error);

/* Ends a declaration: waits until none of its callbacks runs, then frees it. */
void shoal_bus_undeclare(shoal_bus_declaration* declaration);

#ifdef __cplusplus
}
#endif
