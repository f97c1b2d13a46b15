//! Ways to break clocks on purpose, so that tests can show that their checks notice.

/// One deliberate defect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
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
    /// A clock that went back goes on as before.
    IgnoresStepBack,
    /// The external master pulls as far as it likes.
    UnlimitedPull,
}
