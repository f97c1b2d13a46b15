//! Calls that nobody answers, and whether calls are taken at all.

use bytes::Bytes;
use mainstay_base::{Instant, NodeId};

use super::{Run, Server};
use crate::config::TRACE_BYTES;
use crate::lines::Lines;
use crate::wire::{ProcedureId, STREAM};
use crate::{Config, Event, Execution, Semantics};

/// A call that somebody wants to be executed that nobody answers.
#[derive(Clone, Hash, Debug)]
pub(crate) struct Loose {
    pub(super) client: NodeId,
    pub(super) life: u64,
    pub(super) until: Instant,
    /// Microseconds from when it came.
    pub(super) budget: u64,
    pub(super) procedure: ProcedureId,
    pub(super) version: u16,
    pub(super) arguments: Bytes,
    pub(super) context: Bytes,
}

impl Loose {
    pub(crate) fn new(
        client: NodeId,
        (procedure, version, budget): (ProcedureId, u16, u64),
        arguments: Bytes,
        context: Bytes,
    ) -> Self {
        let (life, until) = (0, Instant::ZERO);
        Self { client, life, until, budget, procedure, version, arguments, context }
    }

    pub(super) fn bytes(&self) -> usize {
        self.arguments.len() + self.context.len()
    }
}

/// Whether calls are taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Drain {
    No,
    /// Only those by which the streams of former ones are read.
    Streams,
    /// None.
    All,
}

impl Drain {
    pub(super) fn refuses(self, procedure: ProcedureId, config: &Config) -> bool {
        let is_stream = STREAM.contains(&procedure) && !mainstay_base::fault!(config, CutsStreams);
        match self {
            Self::No => false,
            Self::Streams => !is_stream,
            Self::All => true,
        }
    }
}

impl Server {
    /// A call that nobody answers.
    pub(crate) fn on_cast(&mut self, now: Instant, lines: &mut Lines, mut loose: Loose) {
        let versions = self.served.get(&loose.procedure);
        let is_served =
            versions.is_some_and(|(oldest, newest)| (*oldest..=*newest).contains(&loose.version));
        let waits = || self.loose.iter().filter(|it| it.client == loose.client);
        let bytes = waits().map(Loose::bytes).sum::<usize>() + loose.bytes();
        let is_room = waits().count() < self.config.window as usize
            && loose.bytes() <= self.config.body_bytes_max + TRACE_BYTES
            && bytes <= self.config.client_bytes_max + TRACE_BYTES;
        let is_refused = self.drain.refuses(loose.procedure, &self.config);
        if !is_served || is_refused || !is_room {
            self.counts.refused += 1;
            return;
        }
        loose.life = self.clients.entry(loose.client).or_default().life;
        loose.until = self.until(now, loose.budget);
        self.loose.push_back(loose);
        self.fill(now, lines);
    }

    /// The next one that need not wait for orphans of its client.
    pub(super) fn next_loose(&mut self) -> Option<Loose> {
        let waits = |of: &NodeId| self.clients.get(of).is_some_and(|client| client.orphans > 0);
        let at = self.loose.iter().position(|loose| !waits(&loose.client))?;
        self.loose.remove(at)
    }

    pub(super) fn begin_loose(&mut self, now: Instant, lines: &mut Lines, loose: Loose) {
        let Loose { client, life, until, procedure, version, arguments, context, .. } = loose;
        if until <= now {
            return;
        }
        let ticket = self.ticket();
        let run = Run {
            client,
            life,
            seq: 0,
            lane: None,
            epoch: 0,
            until,
            is_ended: false,
            is_orphan: false,
            granted: None,
            asks: now,
            adoptable: None,
        };
        self.runs.insert(ticket, run);
        self.loose_deadlines.insert((until, ticket));
        self.counts.begun += 1;
        let semantics = Semantics::Maybe;
        let left = until.saturating_since(now);
        let execution = Execution {
            ticket,
            client,
            life,
            procedure,
            version,
            semantics,
            arguments,
            left,
            context,
        };
        lines.tell(Event::Execute(execution));
    }
}
