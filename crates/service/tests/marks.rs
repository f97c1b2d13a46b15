//! Which view a service knew when it wrote a record: its own, and not that of its node.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::sync::Arc;

use mainstay_base::rack::beside::{Aside, Batch, Desk, Opening};
use mainstay_base::rack::{Effect, Given, LogEntry, Mounted, Placement, Proxy, fold};
use mainstay_base::service::{
    Address, Ask, Class, In, Io, Logged, Never, Out, Outbox, Service, Start, Wire,
};
use mainstay_base::{
    BootId, BootNonce, Channel, ClusterId, Instance, Instant, Machine, NodeId, View, ViewId,
};
use mainstay_service::{Services, services};
use serde::{Deserialize, Serialize};

const NOW: Instant = Instant::ZERO;

/// Writes what it is told.
struct Scribe(Outbox<Self>);

#[derive(Debug, Serialize, Deserialize)]
struct Line(u64);

impl Wire for Line {}

impl Machine for Scribe {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, _: Instant, input: In<Self>) {
        if let In::Command(line) = input {
            self.0.persist(Line(line));
        }
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn end_turn(&mut self, _: Instant) {}

    fn poll_output(&mut self) -> Option<Out<Self>> {
        self.0.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

impl Service for Scribe {
    const CHANNEL: Channel = Channel(0x4030);
    const NAME: &'static str = "scribe";
    const CLASS: Class = Class::Calls;
    type Message = Never;
    type Record = Line;
    type Command = u64;
    type Event = Never;
    type Job = Never;
    type Done = Never;
    /// What a fold was given, in order.
    type Past = Vec<String>;
    type Config = ();
    type Status = ();

    fn fold(past: &mut Vec<String>, logged: Logged<Line>) {
        past.push(match logged {
            Logged::Record(_, Line(line)) => format!("line {line}"),
            Logged::Installed(view) => format!("view {}", view.number),
        });
    }

    fn recover((): (), _: Start<Vec<String>>) -> Self {
        Self(Outbox::default())
    }

    fn work(job: Never) -> Never {
        match job {}
    }

    fn status(&self) {}
}

fn cluster() -> ClusterId {
    ClusterId::from_entropy(1)
}

fn me() -> BootId {
    BootId { node: NodeId::new(cluster(), "n"), nonce: BootNonce(1) }
}

fn named(name: &str) -> Instance {
    Instance::new(cluster(), name)
}

fn at(name: &str) -> Address {
    Address { channel: Scribe::CHANNEL, instance: named(name) }
}

fn start(name: &str) -> Start<Vec<String>> {
    let (instance, past) = (named(name), Vec::new());
    Start { me: me(), instance, past, checkpoint: None, now: NOW, seed: 1 }
}

fn view(number: u64) -> Arc<View> {
    let id = ViewId { number, nonce: 0 };
    let (members, roster) = (Vec::new(), [me().node].into());
    Arc::new(View { id, members, roster, departures: Default::default() })
}

/// A node with a scribe beside it and one that is mounted.
struct Node {
    services: Services,
    desk: Option<Desk>,
    batch: Option<Batch>,
    log: Vec<LogEntry>,
}

impl Node {
    fn new() -> Self {
        let mut services = Services::new();
        let open = Box::new(|_| Desk::new(Mounted::<Scribe>::recover((), start("beside"))));
        let opening = Opening { placement: Placement::Local, me: me(), seed: 1, open };
        let proxy = Proxy::new::<Scribe>(named("beside"), 0, opening);
        services.mount_beside::<Scribe>(NOW, proxy).unwrap();
        services.mount(NOW, Mounted::<Scribe>::recover((), start("mounted"))).unwrap();
        let mut node = Self { services, desk: None, batch: None, log: Vec::new() };
        node.turn();
        node.read();
        node
    }

    /// A turn of the node; what it has for the one beside waits.
    fn turn(&mut self) {
        self.services.end_turn(NOW);
        while let Some(output) = self.services.poll_output() {
            match output {
                services::Output::Write { entries, .. } => self.log.extend(entries),
                services::Output::Effect(Effect::Aside { word: Aside::Open(opening), .. }) => {
                    self.desk = Some((opening.open)(NOW));
                }
                services::Output::Effect(Effect::Aside { word: Aside::Batch(batch), .. }) => {
                    self.batch = Some(batch);
                }
                _ => {}
            }
        }
    }

    /// The one beside is given what waits for it.
    fn read(&mut self) {
        let batch = self.batch.take().unwrap();
        self.desk.as_mut().unwrap().take(NOW, batch);
        self.report();
    }

    fn report(&mut self) {
        if let Some(report) = self.desk.as_mut().unwrap().turn(NOW) {
            self.services.give(NOW, at("beside"), Given::Report(Box::new(report)));
        }
        self.turn();
    }

    /// Both write a line.
    fn write(&mut self, line: u64) {
        self.services.ask(NOW, Ask::of::<Scribe>(named("mounted"), vec![line]));
        let ask = Ask::of::<Scribe>(named("beside"), vec![line]);
        self.desk.as_mut().unwrap().ask(NOW, ask);
        self.report();
    }

    fn past(&self, name: &str) -> Vec<String> {
        fold::<Scribe>(named(name), &self.log).unwrap()
    }
}

/// One beside its node, which is told of a view late, writes in the former one until then; one that is mounted writes in that of its node. A
/// view that one has written nothing in is not in its log.
#[test]
fn the_log_has_the_views_that_a_service_knew() {
    let mut node = Node::new();
    node.write(1);
    assert_eq!(
        (node.past("mounted"), node.past("beside")),
        (vec!["line 1".into()], vec!["line 1".into()])
    );
    node.services.on_view(NOW, &view(7));
    node.turn();
    node.write(2);
    assert_eq!(node.past("mounted"), ["line 1", "view 7", "line 2"]);
    assert_eq!(node.past("beside"), ["line 1", "line 2"], "it has not heard of it");
    node.read();
    node.write(3);
    assert_eq!(node.past("beside"), ["line 1", "line 2", "view 7", "line 3"]);
    node.services.on_view(NOW, &view(8));
    node.turn();
    node.services.on_view(NOW, &view(9));
    node.turn();
    // Each is told in its turn.
    while node.batch.is_some() {
        node.read();
    }
    node.write(4);
    let expected = ["line 1", "view 7", "line 2", "line 3", "view 9", "line 4"];
    assert_eq!(node.past("mounted"), expected);
    let expected = ["line 1", "line 2", "view 7", "line 3", "view 9", "line 4"];
    assert_eq!(node.past("beside"), expected);
    let is_record = |it: &&LogEntry| matches!(it, LogEntry::Record { io: Io(4), .. });
    assert_eq!(node.log.iter().filter(is_record).count(), 2);
}
