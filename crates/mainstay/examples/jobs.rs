//! A replicated queue of jobs with leases: commands with types, a session, and leases that return when their holder is gone.
//!
//! `cargo run -p mainstay --example jobs`

use std::error::Error;

use mainstay::{
    ClusterId, Commands, Config, Durability, Map, MembersChanged, Position, Replicated,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
enum Command {
    Put(u64),
    /// The next free job, for the node of this name.
    Take(String),
    /// It is done, if the lease is still this one.
    Done(u64, Position),
}

/// Whoever has a job, and since which position: the position is a fencing token.
type Lease = Option<(String, Position)>;

/// The jobs that are not done.
#[derive(Default)]
struct Jobs(Map<u64, Lease>);

impl Commands for Jobs {
    type Command = Command;
    type Reply = Option<(u64, Position)>;
    type State = Map<u64, Lease>;

    fn execute(&mut self, at: Position, command: Command) -> Self::Reply {
        match command {
            Command::Put(job) => self.0.insert(job, None).map_or(Some((job, at)), |_| None),
            Command::Take(node) => {
                let job = *self.0.iter().find(|(_, lease)| lease.is_none())?.0;
                self.0.insert(job, Some((node, at)));
                Some((job, at))
            }
            Command::Done(job, lease) => {
                let since = self.0.get(&job)?.as_ref()?.1;
                (since == lease).then(|| self.0.remove(&job)).map(|_| (job, at))
            }
        }
    }

    fn state(&self) -> &Self::State {
        &self.0
    }

    fn state_mut(&mut self) -> &mut Self::State {
        &mut self.0
    }

    fn view(&mut self, _at: Position, view: &MembersChanged) {
        let is_gone = |lease: &Lease| {
            lease
                .as_ref()
                .is_some_and(|(node, _)| view.left.iter().any(|(it, _)| *it.name == **node))
        };
        let lost: Vec<u64> =
            self.0.iter().filter(|(_, lease)| is_gone(lease)).map(|(job, _)| *job).collect();
        for job in lost {
            self.0.insert(job, None);
        }
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let nodes = Config::loopback(["a", "b", "c"])?;
    let start = |name| {
        let config = Config::new(ClusterId::from_entropy(5), name, nodes.clone());
        Replicated::start(config.durability(Durability::Memory), Jobs::default)
    };
    let [a, b, c] = [start("a")?, start("b")?, start("c")?];
    for jobs in [&a, &b, &c] {
        jobs.node().ok_or("it has one")?.ready().await?;
    }
    let session = a.session().await?;
    for job in 1..=10 {
        session.send(Command::Put(job)).await?;
    }
    // c takes three jobs and is gone; its lease on the first one is worth nothing any more.
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.extend(c.send(Command::Take("c".to_owned())).await?);
    }
    println!("c has {taken:?}");
    c.close().await;
    let mut done = 0;
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(5));
    while done < 10 {
        match b.send(Command::Take("b".to_owned())).await? {
            Some((job, lease)) => {
                done += usize::from(b.send(Command::Done(job, lease)).await?.is_some());
            }
            // What c had comes back with the view that is without it.
            None => drop(tick.tick().await),
        }
    }
    let (job, lease) = taken[0];
    assert_eq!(a.send(Command::Done(job, lease)).await?, None);
    println!("b has done all ten");
    b.close().await;
    a.close().await;
    Ok(())
}
