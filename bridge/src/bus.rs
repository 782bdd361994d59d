//! bus.h over Zenoh. Every function is a thin call; the order of destruction is what needs care.

use crate::errors::{contain, guard, Failure, Outcome, Status, View};
use std::ffi::{c_char, c_void};
use std::time::Duration;
use zenoh::key_expr::KeyExpr;
use zenoh::liveliness::LivelinessToken;
use zenoh::pubsub::Subscriber;
use zenoh::qos::CongestionControl;
use zenoh::query::{ConsolidationMode, Query, QueryTarget, Queryable};
use zenoh::sample::{Sample, SampleKind};
use zenoh::{Session, Wait};

const KIND_PUT: i32 = 0;
const KIND_DELETE: i32 = 1;
const KIND_ERROR: i32 = 2;
const FLAG_EXPRESS: u32 = 1;
const FLAG_DROPPABLE: u32 = 2;

pub struct Bus(Session);

pub enum Declaration {
    Subscriber(Subscriber<()>),
    Queryable(Queryable<()>),
    Token(LivelinessToken),
}

type OnSample = extern "C" fn(*mut c_void, i32, View, View);
type OnQuery = extern "C" fn(*mut c_void, *mut Query, View, View);
type OnDrop = Option<extern "C" fn(*mut c_void)>;

/// The caller's context. It lives in the callback's closure, so Zenoh's dropping of the closure is what runs `drop`
/// exactly once, after the last callback.
struct Context {
    pointer: *mut c_void,
    drop: OnDrop,
}

// The contract of bus.h: callbacks and `drop` may run on any thread.
unsafe impl Send for Context {}
unsafe impl Sync for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        if let Some(drop) = self.drop {
            drop(self.pointer)
        }
    }
}

impl Context {
    fn deliver(&self, callback: OnSample, sample: &Sample) {
        let kind = match sample.kind() {
            SampleKind::Put => KIND_PUT,
            SampleKind::Delete => KIND_DELETE,
        };
        let payload = sample.payload().to_bytes();
        callback(
            self.pointer,
            kind,
            sample.key_expr().as_str().into(),
            payload[..].into(),
        );
    }
}

unsafe fn key_expression(key: View) -> Outcome<KeyExpr<'static>> {
    let key = key.text("key")?;
    KeyExpr::try_from(key.to_string())
        .map_err(|error| Failure::new(Status::InvalidArgument, format!("key '{key}': {}", plain_text(error))))
}

/// Zenoh ends its errors with " at <source path>.rs:<line>": nothing that a user can act on.
fn plain_text(error: impl std::fmt::Display) -> String {
    let text = error.to_string();
    let is_place = |part: &str| part.split_whitespace().next().is_some_and(|word| word.contains(".rs:"));
    let mut plain = String::new();
    for (index, part) in text.split(" at ").enumerate() {
        if index == 0 {
            plain.push_str(part);
        } else if is_place(part) {
            let end = part.find(char::is_whitespace).unwrap_or(part.len());
            plain.push_str(&part[end..]);
            plain.push_str(if part[..end].ends_with("].") { "]" } else { "" });
        } else {
            plain.push_str(" at ");
            plain.push_str(part);
        }
    }
    plain
}

/// What Zenoh refuses after the arguments were checked: the session is closed.
fn closed<E: std::fmt::Display>(error: E) -> Failure {
    Failure::new(Status::Closed, plain_text(error))
}

unsafe fn hand_over(declaration: Declaration, out: *mut *mut Declaration) {
    *out = Box::into_raw(Box::new(declaration));
}

#[no_mangle]
pub unsafe extern "C" fn shoal_bus_open(config: View, bus: *mut *mut Bus, error: *mut *mut c_char) -> i32 {
    guard(error, || {
        let text = config.text("bus configuration")?;
        let text = if text.trim().is_empty() { "{}" } else { text };
        let config = zenoh::Config::from_json5(text)
            .map_err(|error| Failure::new(Status::Malformed, format!("bus configuration: {}", plain_text(error))))?;
        let session = zenoh::open(config)
            .wait()
            .map_err(|error| Failure::new(Status::Network, plain_text(error)))?;
        *bus = Box::into_raw(Box::new(Bus(session)));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn shoal_bus_close(bus: *mut Bus) {
    if bus.is_null() {
        return;
    }
    contain(|| {
        let bus = Box::from_raw(bus);
        let _ = bus.0.close().wait_callbacks().wait();
    });
}

#[no_mangle]
pub unsafe extern "C" fn shoal_bus_id(bus: *const Bus, id: *mut c_char) {
    *id = 0;
    contain(|| {
        let text = (*bus).0.zid().to_string();
        let length = text.len().min(32);
        std::ptr::copy_nonoverlapping(text.as_ptr() as *const c_char, id, length);
        *id.add(length) = 0;
    });
}

#[no_mangle]
pub unsafe extern "C" fn shoal_bus_peer_count(bus: *const Bus) -> usize {
    let mut count = 0;
    contain(|| count = (*bus).0.info().peers_zid().wait().count());
    count
}

#[no_mangle]
pub unsafe extern "C" fn shoal_bus_put(
    bus: *const Bus,
    key: View,
    payload: View,
    flags: u32,
    error: *mut *mut c_char,
) -> i32 {
    guard(error, || {
        let congestion = match flags & FLAG_DROPPABLE {
            0 => CongestionControl::Block,
            _ => CongestionControl::Drop,
        };
        let put = (*bus).0.put(key_expression(key)?, payload.bytes().to_vec());
        let put = put.congestion_control(congestion).express(flags & FLAG_EXPRESS != 0);
        put.wait().map_err(closed)
    })
}

#[no_mangle]
pub unsafe extern "C" fn shoal_bus_subscribe(
    bus: *const Bus,
    key: View,
    on_sample: OnSample,
    context: *mut c_void,
    drop: OnDrop,
    declaration: *mut *mut Declaration,
    error: *mut *mut c_char,
) -> i32 {
    let context = Context { pointer: context, drop };
    guard(error, move || {
        let builder = (*bus).0.declare_subscriber(key_expression(key)?);
        let callback = move |sample: Sample| context.deliver(on_sample, &sample);
        let subscriber = builder.callback(callback).wait().map_err(closed)?;
        hand_over(Declaration::Subscriber(subscriber), declaration);
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn shoal_bus_queryable(
    bus: *const Bus,
    key: View,
    complete: i32,
    on_query: OnQuery,
    context: *mut c_void,
    drop: OnDrop,
    declaration: *mut *mut Declaration,
    error: *mut *mut c_char,
) -> i32 {
    let context = Context { pointer: context, drop };
    guard(error, move || {
        let builder = (*bus).0.declare_queryable(key_expression(key)?);
        let callback = move |query: Query| {
            let context = &context;
            let key = query.key_expr().clone().into_owned();
            let payload = query.payload().map(|payload| payload.to_bytes().into_owned());
            let payload = payload.unwrap_or_default();
            let query = Box::into_raw(Box::new(query));
            on_query(context.pointer, query, key.as_str().into(), payload[..].into());
        };
        let builder = builder.complete(complete != 0).callback(callback);
        let queryable = builder.wait().map_err(closed)?;
        hand_over(Declaration::Queryable(queryable), declaration);
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn shoal_bus_reply(
    query: *const Query,
    key: View,
    payload: View,
    error: *mut *mut c_char,
) -> i32 {
    guard(error, || {
        let key = key_expression(key)?;
        if !(*query).key_expr().intersects(&key) {
            let text = format!("reply key '{key}' is outside the query's '{}'", (*query).key_expr());
            return Err(Failure::new(Status::InvalidArgument, text));
        }
        let reply = (*query).reply(key, payload.bytes().to_vec());
        reply.wait().map_err(closed)
    })
}

#[no_mangle]
pub unsafe extern "C" fn shoal_bus_reply_error(query: *const Query, payload: View, error: *mut *mut c_char) -> i32 {
    guard(error, || {
        (*query).reply_err(payload.bytes().to_vec()).wait().map_err(closed)
    })
}

#[no_mangle]
pub unsafe extern "C" fn shoal_bus_query_free(query: *mut Query) {
    if !query.is_null() {
        contain(|| drop(Box::from_raw(query)));
    }
}

#[no_mangle]
pub unsafe extern "C" fn shoal_bus_get(
    bus: *const Bus,
    key: View,
    payload: View,
    timeout_ms: u32,
    all: i32,
    on_reply: OnSample,
    context: *mut c_void,
    on_done: OnDrop,
    error: *mut *mut c_char,
) -> i32 {
    let context = Context {
        pointer: context,
        drop: on_done,
    };
    guard(error, move || {
        let target = match all {
            0 => QueryTarget::BestMatching,
            _ => QueryTarget::All,
        };
        let get = (*bus).0.get(key_expression(key)?).payload(payload.bytes().to_vec());
        let get = get.timeout(Duration::from_millis(timeout_ms.into())).target(target);
        let get = get.consolidation(ConsolidationMode::None);
        let get = get.callback(move |reply| {
            let context = &context;
            match reply.result() {
                Ok(sample) => context.deliver(on_reply, sample),
                Err(refusal) => {
                    let payload = refusal.payload().to_bytes();
                    on_reply(context.pointer, KIND_ERROR, "".into(), payload[..].into());
                }
            }
        });
        get.wait().map_err(closed)
    })
}

#[no_mangle]
pub unsafe extern "C" fn shoal_bus_token(
    bus: *const Bus,
    key: View,
    declaration: *mut *mut Declaration,
    error: *mut *mut c_char,
) -> i32 {
    guard(error, || {
        let token = (*bus).0.liveliness().declare_token(key_expression(key)?);
        let token = token.wait().map_err(closed)?;
        hand_over(Declaration::Token(token), declaration);
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn shoal_bus_watch(
    bus: *const Bus,
    key: View,
    history: i32,
    on_change: OnSample,
    context: *mut c_void,
    drop: OnDrop,
    declaration: *mut *mut Declaration,
    error: *mut *mut c_char,
) -> i32 {
    let context = Context { pointer: context, drop };
    guard(error, move || {
        let builder = (*bus).0.liveliness().declare_subscriber(key_expression(key)?);
        let callback = move |sample: Sample| context.deliver(on_change, &sample);
        let builder = builder.history(history != 0).callback(callback);
        let subscriber = builder.wait().map_err(closed)?;
        hand_over(Declaration::Subscriber(subscriber), declaration);
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn shoal_bus_undeclare(declaration: *mut Declaration) {
    if declaration.is_null() {
        return;
    }
    // After the session has closed, undeclaring fails; nothing is left to wait for then.
    contain(|| {
        let _ = match *Box::from_raw(declaration) {
            Declaration::Subscriber(subscriber) => subscriber.undeclare().wait_callbacks().wait(),
            Declaration::Queryable(queryable) => queryable.undeclare().wait_callbacks().wait(),
            Declaration::Token(token) => token.undeclare().wait(),
        };
    });
}
