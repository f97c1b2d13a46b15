//! Views in the order of the commands, and commands with types.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use bytes::Bytes;
use mainstay_base::{Departures, MessageId, Position, Reason, Rng, SiteId};
use mainstay_paradigm::client::{Failed, NotDone};
use mainstay_paradigm::{
    Commands, Config, Envelope, Map, MembersChanged, Outcome, Output, Replica, Small, Status,
    decode_reply, encode_command,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use support::site;

#[derive(Serialize, Deserialize, Debug)]
enum Command {
    Put(u64),
    /// A job for this worker, its lease.
    Take(SiteId),
}

type State = (Map<u64, Option<SiteId>>, Small<Vec<(u64, usize, usize)>>);

/// Jobs by number, with whoever has them; and a trace of the views.
#[derive(Default)]
struct Jobs {
    state: State,
}

impl Jobs {
    fn of(&self, worker: SiteId) -> Vec<u64> {
        let all = self.state.0.iter().filter(|(_, holder)| **holder == Some(worker));
        all.map(|(job, _)| *job).collect()
    }
}

impl Commands for Jobs {
    type Command = Command;
    type Reply = Option<u64>;
    type State = State;

    fn execute(&mut self, _at: Position, command: Command) -> Option<u64> {
        let jobs = &mut self.state.0;
        match command {
            Command::Put(job) => {
                jobs.insert(job, None);
                Some(job)
            }
            Command::Take(worker) => {
                let free = jobs.iter().find(|(_, holder)| holder.is_none());
                let job = free.map(|(job, _)| *job)?;
                jobs.insert(job, Some(worker));
                Some(job)
            }
        }
    }

    fn state(&self) -> &Self::State {
        &self.state
    }

    fn state_mut(&mut self) -> &mut Self::State {
        &mut self.state
    }

    fn view(&mut self, _at: Position, view: &MembersChanged) {
        assert_ne!(view.number, 666, "as told");
        let silent = view.left.iter().filter(|(_, why)| *why == Reason::Silent).count();
        self.state.1.push((view.number, view.joined.len(), silent));
        for (worker, _) in &view.left {
            for job in self.of(worker.site) {
                self.state.0.insert(job, None);
            }
        }
    }
}

/// Whoever is not in it has been silent.
fn view(number: u64, members: &[SiteId]) -> Bytes {
    let mut departures = Departures::default();
    for name in ["a", "b"].into_iter().filter(|it| !members.contains(&site(it))) {
        departures.note(site(name), Reason::Silent);
    }
    Envelope::view(number, members, &departures)
}

fn config() -> Config {
    Config::builder().hashes(4, 3).build().unwrap()
}

fn jobs() -> Replica<Jobs> {
    Replica::new(config(), Jobs::default())
}

fn deliver(replica: &mut Replica<Jobs>, position: u64, payload: Bytes) -> Vec<Output> {
    let message = MessageId { sender: site("me"), sequence: position };
    replica.deliver(Position(position), message, payload, true).unwrap();
    std::iter::from_fn(|| replica.poll_output()).collect()
}

fn ask(replica: &mut Replica<Jobs>, payload: Bytes) -> Outcome {
    let position = replica.position().next().0;
    match deliver(replica, position, payload).swap_remove(0) {
        Output::Reply { outcome, .. } => outcome,
        other => panic!("{other:?}"),
    }
}

fn anonymous(command: &Command) -> Bytes {
    Envelope::Anonymous.encode(&encode_command::<Jobs>(command))
}

fn send(replica: &mut Replica<Jobs>, command: &Command) -> Option<u64> {
    let Outcome::Done(answer) = ask(replica, anonymous(command)) else { panic!("not done") };
    decode_reply::<Jobs>(&answer).unwrap()
}

/// What a member holds is free again when the view without it comes, and not before; a view that is not newer is not told.
#[test]
fn leases_come_back_when_their_holder_leaves() {
    let mut replica = jobs();
    let (a, b) = (site("a"), site("b"));
    assert_eq!(ask(&mut replica, view(4, &[a, b])), Outcome::ViewNoted);
    send(&mut replica, &Command::Put(1));
    assert_eq!(send(&mut replica, &Command::Take(b)), Some(1));
    assert_eq!(send(&mut replica, &Command::Take(a)), None);
    for number in [3, 4] {
        assert_eq!(ask(&mut replica, view(number, &[a])), Outcome::ViewNoted);
    }
    assert_eq!(send(&mut replica, &Command::Take(a)), None);
    assert_eq!(ask(&mut replica, view(5, &[a])), Outcome::ViewNoted);
    assert_eq!(send(&mut replica, &Command::Take(a)), Some(1));
    assert_eq!(**replica.machine().unwrap().state().1, [(4, 2, 0), (5, 0, 1)]);
    assert_eq!(replica.view_number(), Some(5));
}

/// Views name their members as the configuration does, those who left too; a node that it does not have is `?`.
#[test]
fn members_have_names() {
    #[derive(Default)]
    struct Names(Small<Vec<String>>);
    impl Commands for Names {
        type Command = ();
        type Reply = ();
        type State = Small<Vec<String>>;
        fn execute(&mut self, _: Position, (): ()) {}
        fn state(&self) -> &Self::State {
            &self.0
        }
        fn state_mut(&mut self) -> &mut Self::State {
            &mut self.0
        }
        fn view(&mut self, _: Position, view: &MembersChanged) {
            let left = view.left.iter().map(|(site, why)| format!("-{site} {why}"));
            self.0.extend(view.joined.iter().map(|site| format!("+{site}")).chain(left));
        }
    }
    let names = ["a", "b"].map(|name| (site(name).node, name.into())).into();
    let mut replica = Replica::new(config(), Names::default()).names(names);
    let all = [site("a"), site("b"), site("c")];
    for (number, members) in [(1, &all[..]), (2, &all[..1])] {
        let message = MessageId { sender: site("a"), sequence: number };
        replica.deliver(Position(number), message, view(number, members), true).unwrap();
    }
    let told = &**replica.machine().unwrap().state();
    assert_eq!(told, &["+a/1", "+b/1", "+?/1", "-b/1 silent", "-?/1 absent"]);
}

/// What is no command, no view and no reply is answered; it changes nothing and never panics.
#[test]
fn what_makes_no_sense_is_answered() {
    let mut replica = jobs();
    let before = replica.machine().unwrap().state().0.len();
    for bytes in [&b""[..], b"\xc1", &[0x81, 0xa5], b"\x92\x01\x02"] {
        let Outcome::Done(answer) = ask(&mut replica, Envelope::Anonymous.encode(bytes)) else {
            panic!("not done");
        };
        let reply = decode_reply::<Jobs>(&answer);
        assert_eq!(reply, Err(Failed::NotDone(NotDone::Malformed)));
        let view = Envelope::View { number: 9 }.encode(bytes);
        assert_eq!(ask(&mut replica, view), Outcome::Malformed);
        assert_eq!(decode_reply::<Jobs>(bytes), Err(Failed::Reply));
    }
    assert_eq!(replica.machine().unwrap().state().0.len(), before);
    assert_eq!((replica.view_number(), replica.status()), (Some(0), Status::Running));
}

/// A view whose handling panics halts the group as a command does. Passed over, it is not told, but counts as the last one.
#[test]
fn a_view_that_panics_is_contained_and_passed_over() {
    let (mut replica, a) = (jobs(), site("a"));
    deliver(&mut replica, 1, view(1, &[a]));
    let outputs = deliver(&mut replica, 2, view(666, &[a, site("b")]));
    assert_eq!(outputs, [Output::Poisoned { position: Position(2) }]);
    deliver(&mut replica, 3, Envelope::Skip { position: Position(2) }.encode(b""));
    drop(replica.begin_restore(Jobs::default()));
    replica.restored(Position::ZERO).unwrap();
    deliver(&mut replica, 1, view(1, &[a]));
    deliver(&mut replica, 2, view(666, &[a, site("b")]));
    deliver(&mut replica, 3, Envelope::Skip { position: Position(2) }.encode(b""));
    assert_eq!((replica.status(), replica.view_number()), (Status::Running, Some(666)));
    deliver(&mut replica, 4, view(666, &[a, site("b")]));
    assert_eq!(**replica.machine().unwrap().state().1, [(1, 1, 0)]);
}

fn payload(rng: &mut Rng, last_view: &mut u64) -> Bytes {
    let names = ["a", "b", "c", "d"];
    match rng.below(5) {
        0 | 1 => anonymous(&Command::Put(rng.below(1_000))),
        2 | 3 => anonymous(&Command::Take(site(names[rng.below(4) as usize]))),
        _ => {
            // Some come late or twice.
            *last_view += rng.below(3);
            let members: Vec<_> =
                names.iter().filter(|_| rng.chance(2, 3)).map(|it| site(it)).collect();
            let mut departures = Departures::default();
            for name in names.iter().filter(|it| !members.contains(&site(it))) {
                let why = if rng.chance(1, 2) { Reason::Silent } else { Reason::Closed };
                departures.note(site(name), why);
            }
            Envelope::view(last_view.saturating_sub(rng.below(2)), &members, &departures)
        }
    }
}

proptest! {
    /// Checks PD-30. Whether a replica has executed all, or comes from a state of another at any place and executes the
    /// rest: equal hashes at each position, equal snapshots.
    #[test]
    fn a_replica_that_comes_from_a_state_is_told_the_same(seed: u64, count in 1..60_u64, cut in 0..60_u64) {
        let (mut rng, mut last_view) = (Rng::new(seed), 0);
        let payloads: Vec<_> = (0..count).map(|_| payload(&mut rng, &mut last_view)).collect();
        let (mut whole, cut) = (jobs(), cut.min(count));
        for (position, payload) in (1..=cut).zip(&payloads) {
            deliver(&mut whole, position, payload.clone());
        }
        let mut other = jobs();
        drop(other.begin_restore(Jobs::default()));
        let mut stream = whole.snapshot().unwrap();
        while let Some(chunk) = stream.next_chunk().unwrap() {
            other.restore_chunk(&chunk).unwrap();
        }
        other.restored(Position(cut)).unwrap();
        for (position, payload) in (1..=count).zip(&payloads).skip(cut as usize) {
            for replica in [&mut whole, &mut other] {
                deliver(replica, position, payload.clone());
            }
            prop_assert_eq!(whole.state_hash(), other.state_hash());
        }
        let all = |replica: &mut Replica<Jobs>| {
            let mut stream = replica.snapshot().unwrap();
            std::iter::from_fn(|| stream.next_chunk().unwrap()).collect::<Vec<_>>()
        };
        prop_assert_eq!(all(&mut whole), all(&mut other));
        prop_assert_eq!(whole.view_number(), other.view_number());
    }
}
