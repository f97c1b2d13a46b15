//! Peers that say anything at any time: what makes no sense is dropped, nothing panics, and what the machine keeps stays as it should be.

use bytes::Bytes;
use mainstay_base::service::{In, PeerChange, Service as _, Start, Wire as _};
use mainstay_base::{
    BootId, BootNonce, ClusterId, Duration, Instance, Instant, Machine as _, NodeId,
};
use mainstay_rpc::ProcedureId;
use proptest::prelude::*;

use crate::wire::{CallHead, Item, Key, Kind, Message};
use crate::{
    Begin, Binding, CallId, Collator, Command, Config, Event, Finish, Refusal, Request, Sequence,
    Serving, TroupeId, TroupeName, Troupes, Version,
};

fn boot(at: u64) -> BootId {
    let node = NodeId::new(ClusterId::from_entropy(1), &format!("n{}", at % 4));
    BootId { node, nonce: BootNonce(u128::from(at / 4)) }
}

fn name(at: u64) -> TroupeName {
    match at % 5 {
        4 => TroupeName::solo(boot(at / 5)),
        at => TroupeName(at),
    }
}

fn version(at: u64) -> Version {
    Version { life: at % 3, number: at % 5 }
}

fn key(draw: u64) -> Key {
    let path = (0..=draw % 3)
        .map(|level| (draw >> (4 * level)) % 4)
        .skip(usize::from(draw.is_multiple_of(7)));
    let (root, born) = (name(draw / 3), version(draw / 5));
    Key { caller: name(draw), id: CallId { root, born, thread: draw % 2, path: path.collect() } }
}

fn binding(draw: u64) -> Binding {
    let members = (0..draw % 5).map(|at| boot((draw >> at) % 8)).collect();
    Binding { version: version(draw / 7), members }
}

/// What a peer says.
fn item(kind: u8, draw: u64) -> (Item, Bytes) {
    let (server, key, keys) = (name(draw / 11), key(draw), vec![key(draw), key(draw / 2)]);
    let (by, body) = (version(draw / 13), Bytes::from(draw.to_le_bytes().to_vec()));
    let len = body.len() as u32;
    let held = (!draw.is_multiple_of(3)).then_some(draw % 16);
    let without = |item| (item, Bytes::new());
    match kind % 20 {
        0..=3 => {
            let caller = TroupeId { name: key.caller, version: version(draw / 17) };
            let (procedure, context) = (ProcedureId(draw % 2), Bytes::new());
            let call = CallHead { id: key.id, caller, procedure, version: 1, context };
            (Item::Call { server: TroupeId { name: server, version: by }, call, len }, body)
        }
        4 => (Item::Answer { server, key, kind: Kind::Value, len }, body),
        5 => without(Item::Answer { server, key, kind: Kind::Refused(Refusal::Busy), len: 0 }),
        6 => without(Item::Stale { server, key, named: by, now: Some(binding(draw)) }),
        7 => without(Item::Ack { server, by, keys }),
        8 => without(Item::Wanted { server, keys }),
        9 => without(Item::Awaited { server, keys }),
        10 => without(Item::Absent { server, keys }),
        11 => without(Item::Ready { server, key, held, fence: by }),
        12 => without(Item::Ask { server, key, by }),
        13 => without(Item::Decide {
            server,
            key,
            by,
            held: draw % 16,
            commit: draw.is_multiple_of(2),
        }),
        14 => without(match draw % 4 {
            0 => Item::Join { name: server },
            1 => Item::Leave { name: server },
            2 => Item::Watch { name: server },
            _ => Item::Known { name: server, binding: binding(draw) },
        }),
        15 => without(Item::Bound { name: server, binding: binding(draw) }),
        16 => without(Item::WantState { name: server, binding: binding(draw), after: draw % 9 }),
        17 => without(Item::Stateless { name: server, version: by }),
        18 => without(Item::Full {
            name: server,
            binding: binding(draw),
            asks: draw.is_multiple_of(2),
        }),
        _ => (Item::State { name: server, luggage: (draw % 12) as u32, len }, body),
    }
}

/// What the users of the node do.
fn command(kind: u8, draw: u64) -> Command {
    let troupe = name(draw / 3);
    let sequence = [Sequence::Independent, Sequence::Cast, Sequence::Commit][draw as usize % 3];
    let begin = [Begin::First, Begin::All, Begin::Majority][(draw / 3) as usize % 3];
    match kind % 4 {
        1 if draw.is_multiple_of(16) => Command::Drain,
        0 => Command::Join { troupe, serving: Serving { begin, sequence, ..Serving::default() } },
        1 => Command::Leave { troupe },
        2 => {
            Command::Ordered { troupe, position: draw % 64, call: Bytes::from(vec![draw as u8; 4]) }
        }
        _ => Command::Call(Request {
            token: draw,
            caller: draw.is_multiple_of(2).then_some(troupe),
            thread: draw % 2,
            number: draw % 8,
            server: name(draw),
            procedure: ProcedureId(1),
            version: 1,
            arguments: Bytes::new(),
            collator: [Collator::First, Collator::Each][draw as usize % 2],
            deadline: Duration::from_millis(draw % 100),
            parent: None,
            context: Bytes::new(),
        }),
    }
}

/// The link takes nothing for a boot.
fn full(to: BootId) -> In<Troupes> {
    In::Full { to, message: Message { items: Vec::new(), bodies: Bytes::new() } }
}

struct Hand {
    troupes: Troupes,
    now: Instant,
    is_drained: bool,
}

impl Hand {
    fn new(is_binder: bool) -> Self {
        Self::of(is_binder, |config| config)
    }

    fn of(is_binder: bool, config: impl Fn(Config) -> Config) -> Self {
        let now = Instant::ZERO + Duration::from_millis(1);
        let binder = boot(u64::from(!is_binder)).node;
        let own = Config { settle: Duration::ZERO, troupes_max: 6, ..Config::new(binder, 1) };
        let config = config(own);
        let instance = Instance::new(ClusterId::from_entropy(1), "t");
        let start = Start { me: boot(0), instance, past: (), checkpoint: None, now, seed: 1 };
        Self { troupes: Troupes::recover(config, start), now, is_drained: false }
    }

    /// One turn; users answer what they are told.
    fn turn(&mut self, input: In<Troupes>) {
        let mut inputs = vec![input];
        for _ in 0..20 {
            inputs.drain(..).for_each(|it| self.troupes.handle(self.now, it));
            self.troupes.end_turn(self.now);
            while let Some(output) = self.troupes.poll_output() {
                let mainstay_base::service::Out::Event { event, .. } = output else { continue };
                inputs.extend(match event {
                    Event::Execute(it) => {
                        let result = Finish::Value(Bytes::new());
                        Some(In::Command(Command::Finished { ticket: it.ticket, result }))
                    }
                    Event::StateWanted { troupe } => {
                        Some(In::Command(Command::State { troupe, state: Some(Bytes::new()) }))
                    }
                    Event::Restore { troupe, .. } => {
                        Some(In::Command(Command::Restored { troupe }))
                    }
                    Event::Drained => {
                        self.is_drained = true;
                        None
                    }
                    _ => None,
                });
            }
            self.troupes.check_invariants();
            if inputs.is_empty() {
                break;
            }
        }
    }
}

/// A peer that takes nothing in says anything without end: it is owed sixteen windows of words for each troupe of this node, and what else this node says by itself. The rest is
/// counted and costs nothing. What it is told of troupes takes the place of what it was to be told before.
#[cfg(feature = "test-util")]
#[test]
fn a_flood_of_questions_is_bounded() {
    use crate::fault::Fault;
    let scene = |fault| {
        for is_binder in [false, true] {
            let mut hand = Hand::of(is_binder, |config| Config { fault, window: 4, ..config });
            let from = boot(1);
            hand.turn(In::Peer(PeerChange::Up { boot: from }));
            for troupe in [name(0), name(1)] {
                let serving = Serving::default();
                hand.turn(In::Command(Command::Join { troupe, serving }));
            }
            hand.turn(full(from));
            let mut rng = mainstay_base::Rng::new(7);
            for step in 0..5_000u64 {
                let (item, bodies) = item((step % 20) as u8, rng.next_u64());
                let message = Message { items: vec![item; 4], bodies: bodies.repeat(4).into() };
                hand.turn(In::Message { from, view: 0, message });
            }
            let (waits, states) = hand.troupes.waits(from);
            assert!(waits <= 16 * 4 * 3 + 64 && states <= 8, "{waits} wait, {states} states");
            assert!(hand.troupes.status().served.dropped > 1_000);
            hand.turn(In::Room { to: from });
            assert_eq!(hand.troupes.waits(from), (0, 0));
        }
    };
    mainstay_sim::holds_but_with(scene, &[Fault::OwesEverything]);
}

/// A member that was taken out and has joined again has no state, also where another one learns of both at once. When it has asked for the state that one waits for it before
/// it leaves.
#[cfg(feature = "test-util")]
#[test]
fn a_member_that_has_joined_again_is_waited_for() {
    use crate::fault::Fault;
    let scene = |fault| {
        let mut hand = Hand::of(false, |config| Config { fault, ..config });
        let (me, agent, other, troupe) = (boot(0), boot(1), boot(2), name(0));
        for boot in [agent, other] {
            hand.turn(In::Peer(PeerChange::Up { boot }));
        }
        hand.turn(In::Command(Command::Join { troupe, serving: Serving::default() }));
        let binding = |number, members: &[BootId]| Binding {
            version: Version { life: 1, number },
            members: members.to_vec(),
        };
        let bound = |number, members: &[BootId]| Item::Bound {
            name: troupe,
            binding: binding(number, members),
        };
        let say = |hand: &mut Hand, from, items| {
            let message = Message { items, bodies: Bytes::new() };
            hand.turn(In::Message { from, view: 0, message });
        };
        let both = |number| binding(number, &[me, other]);
        let wants = |number| Item::WantState { name: troupe, binding: both(number), after: 0 };
        let is_full = |number| Item::Full { name: troupe, binding: both(number), asks: false };
        say(&mut hand, agent, vec![bound(1, &[me])]);
        say(&mut hand, agent, vec![bound(2, &[me, other])]);
        say(&mut hand, other, vec![wants(2)]);
        say(&mut hand, other, vec![is_full(2)]);
        say(&mut hand, agent, vec![bound(3, &[me]), bound(4, &[me, other])]);
        say(&mut hand, other, vec![wants(4)]);
        hand.turn(In::Command(Command::Drain));
        assert!(!hand.is_drained, "the other one has no state yet");
        say(&mut hand, other, vec![is_full(4)]);
        assert!(hand.is_drained);
    };
    mainstay_sim::holds_but_with(scene, &[Fault::RemembersFull]);
}

proptest! {
    /// Hostile peers are counted, and never make anything panic. What is kept stays as it should be, and what waits for each of them is counted.
    #[test]
    fn peers_may_say_anything(
        is_binder in any::<bool>(),
        steps in prop::collection::vec((0u8..11, any::<u8>(), any::<u64>(), 0u64..6), 1..80),
    ) {
        let mut hand = Hand::new(is_binder);
        for (what, kind, draw, from) in steps {
            // Two boots of each of three other nodes.
            let from = boot(1 + from % 3 + 4 * (from / 3));
            let input = match what {
                0 => In::Peer(PeerChange::Up { boot: from }),
                1 if draw.is_multiple_of(3) => In::Peer(PeerChange::Replaced { old: from, new: None }),
                1 => In::Peer(PeerChange::Down { boot: from }),
                2 => In::Command(command(kind, draw)),
                3 => {
                    hand.now = hand.now + Duration::from_millis(draw % 2_000);
                    In::Room { to: from }
                }
                4 => full(from),
                _ => {
                    let (item, bodies) = item(kind, draw);
                    In::Message { from, view: 0, message: Message { items: vec![item], bodies } }
                }
            };
            hand.turn(input);
        }
    }

    /// All that travels is read as it was written; other bytes are no message, and no panic.
    #[test]
    fn messages_are_read_as_they_were_written(
        drawn in prop::collection::vec((any::<u8>(), any::<u64>()), 0..6),
        noise in prop::collection::vec(any::<u8>(), 0..64),
        cut in any::<prop::sample::Index>(),
    ) {
        let (items, bodies): (Vec<_>, Vec<_>) =
            drawn.into_iter().map(|(kind, draw)| item(kind, draw)).unzip();
        let message = Message { items, bodies: bodies.concat().into() };
        let (meta, payload) = message.encode();
        prop_assert_eq!(Message::decode(&meta, payload.clone()).ok(), Some(message));
        let _ = Message::decode(&noise, payload.clone());
        let _ = Message::decode(&meta[..cut.index(meta.len())], payload.clone());
        if !payload.is_empty() {
            prop_assert!(Message::decode(&meta, payload.slice(1..)).is_err());
        }
    }
}
