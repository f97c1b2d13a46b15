//! Calls that nobody answers, and whether calls are taken at all.

use bytes::Bytes;
use mainstay_base::{Instant, NodeId};

use crate::Config;
use crate::wire::{ProcedureId, STREAM};

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
