//! The header that every file of stable storage begins with.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 8 | magic | which kind of file |
//! | 8 | 4 | version | [`VERSION`] |
//! | 12 | 4 | flags | 0, reserved |
//! | 16 | 16 | owner | whose file it is |
//! | 32 | 8 | number | log: first lsn; cell: bytes of the value; checkpoint: position |
//! | 40 | 4 | reserved | 0 |
//! | 44 | 4 | crc32c | of bytes 0..44 |
//!
//! All numbers are little-endian. The layout up to `version` is frozen for all releases. The header's checksum seeds
//! the checksums of the rest of the file, so bytes of another file, segment or owner never pass for this one's.

use std::fmt;

/// The version of the file layouts that this build writes and reads; 0 is never used, a torn header may show it.
pub const VERSION: u32 = 1;
/// Bytes of a header.
pub const HEADER_SIZE: usize = 48;

/// Whose stable storage it is: 16 bytes, such as a node's UUID. A file of another owner is refused by name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(pub [u8; 16]);

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The header of one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) magic: [u8; 8],
    pub(crate) owner: Owner,
    pub(crate) number: u64,
}

/// Why bytes are not the header that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeaderError {
    /// Too short, of another kind, or with a wrong checksum.
    Damaged,
    /// Of a layout that this build does not know.
    Version(u32),
    /// Intact, but of another owner.
    Foreign(Owner),
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        bytes[0..8].copy_from_slice(&self.magic);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.owner.0);
        bytes[32..40].copy_from_slice(&self.number.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..44]);
        bytes[44..48].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// What the checksums of the rest of the file start from.
    pub(crate) fn seed(&self) -> u32 {
        crc32c::crc32c(&self.encode())
    }

    /// Reads the header at the front of `bytes`. The version is looked at before the checksum, which a later version
    /// may keep elsewhere; the owner after it, so that a damaged owner is called damage.
    pub(crate) fn decode(bytes: &[u8], magic: [u8; 8], owner: Owner) -> Result<Self, HeaderError> {
        let bytes = bytes.first_chunk::<HEADER_SIZE>().ok_or(HeaderError::Damaged)?;
        if bytes[0..8] != magic {
            return Err(HeaderError::Damaged);
        }
        let version = u32_at(bytes, 8);
        if version != VERSION && version != 0 {
            return Err(HeaderError::Version(version));
        }
        let mut found = [0; 16];
        found.copy_from_slice(&bytes[16..32]);
        let header = Self { magic, owner: Owner(found), number: u64_at(bytes, 32) };
        // Encoding again also refuses bits set in the reserved fields.
        if header.encode() != *bytes {
            return Err(HeaderError::Damaged);
        }
        if header.owner != owner {
            return Err(HeaderError::Foreign(header.owner));
        }
        Ok(header)
    }
}

/// The number at `at`, which the caller knows to be inside.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

/// The number at `at`, which the caller knows to be inside.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    const MAGIC: [u8; 8] = *b"MSTSLOG\n";
    const OWNER: Owner = Owner(*b"0123456789abcdef");

    fn header() -> Header {
        Header { magic: MAGIC, owner: OWNER, number: 7 }
    }

    /// Checks ST-9 for headers: no single flipped bit goes unnoticed.
    #[test]
    fn every_flipped_bit_is_seen() {
        for bit in 0..HEADER_SIZE * 8 {
            let mut bytes = header().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            Header::decode(&bytes, MAGIC, OWNER).unwrap_err();
        }
        assert_eq!(Header::decode(&header().encode(), MAGIC, OWNER), Ok(header()));
    }

    /// Checks that other versions and owners are refused by name, and that a torn version is damage.
    #[test]
    fn refusals_have_names() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        assert_eq!(Header::decode(&bytes, MAGIC, OWNER), Err(HeaderError::Version(2)));
        bytes[8] = 0;
        assert_eq!(Header::decode(&bytes, MAGIC, OWNER), Err(HeaderError::Damaged));
        let other = Header { owner: Owner([9; 16]), ..header() };
        assert_eq!(
            Header::decode(&other.encode(), MAGIC, OWNER),
            Err(HeaderError::Foreign(Owner([9; 16])))
        );
        assert_eq!(Owner([0xab; 16]).to_string(), "ab".repeat(16));
    }
}
