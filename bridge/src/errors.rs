//! What every part shares: views, statuses, strings for the caller, and the wall that no panic passes.

use std::ffi::{c_char, c_void};
use std::panic::{catch_unwind, AssertUnwindSafe};

/// `shoal_view`: bytes borrowed from the caller for one call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct View {
    data: *const u8,
    size: usize,
}

/// `shoal_status`, one variant per constant of common.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    InvalidArgument = 1,
    Malformed = 2,
    Limit = 3,
    Closed = 4,
    Network = 5,
    Refused = 6,
    Panic = 7,
}

pub struct Failure {
    pub status: Status,
    pub text: String,
}

pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub fn new(status: Status, text: impl std::fmt::Display) -> Self {
        Failure {
            status,
            text: text.to_string(),
        }
    }
}

/// For `map_err`: wraps any error's text.
pub fn failing<E: std::fmt::Display>(status: Status) -> impl Fn(E) -> Failure {
    move |error| Failure::new(status, error)
}

impl View {
    /// # Safety
    /// `data` must point to `size` readable bytes that outlive `'a` (the contract of shoal_view).
    pub unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.size == 0 {
            return &[];
        }
        std::slice::from_raw_parts(self.data, self.size)
    }

    /// # Safety
    /// As for `bytes`.
    pub unsafe fn text<'a>(self, what: &str) -> Outcome<&'a str> {
        std::str::from_utf8(self.bytes())
            .map_err(|error| Failure::new(Status::InvalidArgument, format!("{what} is not UTF-8: {error}")))
    }
}

impl From<&[u8]> for View {
    fn from(bytes: &[u8]) -> View {
        View {
            data: bytes.as_ptr(),
            size: bytes.len(),
        }
    }
}

impl From<&str> for View {
    fn from(text: &str) -> View {
        text.as_bytes().into()
    }
}

// The C library's allocator: what is freed by a plain pointer needs no size that way.
extern "C" {
    fn malloc(size: usize) -> *mut c_void;
    fn free(pointer: *mut c_void);
}

/// A NUL-terminated copy for the caller; NULL when memory is out.
pub fn caller_string(text: &[u8]) -> *mut c_char {
    unsafe {
        let copy = malloc(text.len() + 1) as *mut u8;
        if !copy.is_null() {
            std::ptr::copy_nonoverlapping(text.as_ptr(), copy, text.len());
            *copy.add(text.len()) = 0;
        }
        copy as *mut c_char
    }
}

/// A copy of token ids for the caller; never NULL for an empty slice.
pub fn caller_tokens(tokens: &[u32]) -> *mut i32 {
    unsafe {
        let copy = malloc(std::mem::size_of_val(tokens).max(1)) as *mut i32;
        if !copy.is_null() {
            std::ptr::copy_nonoverlapping(tokens.as_ptr() as *const i32, copy, tokens.len());
        }
        copy
    }
}

/// Runs `body`; turns a failure into its status and text, and a panic into `Status::Panic`.
///
/// # Safety
/// `error` is NULL or writable.
pub unsafe fn guard(error: *mut *mut c_char, body: impl FnOnce() -> Outcome<()>) -> i32 {
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return 0,
        Ok(Err(failure)) => failure,
        Err(panic) => Failure::new(Status::Panic, format!("contained fault: {}", panic_text(&*panic))),
    };
    if !error.is_null() {
        let line = failure.text.replace(['\0', '\n', '\r'], " ");
        *error = caller_string(line.as_bytes());
    }
    failure.status as i32
}

/// For functions that have no way to report: whatever goes wrong stays inside.
pub fn contain(body: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(body));
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<String>() {
        return text.clone();
    }
    panic.downcast_ref::<&str>().unwrap_or(&"unknown").to_string()
}

#[no_mangle]
pub unsafe extern "C" fn shoal_string_free(text: *mut c_char) {
    free(text as *mut c_void);
}

#[no_mangle]
pub unsafe extern "C" fn shoal_tokens_free(tokens: *mut i32) {
    free(tokens as *mut c_void);
}
