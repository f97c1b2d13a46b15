//! Writing replies and commands.

/// A status, such as `OK`; it has no line ends in it.
pub fn simple(into: &mut Vec<u8>, text: &str) {
    line(into, b'+', text.as_bytes());
}

/// An error: its code, a blank, the text. Control characters become blanks: an error is one line.
pub fn error(into: &mut Vec<u8>, text: &str) {
    into.push(b'-');
    into.extend(text.bytes().map(|byte| if byte.is_ascii_control() { b' ' } else { byte }));
    into.extend_from_slice(b"\r\n");
}

/// A number.
pub fn integer(into: &mut Vec<u8>, number: i64) {
    into.push(b':');
    decimal(into, number);
}

/// A string of bytes.
pub fn bulk(into: &mut Vec<u8>, bytes: &[u8]) {
    bulk_head(into, bytes.len());
    into.extend_from_slice(bytes);
    bulk_end(into);
}

/// What stands in front of a string of `len` bytes.
pub(crate) fn bulk_head(into: &mut Vec<u8>, len: usize) {
    into.push(b'$');
    decimal(into, len as i64);
}

/// What stands behind a string of bytes.
pub(crate) fn bulk_end(into: &mut Vec<u8>) {
    into.extend_from_slice(b"\r\n");
}

/// The bytes of a string as sent, or of none.
pub(crate) fn bulk_size(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(5, |bytes| {
        let digits = bytes.len().checked_ilog10().unwrap_or(0) as usize + 1;
        digits + bytes.len() + 5
    })
}

/// No string: the key is not there.
pub fn null(into: &mut Vec<u8>) {
    into.extend_from_slice(b"$-1\r\n");
}

/// The start of an array; its elements follow.
pub fn array(into: &mut Vec<u8>, count: usize) {
    into.push(b'*');
    decimal(into, count as i64);
}

/// A command as clients send it.
pub fn command(into: &mut Vec<u8>, arguments: &[&[u8]]) {
    array(into, arguments.len());
    for argument in arguments {
        bulk(into, argument);
    }
}

fn line(into: &mut Vec<u8>, kind: u8, text: &[u8]) {
    into.push(kind);
    into.extend_from_slice(text);
    into.extend_from_slice(b"\r\n");
}

/// The digits and the end of line, without an allocation.
fn decimal(into: &mut Vec<u8>, number: i64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        into.push(b'-');
    }
    into.extend_from_slice(&digits[at..]);
    into.extend_from_slice(b"\r\n");
}
