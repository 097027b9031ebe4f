//! Panics that come out of the user's code.
//!
//! When Python code raises what PyO3 made of a panic (a `PanicException` of this extension), PyO3 resumes the
//! panic in the caller of the Python code. In a lane or a thread of ours it would end that: for a message's
//! handler it is an error like any other.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::panic::PanicException;
use pyo3::prelude::*;

/// Calls the user's code; a panic becomes the exception that it was.
pub(crate) fn catch_panic<T>(call: impl FnOnce() -> T) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| PanicException::new_err(text(&*payload)))
}

fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic in Rust code").to_owned()
}
