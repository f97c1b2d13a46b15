//! The trace that a node keeps of itself, written while it runs and read by `check`.
//!
//! The lines are described in `docs/program.md`; their format is that of `mainstay_check::file`.

mod file;

pub(crate) use file::TraceFile;
