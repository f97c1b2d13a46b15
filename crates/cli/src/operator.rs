//! What an operator may have to say to a cluster: `mainstay bootstrap`, `skip`, `accept-loss`.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use crate::admin::HEADER;
use crate::cluster::Cluster;
use crate::config::NodeConfig;
use crate::failure::Failure;
use crate::node::BOOTSTRAP;
use crate::out::say;
use crate::report::{GROUP, exchange};

/// How long a node may take to do it: longer than it waits itself.
const PATIENCE: Duration = Duration::from_secs(6);

#[derive(clap::Args)]
pub(crate) struct BootstrapOptions {
    /// The configuration of the node.
    #[arg(long)]
    config: PathBuf,
}

#[derive(clap::Args)]
pub(crate) struct SkipOptions {
    /// The cluster's directory.
    #[arg(long)]
    dir: PathBuf,
    /// The group: `state`.
    group: String,
    /// The number of the command, as the alarm `poison #N` says it.
    position: u64,
}

#[derive(clap::Args)]
pub(crate) struct AcceptLossOptions {
    /// The cluster's directory.
    #[arg(long)]
    dir: PathBuf,
    /// The group: `state`.
    group: String,
}

/// Marks a node as a founder: at its next start, its first, it takes part in making the cluster.
pub(crate) fn bootstrap(options: &BootstrapOptions) -> Result<(), Failure> {
    let config = NodeConfig::read(&options.config, &[])?;
    if config.data_dir.exists() {
        let (path, data) = (options.config.display(), config.data_dir.display());
        return Err(Failure::usage(format!(
            "{path}: {data} exists: a node that has lived founds nothing"
        )));
    }
    let mark = options.config.with_file_name(BOOTSTRAP);
    let wrong = |error: std::io::Error| Failure::usage(format!("{}: {error}", mark.display()));
    let file = fs::OpenOptions::new().create(true).append(true).open(&mark).map_err(wrong)?;
    file.sync_all().map_err(wrong)?;
    if let Some(home) = mark.parent().filter(|home| !home.as_os_str().is_empty()) {
        File::open(home).and_then(|home| home.sync_all()).map_err(wrong)?;
    }
    say!("node {} is a founder of cluster {}", config.node, config.cluster);
    Ok(())
}

/// Has a command passed over whose execution panics everywhere. Any node will do: it goes through the order.
pub(crate) fn skip(options: &SkipOptions) -> Result<(), Failure> {
    let cluster = cluster(&options.dir, &options.group)?;
    let mut why = String::new();
    for node in &cluster.nodes {
        let path = format!("/skip/{}", options.position);
        match post(node, &path) {
            Ok((200, text)) => {
                say!("node {}: {text}", node.node);
                return Ok(());
            }
            Ok((409, text)) => {
                return Err(Failure::usage(format!("node {}: {text}", node.node)));
            }
            Ok((_, text)) => why = format!("node {}: {text}", node.node),
            Err(error) => why = format!("node {}: {error}", node.node),
        }
    }
    Err(Failure::unreachable(why))
}

/// Lets the group go on without those that may have more of its past; acknowledged commands may be lost.
pub(crate) fn accept_loss(options: &AcceptLossOptions) -> Result<(), Failure> {
    let cluster = cluster(&options.dir, &options.group)?;
    let (mut told, mut refused) = (0, 0);
    for node in &cluster.nodes {
        match post(node, "/accept-loss") {
            Ok((200, text)) => {
                say!("node {}: {text}", node.node);
                told += 1;
            }
            Ok((code, text)) => {
                say!("node {}: {text}", node.node);
                refused += usize::from(code == 409);
            }
            Err(error) => say!("node {}: {error}", node.node),
        }
    }
    match (told, refused) {
        (0, 0) => Err(Failure::unreachable("no node was told")),
        (0, _) => Err(Failure::usage(format!("group {GROUP:?}: there is nothing to accept"))),
        _ => Ok(()),
    }
}

fn cluster(directory: &std::path::Path, group: &str) -> Result<Cluster, Failure> {
    if group != GROUP {
        return Err(Failure::usage(format!("there is no group {group:?}, only {GROUP:?}")));
    }
    Cluster::read(directory)
}

/// The status code, and what the node says.
fn post(node: &NodeConfig, path: &str) -> std::io::Result<(u16, String)> {
    let (status, body) =
        exchange(node.admin, &format!("POST {path} HTTP/1.0\r\n{HEADER}: 1"), PATIENCE)?;
    let value: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    let text = value["done"].as_str().or_else(|| value["error"].as_str()).unwrap_or("no answer");
    Ok((status, text.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::rc::Rc;

    use bytes::Bytes;
    use mainstay::{NotDone, Outcome, Replicated, RestoreError, Snapshot, StateMachine};
    use mainstay_base::Position;
    use mainstay_runtime::{Pulse, TcpClients};
    use tokio::task::{LocalSet, spawn_blocking, spawn_local};

    use super::*;
    use crate::admin;
    use crate::config::Durability;
    use crate::report::{Own, Report};

    /// Counts its commands, and cannot execute `boom`: the directory has no such command.
    #[derive(Default)]
    struct Fragile(u64);

    struct Once(Option<u64>);

    impl Snapshot for Once {
        fn next_chunk(&mut self, _max: usize) -> Option<Bytes> {
            self.0.take().map(|count| Bytes::copy_from_slice(&count.to_le_bytes()))
        }
    }

    impl StateMachine for Fragile {
        type Snapshot = Once;

        fn apply(&mut self, _at: Position, command: &[u8], reply: &mut Vec<u8>) {
            self.0 += 1;
            assert!(command != b"boom", "a command that cannot be executed");
            reply.extend(self.0.to_string().bytes());
        }

        fn begin_snapshot(&mut self) -> Once {
            Once(Some(self.0))
        }

        fn restore_chunk(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
            let chunk = chunk.try_into().map_err(|_| RestoreError::Chunk("not eight bytes"))?;
            self.0 = u64::from_le_bytes(chunk);
            Ok(())
        }

        fn state_hash(&self) -> u128 {
            self.0.into()
        }
    }

    fn done(text: &'static str) -> Outcome {
        Outcome::Done(Bytes::from_static(text.as_bytes()))
    }

    /// A command that halts the group shows in `status` as an alarm with its number, and `mainstay skip` with that number
    /// has it passed over; with another number it is refused, and nothing changes.
    #[test]
    fn a_poison_command_is_seen_and_passed_over() {
        let home = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::open(home.path(), Some(1), Some(Durability::Memory)).unwrap();
        cluster.release();
        let config = &cluster.nodes[0];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let settings = config.settings(true, Pulse::new()).unwrap();
            let node = Replicated::start(settings, Fragile::default).unwrap();
            let listener = TcpClients::new(config.admin).unwrap();
            spawn_local(admin::serve("n1".into(), node.clone(), Rc::<Own>::default(), listener, 1));
            while node.execute(b"x").await != done("1") {
                tokio::task::yield_now().await; // Not a member yet.
            }
            let boom = spawn_local({
                let node = node.clone();
                async move { node.execute(b"boom").await }
            });
            let seen = async || {
                let directory = home.path().to_owned();
                let reports = spawn_blocking(move || Cluster::read(&directory).unwrap().reports());
                reports.await.unwrap().remove(0).unwrap().alarms
            };
            let mut alarms = Vec::new();
            while alarms.is_empty() {
                alarms = seen().await;
            }
            assert!(alarms[0].contains("poison #3"), "{alarms:?}");
            let skipped = async |position| {
                let options =
                    SkipOptions { dir: home.path().to_owned(), group: GROUP.to_owned(), position };
                spawn_blocking(move || skip(&options).map_err(|it| it.to_string())).await.unwrap()
            };
            let refused = skipped(1).await.unwrap_err();
            assert!(refused.contains("no group is halted there"), "{refused}");
            assert_eq!(seen().await, alarms);
            skipped(3).await.unwrap();
            assert_eq!(boom.await.unwrap(), Outcome::NotDone(NotDone::Skipped));
            assert_eq!(node.execute(b"x").await, done("2"));
            assert_eq!(seen().await, Vec::<String>::new());
            drop(node.close().await);
        });
    }

    /// Connections that ask for nothing silence nobody: the oldest of them gives way where all places are taken, and those
    /// that stay are answered when they ask.
    #[test]
    fn idle_connections_give_way_to_a_newer_one() {
        let home = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::open(home.path(), Some(1), Some(Durability::Memory)).unwrap();
        cluster.release();
        let config = &cluster.nodes[0];
        let at = config.admin;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let settings = config.settings(true, Pulse::new()).unwrap();
            let node = Replicated::start(settings, Fragile::default).unwrap();
            let listener = TcpClients::new(at).unwrap();
            spawn_local(admin::serve(
                "n1".into(),
                node.clone(),
                Rc::<Own>::default(),
                listener,
                16,
            ));
            let asked = spawn_blocking(move || {
                let idle: Vec<_> = (0..20).map(|_| TcpStream::connect(at).unwrap()).collect();
                assert_eq!(Report::of(at).unwrap().node, "n1");
                let ask = |mut stream: &TcpStream| {
                    // It may be closed.
                    let _ = stream.write_all(b"GET /status HTTP/1.0\r\n\r\n");
                    let mut answer = String::new();
                    let _ = stream.read_to_string(&mut answer);
                    answer
                };
                assert_eq!(ask(&idle[0]), "", "it gave way");
                assert!(ask(&idle[19]).starts_with("HTTP/1.0 200 OK"));
            });
            asked.await.unwrap();
            drop(node.close().await);
        });
    }
}
