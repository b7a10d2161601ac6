//! A session against a front in the same process, with fakes that do only what they are told.

mod bench;
mod hostile;
mod indirect;
mod order;
mod service;
