//! Own messages: from the cast to the frame.

use bytes::{Bytes, BytesMut};
use mainstay_base::{Instant, Level, MessageId, Order};

use super::Group;
use crate::config::{FRAME_BYTES, FRAME_MESSAGES, MESSAGE_OVERHEAD};
use crate::event::{CastError, FIFO};
use crate::message::Message;

/// The place of a lane in pairs of numbers.
pub(super) fn lane(order: Order) -> usize {
    match order {
        Order::Total => 0,
        Order::Fifo => 1,
    }
}

impl Group {
    /// Sends a message to the group, at the end of the turn; while the group is wedged, in the next view. `level` is the
    /// highest level that the caster waits for: for `Majority` and `Safe` the others report at once.
    ///
    /// # Errors
    /// [`CastError`]; nothing changed.
    pub fn cast(
        &mut self,
        now: Instant,
        order: Order,
        payload: Bytes,
        level: Level,
    ) -> Result<MessageId, CastError> {
        let sender = self.site.ok_or(CastError::NotMember)?;
        let is_fifo = order == Order::Fifo;
        if is_fifo && level > Level::Delivered || level == Level::Disk && !self.config.is_disk() {
            return Err(CastError::Level(level));
        }
        if payload.len() > self.config.payload_max {
            return Err(CastError::TooLarge(payload.len()));
        }
        let cost = payload.len() + MESSAGE_OVERHEAD;
        if self.own_bytes + cost > self.config.unstable_bytes {
            self.stats.full += 1;
            self.pressed_since.get_or_insert(now);
            return Err(CastError::Full { payload });
        }
        self.own_bytes += cost;
        self.stats.cast += 1;
        // What is forced is reported at once anyway, and says that it was received.
        self.prompt |= matches!(level, Level::Majority | Level::Safe);
        self.assigned[lane(order)] += 1;
        let sequence = self.assigned[lane(order)];
        match &self.current {
            Some(current) if !self.is_wedged() => {
                let me = current.me;
                self.data.lane_mut(order)[me].push(payload);
            }
            _ => self.queue.push_back((order, payload)),
        }
        Ok(MessageId { sender, sequence: if is_fifo { sequence | FIFO } else { sequence } })
    }

    /// Sends what was cast since the last turn.
    pub(super) fn send_data(&mut self) {
        for order in [Order::Total, Order::Fifo] {
            while let Some(message) = self.next_frame(order) {
                self.broadcast(&message);
            }
        }
        self.prompt = false;
    }

    fn next_frame(&mut self, order: Order) -> Option<Message> {
        let current = self.current.as_ref()?;
        let stream = &self.data.lane(order)[current.me];
        let first = self.sent[lane(order)] + 1;
        if first > stream.received() {
            return None;
        }
        let (lens, payload) = gather(stream.range(first, stream.received()));
        self.sent[lane(order)] += lens.len() as u64;
        Some(Message::Data { view: current.id, order, first, lens, prompt: self.prompt, payload })
    }
}

/// As many payloads as go into a frame: their lengths, and all of them in one. A single one is not copied.
pub(super) fn gather<'a>(payloads: impl Iterator<Item = &'a Bytes>) -> (Vec<u32>, Bytes) {
    let mut payloads = payloads.peekable();
    let Some(first) = payloads.next() else { return (Vec::new(), Bytes::new()) };
    let mut lens = vec![first.len() as u32];
    if payloads.peek().is_none_or(|next| first.len() + next.len() > FRAME_BYTES) {
        return (lens, first.clone());
    }
    let mut whole = BytesMut::from(&first[..]);
    for payload in payloads {
        if whole.len() + payload.len() > FRAME_BYTES || lens.len() == FRAME_MESSAGES {
            break;
        }
        lens.push(payload.len() as u32);
        whole.extend_from_slice(payload);
    }
    (lens, whole.freeze())
}
