//! All that can be said, and what a peer could say that keeps to no rule.

use mainstay_base::batch::Item as _;
use mainstay_base::service::{In, Logged, Out, PeerChange, Service, Start};
use mainstay_base::{BootId, BootNonce, ClusterId, Instance, Instant, Machine as _, NodeId};
use proptest::prelude::*;

use super::*;
use crate::{Carrier, Command, Config, Event, Finish, Orphans, Rpc, Ticket};

mod floods;

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

    /// Checks RPC-10, with numbers at their end too: a peer that keeps to no rule does no harm, and what is kept of it is bounded.
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
