//! Ways to break logical time on purpose, so that tests can show that their checks notice.

/// One deliberate defect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A scalar clock does not go beyond what it receives.
    ScalarForgetsReceived,
    /// A scalar clock gives one number to two events.
    ScalarRepeats,
    /// A vector clock takes over what it receives in place of the greater of both.
    VectorOverwrites,
    /// A vector clock does not count its receipts.
    VectorSkipsReceipts,
    /// The entries of those who left stay, at the ranks of others.
    VectorKeepsLeavers,
    /// A difference is added to whatever stamp came last.
    DeltaIgnoresBase,
    /// A replica returns a timestamp that does not follow the one it was asked to follow.
    MultipartForgetsDependency,
    /// A replica takes for known everywhere what one other replica knows.
    MultipartBelievesOne,
    /// A restarted process goes on behind the last number that was stored.
    ReserveStartsAtStored,
    /// A hybrid clock stamps with the bare time.
    HybridPhysicalOnly,
    /// A hybrid clock believes any stamp.
    HybridUnbounded,
    /// A message is attached though some before it are missing.
    GraphAttachesEarly,
    /// What one participant has is taken for what all have.
    GraphStableByOne,
    /// A wave is complete as soon as it has a message.
    GraphWaveEarly,
    /// The depth of a message is that of the shallowest before it, and 1.
    GraphShallow,
    /// Messages of a participant that is masked out are taken.
    GraphIgnoresMask,
    /// Nothing is ever forgotten.
    GraphNeverPrunes,
    /// What is missing is not named.
    GraphForgetsMissing,
    /// A timer fires at the reading for which it is set, or never.
    TimerMissesJump,
    /// A timer fires before the reading for which it is set.
    TimerFiresEarly,
}
