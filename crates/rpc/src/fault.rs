//! Ways to break calls on purpose, so that tests can show that their checks notice.

/// One deliberate defect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A call that comes again is executed again.
    ForgetsCalls,
    /// What a server wrote is not read after a restart.
    ForgetsStored,
    /// A call that is over is executed when a copy of it comes late.
    RunsLateCalls,
    /// A refused call is taken when a copy of it comes later.
    ForgetsRefusals,
    /// What a refused call says of its name is kept.
    KeepsRefusedNames,
    /// Callers of a name that gave up are not counted.
    CountsNoLeavers,
    /// A refusal to execute is kept by the name of its call.
    KeepsRefusals,
    /// One client may take all names.
    SharesNothing,
    /// A client takes any number of calls.
    NeverFull,
    /// A server takes any number of calls of a client.
    NeverBusy,
    /// Each refusal is remembered, however many there are.
    RemembersFloods,
    /// Answers are kept for a client that takes none in, however many.
    KeepsAnswers,
    /// A name does not tell what its call was promised.
    MixesPromises,
    /// A drain does not wait until clients have their results.
    DrainsEarly,
    /// A server that drains refuses to let the streams of accepted calls be read.
    CutsStreams,
    /// Executions that nobody waits for take all places.
    SparesBereaved,
    /// A client that is met again is forgotten all the same.
    ForgetsTheMet,
    /// A call of a new life is ended for a named one that has its number.
    AbortsByNumber,
    /// A client does not ask again what has become of a call.
    AsksOnce,
    /// A server keeps results that their client has.
    KeepsResults,
    /// An answer to a former life of the client is matched by its number alone.
    MatchesByNumber,
    /// A call that is bound to what the server remembered in a former life is taken.
    BelievesAnyBinding,
    /// A call that must not be executed twice is sent again to a server that remembers nothing.
    RepeatsAtNewServer,
    /// A client's former life is heard after its new one.
    HearsTheDead,
    /// A client's new life does not end what runs for its former one.
    SparesOrphans,
    /// The result of an execution that was ended counts.
    KeepsOrphans,
    /// A server takes the client's clock for its own: it ends an execution when the client's deadline comes by its clock.
    SharesClock,
    /// A server does not end an execution at its deadline.
    IgnoresDeadline,
    /// A call begins after its deadline.
    BeginsLate,
    /// A nested call has more time than its parent.
    NestsBeyond,
    /// The calls that an orphan made go on.
    SparesChildren,
    /// Calls of one caller begin as they come.
    IgnoresOrder,
    /// A later call of the caller does not say which earlier ones were given up.
    ForgetsGivenUp,
    /// A call begins before that is stable.
    BeginsUnwritten,
    /// A call is refused before that is stable.
    AnswersUnwritten,
    /// A terminator that ends nothing.
    NoTerminator,
    /// What was made for a client outlives it.
    SparesHosted,
    /// Nobody is told that what he watches has ended.
    TellsNoEnds,
    /// A quantum that ends nothing.
    NeverExpires,
    /// A new epoch that ends nothing.
    SparesEpochs,
    /// An execution with a name is ended when its client dies.
    EndsAdopted,
    /// A result is not kept by the name of its call.
    ForgetsNames,
    /// All who wait for an execution with a name are told that there was none.
    DeniesNamed,
    /// Nested calls are named anew by each execution.
    NumbersAnew,
    /// A client that was forgotten is told the same memory as before.
    KeepsMemory,
    /// A client marshals all but the last byte of the arguments.
    CutsArguments,
    /// Calls of one caller to the own node run side by side.
    CrowdsLocals,
    /// A call that failed is told to be done, with the beginning of its arguments for a value.
    AnswersItself,
    /// The outcome of a call is told twice.
    TellsTwice,
    /// Each result is acknowledged by a message of its own, at once.
    AcksEach,
    /// The arguments of a call to the own node are encoded.
    EncodesLocals,
}
