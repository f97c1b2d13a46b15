//! A notice board on three nodes, without membership and without a group: each note is sent to all who are up, kept on disk, and
//! shown by an actix actor. A node that was away is sent what it missed.
//!
//! `cargo run -p mainstay-service --example board`

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::net::TcpListener;

use actix::{Actor, Context, Handler};
use mainstay_base::service::{
    Class, In, Io, Logged, Never, Out, Outbox, PeerChange, Service, Start, Wire,
};
use mainstay_base::{BootId, Channel, ClusterId, Instant, Machine, NodeId};
use mainstay_runtime::Events;
use mainstay_service::{StationHandle, StationParts, start};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Most notes of one node that are kept.
const NOTES_MAX: usize = 1_000;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Note {
    by: NodeId,
    number: u64,
    text: String,
}

impl Wire for Note {}

/// All notes, of each node in the order of writing.
#[derive(Default)]
struct Board {
    me: Option<NodeId>,
    notes: BTreeMap<(NodeId, u64), Note>,
    out: Outbox<Self>,
    up: Vec<BootId>,
    /// What a peer could not take yet.
    waiting: BTreeMap<BootId, VecDeque<Note>>,
}

#[derive(Default)]
struct Past {
    notes: Vec<Note>,
    last: Io,
}

impl Board {
    fn add(&mut self, note: Note) -> bool {
        let is_new = self.notes.insert((note.by, note.number), note.clone()).is_none();
        if is_new {
            self.out.persist(note.clone());
            self.out.tell(note);
        }
        is_new
    }

    fn write(&mut self, text: String) {
        let Some(by) = self.me else { return };
        let number = self.notes.range((by, 0)..=(by, u64::MAX)).count() as u64 + 1;
        if number as usize > NOTES_MAX {
            return;
        }
        let note = Note { by, number, text };
        self.add(note.clone());
        self.out.send_all(self.up.iter().copied(), note);
    }
}

impl Machine for Board {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, _: Instant, input: In<Self>) {
        match input {
            In::Command(text) => self.write(text),
            In::Message { message, .. } => drop(self.add(message)),
            In::Peer(PeerChange::Up { boot }) => {
                self.up.push(boot);
                let missed: Vec<Note> = self.notes.values().cloned().collect();
                missed.into_iter().for_each(|note| self.out.send(boot, note));
            }
            In::Peer(
                PeerChange::Down { boot }
                | PeerChange::Ended { boot }
                | PeerChange::Replaced { old: boot, .. },
            ) => {
                self.up.retain(|it| *it != boot);
                self.waiting.remove(&boot);
            }
            In::Full { to, message } => self.waiting.entry(to).or_default().push_back(message),
            In::Room { to } => {
                let waiting = self.waiting.remove(&to).unwrap_or_default();
                waiting.into_iter().for_each(|note| self.out.send(to, note));
            }
            _ => {}
        }
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn end_turn(&mut self, _: Instant) {}

    fn poll_output(&mut self) -> Option<Out<Self>> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

impl Service for Board {
    const CHANNEL: Channel = Channel(0x4000);
    const NAME: &'static str = "board";
    const CLASS: Class = Class::Calls;
    type Message = Note;
    type Record = Note;
    type Command = String;
    type Event = Note;
    type Job = Never;
    type Done = Never;
    type Past = Past;
    type Config = ();
    type Status = usize;

    fn fold(past: &mut Past, logged: Logged<Note>) {
        if let Logged::Record(io, note) = logged {
            past.notes.push(note);
            past.last = io;
        }
    }

    fn recover((): (), start: Start<Past>) -> Self {
        let notes = start.past.notes.into_iter().map(|note| ((note.by, note.number), note));
        Self {
            me: Some(start.me.node),
            notes: notes.collect(),
            out: Outbox::new(start.past.last),
            ..Self::default()
        }
    }

    fn work(job: Never) -> Never {
        match job {}
    }

    /// All of its log: it takes no checkpoints.
    fn keeps(&self) -> Io {
        Io(1)
    }

    fn status(&self) -> usize {
        self.notes.len()
    }
}

/// Shows what is new on one board.
struct Screen {
    name: &'static str,
    shown: mpsc::UnboundedSender<()>,
}

impl Actor for Screen {
    type Context = Context<Self>;
}

impl Handler<Events<Note>> for Screen {
    type Result = ();

    fn handle(&mut self, notes: Events<Note>, _: &mut Context<Self>) {
        for note in notes.iter() {
            println!("{}: {}", self.name, note.text);
            // Nobody counts any more.
            let _ = self.shown.send(());
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let cluster = ClusterId::from_entropy(7);
    let names = ["ada", "bob", "cyd"];
    let free = |name: &str| Ok((name.to_owned(), TcpListener::bind("127.0.0.1:0")?.local_addr()?));
    let roster: BTreeMap<_, _> = names.map(free).into_iter().collect::<std::io::Result<_>>()?;
    let open = |name: &str| -> Result<StationHandle, Box<dyn Error>> {
        let home = directory.path().join(name);
        let parts = StationParts::tcp(cluster, name, roster.clone(), Some(home))?;
        Ok(start(parts, |node| node.mount::<Board>("board", ()).map(drop))?)
    };
    let (shown, mut count) = mpsc::unbounded_channel();
    let watch = async |station: &StationHandle, name| {
        let screen = Screen { name, shown: shown.clone() }.start();
        station.service::<Board>("board").subscribe(screen.recipient(), 64).await
    };
    let (ada, bob) = (open("ada")?, open("bob")?);
    watch(&ada, "ada").await?;
    watch(&bob, "bob").await?;
    ada.service::<Board>("board").send("tea at four".to_owned()).await?;
    bob.service::<Board>("board").send("bring cake".to_owned()).await?;
    for _ in 0..4 {
        count.recv().await;
    }
    // Cyd was away, and Ada's computer is switched off and on again.
    let cyd = open("cyd")?;
    watch(&cyd, "cyd").await?;
    let closed = ada.closed();
    drop(ada);
    closed.await;
    let ada = open("ada")?;
    for station in [&ada, &bob, &cyd] {
        while station.service::<Board>("board").status().await? < 2 {
            tokio::task::yield_now().await;
        }
    }
    println!("all three boards have both notes");
    Ok(())
}
