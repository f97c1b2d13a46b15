//! What a host does with outputs.

use std::collections::VecDeque;
use std::fmt;
use std::future::ready;

use mainstay_base::{Instant, Machine};

use super::Hosted;
use super::core::Queued;
use super::handle::WeakHandle;
use crate::ports::LocalFuture;

/// Carries out what a machine puts out. It never waits: I/O is begun here and completes as an input.
///
/// A closure `FnMut(M::Output, &mut Port<'_, M>)` is a performer.
pub trait Perform<M: Hosted>: 'static {
    /// Carries out one output; called in the order of the outputs. A panic halts the host.
    fn perform(&mut self, output: M::Output, port: &mut Port<'_, M>);

    /// The host runs; its handle is at [`Port::handle`]. The place to start a transport and a store.
    fn started(&mut self, port: &mut Port<'_, M>) {
        let _ = port;
    }

    /// All outputs of a turn have been carried out. The place to flush a transport.
    fn turn_ended(&mut self, port: &mut Port<'_, M>) {
        let _ = port;
    }

    /// The last turn has ended: closes what is outside (stop accepting, flush writers). The host waits for the future,
    /// but not beyond `deadline`.
    fn closing(&mut self, deadline: Instant) -> LocalFuture<()> {
        let _ = deadline;
        Box::pin(ready(()))
    }

    /// The bytes that an input counts for, at the mailbox and in a turn. Default: its size without what it points to.
    fn weigh(input: &M::Input) -> usize {
        size_of_val(input)
    }
}

impl<M: Hosted, F: FnMut(M::Output, &mut Port<'_, M>) + 'static> Perform<M> for F {
    fn perform(&mut self, output: M::Output, port: &mut Port<'_, M>) {
        self(output, port);
    }
}

/// What a performer may ask of its host.
pub struct Port<'a, M: Hosted> {
    pub(super) now: Instant,
    pub(super) backlog: &'a mut VecDeque<Queued<M::Input>>,
    pub(super) handle: &'a WeakHandle<M>,
}

impl<M: Hosted> Port<'_, M> {
    /// The moment at which the turn ended.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Hands back an input that follows at once from an output. It is taken in by the next turn, before anything from
    /// the mailbox, and never within the current one.
    pub fn feed(&mut self, input: <M as Machine>::Input) {
        self.backlog.push_back(Queued { input, admission: None });
    }

    /// The host's own handle, for completions.
    #[must_use]
    pub fn handle(&self) -> WeakHandle<M> {
        self.handle.clone()
    }
}

impl<M: Hosted> fmt::Debug for Port<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("now", &self.now).finish_non_exhaustive()
    }
}
