//! Peers that flood a server or a client, and take in little of what they are told.

use super::*;

/// What a peer does that floods a server, with numbers of its own choice.
struct Peer {
    rpc: Rpc,
    head: Head,
    now: Instant,
    /// Executions that have begun.
    begun: Vec<Ticket>,
}

impl Peer {
    fn new(config: Config) -> Self {
        let (rpc, head) = machine_of(config, Carrier::Link, Orphans::Extermination);
        let mut peer = Self { rpc, head, now: Instant::ZERO, begun: Vec::new() };
        peer.say(vec![Item::Hello { kept: false, window: 4, epoch: 1 }]);
        peer
    }

    fn call(seq: u64, procedure: u64) -> Item {
        Self::call_as(Semantics::ExactlyOnce, seq, procedure)
    }

    fn call_as(semantics: Semantics, seq: u64, procedure: u64) -> Item {
        let order = None;
        let (context, name) = (Bytes::new(), None);
        let procedure = ProcedureId(procedure);
        let (version, budget, epoch) = (1, 1_000_000, 0);
        let call = CallHead { procedure, version, semantics, budget, epoch, order, context, name };
        Item::Call { seq, call, len: 8 }
    }

    /// The answers.
    fn say(&mut self, items: Vec<Item>) -> Vec<Item> {
        let bytes = items.iter().map(Item::len).sum();
        let message = Message { head: self.head.clone(), items, bodies: vec![1; bytes].into() };
        self.turn(In::Message { from: boot("peer"), view: 0, message })
    }

    fn turn(&mut self, input: In<Rpc>) -> Vec<Item> {
        self.rpc.handle(self.now, input);
        self.rpc.end_turn(self.now);
        self.rpc.check_invariants();
        let mut told = Vec::new();
        while let Some(out) = self.rpc.poll_output() {
            match out {
                Out::Send { message, .. } => told.extend(message.items),
                Out::Event { event: Event::Execute(it), .. } => self.begun.push(it.ticket),
                _ => {}
            }
        }
        told
    }

    /// From here on it takes nothing in.
    #[cfg(feature = "test-util")]
    fn is_full(&mut self) {
        let message = Message::of(Head::default(), &mut Batch::default());
        assert_eq!(self.turn(In::Full { to: boot("peer"), message }), []);
    }

    /// It takes in what it is told, for once.
    #[cfg(feature = "test-util")]
    fn room(&mut self) -> Vec<Item> {
        self.turn(In::Room { to: boot("peer") })
    }

    #[cfg(feature = "test-util")]
    fn waits(&self) -> usize {
        self.rpc.waits(boot("peer").node)
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
        peer.is_full();
        for turn in 0..10u64 {
            let watch =
                |at: u64| Item::Watch { number: turn * 100 + at, procedure: ProcedureId(8) };
            assert_eq!(peer.say((0..100).map(watch).collect()), []);
            assert_eq!(peer.say(vec![Item::Check { life: 3 }; 100]), []);
            peer.say(vec![Item::Hello { kept: false, window: 4, epoch: 1 }; 100]);
        }
        assert!(peer.waits() <= 8, "what is kept is bounded");
        assert_eq!(peer.counts().absurd, 992 + 1_000);
        let told = peer.room();
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

/// Checks RPC-17: a peer that takes nothing in calls in ways of which nothing is kept: what may be executed again, and what it says at once to be over. It is owed four windows of
/// answers, and the rest is counted and costs nothing. What it was not told it asks for, and is served, when it takes something in.
#[cfg(feature = "test-util")]
#[test]
fn answers_that_nobody_takes_are_bounded() {
    use crate::fault::Fault;
    let scene = |fault| {
        for semantics in [Semantics::AtLeastOnce, Semantics::ExactlyOnce] {
            let mut peer = Peer::new(Config { fault, ..Config::new(3) });
            peer.is_full();
            for turn in 0..50 {
                if semantics == Semantics::ExactlyOnce {
                    peer.head.floor = 100 * turn + 1;
                }
                let call = |at| Peer::call_as(semantics, 100 * turn + at, 8);
                assert_eq!(peer.say((1..=100).map(call).collect()), []);
            }
            assert!(peer.waits() <= 16, "{} wait", peer.waits());
            assert!(peer.counts().absurd > 4_000, "{:?}", peer.counts());
            let told = peer.room();
            let is_refused = |it: &Item| matches!(it, Item::Refused { .. });
            assert!(told.len() <= 16 && told.iter().all(is_refused), "{told:?}");
            peer.head.floor = 0;
            assert_eq!(peer.say(vec![Item::Probe { seq: 5_000 }]), [Item::Missing { seq: 5_000 }]);
            let refused = Item::Refused { seq: 5_000, why: Refusal::Procedure };
            assert_eq!(peer.say(vec![Peer::call_as(semantics, 5_000, 8)]), [refused]);
        }
    };
    mainstay_sim::holds_but_with(scene, &[Fault::KeepsAnswers]);
}

/// Checks RPC-17: large results of calls that may be executed again are bounded by their bytes for a peer that takes nothing in; nothing more is executed for it. What it was not told is
/// executed again when it asks.
#[cfg(feature = "test-util")]
#[test]
fn large_answers_that_nobody_takes_are_bounded() {
    use crate::fault::Fault;
    let scene = |fault| {
        let mut peer = Peer::new(Config { fault, ..Config::new(3) });
        peer.is_full();
        let call = |seq| Peer::call_as(Semantics::AtLeastOnce, seq, 7);
        peer.say((1..=4).map(call).collect());
        let result = Bytes::from(vec![1; 7 << 20]);
        for seq in 5..40 {
            for ticket in std::mem::take(&mut peer.begun) {
                let result = Finish::Value(result.clone());
                assert_eq!(peer.turn(In::Command(Command::Finished { ticket, result })), []);
            }
            peer.say(vec![call(seq)]);
        }
        assert_eq!((peer.waits(), peer.counts().begun), (3, 4), "twice 8 MiB, and one more");
        assert_eq!(peer.counts().absurd, 36);
        assert_eq!(peer.room().len(), 3);
        for seq in [4, 5] {
            assert_eq!(peer.say(vec![Item::Probe { seq }]), [Item::Missing { seq }]);
            assert_eq!(peer.say(vec![call(seq)]), []);
        }
        assert_eq!(peer.counts().begun, 6);
    };
    mainstay_sim::holds_but_with(scene, &[Fault::KeepsAnswers]);
}

/// Questions in one message are answered in bounds as well, though the peer takes the answers in: each of them may be as large as a result. So is a server that says
/// again and again that a call has not come.
#[cfg(feature = "test-util")]
#[test]
fn questions_of_one_turn_are_bounded() {
    use crate::fault::Fault;
    let scene = |fault| {
        let mut peer = Peer::new(Config { fault, ..Config::new(3) });
        peer.say(vec![Peer::call(1, 7)]);
        let (ticket, result) = (peer.begun[0], Finish::Value(vec![1; 5_000].into()));
        peer.turn(In::Command(Command::Finished { ticket, result }));
        assert_eq!(peer.say(vec![Item::Probe { seq: 1 }; 1_000]).len(), 16);
        assert_eq!(peer.say(vec![Item::Probe { seq: 1 }]).len(), 1, "in the next turn");
        let request = crate::Request {
            token: 1,
            server: boot("peer").node,
            procedure: ProcedureId(7),
            version: 1,
            semantics: Semantics::ExactlyOnce,
            arguments: vec![1; 5_000].into(),
            deadline: std::time::Duration::from_secs(1),
            lane: None,
            parent: None,
            numbers: Vec::new(),
            context: Bytes::new(),
            name: None,
        };
        assert_eq!(peer.turn(In::Command(Command::Call(request))).len(), 1);
        assert_eq!(peer.say(vec![Item::Missing { seq: 1 }; 1_000]).len(), 16);
        peer.is_full();
        for _ in 0..10 {
            peer.say(vec![Item::Missing { seq: 1 }; 100]);
            peer.say(vec![Item::More { seq: 1 }; 100]);
        }
        assert!(peer.waits() <= 16, "{} wait", peer.waits());
    };
    mainstay_sim::holds_but_with(scene, &[Fault::KeepsAnswers]);
}

/// Checks RPC-14 and edge case 16, numbers at their end: a client's last calls are executed, and what is over with them is dropped.
#[test]
fn the_last_numbers_are_numbers() {
    let mut peer = Peer::new(Config::new(3));
    let last = |before: u64| u64::MAX - before;
    peer.head.floor = last(2);
    peer.say((0..3).rev().map(|it| Peer::call(last(it), 7)).collect());
    assert_eq!(peer.begun.len(), 3);
    let (ticket, result) = (peer.begun[0], Finish::Value(Bytes::new()));
    let told = peer.turn(In::Command(Command::Finished { ticket, result }));
    assert_eq!(told, [Item::Reply { seq: last(2), is_error: false, len: 0 }]);
    let (open, answers) = (vec![last(1)], [last(1), last(0)].map(|seq| Item::Working { seq }));
    peer.say(vec![Item::Open { next: last(0), open }]);
    let all = || (0..3).rev().map(|it| Peer::call(last(it), 7)).collect::<Vec<_>>();
    assert_eq!(peer.say(all()), answers);
    assert_eq!(peer.counts().dropped, 1);
    peer.head.floor = last(0);
    assert_eq!(peer.say(all()), answers[1..]);
    peer.head.over = vec![last(0)];
    assert_eq!((peer.say(all()), peer.rpc.status().kept), (vec![], 0));
    assert_eq!((peer.counts().dropped, peer.counts().begun), (1 + 2 + 3, 3));
}
