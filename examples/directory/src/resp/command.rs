//! Parsing commands as they come, cut anywhere.

use bytes::{Buf as _, Bytes, BytesMut};
use thiserror::Error;

use super::{NUMBER_LINE_MAX, NumberLine, number_line};

/// Longest argument, in bytes (512 KiB).
pub const BULK_BYTES_MAX: usize = 512 << 10;
/// Most arguments of one command, its name included (65,536).
pub const ARGUMENTS_MAX: usize = 64 << 10;
/// Longest inline command, in bytes (64 KiB).
pub const INLINE_BYTES_MAX: usize = 64 << 10;
/// Longest command as sent, in bytes: a written one fits in a message of the group, which is at most 1 MiB.
pub const COMMAND_BYTES_MAX: usize = (1 << 20) - (4 << 10);

/// Why bytes are not commands. The connection is of no use from here on: tell the client and close.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The count of arguments is not a number or is more than [`ARGUMENTS_MAX`].
    #[error("invalid multibulk length")]
    Count,
    /// The length of an argument is not a number, is negative, or is more than [`BULK_BYTES_MAX`].
    #[error("invalid bulk length")]
    Length,
    /// Another byte stands where an argument begins.
    #[error("expected '$', got '{}'", .0.escape_ascii())]
    Dollar(u8),
    /// An argument is longer than it says.
    #[error("no end of line behind a bulk")]
    BulkEnd,
    /// What comes is HTTP: a page in a browser may have had it sent, with commands behind the head.
    #[error("this is no HTTP server")]
    Http,
    /// An inline command, where these are switched off.
    #[error("inline commands are switched off")]
    NoInline,
    /// An inline command is longer than [`INLINE_BYTES_MAX`].
    #[error("too big inline request")]
    Inline,
    /// An inline command has a quote without its like.
    #[error("unbalanced quotes in request")]
    Quotes,
    /// The command is longer than [`COMMAND_BYTES_MAX`].
    #[error("too big request")]
    Command,
}

/// One command: its name and arguments, in place in the bytes that came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RespCommand {
    frame: Bytes,
    /// Start and end in `frame`.
    ranges: Vec<(u32, u32)>,
}

impl RespCommand {
    /// The name and the arguments; at least the name is there.
    pub fn arguments(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.ranges.iter().map(|(start, end)| &self.frame[*start as usize..*end as usize])
    }

    /// The argument at `index`; 0 is the name.
    #[must_use]
    pub fn argument(&self, index: usize) -> Option<&[u8]> {
        self.arguments().nth(index)
    }

    /// The bytes that it keeps in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        self.frame.len() + size_of_val(&self.ranges[..])
    }

    /// How many there are, the name included; at least 1.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }
}

/// Makes commands of bytes. Remembers where it stopped: nothing is scanned twice, however the bytes are cut.
#[derive(Clone, Debug, Default)]
pub struct CommandParser {
    buffer: BytesMut,
    /// Arguments of the array still to come; `None`: before a command.
    left: Option<usize>,
    /// Where in `buffer` the next argument begins; in an inline command, how far no end of line was found.
    at: usize,
    ranges: Vec<(u32, u32)>,
    /// Bytes of `buffer` at the end of the argument that is not whole: at most [`COMMAND_BYTES_MAX`].
    needed: usize,
    no_inline: bool,
    failed: Option<ProtocolError>,
}

impl CommandParser {
    /// A parser that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A parser that takes no inline commands, arrays only.
    #[must_use]
    pub fn without_inline() -> Self {
        Self { no_inline: true, ..Self::default() }
    }

    /// Appends what came from the client. Answers by how much the room for it has grown: memory that is touched for the first time costs
    /// time of its own.
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        if self.failed.is_some() {
            return 0;
        }
        let before = self.buffer.capacity();
        // At once what the argument that has begun needs: room that doubles is touched, and copied, several times.
        let missing = self.needed.saturating_sub(self.buffer.len());
        self.buffer.reserve(missing.max(bytes.len()));
        self.buffer.extend_from_slice(bytes);
        self.buffer.capacity().saturating_sub(before)
    }

    /// How many bytes are held. Less than [`COMMAND_BYTES_MAX`] once [`next_command`](Self::next_command) gives `None`.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The next whole command; `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`ProtocolError`], and the same one ever after; what was buffered is dropped.
    pub fn next_command(&mut self) -> Result<Option<RespCommand>, ProtocolError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = self.parse().and_then(|command| match command {
            Some(command) if is_http(&command) => Err(ProtocolError::Http),
            command => Ok(command),
        });
        if let Err(error) = result {
            self.failed = Some(error);
            self.buffer = BytesMut::new();
            self.ranges = Vec::new();
        }
        result
    }

    fn parse(&mut self) -> Result<Option<RespCommand>, ProtocolError> {
        let mut left = match self.left {
            Some(left) => left,
            None => match self.begin()? {
                Begun::Array(count) => count,
                Begun::Inline(command) => return Ok(Some(command)),
                Begun::Nothing => return Ok(None),
            },
        };
        while left > 0 {
            self.left = Some(left);
            if !self.argument()? {
                return Ok(None);
            }
            left -= 1;
        }
        self.left = None;
        let frame = self.buffer.split_to(std::mem::take(&mut self.at)).freeze();
        Ok(Some(RespCommand { frame, ranges: std::mem::take(&mut self.ranges) }))
    }

    /// Reads the start of a command; passes over empty ones, as Redis does.
    fn begin(&mut self) -> Result<Begun, ProtocolError> {
        while let Some(first) = self.buffer.first() {
            if *first != b'*' {
                match self.inline()? {
                    // An empty line is none: clients end their input with one.
                    Some(command) if command.ranges.is_empty() => continue,
                    Some(command) if self.no_inline && !is_http(&command) => {
                        return Err(ProtocolError::NoInline);
                    }
                    Some(command) => return Ok(Begun::Inline(command)),
                    None => return Ok(Begun::Nothing),
                }
            }
            let (count, size) = match number_line(&self.buffer) {
                NumberLine::Partial => return Ok(Begun::Nothing),
                NumberLine::Bad => return Err(ProtocolError::Count),
                NumberLine::Whole(count, size) => (count, size),
            };
            if count <= 0 {
                self.buffer.advance(size);
                continue;
            }
            let count = usize::try_from(count).map_err(|_| ProtocolError::Count)?;
            if count > ARGUMENTS_MAX {
                return Err(ProtocolError::Count);
            }
            self.at = size;
            // Room for what is usual; a count alone reserves nothing large.
            self.ranges.reserve_exact(count.min(16));
            return Ok(Begun::Array(count));
        }
        Ok(Begun::Nothing)
    }

    /// Reads the argument at `self.at`; false if it is not whole yet.
    fn argument(&mut self) -> Result<bool, ProtocolError> {
        let rest = &self.buffer[self.at..];
        match rest.first() {
            None => return Ok(false),
            Some(b'$') => {}
            Some(other) => return Err(ProtocolError::Dollar(*other)),
        }
        let (length, line) = match number_line(rest) {
            NumberLine::Partial => return Ok(false),
            NumberLine::Bad => return Err(ProtocolError::Length),
            NumberLine::Whole(length, line) => (length, line),
        };
        let length = usize::try_from(length).map_err(|_| ProtocolError::Length)?;
        if length > BULK_BYTES_MAX {
            return Err(ProtocolError::Length);
        }
        let (start, end) = (self.at + line, self.at + line + length);
        if end + 2 > COMMAND_BYTES_MAX {
            return Err(ProtocolError::Command);
        }
        let Some(behind) = self.buffer.get(end..end + 2) else {
            self.needed = end + 2;
            return Ok(false);
        };
        self.needed = 0;
        if behind != b"\r\n" {
            return Err(ProtocolError::BulkEnd);
        }
        self.ranges.push((start as u32, end as u32));
        self.at = end + 2;
        Ok(true)
    }

    /// Reads a line of words; one without words is empty.
    fn inline(&mut self) -> Result<Option<RespCommand>, ProtocolError> {
        let end = self.buffer[self.at..].iter().position(|byte| *byte == b'\n');
        let size = end.map_or(self.buffer.len(), |end| self.at + end);
        if size > INLINE_BYTES_MAX {
            return Err(ProtocolError::Inline);
        }
        if end.is_none() {
            self.at = size;
            return Ok(None);
        }
        self.at = 0;
        let line = self.buffer.split_to(size + 1);
        words(&line[..size]).map(Some)
    }
}

/// What stands at the start of the buffer.
enum Begun {
    Array(usize),
    Inline(RespCommand),
    Nothing,
}

/// Whether this is the first line of a POST, or the line that every other request of HTTP has, before what its sender
/// may choose.
fn is_http(command: &RespCommand) -> bool {
    let name = command.argument(0).unwrap_or_default();
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

/// The words of an inline command. In double quotes the escapes `\n \r \t \b \a \xHH` hold, in single ones only `\'`.
fn words(line: &[u8]) -> Result<RespCommand, ProtocolError> {
    let mut frame = Vec::with_capacity(line.len());
    let mut ranges = Vec::new();
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        let start = frame.len();
        rest = word(rest, &mut frame)?.trim_ascii_start();
        ranges.push((start as u32, frame.len() as u32));
    }
    Ok(RespCommand { frame: frame.into(), ranges })
}

/// Appends one word; gives what is behind it.
fn word<'a>(mut rest: &'a [u8], frame: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    while let Some((first, behind)) = rest.split_first() {
        match first {
            b'"' | b'\'' => {
                rest = quoted(*first, behind, frame)?;
                // A word ends with its closing quote.
                if rest.first().is_some_and(|next| !next.is_ascii_whitespace()) {
                    return Err(ProtocolError::Quotes);
                }
            }
            blank if blank.is_ascii_whitespace() => return Ok(rest),
            byte => {
                frame.push(*byte);
                rest = behind;
            }
        }
    }
    Ok(rest)
}

/// Appends what stands between quotes; gives what is behind the closing one.
fn quoted<'a>(
    quote: u8,
    mut rest: &'a [u8],
    frame: &mut Vec<u8>,
) -> Result<&'a [u8], ProtocolError> {
    loop {
        rest = match rest {
            [] => return Err(ProtocolError::Quotes),
            [end, behind @ ..] if *end == quote => return Ok(behind),
            [b'\\', b'\'', behind @ ..] if quote == b'\'' => {
                frame.push(b'\'');
                behind
            }
            [b'\\', b'x', high, low, behind @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                frame.push(hex(*high) << 4 | hex(*low));
                behind
            }
            [b'\\', escaped, behind @ ..] if quote == b'"' => {
                frame.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                behind
            }
            [byte, behind @ ..] => {
                frame.push(*byte);
                behind
            }
        }
    }
}

/// The value of a hexadecimal digit.
fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

// A length is read from a line of bounded size, so what is buffered without a result is bounded too.
const _: () = assert!(NUMBER_LINE_MAX < INLINE_BYTES_MAX && INLINE_BYTES_MAX < COMMAND_BYTES_MAX);
