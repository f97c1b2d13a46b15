//! Arrays of counters: what vectors and multipart timestamps have in common.

/// The largest counter that is believed of a peer.
///
/// A larger one is refused. What this process counts by itself goes on from there for 2^63 more events, so no stamp of a
/// peer makes a counter overflow.
pub const COUNT_MAX: u64 = 1 << 62;

/// How one stamp stands to another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Relation {
    /// They are the same.
    Equal,
    /// The first happened before the second.
    Before,
    /// The second happened before the first.
    After,
    /// Neither happened before the other.
    Concurrent,
}

impl Relation {
    /// The first is before the second or the same.
    #[must_use]
    pub fn is_covered(self) -> bool {
        matches!(self, Self::Equal | Self::Before)
    }
}

/// Less, if no entry is greater and one is less. Both have one length.
#[cfg(feature = "logical")]
pub(crate) fn relation(one: &[u64], other: &[u64]) -> Relation {
    assert_eq!(one.len(), other.len(), "stamps of one table have one length");
    let (mut less, mut greater) = (false, false);
    for (one, other) in one.iter().zip(other) {
        less |= one < other;
        greater |= one > other;
    }
    match (less, greater) {
        (false, false) => Relation::Equal,
        (true, false) => Relation::Before,
        (false, true) => Relation::After,
        (true, true) => Relation::Concurrent,
    }
}

/// Raises each entry to that of `other`: the least array that neither exceeds. Both have one length.
pub(crate) fn merge(into: &mut [u64], other: &[u64]) {
    assert_eq!(into.len(), other.len(), "stamps of one table have one length");
    for (into, other) in into.iter_mut().zip(other) {
        *into = (*into).max(*other);
    }
}
