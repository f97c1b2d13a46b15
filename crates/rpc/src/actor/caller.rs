//! One who calls.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mainstay_base::{Instant, NodeId, codec};
use tokio::sync::Mutex;

use super::context::Level;
use super::handle::{Shared, locked};
use super::local::{self, Local};
use super::seams::CallInfo;
use super::stop::Stop;
use super::trace::{self, Trace};
use super::{Atomic, CallError, Context, Error, Idempotent, Procedure, Value};
use crate::{CallName, Command, Failure, Outcome, Reason, Refusal, Request, Semantics, Ticket};

/// Without another word a call has so much time.
const DEADLINE: Duration = Duration::from_secs(30);

/// Calls one server. The calls of a caller and its clones are executed one after the other in the order in which they were made
/// (RPC-5), also while several are on their way; [`maybe`](Self::maybe) stands outside that order. Calls of
/// [different callers](super::RpcHandle::to), or of an [unordered](Self::unordered) one, are executed side by side.
#[derive(Clone)]
pub struct Caller {
    shared: Arc<Shared>,
    server: NodeId,
    lane: Option<u32>,
    /// The same for calls to the own node.
    turn: Option<Arc<Mutex<()>>>,
    pub(super) deadline: Duration,
    pub(super) parent: Option<Ticket>,
    /// Of the execution at the own node that calls: with its end the call is taken back.
    pub(super) stop: Option<Stop>,
    pub(super) context: Bytes,
    pub(super) trace: Option<Trace>,
    /// Of the execution that calls.
    pub(super) level: Option<Arc<Level>>,
    /// The next call takes it.
    name: Option<Arc<std::sync::Mutex<Option<Box<CallName>>>>>,
}

/// What is of one call alone.
#[derive(Default)]
struct Once {
    numbers: Vec<u64>,
    name: Option<Box<CallName>>,
}

impl Caller {
    pub(super) fn new(shared: Arc<Shared>, server: NodeId) -> Self {
        let lane = Some(shared.next_lane());
        let turn = (server == shared.me).then(Arc::default);
        let (deadline, parent, context) = (DEADLINE, None, Bytes::new());
        Self {
            shared,
            server,
            lane,
            turn,
            deadline,
            parent,
            stop: None,
            context,
            trace: None,
            level: None,
            name: None,
        }
    }

    /// The calls work on data that no two of them share: they are executed as they come, side by side.
    #[must_use]
    pub fn unordered(mut self) -> Self {
        (self.lane, self.turn) = (None, None);
        self
    }

    /// Each call has so much time, and no more than [`Config::deadline_max`](crate::Config::deadline_max). Default 30 s. A nested call has no more than is
    /// left to its parent.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        let is_nested = self.parent.is_some() || self.stop.is_some();
        self.deadline = if is_nested { self.deadline.min(deadline) } else { deadline };
        self
    }

    /// Bytes that go along with each call: a trace context for instance. They count as arguments do.
    #[must_use]
    pub fn context(mut self, context: Bytes) -> Self {
        self.context = context;
        self
    }

    /// The calls are a part of this trace: one that came by another way than a call. An execution's own calls are part of its trace by themselves.
    #[must_use]
    pub fn traced(mut self, trace: Trace) -> Self {
        self.trace = Some(trace);
        self
    }

    /// The next call of this caller or a clone of it has this name, and those after it have none. Where orphans are
    /// [adopted](crate::Orphans::Adoption) a call that is made again under the same name is not executed again; elsewhere a name means nothing. One name is for one call: it is
    /// a [capability](CallName::new). Nested calls are named by themselves. A call with a name to the own node is not made
    /// ([`Reason::ToSelf`], [`Executed::NotAtAll`](crate::Executed::NotAtAll)): nothing there knows calls by names.
    #[must_use]
    pub fn named(mut self, name: CallName) -> Self {
        self.name = Some(Arc::new(std::sync::Mutex::new(Some(Box::new(name)))));
        self
    }

    /// How long results are kept by names.
    pub(super) fn keep(&self) -> Option<Duration> {
        self.shared.keep
    }

    pub(super) fn now(&self) -> Instant {
        self.shared.now()
    }

    /// A call is made, now.
    fn once(&self) -> Once {
        let level = self.level.as_ref().filter(|_| self.shared.keep.is_some());
        let numbers = level.map(|level| level.next()).unwrap_or_default();
        let name = self.name.as_ref().and_then(|name| locked(name).take());
        Once { numbers, name }
    }

    /// The node that is called.
    #[must_use]
    pub fn server(&self) -> NodeId {
        self.server
    }

    /// Calls a procedure, to be executed exactly once (today: *at most once*): once if there is a result, else never or once, perhaps in
    /// part. Dropping the future takes the call back.
    ///
    /// # Errors
    /// [`CallError::Remote`] is the procedure's own. [`CallError::Failed`] says what is known of the execution; after
    /// [`Executed::NotAtAll`](crate::Executed::NotAtAll) a retry is safe.
    pub fn exactly_once<P: Procedure>(
        &self,
        arguments: P,
    ) -> impl Future<Output = Result<Value<P>, CallError<Error<P>>>> + Send + use<P> {
        self.clone().call(self.once(), Semantics::ExactlyOnce, arguments)
    }

    /// Calls a procedure, to be executed once or more often: it is repeated until there is a result, at most up to the deadline and
    /// [`Config::attempts`](crate::Config::attempts) without a sign. Late copies may be executed after later calls.
    ///
    /// # Errors
    /// As [`exactly_once`](Self::exactly_once), with [`Executed::Unknown`](crate::Executed::Unknown).
    pub fn at_least_once<P: Idempotent>(
        &self,
        arguments: P,
    ) -> impl Future<Output = Result<Value<P>, CallError<Error<P>>>> + Send + use<P> {
        self.clone().call(self.once(), Semantics::AtLeastOnce, arguments)
    }

    /// Calls a procedure whose effect is whole or none (today: *atomic*).
    ///
    /// # Errors
    /// As [`exactly_once`](Self::exactly_once), with [`Executed::NoneOrComplete`](crate::Executed::NoneOrComplete).
    pub fn at_most_once<P: Atomic>(
        &self,
        arguments: P,
    ) -> impl Future<Output = Result<Value<P>, CallError<Error<P>>>> + Send + use<P> {
        self.clone().call(self.once(), Semantics::AtMostOnce, arguments)
    }

    /// Calls a procedure without a result (today: *one-way*): executed never or once. `Ok` says that it was handed to the connection.
    ///
    /// # Errors
    /// What is known is in [`Failure::executed`]: nearly always that it was not sent and will not be executed; unknown if the service ended
    /// meanwhile.
    pub fn maybe<P: Procedure>(
        &self,
        arguments: P,
    ) -> impl Future<Output = Result<(), Failure>> + Send + use<P> {
        let (caller, once) = (self.clone(), self.once());
        async move {
            if caller.server == caller.shared.me {
                return caller.maybe_here(once, arguments);
            }
            let arguments = codec::encode(&arguments);
            match caller.outcome::<P>(once, Semantics::Maybe, arguments).await {
                Outcome::Failed(failure) => Err(failure),
                Outcome::Done(_) | Outcome::Remote(_) => Ok(()),
            }
        }
    }

    /// At the own node it begins, and nobody waits for it.
    fn maybe_here<P: Procedure>(&self, once: Once, arguments: P) -> Result<(), Failure> {
        let (shared, semantics) = (&self.shared, Semantics::Maybe);
        let info = CallInfo { procedure: P::NAME, node: shared.me, semantics };
        let context = Context {
            client: shared.me,
            life: 0,
            ticket: self.parent,
            semantics,
            until: shared.now() + self.deadline.min(local::LONGEST),
            bytes: self.context.clone(),
            trace: self.trace,
            #[cfg(feature = "tracing")]
            span: tracing::Span::none(),
            stop: Stop::default(),
            level: Level::below(once.numbers),
            shared: Arc::clone(shared),
        };
        local::execute(shared, &info, arguments, context, None).map(drop)
    }

    /// The same, not as a part of any execution: for what has to be said after its end.
    #[cfg(feature = "streams")]
    pub(super) fn apart(&self) -> Self {
        let (parent, stop, level, name) = (None, None, None, None);
        Self { deadline: DEADLINE, parent, stop, level, name, ..self.clone() }
    }

    /// Sends a procedure that nobody answers, without a wait, as streams and names do: if there is no room it is not sent.
    #[cfg(any(feature = "names", feature = "streams"))]
    pub(super) fn tell<P: Procedure>(&self, arguments: P) {
        if self.server == self.shared.me {
            // What is not served any more need not be told.
            let _ = self.maybe_here(Once::default(), arguments);
            return;
        }
        let (once, context) = (Once::default(), trace::pack(self.trace, &self.context));
        let request = self.request::<P>(once, Semantics::Maybe, codec::encode(&arguments), context);
        // Its outcome is of no interest.
        let _ = self.shared.ask(Semantics::Maybe, request).map(super::handle::Asked::forget);
    }

    async fn call<P: Procedure>(
        self,
        once: Once,
        semantics: Semantics,
        arguments: P,
    ) -> Result<Value<P>, CallError<Error<P>>> {
        if self.server == self.shared.me {
            if once.name.is_some() && semantics != Semantics::AtLeastOnce {
                return Err(Failure::not_at_all(Reason::ToSelf).into());
            }
            let Self { shared, deadline, context, trace, parent, stop: parent_stop, turn, .. } =
                self;
            let numbers = once.numbers;
            let local =
                Local { shared, deadline, context, trace, parent, numbers, parent_stop, turn };
            return local::call(local, semantics, arguments).await;
        }
        let unknown =
            || Failure { executed: semantics.unknown(), reason: Reason::Refused(Refusal::Handler) };
        match self.outcome::<P>(once, semantics, codec::encode(&arguments)).await {
            // A result that is none of the procedure was made by an execution all the same.
            Outcome::Done(value) => Ok(codec::decode(&value).map_err(|_| unknown())?),
            Outcome::Remote(error) => {
                Err(CallError::Remote(codec::decode(&error).map_err(|_| unknown())?))
            }
            Outcome::Failed(failure) => Err(failure.into()),
        }
    }

    fn request<P: Procedure>(
        &self,
        once: Once,
        semantics: Semantics,
        arguments: Bytes,
        context: Bytes,
    ) -> impl FnOnce(u64) -> Command + use<P> {
        let (server, deadline) = (self.server, self.deadline);
        let (lane, parent, Once { numbers, name }) = (self.lane, self.parent, once);
        move |token| {
            Command::Call(Request {
                token,
                server,
                procedure: P::ID,
                version: P::VERSION,
                semantics,
                arguments,
                deadline,
                lane,
                parent,
                numbers,
                context,
                name,
            })
        }
    }

    async fn outcome<P: Procedure>(
        &self,
        once: Once,
        semantics: Semantics,
        arguments: Bytes,
    ) -> Outcome {
        let info = CallInfo { procedure: P::NAME, node: self.server, semantics };
        #[cfg(feature = "tracing")]
        {
            let (span, trace) = trace::calling(&self.shared, &info, self.trace);
            trace::within(&span, self.outcome_of::<P>(once, &info, arguments, trace)).await
        }
        #[cfg(not(feature = "tracing"))]
        self.outcome_of::<P>(once, &info, arguments, self.trace).await
    }

    async fn outcome_of<P: Procedure>(
        &self,
        once: Once,
        info: &CallInfo,
        arguments: Bytes,
        trace: Option<Trace>,
    ) -> Outcome {
        let semantics = info.semantics;
        let mut context = self.context.clone();
        if self.shared.has_interceptors() {
            let mut bytes = context.to_vec();
            if let Err(failure) = self.shared.intercepted(info, &mut bytes) {
                return Outcome::Failed(failure);
            }
            context = bytes.into();
        }
        let context = trace::pack(trace, &context);
        let begun = self.shared.now();
        let asked =
            self.shared.ask(semantics, self.request::<P>(once, semantics, arguments, context));
        let orphan = Failure { executed: semantics.unknown(), reason: Reason::Orphan };
        let outcome = match (asked, &self.stop) {
            (Ok(asked), None) => asked.outcome(semantics).await,
            // With its future the call is taken back.
            (Ok(asked), Some(stop)) => tokio::select! {
                biased;
                outcome = asked.outcome(semantics) => outcome,
                () = stop.stopped() => Outcome::Failed(orphan),
            },
            (Err(failure), _) => Outcome::Failed(failure),
        };
        if self.shared.has_interceptors() {
            self.shared.called(info, &outcome, self.shared.now().saturating_since(begun));
        }
        outcome
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("server", &self.server).finish_non_exhaustive()
    }
}
