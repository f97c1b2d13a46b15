//! RESP2: commands in, replies out, and for clients the other way round.
//!
//! Source: the Redis serialization protocol specification, version 2.

mod command;
mod reply;
pub mod write;

pub use command::{
    ARGUMENTS_MAX, BULK_BYTES_MAX, COMMAND_BYTES_MAX, CommandParser, INLINE_BYTES_MAX,
    ProtocolError, RespCommand,
};
pub use reply::{Reply, ReplyError, ReplyParser};

/// Longest line that holds a length or a number, its type byte and end included.
const NUMBER_LINE_MAX: usize = 32;

/// A line of a length or a number at the start of bytes.
enum NumberLine {
    /// No end of line yet.
    Partial,
    /// The number, and the bytes of the line with its type byte and end.
    Whole(i64, usize),
    /// Not a number, or too long.
    Bad,
}

/// Reads the line after the type byte: decimal digits, perhaps a minus sign, `\r\n`.
fn number_line(bytes: &[u8]) -> NumberLine {
    let negative = bytes.get(1) == Some(&b'-');
    let start = 1 + usize::from(negative);
    let mut number: i64 = 0;
    let mut at = start;
    while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
        let digit = i64::from(digit - b'0');
        // Downwards: the least number has no positive counterpart.
        let next = number.checked_mul(10).and_then(|number| number.checked_sub(digit));
        let Some(next) = next.filter(|_| at < NUMBER_LINE_MAX) else { return NumberLine::Bad };
        number = next;
        at += 1;
    }
    let value = if negative { Some(number) } else { number.checked_neg() };
    match (bytes.get(at), bytes.get(at + 1), value) {
        (None, ..) | (Some(b'\r'), None, _) => NumberLine::Partial,
        (Some(b'\r'), Some(b'\n'), Some(value)) if at > start => NumberLine::Whole(value, at + 2),
        _ => NumberLine::Bad,
    }
}
