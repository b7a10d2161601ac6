//! What the pair costs, beside others and against models.
//!
//! A benchmark reports and never judges: nothing here fails because something was slow.
#![forbid(unsafe_code)]

pub mod fairness;
pub mod native;
mod quantiles;
pub mod queueing;
mod report;

pub use report::{json, plot, table};
