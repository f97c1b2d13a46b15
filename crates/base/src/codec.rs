//! MessagePack, bounded: what a peer sends is scanned before serde sees it.
//!
//! `rmp-serde` alone can be made to overflow the stack by a few hundred bytes, believes nothing but also bounds
//! nothing, and accepts trailing bytes. [`decode`] first walks the bytes without recursion and without allocation and
//! refuses what is too deep, has more elements than bytes, or does not end where it should (S11). Wire types must not
//! be recursive.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Deepest nesting of arrays and maps that is accepted.
pub const DEPTH_MAX: usize = 16;

/// Why bytes are not a message. They came from outside: count it and drop them.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end inside a value.
    #[error("truncated")]
    Truncated,
    /// Bytes are left over behind the value.
    #[error("trailing bytes")]
    Trailing,
    /// Arrays and maps are nested deeper than [`DEPTH_MAX`].
    #[error("nested too deep")]
    TooDeep,
    /// A length field promises more elements than there are bytes.
    #[error("more elements than bytes")]
    TooMany,
    /// A marker that this protocol does not use (extension types, the reserved byte).
    #[error("forbidden marker {0:#04x}")]
    Marker(u8),
    /// Well-formed MessagePack of another type.
    #[error("not of the expected type")]
    Type,
}

/// The MessagePack of `value`: structs as arrays, enums by variant name.
///
/// # Panics
/// If `value`'s `Serialize` fails, which the wire types of this workspace never do.
#[must_use]
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Bytes {
    let bytes = rmp_serde::to_vec(value).expect("wire types serialise");
    Bytes::from(bytes)
}

/// The value that `bytes` are the MessagePack of.
///
/// # Errors
/// [`DecodeError`]; no input makes it panic, recurse without bound, or allocate more than in proportion to its length.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    scan(bytes)?;
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    reader.set_max_depth(DEPTH_MAX * 4);
    T::deserialize(&mut reader).map_err(|_| DecodeError::Type)
}

/// Walks one value and demands that the bytes end behind it.
fn scan(bytes: &[u8]) -> Result<(), DecodeError> {
    let mut rest = bytes;
    // Elements still to come, per open array or map; a map of n counts 2n.
    let mut open = [0u64; DEPTH_MAX];
    let mut depth = 0;
    loop {
        let elements = one(&mut rest)?;
        if elements > rest.len() as u64 {
            return Err(DecodeError::TooMany);
        }
        if elements > 0 {
            *open.get_mut(depth).ok_or(DecodeError::TooDeep)? = elements;
            depth += 1;
        } else {
            while depth > 0 {
                open[depth - 1] -= 1;
                if open[depth - 1] > 0 {
                    break;
                }
                depth -= 1;
            }
        }
        if depth == 0 {
            return if rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) };
        }
    }
}

/// Takes one marker with its own bytes off `rest`; answers how many elements follow inside it.
fn one(rest: &mut &[u8]) -> Result<u64, DecodeError> {
    let marker = number(rest, 1)? as u8;
    let (skip, elements) = match marker {
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => (0, 0),
        0x80..=0x8f => (0, 2 * u64::from(marker & 0x0f)),
        0x90..=0x9f => (0, u64::from(marker & 0x0f)),
        0xa0..=0xbf => (u64::from(marker & 0x1f), 0),
        0xc4 | 0xd9 => (number(rest, 1)?, 0),
        0xc5 | 0xda => (number(rest, 2)?, 0),
        0xc6 | 0xdb => (number(rest, 4)?, 0),
        0xcc | 0xd0 => (1, 0),
        0xcd | 0xd1 => (2, 0),
        0xca | 0xce | 0xd2 => (4, 0),
        0xcb | 0xcf | 0xd3 => (8, 0),
        0xdc => (0, number(rest, 2)?),
        0xdd => (0, number(rest, 4)?),
        0xde => (0, 2 * number(rest, 2)?),
        0xdf => (0, 2 * number(rest, 4)?),
        0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => return Err(DecodeError::Marker(marker)),
    };
    if skip > rest.len() as u64 {
        return Err(DecodeError::Truncated);
    }
    *rest = &rest[skip as usize..];
    Ok(elements)
}

fn number(rest: &mut &[u8], size: usize) -> Result<u64, DecodeError> {
    let (bytes, tail) = rest.split_at_checked(size).ok_or(DecodeError::Truncated)?;
    *rest = tail;
    Ok(bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
    enum Message {
        Ping,
        Data { first: u64, parts: Vec<(u32, u64)>, names: BTreeMap<u8, String> },
        Raw(Bytes),
    }

    /// Decodes into itself for ever: the shape that overflows rmp-serde's stack.
    #[derive(Deserialize, Debug)]
    struct Nest(#[allow(dead_code)] Vec<Self>);

    #[test]
    fn nesting_is_refused_before_it_reaches_the_stack() {
        for size in [DEPTH_MAX + 1, 1_000, 1_000_000] {
            let mut bomb = vec![0x91; size];
            bomb.push(0x90);
            assert_eq!(decode::<Nest>(&bomb).unwrap_err(), DecodeError::TooDeep);
        }
        let mut maps: Vec<u8> = [0x81, 0x00].repeat(100_000);
        maps.push(0xc0);
        assert_eq!(decode::<Nest>(&maps).unwrap_err(), DecodeError::TooDeep);
    }

    #[test]
    fn lengths_are_not_believed() {
        assert_eq!(decode::<Vec<u8>>(&[0xdd, 0xff, 0xff, 0xff, 0xff]), Err(DecodeError::TooMany));
        assert_eq!(
            decode::<Bytes>(&[0xc6, 0xff, 0xff, 0xff, 0xff, 1]),
            Err(DecodeError::Truncated)
        );
        assert_eq!(decode::<u8>(&[]), Err(DecodeError::Truncated));
        assert_eq!(decode::<u8>(&[1, 1]), Err(DecodeError::Trailing));
        assert_eq!(decode::<u8>(&[0xc1]), Err(DecodeError::Marker(0xc1)));
        assert_eq!(decode::<u8>(&[0xa1, b'x']), Err(DecodeError::Type));
    }

    /// The golden vector of the codec: it may never change.
    #[test]
    fn the_encoding_is_frozen() {
        let message = Message::Data {
            first: 300,
            parts: vec![(1, 2)],
            names: BTreeMap::from([(7, "x".to_owned())]),
        };
        let hex: String = encode(&message).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "81a44461746193cd012c919201028107a178");
    }

    fn messages() -> impl Strategy<Value = Message> {
        prop_oneof![
            Just(Message::Ping),
            (any::<u64>(), any::<Vec<(u32, u64)>>(), any::<BTreeMap<u8, String>>())
                .prop_map(|(first, parts, names)| Message::Data { first, parts, names }),
            any::<Vec<u8>>().prop_map(|bytes| Message::Raw(bytes.into())),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(message in messages()) {
            prop_assert_eq!(decode::<Message>(&encode(&message)).unwrap(), message);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = decode::<Message>(&bytes);
        }

        #[test]
        fn every_strict_prefix_is_refused(message in messages()) {
            let bytes = encode(&message);
            for end in 0..bytes.len() {
                prop_assert!(decode::<Message>(&bytes[..end]).is_err());
            }
        }
    }
}
