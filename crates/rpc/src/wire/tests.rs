//! All that can be said, and what a peer could say that keeps to no rule.

use mainstay_base::batch::Item as _;
use mainstay_base::service::{In, Logged, Out, PeerChange, Service, Start};
use mainstay_base::{BootId, BootNonce, ClusterId, Instance, Instant, Machine as _, NodeId};
use proptest::prelude::*;

use super::*;
use crate::{Carrier, Command, Config, Event, Finish, Orphans, Rpc, Ticket};

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..6, Just(u64::MAX), Just(u64::MAX - 1), any::<u64>()]
}

fn semantics() -> impl Strategy<Value = Semantics> {
    use Semantics as S;
    prop::sample::select(vec![S::Maybe, S::AtLeastOnce, S::ExactlyOnce, S::AtMostOnce])
}

fn refusal() -> impl Strategy<Value = Refusal> {
    use Refusal as R;
    prop::sample::select(vec![
        R::Procedure,
        R::Version,
        R::Arguments,
        R::Denied,
        R::ResultTooLarge,
        R::Busy,
        R::TooLarge,
        R::Epoch,
        R::Draining,
        R::Late,
        R::Expired,
        R::Aborted,
        R::Handler,
        R::Restarted,
        R::Differs,
    ])
}

fn parting() -> impl Strategy<Value = Parting> {
    use Parting as P;
    prop::sample::select(vec![
        P::Withdrawn,
        P::Ended,
        P::NotServed,
        P::Lost,
        P::Unreachable,
        P::Full,
        P::Here,
    ])
}

fn call() -> impl Strategy<Value = CallHead> {
    let gone = prop::collection::vec((number(), number()), 0..4);
    let order =
        (0u32..3, number(), gone).prop_map(|(lane, after, gone)| Order { lane, after, gone });
    let context = prop::collection::vec(any::<u8>(), 0..20);
    let served = prop_oneof![Just(7u64), any::<u64>()];
    let name = (0u128..3, prop::collection::vec(0u64..3, 0..3))
        .prop_map(|(root, path)| Box::new(CallName { root, path }));
    let rest = (prop::option::of(order), context, prop::option::of(name));
    (served, 0u16..3, semantics(), number(), number(), rest).prop_map(
        |(procedure, version, semantics, budget, epoch, (order, context, name))| CallHead {
            procedure: ProcedureId(procedure),
            version,
            semantics,
            budget,
            epoch,
            order,
            context: context.into(),
            name,
        },
    )
}

fn item() -> impl Strategy<Value = Item> {
    let procedure = any::<u64>().prop_map(ProcedureId);
    let len = 0u32..9;
    prop_oneof![
        (any::<bool>(), any::<u32>(), number()).prop_map(|(kept, window, epoch)| Item::Hello {
            kept,
            window,
            epoch
        }),
        (number(), call(), len.clone()).prop_map(|(seq, call, len)| Item::Call { seq, call, len }),
        (procedure, any::<u16>(), number(), len.clone()).prop_map(
            |(procedure, version, budget, len)| Item::Cast {
                procedure,
                version,
                budget,
                context: Bytes::from_static(b"context"),
                len,
            }
        ),
        number().prop_map(|seq| Item::Probe { seq }),
        (number(), number()).prop_map(|(seq, after)| Item::Cancel { seq, after }),
        (number(), prop::collection::vec(number(), 0..5))
            .prop_map(|(next, open)| Item::Open { next, open }),
        (number(), any::<bool>(), len).prop_map(|(seq, is_error, len)| Item::Reply {
            seq,
            is_error,
            len
        }),
        (number(), refusal()).prop_map(|(seq, why)| Item::Refused { seq, why }),
        number().prop_map(|seq| Item::Working { seq }),
        number().prop_map(|seq| Item::Missing { seq }),
        number().prop_map(|life| Item::Check { life }),
        Just(Item::Alive),
        number().prop_map(|seq| Item::More { seq }),
        number().prop_map(|seq| Item::Grant { seq }),
        number().prop_map(|epoch| Item::Epoch { epoch }),
        (number(), prop_oneof![Just(7u64), any::<u64>()]).prop_map(|(number, procedure)| {
            Item::Watch { number, procedure: ProcedureId(procedure) }
        }),
        number().prop_map(|number| Item::Unwatch { number }),
        (number(), parting()).prop_map(|(number, why)| Item::Gone { number, why }),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let head = (number(), number(), number(), number(), number());
    let over = prop::collection::vec(number(), 0..4);
    (head, over, prop::collection::vec(item(), 0..6)).prop_map(|(head, over, items)| {
        let (life, memory, bound, answers, floor) = head;
        let bytes = items.iter().map(Item::len).sum();
        let head = Head { life, memory, bound, answers, floor, over };
        Message { head, items, bodies: vec![1; bytes].into() }
    })
}

fn boot(name: &str) -> BootId {
    BootId { node: NodeId::new(ClusterId::from_entropy(1), name), nonce: BootNonce(1) }
}

/// One that a peer has greeted, and that has called it.
fn machine(carrier: Carrier, orphans: Orphans) -> (Rpc, Head) {
    machine_of(Config::new(3), carrier, orphans)
}

fn machine_of(mut config: Config, carrier: Carrier, orphans: Orphans) -> (Rpc, Head) {
    (config.carrier, config.orphans, config.window) = (carrier, orphans, 4);
    config.client_bytes_max = crate::BODY_BYTES_MAX;
    if let Orphans::Adoption { keep, .. } = orphans {
        config.deadline_max = keep / 2;
    }
    let instance = Instance::new(ClusterId::from_entropy(1), "rpc");
    let (past, now) = (<Rpc as Service>::Past::default(), Instant::ZERO);
    let me = boot("me");
    let start = Start { me, instance, past, checkpoint: None, now, seed: 1 };
    let mut rpc = Rpc::recover(config, start);
    rpc.handle(now, In::Peer(PeerChange::Up { boot: boot("peer") }));
    rpc.handle(now, In::Command(Command::Serve { procedure: ProcedureId(7), versions: (1, 1) }));
    rpc.end_turn(now);
    let mut own = 0;
    while let Some(out) = rpc.poll_output() {
        if let Out::Send { message, .. } = out {
            own = message.head.memory;
        }
    }
    // What a peer has to say so that it is heard.
    (rpc, Head { life: 5, memory: 9, bound: own, answers: 3, floor: 0, over: Vec::new() })
}

/// What a peer does that floods a server, with numbers of its own choice.
struct Peer {
    rpc: Rpc,
    head: Head,
    now: Instant,
}

impl Peer {
    fn new(config: Config) -> Self {
        let (rpc, head) = machine_of(config, Carrier::Link, Orphans::Extermination);
        let mut peer = Self { rpc, head, now: Instant::ZERO };
        peer.say(vec![Item::Hello { kept: false, window: 4, epoch: 1 }]);
        peer
    }

    fn call(seq: u64, procedure: u64) -> Item {
        let order = None;
        let (context, name) = (Bytes::new(), None);
        let (procedure, semantics) = (ProcedureId(procedure), Semantics::ExactlyOnce);
        let (version, budget, epoch) = (1, 1_000_000, 0);
        let call = CallHead { procedure, version, semantics, budget, epoch, order, context, name };
        Item::Call { seq, call, len: 8 }
    }

    /// The answers.
    fn say(&mut self, items: Vec<Item>) -> Vec<Item> {
        let bytes = items.iter().map(Item::len).sum();
        let message = Message { head: self.head.clone(), items, bodies: vec![1; bytes].into() };
        self.rpc.handle(self.now, In::Message { from: boot("peer"), view: 0, message });
        self.rpc.end_turn(self.now);
        self.rpc.check_invariants();
        let mut told = Vec::new();
        while let Some(out) = self.rpc.poll_output() {
            if let Out::Send { message, .. } = out {
                told.extend(message.items);
            }
        }
        told
    }

    fn counts(&self) -> crate::Counts {
        self.rpc.status().served
    }
}

/// A peer that sends ten windows of calls at once has the first one executed and is told of as many more that they are refused; the rest is counted and
/// costs nothing. What nobody answers is bounded by itself.
#[cfg(feature = "test-util")]
#[test]
fn a_flood_costs_two_windows() {
    use crate::fault::Fault;
    let scene = |fault| {
        let mut peer = Peer::new(Config { fault, ..Config::new(3) });
        let told = peer.say((1..=40).map(|seq| Peer::call(seq, 7)).collect());
        let busy = |seq| Item::Refused { seq, why: Refusal::Busy };
        assert_eq!(told, (5..=8).map(busy).collect::<Vec<_>>());
        let status = peer.rpc.status();
        assert_eq!((status.executing, status.kept), (4, 8));
        assert_eq!((peer.counts().refused, peer.counts().absurd), (36, 32));
        // Again: what is known is answered, and the rest is absurd again.
        let told = peer.say((1..=40).map(|seq| Peer::call(seq, 7)).collect());
        let working = (1..=4).map(|seq| Item::Working { seq });
        assert_eq!(told, working.chain((5..=8).map(busy)).collect::<Vec<_>>());
        assert_eq!((peer.counts().repeated, peer.counts().absurd), (8, 64));
        assert_eq!((peer.rpc.status().kept, peer.counts().begun), (8, 4));
        // Nobody answers these.
        let cast = |budget| Item::Cast {
            procedure: ProcedureId(7),
            version: 1,
            budget,
            context: Bytes::new(),
            len: 8,
        };
        let before = peer.counts().refused;
        let told = peer.say(vec![cast(1_000_000); 40]);
        assert_eq!((told, peer.rpc.status().executing), (vec![], 44), "each has its place at once");
        assert_eq!(peer.counts().refused, before);
    };
    mainstay_sim::holds_but_with(scene, &[Fault::NeverBusy, Fault::RemembersFloods]);
}

/// A peer that takes nothing in and watches what is not served, asks and greets without end: what it is owed is told when it takes something in, two windows of it, and the
/// rest is counted and costs nothing.
#[cfg(feature = "test-util")]
#[test]
fn a_flood_of_watches_costs_two_windows() {
    use crate::fault::Fault;
    let scene = |fault| {
        let mut peer = Peer::new(Config { fault, ..Config::new(3) });
        let (message, to) = (Message::of(Head::default(), &mut Batch::default()), boot("peer"));
        peer.rpc.handle(peer.now, In::Full { to, message });
        for turn in 0..10u64 {
            let watch =
                |at: u64| Item::Watch { number: turn * 100 + at, procedure: ProcedureId(8) };
            assert_eq!(peer.say((0..100).map(watch).collect()), []);
            assert_eq!(peer.say(vec![Item::Check { life: 3 }; 100]), []);
            peer.say(vec![Item::Hello { kept: false, window: 4, epoch: 1 }; 100]);
        }
        assert!(peer.rpc.waits(to.node) <= 8, "what is kept is bounded");
        assert_eq!(peer.counts().absurd, 992 + 1_000);
        peer.rpc.handle(peer.now, In::Room { to });
        let told = peer.say(vec![]);
        let gone = |number| Item::Gone { number, why: Parting::NotServed };
        let owed: Vec<Item> = (0..8).map(gone).chain([Item::Alive]).collect();
        assert_eq!(told, owed);
        let watch = Item::Watch { number: 2_000, procedure: ProcedureId(8) };
        assert_eq!(peer.say(vec![watch]), [gone(2_000)]);
    };
    mainstay_sim::holds_but_with(scene, &[Fault::RemembersFloods]);
}

/// Calls that nobody answers wait for places, as many of a client as its window.
#[test]
fn a_flood_of_casts_is_refused() {
    let mut peer = Peer::new(Config { executions_max: 1, ..Config::new(3) });
    let cast = Item::Cast {
        procedure: ProcedureId(7),
        version: 1,
        budget: 1_000_000,
        context: Bytes::new(),
        len: 8,
    };
    peer.say(vec![cast; 40]);
    assert_eq!((peer.rpc.status().executing, peer.counts().refused), (1, 35));
}

/// Numbers that were forged: what is over is dropped and counted, and so is what answers nobody, is of another life, or says that more is open than was called.
#[test]
fn forged_numbers_are_counted() {
    let mut peer = Peer::new(Config::new(3));
    peer.say(vec![Peer::call(1, 7)]);
    peer.head.floor = u64::MAX;
    peer.say(vec![Peer::call(2, 7), Peer::call(u64::MAX - 1, 7)]);
    let counts = peer.counts();
    assert_eq!((counts.begun, counts.ended, counts.dropped), (1, 1, 2));
    let mut peer = Peer::new(Config::new(3));
    peer.say(vec![Item::Open { next: 5, open: vec![3, 2] }, Item::Open { next: 5, open: vec![9] }]);
    assert_eq!(peer.counts().absurd, 2);
    let answers = [
        Item::Reply { seq: 1, is_error: false, len: 8 },
        Item::Refused { seq: 9, why: Refusal::Busy },
        Item::Working { seq: u64::MAX },
        Item::Missing { seq: 0 },
    ];
    // They answer a life that this node has not, and a memory that it has not heard of.
    peer.head.answers = 77;
    peer.say(answers.to_vec());
    assert_eq!(peer.counts().dropped, 4);
    peer.head.answers = 3;
    peer.say(answers.to_vec());
    assert_eq!((peer.counts().dropped, peer.rpc.status().open), (4, 0), "of calls that are over");
    // Bound to what the server has never been.
    peer.head.bound += 1;
    peer.say((1..=10).map(|seq| Peer::call(seq, 7)).collect());
    assert_eq!((peer.counts().dropped, peer.counts().begun), (14, 0));
    // Of a life that has not greeted.
    peer.head.life += 1;
    peer.say(vec![Peer::call(1, 7)]);
    assert_eq!((peer.counts().dropped, peer.counts().begun), (15, 0));
    // Gaps without end.
    let mut peer = Peer::new(Config::new(3));
    for seq in 0..1_000 {
        peer.head.over = vec![2 * seq + 1];
        peer.say(vec![Item::Alive]);
    }
    assert!(peer.counts().absurd > 900);
}

/// A name is as deep as calls may be nested; a deeper one is not read, so nothing of it is kept.
#[test]
fn a_name_is_not_too_deep() {
    let head = |depth| CallHead {
        procedure: ProcedureId(7),
        version: 1,
        semantics: Semantics::ExactlyOnce,
        budget: 1,
        epoch: 0,
        order: None,
        context: Bytes::new(),
        name: Some(Box::new(CallName { root: 1, path: vec![0; depth] })),
    };
    for (depth, is_read) in [(DEPTH_MAX, true), (DEPTH_MAX + 1, false), (100_000, false)] {
        let items = vec![Item::Call { seq: 1, call: head(depth), len: 0 }];
        let message = Message { head: Head::default(), items, bodies: Bytes::new() };
        let (meta, payload) = message.encode();
        assert_eq!(Message::decode(&meta, payload).is_ok(), is_read, "{depth}");
    }
}

proptest! {
    /// Checks RPC-10: whatever is said is heard as it was said.
    #[test]
    fn what_is_said_is_heard(message in message()) {
        let (meta, payload) = message.encode();
        prop_assert_eq!(Message::decode(&meta, payload.clone()).unwrap(), message.clone());
        let longer: Bytes = [&payload[..], &[0]].concat().into();
        prop_assert!(Message::decode(&meta, longer).is_err(), "bodies that belong to nothing");
        let into: Vec<_> = message.clone().into_items().1.collect();
        prop_assert!(into.iter().all(|(item, body)| item.len() == body.len()));
    }

    /// Checks RPC-10 and edge case 16, numbers at their end: a peer that keeps to no rule does no harm, and what is kept of it is bounded.
    #[test]
    fn a_peer_that_keeps_to_no_rule_does_no_harm(
        messages in prop::collection::vec((message(), any::<bool>(), any::<bool>()), 1..12),
        policy in 0usize..6,
    ) {
        let short = std::time::Duration::from_millis(50);
        let policies = [
            Orphans::Terminator { period: short, lease: short },
            Orphans::Extermination,
            Orphans::Expiration { quantum: short },
            Orphans::Reincarnation,
            Orphans::Gentle { patience: short },
            Orphans::Adoption { keep: short, names_max: 3, bytes_max: 1 << 10 },
        ];
        for carrier in [Carrier::Link, Carrier::Datagrams] {
            let (mut rpc, head) = machine(carrier, policies[policy]);
            let hello = Item::Hello { kept: false, window: 4, epoch: 1 };
            let hello = Message { head: head.clone(), items: vec![hello], bodies: Bytes::new() };
            let mut now = Instant::ZERO;
            let all = messages.iter().cloned();
            for (mut message, is_heard, is_datagram) in std::iter::once((hello, true, false)).chain(all) {
                if is_heard {
                    let Head { floor, over, .. } = std::mem::take(&mut message.head);
                    message.head = Head { floor, over, ..head.clone() };
                }
                now = now + std::time::Duration::from_millis(20);
                let peer = boot("peer");
                rpc.handle(now, match is_datagram {
                    true => In::Datagram { at: now, from: peer.node, message },
                    false => In::Message { from: peer, view: 0, message },
                });
                rpc.end_turn(now);
                while rpc.poll_output().is_some() {}
                rpc.check_invariants();
            }
        }
    }

    /// Checks RPC-10: records are read as they were written.
    #[test]
    fn what_is_written_is_read(seq in number(), life in number(), body in prop::collection::vec(any::<u8>(), 0..20), why in refusal()) {
        use crate::{Record, Stored};
        let client = boot("peer").node;
        let over = vec![(1, seq)];
        let ended = |answer, body| Record::Ended { client, life, seq, before: Some(3), answer, body };
        for record in [
            Record::Life { life, memory: seq },
            Record::Client { client, life, floor: seq, over: over.clone(), skipped: over, memory: seq },
            Record::Began { client, life, seq, floor: 2 },
            Record::Over { client, life, seq, before: 1 },
            ended(Stored::Value, body.clone().into()),
            ended(Stored::Error, body.into()),
            ended(Stored::Refused(why), Bytes::new()),
        ] {
            let (meta, payload) = record.encode();
            prop_assert_eq!(Record::decode(&meta, payload).unwrap(), record.clone());
            let mut past = <Rpc as Service>::Past::default();
            Rpc::fold(&mut past, Logged::Record(mainstay_base::service::Io(1), record));
        }
    }
}

/// A call of the procedure that is served.
fn call_of(seq: u64) -> Item {
    let call = CallHead {
        procedure: ProcedureId(7),
        version: 1,
        semantics: Semantics::ExactlyOnce,
        budget: 10_000,
        epoch: 0,
        order: None,
        context: Bytes::new(),
        name: None,
    };
    Item::Call { seq, call, len: 0 }
}

/// The peer greets and makes these calls; what begins.
fn calls(rpc: &mut Rpc, head: &Head, seqs: impl IntoIterator<Item = u64>) -> Vec<Ticket> {
    let hello = Item::Hello { kept: false, window: 4, epoch: 0 };
    let items = [hello].into_iter().chain(seqs.into_iter().map(call_of)).collect();
    let message = Message { head: head.clone(), items, bodies: Bytes::new() };
    rpc.handle(Instant::ZERO, In::Message { from: boot("peer"), view: 0, message });
    turned(rpc).0
}

/// Ends the turn; what begins, and what is said.
fn turned(rpc: &mut Rpc) -> (Vec<Ticket>, Vec<Item>) {
    rpc.end_turn(Instant::ZERO);
    rpc.check_invariants();
    let (mut tickets, mut said) = (Vec::new(), Vec::new());
    while let Some(out) = rpc.poll_output() {
        match out {
            Out::Event { event: Event::Execute(it), .. } => tickets.push(it.ticket),
            Out::Send { message, .. } => said.extend(message.items),
            _ => {}
        }
    }
    (tickets, said)
}

fn finish(rpc: &mut Rpc, ticket: Ticket, result: Finish) -> (Vec<Ticket>, Vec<Item>) {
    rpc.handle(Instant::ZERO, In::Command(Command::Finished { ticket, result }));
    turned(rpc)
}

/// Of a peer that is gone for good, as a guest may be, nothing is kept when what ran for it has stopped; were it otherwise, each guest that
/// ever called would cost memory.
#[test]
fn a_peer_that_is_gone_is_forgotten() {
    for is_running in [false, true] {
        let (mut rpc, head) = machine(Carrier::Link, Orphans::Extermination);
        let peer = boot("peer");
        let [ticket] = calls(&mut rpc, &head, [1])[..] else { panic!("one is executed") };
        if !is_running {
            finish(&mut rpc, ticket, Finish::Failed);
        }
        rpc.handle(Instant::ZERO, In::Peer(PeerChange::Replaced { old: peer, new: None }));
        turned(&mut rpc);
        assert_eq!(rpc.knows(peer.node), (is_running, false, false));
        if is_running {
            finish(&mut rpc, ticket, Finish::Failed);
            assert_eq!(rpc.knows(peer.node), (false, false, false));
        }
    }
}

/// What is kept for a client that acknowledges nothing is bounded by bytes: a result that does not fit is refused, as too large.
#[test]
fn results_that_nobody_fetches_are_bounded() {
    let (mut rpc, head) = machine(Carrier::Link, Orphans::Extermination);
    let tickets = calls(&mut rpc, &head, 1..=4);
    assert_eq!(tickets.len(), 4);
    let (mut results, mut refused) = (0, 0);
    for ticket in tickets {
        for said in finish(&mut rpc, ticket, Finish::Value(vec![1; 7 << 20].into())).1 {
            results += usize::from(matches!(said, Item::Reply { .. }));
            let is_refused = matches!(said, Item::Refused { why: Refusal::ResultTooLarge, .. });
            refused += usize::from(is_refused);
        }
    }
    assert_eq!((results, refused), (2, 2), "two of 7 MiB fit into twice 8");
}

/// A guest that was forgotten while a call of it ran, and comes back in the same life: its next calls wait for the old execution, and no longer.
#[test]
fn a_client_that_comes_back_is_served_when_the_old_execution_has_stopped() {
    let (mut rpc, head) = machine(Carrier::Link, Orphans::Extermination);
    let peer = boot("peer");
    let [old] = calls(&mut rpc, &head, [1])[..] else { panic!("it is executed") };
    rpc.handle(Instant::ZERO, In::Peer(PeerChange::Ended { boot: peer }));
    turned(&mut rpc);
    rpc.handle(Instant::ZERO, In::Peer(PeerChange::Up { boot: peer }));
    assert_eq!(calls(&mut rpc, &head, [2]), [], "the old one runs");
    assert_eq!(finish(&mut rpc, old, Finish::Failed).0.len(), 1);
}
