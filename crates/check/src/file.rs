//! The trace of a real process as a file: a JSON object a line.
//!
//! A file is of one process of one node. Its first line is its [`Head`]; the others are events in the order of their numbers,
//! with nodes and groups by name. The last line says that the node stopped in good order, or why the trace ended before the node
//! did. A file without such a line is of a process that was killed, and its last line may be torn.
//!
//! [`Writer`] encodes, [`read`] takes the files of all nodes of a run together. Neither reads a clock or starts a thread.
//!
//! ```
//! use mainstay_base::trace::{Event, ProcessWord, What};
//! use mainstay_base::{BootId, BootNonce, ClusterId, Instant, NodeId};
//! use mainstay_check::file::{self, Head, Writer};
//!
//! let (home, cluster) = (tempfile::tempdir()?, ClusterId::from_entropy(1));
//! let head = Head::new(cluster, "a", ["a".to_owned()], ["g".to_owned()], 0);
//! let boot = BootId { node: NodeId::new(cluster, "a"), nonce: BootNonce(7) };
//! let started = Event { boot, number: 0, at: Instant::ZERO, what: What::Process(ProcessWord::Started) };
//!
//! let (_, file) = file::create(home.path(), "a")?;
//! let mut writer = Writer::new(file, &head, file::BYTES_MAX)?;
//! writer.event(&started)?;
//! writer.stopped()?;
//! writer.flush()?;
//!
//! let recorded = file::read(&[home.path().to_owned()])?;
//! assert_eq!(recorded.run.events(), [started]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod line;
mod read;
mod write;

pub use line::{Head, Names, VERSION};
pub use read::{ReadError, Recorded, read};
pub use write::{BYTES_MAX, Writer, create};
