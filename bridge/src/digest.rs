//! SHA-256; include/bridge/digest.h is the contract. Nothing here can fail or panic.

use crate::errors::View;
use ring::digest::{Context, SHA256};

pub struct Sha256(Context);

#[no_mangle]
pub extern "C" fn shoal_sha256_new() -> *mut Sha256 {
    Box::into_raw(Box::new(Sha256(Context::new(&SHA256))))
}

#[no_mangle]
pub unsafe extern "C" fn shoal_sha256_update(hash: *mut Sha256, bytes: View) {
    (*hash).0.update(bytes.bytes());
}

#[no_mangle]
pub unsafe extern "C" fn shoal_sha256_digest(hash: *const Sha256, digest: *mut u8) {
    let done = (*hash).0.clone().finish();
    std::ptr::copy_nonoverlapping(done.as_ref().as_ptr(), digest, done.as_ref().len());
}

#[no_mangle]
pub unsafe extern "C" fn shoal_sha256_free(hash: *mut Sha256) {
    if !hash.is_null() {
        drop(Box::from_raw(hash));
    }
}
