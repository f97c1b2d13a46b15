//! The network between whole nodes: connections that keep their order until they break.
//!
//! A cut stalls what is on its way; it may break the connections that it lasts on. A killed process closes its
//! connections, a machine without power says nothing: whoever sends there learns of it when the machine is back.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use mainstay_base::{ConnId, Duration, Frame, Instant, NodeId, Rng};
use mainstay_runtime::{CloseReason, TransportEvent};

use super::inbox::{Inbox, Mailbox, Read};
use super::kernel::{Kernel, Task};
use super::room::Kind;
use crate::Options;
use crate::schedule::{Action, nanos};

/// How long a dial that meets silence is tried, and how often.
const DIAL_WITHIN: Duration = Duration::from_secs(3);
const DIAL_AGAIN: Duration = Duration::from_millis(250);
/// The longest time until a connection on a cut that lasts breaks.
const CUT_BREAKS: Duration = Duration::from_secs(3);
/// Most bytes that one end may have sent and the other not read: beyond, the connection is given up.
const QUEUE_BYTES_MAX: usize = 40 << 20;

/// How a process goes away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Gone {
    /// It closes its connections itself.
    Closed,
    /// The system closes them.
    Killed,
    /// Nobody closes them.
    Power,
}

/// What is on its way.
enum Item {
    Accepted,
    Frames(Vec<Frame>),
    End(CloseReason),
}

struct End {
    node: usize,
    open: bool,
    /// It knows of the connection.
    told: bool,
    /// Queued until the next flush.
    queued: Vec<Frame>,
    sent: VecDeque<Item>,
    /// When the last item sent arrives.
    last: Instant,
    /// Of the items sent, those that a cut has stopped.
    stalled: usize,
    /// Sent, and not read by the other end.
    bytes: usize,
}

struct Conn {
    ends: [End; 2],
    /// Whom the first end dialled.
    dialled: NodeId,
}

struct Dial {
    from: usize,
    boot: u64,
    node: NodeId,
    address: SocketAddr,
    until: Instant,
    refused: bool,
}

struct Point {
    address: SocketAddr,
    boot: u64,
    listens: bool,
    off: bool,
    mailbox: Rc<dyn Mailbox>,
}

/// Frames that a node took in at once.
#[derive(Clone, Debug)]
pub struct Captured {
    /// From this node.
    pub from: usize,
    /// By this one.
    pub to: usize,
    /// They.
    pub frames: Vec<Frame>,
}

pub(super) struct Net {
    kernel: Rc<Kernel>,
    rng: Rng,
    options: Options,
    calm: bool,
    nodes: usize,
    /// The nodes, then their ports for clients, then the clients.
    points: Vec<Point>,
    conns: BTreeMap<u64, Conn>,
    dials: BTreeMap<u64, Dial>,
    last: u64,
    cuts: BTreeMap<(usize, usize), u32>,
    /// Bytes in a second from each point to each other one.
    rate: Option<u64>,
    /// When a way has carried all that was sent on it.
    free: BTreeMap<(usize, usize), Instant>,
    pub(super) captured: Option<Vec<Captured>>,
}

fn point(index: usize) -> Point {
    Point {
        address: address(index),
        boot: 0,
        listens: false,
        off: false,
        mailbox: Rc::<Inbox>::default(),
    }
}

/// Where each process is in every room.
pub(super) fn address(index: usize) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, u16::try_from(index + 1).unwrap_or(u16::MAX)).into()
}

/// The connection and which end of it `conn` names.
fn place(conn: ConnId) -> (u64, usize) {
    (conn.0 / 2, (conn.0 % 2) as usize)
}

fn name(conn: u64, end: usize) -> ConnId {
    ConnId(conn * 2 + end as u64)
}

impl Net {
    pub(super) fn new(kernel: Rc<Kernel>, rng: Rng, options: Options, nodes: usize) -> Self {
        Self {
            kernel,
            rng,
            options,
            calm: false,
            nodes,
            points: (0..2 * nodes).map(point).collect(),
            conns: BTreeMap::new(),
            dials: BTreeMap::new(),
            last: 0,
            cuts: BTreeMap::new(),
            rate: None,
            free: BTreeMap::new(),
            captured: None,
        }
    }

    pub(super) fn limit(&mut self, rate: u64) {
        self.rate = Some(rate.max(1));
    }

    /// A place for a process that is no node.
    pub(super) fn add_client(&mut self) -> usize {
        self.points.push(point(self.points.len()));
        self.points.len() - 1
    }

    pub(super) fn clients(&self) -> usize {
        self.points.len() - 2 * self.nodes
    }

    pub(super) fn address(&self, point: usize) -> SocketAddr {
        self.points[point].address
    }

    /// The node that a point belongs to; `None`: it is a client.
    fn owner(&self, point: usize) -> Option<usize> {
        (point < 2 * self.nodes).then(|| point % self.nodes)
    }

    /// The points between which a fault between two processes strikes; clients are numbered behind the nodes.
    pub(super) fn ends(&self, one: usize, other: usize) -> (usize, usize) {
        let point = |it: usize, peer: usize| {
            let (is_client, to_client) = (it >= self.nodes, peer >= self.nodes);
            // A node has its clients at the port for them.
            if is_client || to_client { it + self.nodes } else { it }
        };
        (point(one, other), point(other, one))
    }

    fn delay(&mut self) -> Duration {
        let spread = self.rng.below(nanos(self.options.spread).max(1));
        let delay = self.options.delay + Duration::from_nanos(spread);
        let slow = !self.calm && self.rng.chance(self.options.tail, 1000);
        if slow { delay * (2 << self.rng.below(6)) } else { delay }
    }

    /// A boot of `node` begins; what it does not read is lost with it.
    pub(super) fn attach(&mut self, node: usize, mailbox: Rc<dyn Mailbox>) -> u64 {
        let point = &mut self.points[node];
        point.boot += 1;
        point.mailbox = mailbox;
        let boot = point.boot;
        if std::mem::take(&mut point.off) {
            (0..self.points.len()).for_each(|from| self.go_on(from, node));
        }
        boot
    }

    pub(super) fn is_current(&self, point: usize, boot: u64) -> bool {
        let is_dead = self.owner(point).is_some_and(|node| self.kernel.is_dead(node));
        self.points[point].boot == boot && !is_dead
    }

    pub(super) fn listen(&mut self, node: usize, on: bool) {
        self.points[node].listens = on;
    }

    /// The boot is over: nothing that it does from here on has an effect.
    pub(super) fn detach(&mut self, node: usize, gone: Gone) {
        let point = &mut self.points[node];
        point.boot += 1;
        (point.listens, point.off) = (false, gone == Gone::Power);
        let mine = |(id, conn): (&u64, &Conn)| {
            let mine = conn.ends.iter().position(|end| end.node == node && end.open);
            mine.map(|end| (*id, end))
        };
        let ends: Vec<(u64, usize)> = self.conns.iter().filter_map(mine).collect();
        for (id, end) in ends {
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            conn.ends[end].open = false;
            let reason = match gone {
                Gone::Power => continue,
                Gone::Killed if self.rng.chance(1, 2) => {
                    CloseReason::Io(ErrorKind::ConnectionReset)
                }
                Gone::Killed | Gone::Closed => CloseReason::Ended,
            };
            self.send_item(id, end, Item::End(reason));
        }
        self.forget();
    }

    /// Connections that both ends have closed are of no interest.
    fn forget(&mut self) {
        self.conns.retain(|_, conn| conn.ends.iter().any(|end| end.open));
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.points[to].off || self.cuts.get(&(from, to)).is_some_and(|cuts| *cuts > 0)
    }

    pub(super) fn dial(&mut self, from: usize, boot: u64, node: NodeId, address: SocketAddr) {
        self.last += 1;
        let until = self.kernel.now() + DIAL_WITHIN;
        self.dials.insert(self.last, Dial { from, boot, node, address, until, refused: false });
        let at = self.kernel.now() + self.delay();
        self.kernel.at(at, Task::Syn { dial: self.last });
    }

    pub(super) fn on_syn(&mut self, id: u64) {
        let Some(dial) = self.dials.get(&id) else { return };
        let (from, until, now) = (dial.from, dial.until, self.kernel.now());
        if !self.is_current(from, dial.boot) {
            self.dials.remove(&id);
            return;
        }
        let to = self.points.iter().position(|point| point.address == dial.address);
        let Some(to) = to.filter(|to| !self.is_cut(from, *to) && !self.is_cut(*to, from)) else {
            let again = now + DIAL_AGAIN;
            let task =
                if again < until { Task::Syn { dial: id } } else { Task::Unanswered { dial: id } };
            self.kernel.at(again.min(until), task);
            return;
        };
        if !self.points[to].listens {
            if let Some(dial) = self.dials.get_mut(&id) {
                dial.refused = true;
            }
            let at = now + self.delay();
            self.kernel.at(at, Task::Unanswered { dial: id });
            return;
        }
        let Some(dial) = self.dials.remove(&id) else { return };
        self.last += 1;
        let end = |node, told| End {
            node,
            open: true,
            told,
            queued: Vec::new(),
            sent: VecDeque::new(),
            last: now,
            stalled: 0,
            bytes: 0,
        };
        let conn = Conn { ends: [end(from, false), end(to, true)], dialled: dial.node };
        self.conns.insert(self.last, conn);
        self.tell(to, TransportEvent::Opened { conn: name(self.last, 1), dialled: None }, None);
        self.send_item(self.last, 1, Item::Accepted);
    }

    /// Puts captured frames on a connection from the same node to the same one, behind what is on its way; false if there is none.
    pub(super) fn replay(&mut self, captured: Captured) -> bool {
        let Captured { from, to, frames } = captured;
        let stands = |conn: &Conn| {
            let end = conn.ends.iter().position(|end| end.node == from)?;
            (conn.ends[1 - end].node == to && conn.ends.iter().all(|end| end.open)).then_some(end)
        };
        let found = self.conns.iter().find_map(|(id, conn)| Some((*id, stands(conn)?)));
        let Some((id, end)) = found else { return false };
        self.send_item(id, end, Item::Frames(frames));
        true
    }

    pub(super) fn on_unanswered(&mut self, id: u64) {
        let Some(dial) = self.dials.remove(&id) else { return };
        if self.is_current(dial.from, dial.boot) {
            let Dial { from, node, refused, .. } = dial;
            let event = if refused {
                TransportEvent::Refused { node }
            } else {
                TransportEvent::Unreachable { node }
            };
            self.tell(from, event, None);
        }
    }

    fn tell(&mut self, node: usize, event: TransportEvent, read: Option<Read>) {
        let number = match &event {
            TransportEvent::Opened { conn, .. } => conn.0,
            TransportEvent::Received { conn, frames } => {
                let mix = |sum: u64, frame: &Frame| {
                    sum.rotate_left(7).wrapping_add(u64::from(frame.seq)) ^ checksum(frame)
                };
                frames.iter().fold(conn.0, mix)
            }
            TransportEvent::Closed { conn, .. } => conn.0,
            TransportEvent::Refused { .. } => 1,
            TransportEvent::Unreachable { .. } => 2,
        };
        self.kernel.note(Kind::Network as u8, node, number);
        self.points[node].mailbox.push(event, read);
    }

    pub(super) fn queue(&mut self, conn: ConnId, frame: Frame) {
        let (id, end) = place(conn);
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.ends[end].open) else { return };
        let sender = &mut conn.ends[end];
        sender.bytes += frame.wire_len();
        if sender.bytes > QUEUE_BYTES_MAX {
            sender.queued.clear();
            self.close_end(id, end, CloseReason::SlowPeer);
            self.send_item(id, end, Item::End(CloseReason::Truncated));
        } else {
            sender.queued.push(frame);
        }
    }

    /// What `node` has queued leaves.
    pub(super) fn flush(&mut self, node: usize) {
        let waits = |(id, conn): (&u64, &Conn)| {
            let waits = |end: &End| end.node == node && !end.queued.is_empty();
            conn.ends.iter().position(waits).map(|end| (*id, end))
        };
        let ends: Vec<(u64, usize)> = self.conns.iter().filter_map(waits).collect();
        ends.into_iter().for_each(|(id, end)| self.flush_end(id, end));
    }

    fn flush_end(&mut self, id: u64, end: usize) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let from = conn.ends[end].node;
        let mut frames = std::mem::take(&mut conn.ends[end].queued);
        if let Some(node) = self.owner(from) {
            frames =
                frames.into_iter().take_while(|_| !self.kernel.reach(node, Action::Send)).collect();
        }
        // The reader may see what was written at once in two parts.
        if frames.len() > 1 && self.rng.chance(1, 8) {
            let rest = frames.split_off(self.rng.between(1, frames.len() as u64 - 1) as usize);
            self.send_item(id, end, Item::Frames(frames));
            frames = rest;
        }
        if !frames.is_empty() {
            self.send_item(id, end, Item::Frames(frames));
        }
    }

    pub(super) fn close(&mut self, conn: ConnId) {
        let (id, end) = place(conn);
        self.flush_end(id, end);
        if self.close_end(id, end, CloseReason::Local) {
            self.send_item(id, end, Item::End(CloseReason::Ended));
        }
    }

    /// The node has read; what was read is no more on its way.
    pub(super) fn was_read(&mut self, read: Read) {
        if let Some(conn) = self.conns.get_mut(&read.conn) {
            let sender = &mut conn.ends[read.end];
            sender.bytes = sender.bytes.saturating_sub(read.bytes);
        }
    }

    fn send_item(&mut self, id: u64, end: usize, item: Item) {
        let delay = self.delay();
        let carried = self.carry(id, end, &item);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let sender = &mut conn.ends[end];
        sender.sent.push_back(item);
        sender.last = (sender.last + Duration::from_nanos(1)).max(carried + delay);
        self.kernel.at(sender.last, Task::Arrive { conn: id, end });
    }

    /// When the way has carried the item, and all that was sent on it before.
    fn carry(&mut self, id: u64, end: usize, item: &Item) -> Instant {
        let now = self.kernel.now();
        let (Some(rate), Item::Frames(frames), Some(conn)) = (self.rate, item, self.conns.get(&id))
        else {
            return now;
        };
        let bytes: usize = frames.iter().map(Frame::wire_len).sum();
        let nanos_long = (bytes as u64).saturating_mul(1_000_000_000) / rate;
        let way = (conn.ends[end].node, conn.ends[1 - end].node);
        let free = self.free.entry(way).or_default();
        *free = (*free).max(now) + Duration::from_nanos(nanos_long);
        *free
    }

    pub(super) fn on_arrive(&mut self, id: u64, end: usize) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (from, to) = (conn.ends[end].node, conn.ends[1 - end].node);
        let is_cut = self.is_cut(from, to);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if is_cut {
            conn.ends[end].stalled += 1;
            return;
        }
        let Some(item) = conn.ends[end].sent.pop_front() else { return };
        let dialled = conn.dialled;
        if !conn.ends[1 - end].open {
            // Nobody is there who knows of it.
            if conn.ends[end].open && !matches!(item, Item::End(_)) {
                self.send_item(id, 1 - end, Item::End(CloseReason::Io(ErrorKind::ConnectionReset)));
            }
            return;
        }
        match item {
            Item::Accepted => {
                conn.ends[1 - end].told = true;
                let conn = name(id, 1 - end);
                self.tell(to, TransportEvent::Opened { conn, dialled: Some(dialled) }, None);
            }
            Item::Frames(frames) => {
                let arrives = |_: &Frame| {
                    self.owner(to).is_some_and(|node| self.kernel.reach(node, Action::Receive))
                };
                if frames.iter().any(arrives) {
                    return;
                }
                if let Some(captured) = &mut self.captured
                    && from < self.nodes
                    && to < self.nodes
                {
                    captured.push(Captured { from, to, frames: frames.clone() });
                }
                let bytes = frames.iter().map(Frame::wire_len).sum();
                let read = Read { conn: id, end, bytes };
                let conn = name(id, 1 - end);
                self.tell(to, TransportEvent::Received { conn, frames }, Some(read));
            }
            Item::End(reason) => {
                self.close_end(id, 1 - end, reason);
            }
        }
    }

    /// The end is told that the connection is gone; `false` if it was so already.
    fn close_end(&mut self, id: u64, end: usize, reason: CloseReason) -> bool {
        let Some(conn) = self.conns.get_mut(&id) else { return false };
        let node = conn.dialled;
        let closed = &mut conn.ends[end];
        if !std::mem::replace(&mut closed.open, false) {
            return false;
        }
        let (at, told) = (closed.node, closed.told);
        let event = if told {
            TransportEvent::Closed { conn: name(id, end), reason }
        } else {
            TransportEvent::Unreachable { node }
        };
        self.tell(at, event, None);
        self.forget();
        true
    }

    pub(super) fn on_break(&mut self, id: u64, end: usize, if_cut: bool) {
        let Some(conn) = self.conns.get(&id) else { return };
        let [one, other] = [conn.ends[0].node, conn.ends[1].node];
        if !if_cut || self.is_cut(one, other) || self.is_cut(other, one) {
            self.close_end(id, end, CloseReason::Io(ErrorKind::ConnectionReset));
        }
    }

    /// Breaks the connections between two nodes, within `longest`; each end is told in its time.
    fn break_between(&mut self, one: usize, other: usize, longest: Duration, if_cut: bool) {
        let between = |conn: &Conn| {
            let [a, b] = [conn.ends[0].node, conn.ends[1].node];
            (a, b) == (one, other) || (b, a) == (one, other)
        };
        let conns: Vec<u64> =
            self.conns.iter().filter(|(_, conn)| between(conn)).map(|(id, _)| *id).collect();
        for conn in conns {
            if if_cut && self.rng.chance(1, 2) {
                continue;
            }
            for end in [0, 1] {
                let after = Duration::from_nanos(self.rng.below(nanos(longest).max(1)));
                self.kernel.at(self.kernel.now() + after, Task::Break { conn, end, if_cut });
            }
        }
    }

    pub(super) fn reset(&mut self, one: usize, other: usize) {
        self.break_between(one, other, self.options.telling, false);
    }

    pub(super) fn cut(&mut self, from: usize, to: usize) {
        *self.cuts.entry((from, to)).or_default() += 1;
        self.break_between(from, to, CUT_BREAKS, true);
    }

    pub(super) fn uncut(&mut self, from: usize, to: usize) {
        if let Some(cuts) = self.cuts.get_mut(&(from, to)) {
            *cuts = cuts.saturating_sub(1);
            self.go_on(from, to);
        }
    }

    /// What a cut has stopped goes on.
    fn go_on(&mut self, from: usize, to: usize) {
        if self.is_cut(from, to) {
            return;
        }
        let ids: Vec<u64> = self.conns.keys().copied().collect();
        for id in ids {
            for end in [0, 1] {
                let delay = self.delay();
                let Some(conn) = self.conns.get_mut(&id) else { continue };
                if (conn.ends[end].node, conn.ends[1 - end].node) != (from, to) {
                    continue;
                }
                let sender = &mut conn.ends[end];
                for _ in 0..std::mem::take(&mut sender.stalled) {
                    sender.last =
                        (sender.last + Duration::from_nanos(1)).max(self.kernel.now() + delay);
                    self.kernel.at(sender.last, Task::Arrive { conn: id, end });
                }
            }
        }
    }

    /// Ends all cuts and the heavy tail.
    pub(super) fn heal(&mut self) {
        self.calm = true;
        let cuts = std::mem::take(&mut self.cuts);
        cuts.into_keys().for_each(|(from, to)| self.go_on(from, to));
    }
}

/// For the trace: differs where the bytes differ, but for rare chance.
fn checksum(frame: &Frame) -> u64 {
    let bytes = frame.meta.iter().chain(frame.payload.iter());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
