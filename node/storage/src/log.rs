//! The log: files of framed records, written by one thread and never trusted blindly when read.

pub(crate) mod file;
pub(crate) mod frame;
pub(crate) mod scan;
pub(crate) mod walk;
