//! C interface to the Rust libraries that shoal uses. The contracts are in include/bridge/*.h; nothing here is called
//! from Rust. Pointers are trusted (our own C++ makes them), bytes behind them are not.
#![allow(clippy::missing_safety_doc, clippy::too_many_arguments)]

mod bus;
mod confined;
mod decoder;
mod digest;
mod errors;
mod filters;
mod growth;
mod json;
mod python;
mod python_strings;
mod special;
mod strftime;
mod template;
mod tokenizer;
