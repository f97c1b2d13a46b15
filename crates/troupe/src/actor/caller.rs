//! One who calls a troupe.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mainstay_base::codec;
use mainstay_rpc::{Error, Procedure, Value};
use tokio::sync::mpsc;

use super::handle::{Shared, Told};
use super::part::Replica;
use super::{CallError, NotSaid, Said};
use crate::{
    Answer, Collator, Command, Failure, Outcome, Reason, Refusal, Request, Ticket, TroupeName,
};

/// Without another word a call has so much time.
const DEADLINE: Duration = Duration::from_secs(30);

/// Calls one troupe, in a thread of calls: those of a caller and its clones come to each replica in the order in which they were made, where its
/// executions begin one by one. All replicas of a client have callers of the same name, and make the same calls with them.
#[derive(Clone)]
pub struct Caller {
    shared: Arc<Shared>,
    /// As a replica of this troupe.
    replica: Option<Replica>,
    thread: u64,
    number: Arc<AtomicU64>,
    server: TroupeName,
    parent: Option<Ticket>,
    collator: Collator,
    deadline: Duration,
    context: Bytes,
}

impl Caller {
    pub(super) fn new(
        shared: &Arc<Shared>,
        replica: Option<Replica>,
        thread: &str,
        server: TroupeName,
        parent: Option<Ticket>,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            replica,
            thread: TroupeName::new(thread).0,
            number: Arc::default(),
            server,
            parent,
            collator: Collator::First,
            deadline: DEADLINE,
            context: Bytes::new(),
        }
    }

    /// What the answers become. Default [`Collator::First`].
    #[must_use]
    pub fn collate(mut self, collator: Collator) -> Self {
        self.collator = collator;
        self
    }

    /// Each call has its outcome after so long. Default 30 s. Replicas whose deadlines pass at different times come apart: it is for the case
    /// that nobody answers.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Bytes that go along with each call, equal at all replicas.
    #[must_use]
    pub fn context(mut self, context: Bytes) -> Self {
        self.context = context;
        self
    }

    /// How many calls it has made: a part of the state of a replicated client.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::SeqCst)
    }

    /// Its next call is the one after this one: what a new replica has from the [state](super::TakeState) of an older one.
    pub fn resume(&self, number: u64) {
        self.number.store(number, Ordering::SeqCst);
    }

    /// Calls a procedure: each replica of the troupe executes it once, for all replicas of the caller together (RPC-40). It is begun with this
    /// call, and not taken back when the future is dropped.
    ///
    /// # Errors
    /// [`CallError::Remote`] is the procedure's own. [`CallError::Failed`] says what is known of the execution.
    pub fn call<P: Procedure>(
        &self,
        arguments: P,
    ) -> impl Future<Output = Result<Value<P>, CallError<Error<P>>>> + Send + use<P> {
        let told = self.begin::<P>(&arguments, self.collator);
        async move {
            let mut told = told?;
            loop {
                let outcome = match told.recv().await {
                    Some(Told::Over(outcome)) => outcome,
                    Some(Told::Answer { .. }) => continue,
                    None => Outcome::Failed(Failure::unknown(Reason::Ended)),
                };
                // A result that is none of the procedure was made by an execution all the same.
                let bad = || Failure::unknown(Reason::Refused(Refusal::Handler));
                return match outcome {
                    Outcome::Done(value) => Ok(codec::decode(&value).map_err(|_| bad())?),
                    Outcome::Remote(error) => {
                        Err(CallError::Remote(codec::decode(&error).map_err(|_| bad())?))
                    }
                    Outcome::Complete => Err(bad().into()),
                    Outcome::Failed(failure) => Err(failure.into()),
                };
            }
        }
    }

    /// The same with a collator that is a program: it is asked with all answers so far, and the number of replicas, whenever one comes, until
    /// it decides. For replicated clients it has to decide alike in whatever order they come.
    ///
    /// # Errors
    /// [`Reason::NoMajority`]: all have answered, and it has not decided; others as in [`call`](Self::call).
    pub fn call_with<P, T, F>(
        &self,
        arguments: P,
        mut collate: F,
    ) -> impl Future<Output = Result<T, Failure>> + Send + use<P, T, F>
    where
        P: Procedure,
        Value<P>: Sync,
        Error<P>: Sync,
        T: Send,
        F: FnMut(&[Said<P>], usize) -> Option<T> + Send,
    {
        let told = self.begin::<P>(&arguments, Collator::Each);
        async move {
            let (mut told, mut said) = (told?, Vec::new());
            loop {
                match told.recv().await {
                    Some(Told::Answer { from, answer, replicas }) => {
                        said.push(Said { from, result: read::<P>(&answer) });
                        if let Some(decided) = collate(&said, replicas) {
                            return Ok(decided);
                        }
                    }
                    Some(Told::Over(Outcome::Failed(failure))) => return Err(failure),
                    Some(Told::Over(_)) => return Err(Failure::unknown(Reason::NoMajority)),
                    None => return Err(Failure::unknown(Reason::Ended)),
                }
            }
        }
    }

    /// The call is on its way when this returns: its number is that of its place among the calls.
    fn begin<P: Procedure>(
        &self,
        arguments: &P,
        collator: Collator,
    ) -> Result<mpsc::UnboundedReceiver<Told>, Failure> {
        let number = match self.parent {
            Some(_) => 0,
            None => self.number.fetch_add(1, Ordering::SeqCst) + 1,
        };
        let (caller, arguments) =
            (self.replica.as_ref().map(Replica::name), codec::encode(arguments));
        self.shared.ask(|token| {
            Command::Call(Request {
                token,
                caller,
                thread: self.thread,
                number,
                server: self.server,
                procedure: P::ID,
                version: P::VERSION,
                arguments,
                collator,
                deadline: self.deadline,
                parent: self.parent,
                context: self.context.clone(),
            })
        })
    }
}

fn read<P: Procedure>(answer: &Answer) -> Result<Value<P>, NotSaid<Error<P>>> {
    let bad = NotSaid::Refused(Refusal::Handler);
    match answer {
        Answer::Value(value) => codec::decode(value).map_err(|_| bad),
        Answer::Error(error) => Err(codec::decode(error).map_or(bad, NotSaid::Remote)),
        Answer::Refused(why) => Err(NotSaid::Refused(*why)),
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("server", &self.server).finish_non_exhaustive()
    }
}
