//! Reading the traces of all nodes of a run.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use mainstay_base::{BootId, trace::Event};
use thiserror::Error;

use super::line::{Head, Line, Names, read_nonce};
use crate::run::{End, Run};

/// Longest line; those that are written have some hundred bytes.
const LINE_MAX: u64 = 1 << 20;
/// Most events of a run.
const EVENTS_MAX: usize = 1 << 24;

/// What was read.
#[non_exhaustive]
pub struct Recorded {
    /// The events, put together.
    pub run: Run,
    /// The names of what the events are about.
    pub names: Names,
    /// Configured nodes of which there is no trace.
    pub missing: Vec<String>,
    /// Traces that ended before their node did, and why.
    pub truncated: Vec<String>,
}

/// Why there is nothing to judge.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// The path is at fault.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// There is no trace.
    #[error("{}: no trace is there", .0.display())]
    Nothing(PathBuf),
    /// The files are of several clusters.
    #[error("{}: not of the cluster of the other traces", .0.display())]
    Foreign(PathBuf),
    /// There is too much.
    #[error("more than {EVENTS_MAX} events")]
    TooMany,
    /// A line is not one of a trace.
    #[error("{}:{line}: {why}", path.display())]
    Damaged {
        /// In which file.
        path: PathBuf,
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads files, and all files `*.jsonl` of directories. The last line of a file may be torn: then its process was killed. A line
/// has at most 1 MiB, a run at most 16 million events.
///
/// # Errors
/// [`ReadError`].
pub fn read(paths: &[PathBuf]) -> Result<Recorded, ReadError> {
    let mut whole: Option<(Head, Names)> = None;
    let mut run = Run::new();
    let (mut seen, mut truncated) = (BTreeSet::new(), Vec::new());
    for path in files(paths)? {
        let failed = |error| ReadError::Io { path: path.clone(), error };
        let mut lines = Lines::open(&path).map_err(failed)?;
        // Its process was killed before it had written anything.
        let Some(first) = lines.next()? else { continue };
        let Line::Trace(head) = first else { return Err(lines.damaged("not a trace")) };
        let names = Names::of(&head).map_err(|why| lines.damaged(why))?;
        let (common, names) = whole.get_or_insert_with(|| (head.clone(), names));
        let of_one = |head: &Head| Head { node: String::new(), began_ms: 0, ..head.clone() };
        if of_one(common) != of_one(&head) {
            return Err(ReadError::Foreign(path));
        }
        let why = read_process(&mut lines, names, &head, &mut run)?;
        truncated.extend(why.map(|why| format!("{}: {why}", path.display())));
        seen.insert(head.node);
    }
    let nothing = || ReadError::Nothing(paths.first().cloned().unwrap_or_default());
    let (_, names) = whole.ok_or_else(nothing)?;
    let missing = names.nodes().values().filter(|name| !seen.contains(*name)).cloned().collect();
    Ok(Recorded { run, names, missing, truncated })
}

/// The boots of one process; answers why its trace is cut short, if it says so.
fn read_process(
    lines: &mut Lines<'_>,
    names: &Names,
    head: &Head,
    run: &mut Run,
) -> Result<Option<String>, ReadError> {
    let node = names.node_id(&head.node).map_err(|why| lines.damaged(why))?;
    let mut boot: Option<BootId> = None;
    let mut events: Vec<Event> = Vec::new();
    let (mut end, mut why) = (End::Cut, None);
    while let Some(line) = lines.next()? {
        match &line {
            Line::Started { boot: nonce, .. } => {
                if boot.is_some() {
                    // It was declared dead, and its process started anew.
                    run.record(events.drain(..), End::Whole);
                }
                let nonce = read_nonce(nonce).map_err(|why| lines.damaged(why))?;
                boot = Some(BootId { node, nonce });
            }
            Line::Stopped {} => end = End::Whole,
            Line::Truncated { why: said } => why = Some(said.clone()),
            _ => {}
        }
        let Some(boot) = boot else {
            if matches!(line, Line::Stopped {} | Line::Truncated { .. }) {
                break;
            }
            return Err(lines.damaged("an event of no boot"));
        };
        match names.event(&line, boot).map_err(|why| lines.damaged(why))? {
            Some(event) => events.push(event),
            None if matches!(line, Line::Trace(_)) => return Err(lines.damaged("a second head")),
            None => break,
        }
        if run.events().len() + events.len() > EVENTS_MAX {
            return Err(ReadError::TooMany);
        }
    }
    if lines.next()?.is_some() {
        return Err(lines.damaged("something follows the end"));
    }
    run.record(events, end);
    Ok(why)
}

/// Files as they are, directories as what is in them, in the order of their names.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ReadError> {
    let mut files = Vec::new();
    for path in paths {
        let failed = |error| ReadError::Io { path: path.clone(), error };
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?.path();
            if entry.extension().is_some_and(|extension| extension == "jsonl") {
                inside.push(entry);
            }
        }
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

/// The lines of a file.
struct Lines<'a> {
    path: &'a Path,
    file: BufReader<File>,
    buffer: Vec<u8>,
    number: usize,
}

impl<'a> Lines<'a> {
    fn open(path: &'a Path) -> io::Result<Self> {
        let file = BufReader::with_capacity(1 << 16, File::open(path)?);
        Ok(Self { path, file, buffer: Vec::new(), number: 0 })
    }

    /// The next whole line.
    fn next(&mut self) -> Result<Option<Line>, ReadError> {
        self.buffer.clear();
        let limited = self.file.by_ref().take(LINE_MAX).read_until(b'\n', &mut self.buffer);
        let read = limited.map_err(|error| ReadError::Io { path: self.path.to_owned(), error })?;
        self.number += 1;
        if read as u64 == LINE_MAX {
            return Err(self.damaged("the line is too long"));
        }
        let Some(text) = self.buffer.strip_suffix(b"\n") else { return Ok(None) };
        serde_json::from_slice(text).map(Some).map_err(|error| self.damaged(error.to_string()))
    }

    fn damaged(&self, why: impl Into<String>) -> ReadError {
        let (path, line) = (self.path.to_owned(), self.number);
        ReadError::Damaged { path, line, why: why.into() }
    }
}
