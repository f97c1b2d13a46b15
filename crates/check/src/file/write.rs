//! Writing the trace of a process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mainstay_base::trace::Event;

use super::line::{Head, Line, Names};

/// The usual bound of a file, in bytes.
pub const BYTES_MAX: u64 = 256 << 20;
/// What is encoded is written when it has so many bytes, or when it is flushed.
const WRITE_BYTES: usize = 256 << 10;
/// Most processes of one node in a directory.
const FILES_MAX: u32 = 10_000;

/// Makes the directory if it is missing, and in it the first `NODE-NUMBER.jsonl` that is not there.
///
/// # Errors
/// The directory or the file cannot be made, the name of the node cannot be a part of a file's name, or ten thousand
/// files of the node are there.
pub fn create(directory: &Path, node: &str) -> io::Result<(PathBuf, File)> {
    if Path::new(node).file_name().is_none_or(|name| name != node) {
        let text = format!("node {node:?} cannot be a part of a file's name");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    fs::create_dir_all(directory)?;
    for number in 1..=FILES_MAX {
        let path = directory.join(format!("{node}-{number}.jsonl"));
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return Ok((path, opened?)),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{FILES_MAX} traces of {node}")))
}

/// Encodes the trace of one process, and writes whole lines, many at a time.
///
/// After an error only [`truncated`](Self::truncated) makes sense.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    names: Names,
    /// Bytes that may still be written, beside a last line.
    left: u64,
    /// Whole lines.
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes the head at once; all lines but that of [`truncated`](Self::truncated) have `bytes_max` bytes together.
    ///
    /// # Errors
    /// `InvalidInput` if something is wrong with the head, `StorageFull` if it is too long, and what writing fails with.
    pub fn new(to: W, head: &Head, bytes_max: u64) -> io::Result<Self> {
        let names =
            Names::of(head).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let mut writer = Self { to, names, left: bytes_max, buffer: Vec::new() };
        writer.put(&Line::Trace(head.clone()))?;
        writer.flush()?;
        Ok(writer)
    }

    /// The next event of the process.
    ///
    /// # Errors
    /// `InvalidInput` if it is about a node or a group that the head does not name, `StorageFull` if the file has all the bytes
    /// it may have, and what writing fails with.
    pub fn event(&mut self, event: &Event) -> io::Result<()> {
        let line = self.names.line(event).ok_or_else(|| {
            let text = "an event is about a node without a name";
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        self.put(&line)?;
        if self.buffer.len() > WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    /// The last line: the node stopped in good order, and all is there.
    ///
    /// # Errors
    /// As [`event`](Self::event).
    pub fn stopped(&mut self) -> io::Result<()> {
        self.put(&Line::Stopped {})
    }

    /// The last line: the node runs on, but its trace does not. The bound of the file does not hold for it.
    ///
    /// # Errors
    /// What writing fails with; then the end is torn, and says as much.
    pub fn truncated(&mut self, why: &str) -> io::Result<()> {
        self.left = u64::MAX;
        self.put(&Line::Truncated { why: why.to_owned() })
    }

    /// One write of all that is encoded.
    ///
    /// # Errors
    /// What writing fails with; what was to be written is dropped.
    pub fn flush(&mut self) -> io::Result<()> {
        let written = self.to.write_all(&self.buffer);
        self.buffer.clear();
        written
    }

    fn put(&mut self, line: &Line) -> io::Result<()> {
        let before = self.buffer.len();
        serde_json::to_writer(&mut self.buffer, line)?;
        self.buffer.push(b'\n');
        let length = (self.buffer.len() - before) as u64;
        match self.left.checked_sub(length) {
            Some(left) => self.left = left,
            None => {
                self.buffer.truncate(before);
                return Err(io::Error::new(io::ErrorKind::StorageFull, "the file is full"));
            }
        }
        Ok(())
    }
}
