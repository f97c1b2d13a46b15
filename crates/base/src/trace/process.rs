//! What a process says of itself.

use serde::{Deserialize, Serialize};

/// What happened to the process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum ProcessWord {
    /// It began to run.
    Started,
    /// It stopped for ever; nothing of this boot follows.
    Crashed,
}
