//! The messages of one view: who sent what, and in which order.

use mainstay_base::{MessageId, Order, Position, SiteId, ViewId};

use crate::event::{Delivery, FIFO};
use crate::order::{Log, Placed};
use crate::stream::Stream;

/// All that is kept of one view.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Epoch {
    pub(crate) view: ViewId,
    /// The members in rank order.
    pub(crate) senders: Vec<SiteId>,
    pub(crate) total: Vec<Stream>,
    pub(crate) fifo: Vec<Stream>,
    pub(crate) log: Log,
    /// Up to here both numbers and data are here.
    pub(crate) held: u64,
}

impl Epoch {
    /// The messages of `view` that follow position `start` and, per sender, these sequence numbers in both lanes.
    pub(crate) fn new(view: ViewId, start: u64, senders: Vec<(SiteId, u64, u64)>) -> Self {
        Self {
            view,
            total: senders.iter().map(|(_, total, _)| Stream::after(*total)).collect(),
            fifo: senders.iter().map(|(_, _, fifo)| Stream::after(*fifo)).collect(),
            log: Log::after(start, senders.iter().map(|(_, total, _)| *total).collect()),
            senders: senders.into_iter().map(|(site, _, _)| site).collect(),
            held: start,
        }
    }

    /// Before the first view.
    pub(crate) fn empty() -> Self {
        Self::new(ViewId::NONE, 0, Vec::new())
    }

    /// How many messages are here.
    pub(crate) fn count(&self) -> u64 {
        let streams = self.total.iter().chain(&self.fifo);
        streams.map(|stream| stream.received() - stream.gone()).sum()
    }

    pub(crate) fn lane(&self, order: Order) -> &[Stream] {
        match order {
            Order::Total => &self.total,
            Order::Fifo => &self.fifo,
        }
    }

    pub(crate) fn lane_mut(&mut self, order: Order) -> &mut [Stream] {
        match order {
            Order::Total => &mut self.total,
            Order::Fifo => &mut self.fifo,
        }
    }

    /// Per rank the last message received in a lane.
    pub(crate) fn received(&self, order: Order) -> Vec<u64> {
        self.lane(order).iter().map(Stream::received).collect()
    }

    /// Moves `held` as far as numbers and data go.
    pub(crate) fn advance(&mut self) {
        let known = self.log.known();
        while self.held < known {
            let Some(run) = self.log.range(self.held + 1, known).next() else { break };
            let data = self.total[run.rank].received();
            let count = (data + 1).saturating_sub(run.first).min(run.count);
            self.held += count;
            if count < run.count {
                break;
            }
        }
    }

    /// Appends to `out` the messages of a run whose data are here.
    pub(crate) fn deliver(&self, run: Placed, out: &mut Vec<Delivery>) {
        let sender = self.senders[run.rank];
        let payloads = self.total[run.rank].range(run.first, run.last());
        out.extend(payloads.zip(0..).map(|(payload, step)| Delivery {
            message: MessageId { sender, sequence: run.first + step },
            order: Order::Total,
            position: Some(Position(run.at + step)),
            view: self.view,
            payload: payload.clone(),
        }));
    }

    /// Appends to `out` the messages of a rank in FIFO order behind `from`, up to `to`.
    pub(crate) fn deliver_fifo(&self, rank: usize, from: u64, to: u64, out: &mut Vec<Delivery>) {
        let sender = self.senders[rank];
        let payloads = self.fifo[rank].range(from + 1, to);
        out.extend(payloads.zip(from + 1..).map(|(payload, sequence)| Delivery {
            message: MessageId { sender, sequence: sequence | FIFO },
            order: Order::Fifo,
            position: None,
            view: self.view,
            payload: payload.clone(),
        }));
    }
}
