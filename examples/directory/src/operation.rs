//! What is done to the directory, and its encoding as a command of the replicated state machine.
//!
//! One byte says the kind; then each argument as `length u32`, little-endian, and its bytes.

use thiserror::Error;

/// Most keys of one operation (1,024): what it takes at most is some milliseconds, however short the keys are.
pub const KEYS_MAX: usize = 1_024;

/// The kinds of operations. The numbers are on the wire and on disks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// `SET key value`.
    Set = 1,
    /// `GET key`.
    Get = 2,
    /// `DEL key...`; answers how many were there.
    Del = 3,
    /// `EXISTS key...`; answers how many are there, each as often as it is named.
    Exists = 4,
    /// `INCR key`.
    Incr = 5,
    /// `MGET key...`.
    MGet = 6,
    /// `DBSIZE`.
    DbSize = 7,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 7] =
        [Self::Set, Self::Get, Self::Del, Self::Exists, Self::Incr, Self::MGet, Self::DbSize];

    /// Whether so many arguments make sense.
    #[must_use]
    pub fn takes(self, arguments: usize) -> bool {
        match self {
            Self::Set => arguments == 2,
            Self::Get | Self::Incr => arguments == 1,
            Self::Del | Self::Exists | Self::MGet => (1..=KEYS_MAX).contains(&arguments),
            Self::DbSize => arguments == 0,
        }
    }

    /// Whether it can change the directory.
    #[must_use]
    pub fn writes(self) -> bool {
        matches!(self, Self::Set | Self::Del | Self::Incr)
    }
}

/// Why bytes are not an operation. They came from another site; nothing is executed, the same at all replicas.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OperationError {
    /// The first byte is no [`Kind`].
    #[error("unknown kind of operation")]
    Kind,
    /// The bytes end inside an argument.
    #[error("truncated")]
    Truncated,
    /// The kind takes another number of arguments.
    #[error("wrong number of arguments")]
    Arguments,
}

/// An operation, its arguments in place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation<'a> {
    kind: Kind,
    arguments: Vec<&'a [u8]>,
}

impl<'a> Operation<'a> {
    /// An operation.
    ///
    /// # Errors
    /// [`OperationError::Arguments`]: the kind takes another number of them.
    pub fn new(
        kind: Kind,
        arguments: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, OperationError> {
        let arguments: Vec<_> = arguments.into_iter().collect();
        if kind.takes(arguments.len()) {
            Ok(Self { kind, arguments })
        } else {
            Err(OperationError::Arguments)
        }
    }

    /// What is done.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// To what: as many arguments as [`Kind::takes`].
    #[must_use]
    pub fn arguments(&self) -> &[&'a [u8]] {
        &self.arguments
    }

    /// The operation as bytes.
    ///
    /// # Panics
    /// If an argument is 4 GiB or longer; the parser of commands takes none of more than 512 KiB.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let size = self.arguments.iter().map(|argument| 4 + argument.len()).sum::<usize>();
        let mut bytes = Vec::with_capacity(1 + size);
        bytes.push(self.kind as u8);
        for argument in &self.arguments {
            let length =
                u32::try_from(argument.len()).expect("an argument is less than 4 GiB long");
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(argument);
        }
        bytes
    }

    /// The operation that `bytes` are.
    ///
    /// # Errors
    /// [`OperationError`]; no bytes make it panic.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, OperationError> {
        let (kind, mut rest) = bytes.split_first().ok_or(OperationError::Truncated)?;
        let kind = Kind::ALL.into_iter().find(|k| *k as u8 == *kind).ok_or(OperationError::Kind)?;
        let mut arguments = Vec::new();
        while !rest.is_empty() {
            // No kind takes more; what is no operation is not worth reading on.
            if arguments.len() > KEYS_MAX {
                return Err(OperationError::Arguments);
            }
            let (length, behind) = rest.split_first_chunk().ok_or(OperationError::Truncated)?;
            let (argument, behind) = behind
                .split_at_checked(u32::from_le_bytes(*length) as usize)
                .ok_or(OperationError::Truncated)?;
            arguments.push(argument);
            rest = behind;
        }
        Self::new(kind, arguments)
    }
}
