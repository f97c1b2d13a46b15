//! The two directions of a session: what is on its way, and what has come.
//!
//! Positions count user frames of one direction from 1 and never wrap; a frame carries the low 32 bits of `origin +
//! position`. A window is less than 2^30 frames, so the distance of a received number from the next one expected is
//! always told by its sign (the receiver is at most a window behind, and a copy that old is out of the network before
//! 2^31 frames follow it: an assumption that a TCP connection fulfils by itself).

use std::collections::VecDeque;
use std::hash::Hash;

use mainstay_base::{Fingerprint, Fingerprinter, Frame};

use super::Unsettled;

/// Frames sent and not acknowledged yet. Go-back-N: the receiver takes only the next one in order.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    origin: u32,
    acked: u64,
    /// The next position to hand to the transport: `acked < cursor <= top + 1`.
    cursor: u64,
    /// Everything above was never handed to the transport.
    reached: u64,
    /// Positions up to here are sent again after a timeout, in bursts.
    recovery: u64,
    frames: VecDeque<Frame>,
    bytes: usize,
    /// Bytes of the positions between `acked` and `cursor`.
    flight: usize,
}

/// What an acknowledgement means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Acked {
    /// Nothing new.
    Stale,
    /// Some frames are done.
    Progress,
    /// It names frames that were never sent: the peer is wrong.
    Beyond,
}

impl Outgoing {
    pub(crate) fn new(origin: u32) -> Self {
        Self {
            origin,
            acked: 0,
            cursor: 1,
            reached: 0,
            recovery: 0,
            frames: VecDeque::new(),
            bytes: 0,
            flight: 0,
        }
    }

    pub(crate) fn acked(&self) -> u64 {
        self.acked
    }

    /// What is not acknowledged, by number.
    pub(crate) fn unsettled(&self) -> Unsettled {
        let reached = self.reached.max(self.acked);
        Unsettled { unknown: self.acked + 1..reached + 1, void: reached + 1..self.top() + 1 }
    }

    pub(crate) fn top(&self) -> u64 {
        self.acked + self.frames.len() as u64
    }

    pub(crate) fn reached(&self) -> u64 {
        self.reached
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(crate) fn fits(&self, body: usize, bytes_max: usize, frames_max: usize) -> bool {
        self.frames.len() < frames_max && self.bytes + body <= bytes_max
    }

    /// Half of the window is free again.
    pub(crate) fn is_roomy(&self, bytes_max: usize, frames_max: usize) -> bool {
        self.frames.len() <= frames_max / 2 && self.bytes <= bytes_max / 2
    }

    /// Takes a frame in and numbers it.
    pub(crate) fn admit(&mut self, mut frame: Frame) {
        frame.seq = self.origin.wrapping_add((self.top() + 1) as u32);
        self.bytes += frame.body_len();
        self.frames.push_back(frame);
    }

    /// The next frame for the transport, and whether it is its first time; the frame shares its bytes with the window.
    pub(crate) fn transmit(&mut self, burst: usize) -> Option<(Frame, bool)> {
        if self.cursor <= self.recovery && self.flight >= burst {
            return None;
        }
        let frame = self.frames.get((self.cursor - self.acked - 1) as usize)?;
        let fresh = self.cursor > self.reached;
        self.reached = self.reached.max(self.cursor);
        self.cursor += 1;
        self.flight += frame.body_len();
        Some((frame.clone(), fresh))
    }

    pub(crate) fn ack(&mut self, received: u64) -> Acked {
        if received > self.reached {
            return Acked::Beyond;
        }
        if received <= self.acked {
            return Acked::Stale;
        }
        while self.acked < received {
            let frame = self.frames.pop_front().expect("positions up to the top are in the window");
            self.bytes -= frame.body_len();
            self.acked += 1;
            if self.acked < self.cursor {
                self.flight -= frame.body_len();
            }
        }
        self.cursor = self.cursor.max(self.acked + 1);
        Acked::Progress
    }

    /// Starts again from the first unacknowledged frame, all at once on a new connection.
    pub(crate) fn rewind(&mut self) {
        self.cursor = self.acked + 1;
        self.flight = 0;
        self.recovery = 0;
    }

    /// Starts again from the first unacknowledged frame, in bursts.
    pub(crate) fn recover(&mut self) {
        self.rewind();
        self.recovery = self.reached;
    }

    /// Unsent frames under another session: the defect that `KeepsWindowOfReplaced` stands for.
    #[cfg(feature = "test-util")]
    pub(crate) fn transplant(&mut self, former: Self, session: u64) {
        for mut frame in former.frames {
            frame.session = session;
            self.admit(frame);
        }
    }

    /// `acked < cursor <= top + 1`, nothing above `reached` is acknowledged, and the sums are right.
    pub(crate) fn check_invariants(&self, bytes_max: usize, frames_max: usize) {
        assert!(self.acked < self.cursor, "what is acknowledged is not sent again");
        assert!(self.cursor <= self.top() + 1, "only what was taken in is sent");
        assert!(self.acked <= self.reached, "only what was sent is acknowledged");
        assert!(self.cursor <= self.reached + 1, "the cursor moves over what it sends");
        assert!(self.frames.len() <= frames_max, "the window bounds the frames");
        assert!(self.bytes <= bytes_max, "the window bounds the bytes");
        if self.frames.len() <= 64 {
            let bytes: usize = self.frames.iter().map(Frame::body_len).sum();
            assert_eq!(bytes, self.bytes, "the window knows its bytes");
            let sent = (self.cursor - self.acked - 1) as usize;
            let flight: usize = self.frames.iter().take(sent).map(Frame::body_len).sum();
            assert_eq!(flight, self.flight, "the window knows its bytes on the way");
        }
    }
}

impl Fingerprint for Outgoing {
    fn fingerprint(&self, into: &mut Fingerprinter) {
        (self.origin, self.acked, self.cursor, self.reached, self.recovery).hash(into);
        self.frames.hash(into);
    }
}

/// What a received sequence number is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    Next,
    Duplicate,
    Gap,
}

/// Frames received.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    origin: u32,
    received: u64,
    /// Sizes of what is here and not acknowledged until the user takes it, in order. Empty if nothing waits for that.
    untaken: VecDeque<usize>,
    untaken_bytes: usize,
    unacked_bytes: usize,
    unacked_frames: usize,
}

impl Incoming {
    pub(crate) fn new(origin: u32) -> Self {
        Self {
            origin,
            received: 0,
            untaken: VecDeque::new(),
            untaken_bytes: 0,
            unacked_bytes: 0,
            unacked_frames: 0,
        }
    }

    /// How many the peer may forget.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.received - self.untaken.len() as u64
    }

    /// Whether so much more may wait to be taken.
    pub(crate) fn fits(&self, body: usize, bytes_max: usize, frames_max: usize) -> bool {
        self.untaken.len() < frames_max && self.untaken_bytes + body <= bytes_max
    }

    pub(crate) fn classify(&self, seq: u32) -> Arrival {
        let next = self.origin.wrapping_add((self.received + 1) as u32);
        match (seq.wrapping_sub(next) as i32).signum() {
            0 => Arrival::Next,
            1 => Arrival::Gap,
            _ => Arrival::Duplicate,
        }
    }

    pub(crate) fn accept(&mut self, body: usize) {
        self.received += 1;
        self.owe(body);
    }

    /// As [`accept`](Self::accept), but the acknowledgement waits for [`take`](Self::take).
    pub(crate) fn keep(&mut self, body: usize) {
        self.received += 1;
        self.untaken.push_back(body);
        self.untaken_bytes += body;
    }

    /// The user has taken the oldest that waits. False: none does.
    pub(crate) fn take(&mut self) -> bool {
        let Some(body) = self.untaken.pop_front() else { return false };
        self.untaken_bytes -= body;
        self.owe(body);
        true
    }

    fn owe(&mut self, body: usize) {
        self.unacked_bytes += body;
        self.unacked_frames += 1;
    }

    pub(crate) fn owes_ack(&self, bytes: usize, frames: usize) -> bool {
        self.unacked_bytes >= bytes || self.unacked_frames >= frames
    }

    pub(crate) fn on_acked(&mut self) {
        self.unacked_bytes = 0;
        self.unacked_frames = 0;
    }

    /// What waits was received, is within the window, and its sum is right.
    pub(crate) fn check_invariants(&self, bytes_max: usize, frames_max: usize) {
        assert!(self.untaken.len() as u64 <= self.received, "only what was received is taken");
        assert!(self.untaken.len() <= frames_max, "the window bounds what waits to be taken");
        assert!(self.untaken_bytes <= bytes_max, "the window bounds what waits to be taken");
        if self.untaken.len() <= 64 {
            let bytes: usize = self.untaken.iter().sum();
            assert_eq!(bytes, self.untaken_bytes, "the bytes that wait are counted");
        }
    }
}

impl Fingerprint for Incoming {
    fn fingerprint(&self, into: &mut Fingerprinter) {
        (self.origin, self.received, self.unacked_bytes, self.unacked_frames).hash(into);
        self.untaken.hash(into);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn frame(size: usize) -> Frame {
        Frame { payload: Bytes::from(vec![0; size]), ..Frame::default() }
    }

    /// Checks MB-27 for numbers around the wrap.
    #[test]
    fn numbers_wrap() {
        let mut outgoing = Outgoing::new(u32::MAX - 2);
        let mut incoming = Incoming::new(u32::MAX - 2);
        for position in 1..=6u64 {
            outgoing.admit(frame(1));
            let (frame, fresh) = outgoing.transmit(0).unwrap();
            assert!(fresh);
            assert_eq!(incoming.classify(frame.seq), Arrival::Next);
            assert_eq!(incoming.classify(frame.seq.wrapping_add(1)), Arrival::Gap);
            incoming.accept(1);
            assert_eq!(incoming.classify(frame.seq), Arrival::Duplicate);
            assert_eq!(incoming.acknowledged(), position);
        }
        assert_eq!(outgoing.ack(7), Acked::Beyond);
        assert_eq!(outgoing.ack(4), Acked::Progress);
        assert_eq!(outgoing.ack(4), Acked::Stale);
        assert_eq!(outgoing.top(), 6);
        outgoing.check_invariants(10, 10);
    }

    #[test]
    fn recovery_goes_in_bursts_and_an_acknowledgement_moves_it_on() {
        let mut outgoing = Outgoing::new(0);
        for _ in 0..4 {
            outgoing.admit(frame(10));
            outgoing.transmit(15).unwrap();
        }
        assert!(outgoing.transmit(15).is_none());
        outgoing.recover();
        assert!(!outgoing.transmit(15).unwrap().1);
        assert!(!outgoing.transmit(15).unwrap().1);
        assert!(outgoing.transmit(15).is_none());
        outgoing.check_invariants(100, 10);
        assert_eq!(outgoing.ack(1), Acked::Progress);
        assert!(outgoing.transmit(15).is_some());
        assert_eq!(outgoing.ack(4), Acked::Progress);
        outgoing.admit(frame(10));
        assert!(outgoing.transmit(15).unwrap().1);
        outgoing.check_invariants(100, 10);
    }
}
