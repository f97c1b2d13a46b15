//! The two directions of a stream: the messages of one instance between two boots.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use mainstay_base::service::{Address, Class};

use super::wire::{Head, encode};
use super::{FRAME_COST, PART_BYTES, QUEUE_BYTES};

/// A message that waits, or is partly gone.
struct Waiting {
    view: u64,
    meta: Bytes,
    payload: Bytes,
    /// Bytes of both parts at the beginning.
    size: (u32, u32),
    begun: bool,
}

/// What goes to a peer.
pub(super) struct Outgoing {
    pub(super) class: Class,
    /// Of the addressee.
    run: u64,
    /// What the addressee grants.
    window: u64,
    waiting: VecDeque<Waiting>,
    /// Bytes in `waiting`, with the cost of their frames.
    queued: usize,
    /// Bytes handed to the link.
    sent: u64,
    /// Of `sent`, what the other end has taken in: `taken <= sent`.
    taken: u64,
    /// It is among those of its class that have something to send.
    pub(super) runs: bool,
}

impl Outgoing {
    pub(super) fn new(class: Class, run: u64, window: u64) -> Self {
        Self {
            class,
            run,
            window,
            waiting: VecDeque::new(),
            queued: 0,
            sent: 0,
            taken: 0,
            runs: false,
        }
    }

    pub(super) fn run(&self) -> u64 {
        self.run
    }

    /// Whether a message of so many bytes has a place. One always has in an empty queue.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        self.waiting.is_empty() || self.queued + bytes + FRAME_COST <= QUEUE_BYTES
    }

    /// Half of the queue is free.
    pub(super) fn is_roomy(&self) -> bool {
        self.queued <= QUEUE_BYTES / 2
    }

    /// Takes a message that fits.
    pub(super) fn push(&mut self, view: u64, meta: Bytes, payload: Bytes) {
        self.queued += meta.len() + payload.len() + FRAME_COST;
        let size = (meta.len() as u32, payload.len() as u32);
        self.waiting.push_back(Waiting { view, meta, payload, size, begun: false });
    }

    /// The next frame is the beginning of a message that has several.
    pub(super) fn begins_large(&self) -> bool {
        let is_large =
            |next: &Waiting| !next.begun && next.meta.len() + next.payload.len() > PART_BYTES;
        self.waiting.front().is_some_and(is_large)
    }

    /// A message is partly gone.
    pub(super) fn is_within(&self) -> bool {
        self.waiting.front().is_some_and(|next| next.begun)
    }

    pub(super) fn has_more(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Bytes that were handed to the link and are not taken in.
    pub(super) fn flight(&self) -> u64 {
        self.sent - self.taken
    }

    /// What the next frame costs: what the other end counts when it comes.
    fn next_cost(&self) -> u64 {
        let Some(next) = self.waiting.front() else { return 0 };
        let left = next.meta.len() + next.payload.len();
        let body = match next.begun {
            false if left <= PART_BYTES => left,
            false => 0,
            true if next.meta.is_empty() => next.payload.len().min(PART_BYTES),
            true => next.meta.len().min(PART_BYTES),
        };
        (FRAME_COST + body) as u64
    }

    /// Whether the addressee has granted the next frame. One frame is always granted when nothing is on the way. A message that goes in
    /// parts begins when all of it is granted, or when nothing is on the way, as then its parts are granted as they come: it never waits
    /// half gone for a service that takes nothing in, while other streams wait for its end.
    pub(super) fn may_send(&self) -> bool {
        let cost = if self.begins_large() { self.large_cost() } else { self.next_cost() };
        self.has_more() && (self.flight() == 0 || self.flight() + cost <= self.window)
    }

    /// What all frames of the next message cost, if it goes in parts.
    fn large_cost(&self) -> u64 {
        let Some(next) = self.waiting.front() else { return 0 };
        let (meta, payload) = (next.meta.len(), next.payload.len());
        let frames = 1 + meta.div_ceil(PART_BYTES) + payload.div_ceil(PART_BYTES);
        (frames * FRAME_COST + meta + payload) as u64
    }

    /// The next frame, meta part and payload, and what it costs.
    pub(super) fn next_frame(&mut self, of: Address) -> Option<(Bytes, Bytes, u64)> {
        let cost = self.next_cost();
        let run = self.run;
        let next = self.waiting.front_mut()?;
        let (meta, payload) = if next.begun {
            let from = if next.meta.is_empty() { &mut next.payload } else { &mut next.meta };
            let part = from.split_to(from.len().min(PART_BYTES));
            (encode(&Head::Part { of, run }, &[]), part)
        } else {
            next.begun = true;
            let (meta, payload) = next.size;
            let head = Head::Message { of, run, view: next.view, meta, payload };
            if next.meta.len() + next.payload.len() <= PART_BYTES {
                let meta = std::mem::take(&mut next.meta);
                (encode(&head, &meta), std::mem::take(&mut next.payload))
            } else {
                (encode(&head, &[]), Bytes::new())
            }
        };
        if next.meta.is_empty() && next.payload.is_empty() {
            let (meta, payload) = next.size;
            self.queued -= meta as usize + payload as usize + FRAME_COST;
            self.waiting.pop_front();
        }
        self.sent += cost;
        Some((meta, payload, cost))
    }

    /// The addressee has taken in that much. `None`: it was never sent.
    pub(super) fn on_taken(&mut self, upto: u64) -> Option<()> {
        (upto <= self.sent).then_some(())?;
        self.taken = self.taken.max(upto);
        Some(())
    }
}

/// A message of which a part has come.
struct Assembly {
    view: u64,
    meta: usize,
    size: usize,
    bytes: BytesMut,
}

/// What comes from a peer.
#[derive(Default)]
pub(super) struct Incoming {
    /// Which one it is, of all that ever came.
    pub(super) number: u64,
    /// Messages that a service beside the node has not taken in.
    waiting: usize,
    assembly: Option<Assembly>,
    /// Bytes that came.
    came: u64,
    /// Of `came`, what was taken in.
    pub(super) taken: u64,
    /// Of `taken`, what the other end was told of.
    pub(super) told: u64,
}

impl Incoming {
    pub(super) fn new(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    /// What has come of it in part is void.
    pub(super) fn drop_part(&mut self) {
        self.assembly = None;
    }

    /// What has come of a message in part.
    pub(super) fn held_bytes(&self) -> usize {
        self.assembly.as_ref().map_or(0, |assembly| assembly.bytes.len())
    }

    /// A message has come in part.
    pub(super) fn is_within(&self) -> bool {
        self.assembly.is_some()
    }
}

/// A message that has come whole.
pub(super) struct Whole {
    pub(super) view: u64,
    pub(super) meta: Bytes,
    pub(super) payload: Bytes,
}

impl Incoming {
    /// Counts a frame. False: it is beyond what was granted. The sender knows of what it was told at the most.
    pub(super) fn count(&mut self, body: usize, window: u64) -> bool {
        let cost = (FRAME_COST + body) as u64;
        let flight = self.came - self.told;
        if flight > 0 && flight + cost > window {
            return false;
        }
        self.came += cost;
        true
    }

    /// All that came is taken in: by how much.
    pub(super) fn take(&mut self) -> u64 {
        self.take_to(self.came)
    }

    fn take_to(&mut self, upto: u64) -> u64 {
        let bytes = upto.saturating_sub(self.taken);
        self.taken += bytes;
        bytes
    }

    /// A whole message waits: how much had come with it.
    pub(super) fn lend(&mut self) -> u64 {
        self.waiting += 1;
        self.came
    }

    /// What has come of a message in part is taken in at once, or it could not become whole; not while others wait.
    pub(super) fn take_part(&mut self) -> u64 {
        if self.waiting == 0 { self.take() } else { 0 }
    }

    /// The first message that waits was taken in, with which that much had come: by how much.
    pub(super) fn give_back(&mut self, came: u64) -> u64 {
        self.waiting -= 1;
        self.take_to(came) + self.take_part()
    }

    /// A message begins. `Err`: the last one has not ended.
    pub(super) fn begin(
        &mut self,
        view: u64,
        size: (usize, usize),
        rest: Bytes,
        payload: Bytes,
    ) -> Result<Option<Whole>, ()> {
        if self.assembly.take().is_some() {
            return Err(());
        }
        let (meta, raw) = size;
        if rest.len() == meta && payload.len() == raw {
            return Ok(Some(Whole { view, meta: rest, payload }));
        }
        if !rest.is_empty() || !payload.is_empty() {
            return Err(());
        }
        // What a peer says of the size is believed as the bytes come.
        let bytes = BytesMut::with_capacity((meta + raw).min(4 * PART_BYTES));
        self.assembly = Some(Assembly { view, meta, size: meta + raw, bytes });
        Ok(None)
    }

    /// More of it. `Err`: nothing has begun, or it is too much.
    pub(super) fn add(&mut self, part: &Bytes) -> Result<Option<Whole>, ()> {
        let Some(mut assembly) = self.assembly.take() else { return Err(()) };
        assembly.bytes.extend_from_slice(part);
        if assembly.bytes.len() > assembly.size || part.is_empty() {
            return Err(());
        }
        if assembly.bytes.len() < assembly.size {
            self.assembly = Some(assembly);
            return Ok(None);
        }
        let mut payload = assembly.bytes.freeze();
        let meta = payload.split_to(assembly.meta);
        Ok(Some(Whole { view: assembly.view, meta, payload }))
    }
}
