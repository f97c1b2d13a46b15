//! Parsing replies, for clients.

use bytes::{Buf as _, Bytes, BytesMut};
use thiserror::Error;

use super::{NumberLine, number_line};
use crate::state::REPLY_BYTES_MAX;

/// Longest status or error line, in bytes (64 KiB).
const LINE_BYTES_MAX: usize = 64 << 10;
/// Deepest nesting of arrays.
const DEPTH_MAX: usize = 8;
/// Most elements of one array.
const ELEMENTS_MAX: usize = 1 << 20;

/// What a server answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// A status.
    Simple(String),
    /// An error: code, blank, text.
    Error(String),
    /// A number.
    Integer(i64),
    /// A string of bytes; `None`: there is none.
    Bulk(Option<Bytes>),
    /// An array; `None`: there is none.
    Array(Option<Vec<Self>>),
}

/// Why bytes are not replies. Nothing more can be read: close the connection; the fate of what is unanswered is
/// unknown.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplyError {
    /// A reply begins with another byte than `+ - : $ *`.
    #[error("no reply begins with byte {0:#04x}")]
    Kind(u8),
    /// A length or a number does not read.
    #[error("not a number")]
    Number,
    /// A bulk is longer than it says, or a line is not UTF-8.
    #[error("a reply does not end as it says")]
    End,
    /// A bulk, line, array or nesting is larger than is taken.
    #[error("a reply is too large")]
    TooLarge,
}

/// Makes replies of bytes, cut anywhere.
#[derive(Debug, Default)]
pub struct ReplyParser {
    buffer: BytesMut,
    /// Open arrays, outermost first: how many elements are to come, and those that came.
    open: Vec<(usize, Vec<Reply>)>,
    /// How far no end of a status line was found.
    scanned: usize,
    failed: Option<ReplyError>,
}

impl ReplyParser {
    /// A parser that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends what came from the server.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next whole reply; `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`ReplyError`], and the same one ever after.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, ReplyError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = self.parse();
        self.failed = result.as_ref().err().copied();
        result
    }

    fn parse(&mut self) -> Result<Option<Reply>, ReplyError> {
        loop {
            let Some(mut reply) = self.element()? else { return Ok(None) };
            // A reply that completes an array may complete the array around it too.
            loop {
                let Some((left, elements)) = self.open.last_mut() else { return Ok(Some(reply)) };
                if *left > 0 {
                    elements.push(reply);
                    *left -= 1;
                }
                if *left > 0 {
                    break;
                }
                let (_, elements) = self.open.pop().expect("an array is open here");
                reply = Reply::Array(Some(elements));
            }
        }
    }

    /// Reads one element that has none inside; opens arrays on the way.
    fn element(&mut self) -> Result<Option<Reply>, ReplyError> {
        loop {
            let Some(kind) = self.buffer.first().copied() else { return Ok(None) };
            if matches!(kind, b'+' | b'-') {
                return self.line(kind);
            }
            if !matches!(kind, b':' | b'$' | b'*') {
                return Err(ReplyError::Kind(kind));
            }
            let (number, size) = match number_line(&self.buffer) {
                NumberLine::Partial => return Ok(None),
                NumberLine::Bad => return Err(ReplyError::Number),
                NumberLine::Whole(number, size) => (number, size),
            };
            match (kind, number) {
                (b'$', 0..) => return self.bulk(size, number),
                (b'*', 1..) => self.open_array(number)?,
                (b'$' | b'*', ..=-2) => return Err(ReplyError::Number),
                _ => {}
            }
            self.buffer.advance(size);
            match (kind, number) {
                (b':', _) => return Ok(Some(Reply::Integer(number))),
                (b'$', _) => return Ok(Some(Reply::Bulk(None))),
                (_, ..0) => return Ok(Some(Reply::Array(None))),
                (_, 0) => return Ok(Some(Reply::Array(Some(Vec::new())))),
                _ => {}
            }
        }
    }

    fn open_array(&mut self, count: i64) -> Result<(), ReplyError> {
        let count = usize::try_from(count).map_err(|_| ReplyError::Number)?;
        if count > ELEMENTS_MAX || self.open.len() == DEPTH_MAX {
            return Err(ReplyError::TooLarge);
        }
        self.open.push((count, Vec::new()));
        Ok(())
    }

    fn bulk(&mut self, size: usize, length: i64) -> Result<Option<Reply>, ReplyError> {
        let length = usize::try_from(length).map_err(|_| ReplyError::Number)?;
        if length > REPLY_BYTES_MAX {
            return Err(ReplyError::TooLarge);
        }
        match self.buffer.get(size + length..size + length + 2) {
            None => Ok(None),
            Some(b"\r\n") => {
                self.buffer.advance(size);
                let bytes = self.buffer.split_to(length).freeze();
                self.buffer.advance(2);
                Ok(Some(Reply::Bulk(Some(bytes))))
            }
            Some(_) => Err(ReplyError::End),
        }
    }

    fn line(&mut self, kind: u8) -> Result<Option<Reply>, ReplyError> {
        let end = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n');
        let size = end.map_or(self.buffer.len(), |end| self.scanned + end + 1);
        if size > LINE_BYTES_MAX {
            return Err(ReplyError::TooLarge);
        }
        if end.is_none() {
            self.scanned = size;
            return Ok(None);
        }
        self.scanned = 0;
        let line = self.buffer.split_to(size);
        let text = line[1..].strip_suffix(b"\r\n").ok_or(ReplyError::End)?;
        let text = String::from_utf8(text.to_vec()).map_err(|_| ReplyError::End)?;
        Ok(Some(if kind == b'+' { Reply::Simple(text) } else { Reply::Error(text) }))
    }
}
