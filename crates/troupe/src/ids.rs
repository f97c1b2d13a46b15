//! Names: of troupes, of what they are at a time, and of calls.

use std::fmt;

use mainstay_base::BootId;
use mainstay_rpc::ProcedureId;
use serde::{Deserialize, Serialize};

/// Most calls that are nested in each other.
pub const DEPTH_MAX: usize = 16;

/// A troupe, by a hash of what it is called.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TroupeName(pub u64);

impl TroupeName {
    /// The troupe called `name`. The function is a wire contract: FNV-1a.
    #[must_use]
    pub const fn new(name: &str) -> Self {
        Self(ProcedureId::new(name).0)
    }

    /// The troupe of one that a boot is by itself, for callers that are not replicated.
    #[must_use]
    pub(crate) fn solo(boot: BootId) -> Self {
        let node = boot.node.as_bytes().iter();
        let all = node.copied().chain(boot.nonce.0.to_le_bytes());
        let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        Self(all.fold(0x9e37_79b9_7f4a_7c15, step))
    }
}

impl fmt::Display for TroupeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "troupe {:016x}", self.0)
    }
}

/// Which membership of a troupe: each change makes a greater one.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Version {
    /// The life of the binding agent that made it.
    pub life: u64,
    /// Its number in that life.
    pub number: u64,
}

impl Version {
    /// Of a troupe of one that no binding agent knows.
    pub const SOLO: Self = Self { life: 0, number: 0 };
}

/// The troupe id of Coo85: a troupe as it is with one membership.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TroupeId {
    /// Which troupe.
    pub name: TroupeName,
    /// Which membership of it.
    pub version: Version,
}

/// The members of a troupe, and which membership that is.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Binding {
    /// Which membership.
    pub version: Version,
    /// The members, the oldest first. A node that is started again is another member.
    pub members: Vec<BootId>,
}

impl Binding {
    /// Whether it is a member, and older than `than`; any member is older than one that is none.
    pub(crate) fn is_before(&self, boot: BootId, than: BootId) -> bool {
        self.members.iter().take_while(|it| **it != than).any(|it| *it == boot)
    }
}

/// A logical call: equal in all replicas of the client, since they are deterministic.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct CallId {
    /// The troupe in which the chain of calls began.
    pub root: TroupeName,
    /// The membership in which that troupe began with its first state. One that lost all its members and begins anew makes other calls.
    pub born: Version,
    /// The thread of calls there.
    pub thread: u64,
    /// The number of the call in its thread; then, for each level, its number among the calls of the execution that made it.
    pub path: Vec<u64>,
}

impl CallId {
    /// The call that made this one, if it is nested.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (_, path) = self.path.split_last()?;
        let path = (!path.is_empty()).then(|| path.to_vec())?;
        Some(Self { path, ..*self })
    }

    /// The call with this number that its execution makes.
    #[must_use]
    pub fn nested(&self, number: u64) -> Self {
        let mut path = self.path.clone();
        path.push(number);
        Self { path, ..*self }
    }

    /// The last number of the path.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.path.last().copied().unwrap_or(0)
    }
}
