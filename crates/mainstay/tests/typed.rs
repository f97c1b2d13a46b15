//! A queue of jobs with types for its commands: leases, views, sessions.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Cluster, NAMES, agreed, ready, run, until};
use mainstay::{
    Client, ClientConfig, Closed, Commands, Config, Durability, Failed, Map, MembersChanged, Node,
    NotDone, Outcome, Position, Replicated, ServeError, SessionError, Small,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
enum Command {
    Put(u64),
    Take(String),
}

struct Take {
    worker: &'static str,
}

impl From<Take> for Command {
    fn from(Take { worker }: Take) -> Self {
        Self::Take(worker.to_owned())
    }
}

/// Jobs with whoever has them, and how many commands changed something.
#[derive(Default)]
struct Jobs {
    state: (Map<u64, Option<String>>, Small<u64>),
}

impl Jobs {
    fn leased(&self) -> usize {
        self.state.0.iter().filter(|(_, holder)| holder.is_some()).count()
    }
}

impl Commands for Jobs {
    type Command = Command;
    type Reply = Option<u64>;
    type State = (Map<u64, Option<String>>, Small<u64>);

    fn execute(&mut self, _at: Position, command: Command) -> Option<u64> {
        let (jobs, changes) = &mut self.state;
        match command {
            Command::Put(job) => {
                **changes += 1;
                jobs.insert(job, None);
                Some(job)
            }
            Command::Take(worker) => {
                let job = *jobs.iter().find(|(_, holder)| holder.is_none())?.0;
                jobs.insert(job, Some(worker));
                **changes += 1;
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
        let left = |holder: &String| view.left.iter().any(|(it, _)| *it.name == **holder);
        let jobs = &mut self.state.0;
        let is_lost = |holder: &Option<String>| holder.as_ref().is_some_and(left);
        let lost: Vec<u64> =
            jobs.iter().filter(|(_, holder)| is_lost(holder)).map(|(job, _)| *job).collect();
        for job in lost {
            jobs.insert(job, None);
        }
    }
}

fn start(cluster: &Cluster, name: &str, bootstrap: bool) -> Replicated<Jobs> {
    let config = cluster.config(name).bootstrap(bootstrap);
    Replicated::start(config, Jobs::default).unwrap()
}

/// Starts a node on a thread of its own.
async fn apart(cluster: &Cluster, name: &str) -> (Node, Replicated<Jobs>) {
    let config = cluster.config(name).bootstrap(true);
    Node::spawn(config, |node| node.replicate(Config::GROUP, Jobs::default)).await.unwrap()
}

async fn changes(node: &Replicated<Jobs>) -> u64 {
    node.read(|jobs| *jobs.state.1).await.unwrap()
}

async fn leased(node: &Replicated<Jobs>) -> usize {
    node.read(Jobs::leased).await.unwrap()
}

/// What a node holds is free again when it is gone, at all nodes: also at one that comes back from its log, and at one that
/// has lost its disk and gets the state from another.
#[test]
fn leases_return_when_their_holder_leaves() {
    run(async {
        let cluster = Cluster::new(Durability::Disk);
        let [a, b, c] = NAMES.map(|name| start(&cluster, name, true));
        for node in [&a, &b, &c] {
            ready(node, 3).await;
        }
        for job in 0..10 {
            assert_eq!(a.send(Command::Put(job)).await, Ok(Some(job)));
        }
        let worker = "c";
        for _ in 0..4 {
            assert!(c.send(Take { worker }).await.unwrap().is_some());
        }
        assert!(a.send(Take { worker: "a" }).await.unwrap().is_some());
        assert_eq!(leased(&b).await, 5);
        drop(c.close().await);
        ready(&a, 2).await;
        agreed(&[a.clone(), b.clone()]).await;
        assert_eq!(leased(&b).await, 1);
        let c = start(&cluster, "c", false);
        ready(&c, 3).await;
        agreed(&[a.clone(), b.clone(), c.clone()]).await;
        assert_eq!(leased(&c).await, 1);
        drop(b.close().await);
        std::fs::remove_dir_all(cluster.dir("b")).unwrap();
        let b = start(&cluster, "b", false);
        ready(&b, 3).await;
        agreed(&[a.clone(), b.clone(), c.clone()]).await;
        assert_eq!(leased(&b).await, 1);
    });
}

/// Bytes that are no command are answered, and change nothing.
#[test]
fn what_is_no_command_is_not_done() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let [a, _b, _c] = NAMES.map(|name| start(&cluster, name, true));
        ready(&a, 3).await;
        let Outcome::Done(answer) = a.execute(b"nonsense").await else { panic!("not done") };
        let reply = mainstay::decode_reply::<Jobs>(&answer);
        assert_eq!(reply, Err(Failed::NotDone(NotDone::Malformed)));
        assert_eq!(a.send(Command::Put(1)).await, Ok(Some(1)));
    });
}

/// Checks PD-31. What is sent in a session is executed once, though the node that it is sent at stands still, is declared dead
/// and starts anew, and many an answer is lost.
#[test]
fn a_session_outlives_the_death_of_its_boot() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let [a, _b] = ["a", "b"].map(|name| start(&cluster, name, true));
        let (_node, c) = apart(&cluster, "c").await;
        for node in [&a, &c] {
            ready(node, 3).await;
        }
        let session = c.session().await.unwrap();
        assert_eq!(session.send(Command::Put(0)).await, Ok(Some(0)));
        let sent = |range: std::ops::Range<u64>| {
            let mut tasks = tokio::task::JoinSet::new();
            for job in range {
                let session = session.clone();
                tasks.spawn(async move { session.send(Command::Put(job)).await });
            }
            tasks
        };
        let (wake, woken) = std::sync::mpsc::channel::<()>();
        let mut tasks = sent(1..1_000);
        // Some are on their way, none of the last ones.
        tasks.join_next().await.unwrap().unwrap().unwrap();
        c.submit_read(true, move |_| {
            let _ = woken.recv_timeout(Duration::from_secs(20));
        });
        ready(&a, 2).await;
        wake.send(()).unwrap();
        while let Some(done) = tasks.join_next().await {
            assert!(matches!(done.unwrap(), Ok(Some(_))));
        }
        let status = c.status().await.unwrap();
        assert_eq!((status.site.restarts, status.clients.accepted), (1, 0));
        assert_eq!(changes(&a).await, 1_000);
        let stats = session.status().await.unwrap().stats;
        assert_eq!(stats.sessions, 1);
        // Those that were on their way, 32 at most, were sent again.
        assert!(stats.tries >= 1_010, "{stats:?}");
        session.close().await;
        until(&a, "no session", |status| status.replica.sessions == 0).await;
    });
}

/// Of a node that has closed there is no session and no port for clients; neither keeps a node running.
#[test]
fn sessions_and_ports_end_with_the_node() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let [a, b] = ["a", "b"].map(|name| start(&cluster, name, true));
        let (node, c) = apart(&cluster, "c").await;
        ready(&c, 3).await;
        let query = |jobs: &Jobs, _query: &[u8]| jobs.state.1.to_le_bytes().to_vec();
        // Its future may go to any thread.
        let serving = c.clone();
        let serving = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(serving.serve("127.0.0.1:0".parse().unwrap(), query))
        });
        let address =
            tokio::task::spawn_blocking(|| serving.join().unwrap()).await.unwrap().unwrap();
        let taken = c.serve(address, query).await;
        assert!(matches!(taken, Err(ServeError::Listen(_))), "{taken:?}");
        let outside = c.serve("192.0.2.1:0".parse().unwrap(), query).await;
        assert!(matches!(outside, Err(ServeError::Listen(_))), "{outside:?}");
        let client = Client::connect(ClientConfig::new(cluster.id, [("c".into(), address)].into()));
        let client = client.unwrap();
        assert_eq!(client.send::<Jobs>(Command::Put(1)).await, Ok(Some(1)));
        let one = Bytes::copy_from_slice(&1_u64.to_le_bytes());
        assert_eq!(client.read(b"").await.into_result(), Ok(one));
        let session = c.session().await.unwrap();
        assert_eq!(session.execute(b"nonsense").await.unwrap()[..], [1]);
        let ended = node.closed();
        drop(node);
        assert_eq!(ended.await, Closed::Stopped);
        assert!(matches!(c.session().await, Err(SessionError::Closed)));
        let closed = c.serve("127.0.0.1:0".parse().unwrap(), query).await;
        assert!(matches!(closed, Err(ServeError::Closed)), "{closed:?}");
        let failed = session.send(Command::Put(2)).await.unwrap_err();
        assert!(matches!(failed, Failed::NotDone(_) | Failed::Unknown), "{failed:?}");
        ready(&a, 2).await;
        assert_eq!(changes(&b).await, 1);
    });
}

/// A node that was never started has no sessions.
#[test]
fn a_builder_that_is_dropped_has_no_sessions() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let mut builder = Node::builder(cluster.config("a")).unwrap();
        let jobs = builder.replicate(Config::GROUP, Jobs::default).unwrap();
        drop(builder);
        assert!(matches!(jobs.session().await, Err(SessionError::Closed)));
    });
}
