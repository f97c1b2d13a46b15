//! The trace that a node keeps of itself: files of a JSON object a line, written while it runs and read by `check`.
//!
//! The lines are described in `docs/program.md`.

mod file;
mod line;
mod read;

pub(crate) use file::TraceFile;
pub(crate) use line::Head;
pub(crate) use read::{ReadError, Recorded, read};
