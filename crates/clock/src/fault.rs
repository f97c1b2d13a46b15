//! Ways to break clocks on purpose, so that tests can show that their checks notice.

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
    /// A path in the context graph is one of a single step.
    GraphOneStep,
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
    /// The mean of all estimates in place of the midpoint of the reduced ones.
    MeanForMidpoint,
    /// One estimate fewer is dropped at each end than there may be faulty clocks.
    DropsTooFew,
    /// A clock that differs too much is not replaced by the own one.
    NoEgocentricLimit,
    /// A round is accepted with one supporter too few: all of them may be faulty.
    AcceptsTooEarly,
    /// Who accepts a round does not pass it on.
    NoRelay,
    /// A synchroniser sets the clock to the beginning of the round, which goes back.
    AlphaTooSmall,
    /// Signatures are not looked at.
    NoSignatureCheck,
    /// An early synchroniser is believed however early it is.
    NoTimelinessCheck,
    /// A master answers without looking whether it still is the master.
    NoMasterRecheck,
    /// A read that took too long is taken all the same, and its error is said to be the one wished for.
    AcceptsSlowReads,
    /// A reply that comes sooner than the network allows is taken.
    AcceptsImpossibleReads,
    /// A client that cannot read goes on as if it had.
    NeverLost,
    /// The interval is the one of the most recent answer.
    NewestInterval,
    /// The error of an interval clock does not grow between updates.
    ErrorStandsStill,
    /// A vector is taken after the first exchange, without any relay.
    NoRelayOfVectors,
    /// A clock that was far off counts as right with its first correction, also where the process has slept.
    BelievesAtOnce,
    /// A joiner takes the middle of whatever it hears.
    LearnsFromAny,
    /// A clock that went back goes on as before.
    IgnoresStepBack,
    /// A plan is not held against what no algorithm gets below.
    ClaimsTooMuch,
    /// A plan is not held against the number of faulty clocks that can be withstood.
    AnyNumberFaulty,
    /// Only half of a correction is made.
    HalfWay,
    /// One that has learnt the time never counts itself in.
    JoinsTooLate,
    /// A client tries once in place of k times.
    GivesUpEarly,
    /// An answer to any question is taken.
    BelievesAnyReply,
    /// What another node says of the error of its clock is left out.
    ForgetsPeerError,
    /// Of a round trip, what the question waited is taken for known as exactly as if the own clock had measured it.
    BelievesHeld,
    /// An interval clock is set to its reference, whatever the others say.
    BelievesReference,
    /// A clock that follows a time which runs away from the true one says that it follows the true one.
    ForgetsRate,
    /// A clock that is pulled by as much as it may be counts as one that has arrived.
    ArrivesAtOnce,
    /// The external master pulls as far as it likes.
    UnlimitedPull,
    /// A correction of the adjusted clock is a jump, also back.
    StepsBack,
    /// A correction is walked off ten times as fast as is promised.
    WalksTooFast,
    /// The version of a reading begins anew after four corrections.
    VersionsWrap,
    /// A course counts from a period before it began.
    LegsTooEarly,
    /// A restarted clock service does not look at what is stored.
    ForgetsLimit,
    /// Readings are given out before it is stored that they may have been.
    ReadsBeforeStored,
    /// A clock that waits stores further readings ahead.
    ReservesWhileItWaits,
    /// A process that comes back takes its wall clock for the common time, as at the first start.
    TogetherAgain,
    /// The adjusted clock says that it is synchronised when it is not.
    NeverUnsynchronised,
}
