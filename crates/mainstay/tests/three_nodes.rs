//! Three nodes over loopback TCP in one process.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;
use common::{Cluster, Journal, agreed, journal, load, ready, run, until};
use mainstay::{Durability, Envelope, Fate, NotDone, Outcome, Replicated, StartError};
use mainstay_base::ClusterId;
use mainstay_paradigm as paradigm;
use mainstay_runtime::TcpError;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

/// Every acknowledged command is where its caller was told.
fn check(journal: &[u64], places: &BTreeMap<u64, u64>) {
    for (entry, place) in places {
        assert_eq!(journal[*place as usize - 1], *entry, "at place {place}");
    }
}

async fn a_thousand_from_each(durability: Durability) {
    let cluster = Cluster::new(durability);
    let nodes = cluster.all();
    for node in &nodes {
        ready(node, 3).await;
    }
    let loads = nodes.iter().zip(0..).map(|(node, n)| load(node, n * 1_000..(n + 1) * 1_000));
    let mut places = BTreeMap::new();
    for load in loads {
        places.extend(load.await);
    }
    assert_eq!(places.len(), 3_000);
    let first = journal(&nodes[0]).await;
    assert_eq!(first.len(), 3_000);
    check(&first, &places);
    for node in &nodes[1..] {
        assert_eq!(journal(node).await, first);
    }
    for node in &nodes {
        let replica = node.status().await.unwrap().replica;
        assert_eq!((replica.diverged, replica.commands, replica.reads), (0, 0, 0));
        let views = node.status().await.unwrap().site.stack.unwrap().view.number;
        assert!((3_001..=3_000 + views).contains(&replica.position.0), "{replica:?}");
    }
    agreed(&nodes).await;
}

/// Checks PD-30, PD-31 and MC-10 in the composition.
#[test]
fn a_thousand_from_each_in_memory() {
    run(a_thousand_from_each(Durability::Memory));
}

/// Checks PD-30, PD-31 and MC-10 in the composition.
#[test]
fn a_thousand_from_each_on_disk() {
    run(a_thousand_from_each(Durability::Disk));
}

/// Checks that many times more than fits into the group is executed in the order in which it was submitted, and nothing of it
/// refused, if the caller waits for room; and that a caller that does not wait is told what was not done.
#[test]
fn a_burst_is_slowed_down_and_not_refused() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let nodes = cluster.all();
        for node in &nodes {
            ready(node, 3).await;
        }
        let filler = Envelope::Anonymous.encode(&[0; 16 << 10]);
        let (tell, mut told) = mpsc::unbounded_channel();
        let telling = || {
            let tell = tell.clone();
            move |fate| drop(tell.send(fate))
        };
        for number in 0..3_000_u64 {
            let entry = Envelope::Anonymous.encode(&number.to_le_bytes());
            nodes[0].submit_when_room(filler.clone(), telling()).await;
            nodes[0].submit_when_room(entry, telling()).await;
        }
        for _ in 0..6_000 {
            let fate = told.recv().await.unwrap();
            assert!(matches!(fate, Fate::Ordered(paradigm::Outcome::Done(_))), "{fate:?}");
        }
        assert_eq!(journal(&nodes[0]).await, (0..3_000).collect::<Vec<_>>());
        // The node's thread is this one: nothing gets on meanwhile.
        (0..1_000).for_each(|_| nodes[0].submit(filler.clone(), telling()));
        let mut full = 0;
        for _ in 0..1_000 {
            match told.recv().await.unwrap() {
                Fate::NotDone(NotDone::Full) => full += 1,
                fate => assert!(matches!(fate, Fate::Ordered(_)), "{fate:?}"),
            }
        }
        assert!((450..550).contains(&full), "8 MiB of 16 fit: {full} refused");
    });
}

/// Crashes a node of three under load: the others go on, and it comes back. Checks MB-9, MC-16 and PD-31 in the
/// composition.
async fn one_fails_and_comes_back(durability: Durability) {
    let cluster = Cluster::new(durability);
    let [a, b, c] = cluster.all();
    for node in [&a, &b, &c] {
        ready(node, 3).await;
    }
    let mut places = load(&a, 0..500).await;
    places.extend(load(&c, 500..1_000).await);
    assert_eq!(places.len(), 1_000);
    drop(c.close().await);
    ready(&a, 2).await;
    places.extend(load(&b, 1_000..2_000).await);
    assert_eq!(places.len(), 2_000);
    let c = cluster.start("c");
    ready(&c, 3).await;
    places.extend(load(&c, 2_000..2_500).await);
    assert_eq!(places.len(), 2_500);
    let first = journal(&a).await;
    check(&first, &places);
    assert_eq!(journal(&b).await, first);
    assert_eq!(journal(&c).await, first);
}

#[test]
fn one_fails_and_comes_back_in_memory() {
    run(one_fails_and_comes_back(Durability::Memory));
}

#[test]
fn one_fails_and_comes_back_on_disk() {
    run(one_fails_and_comes_back(Durability::Disk));
}

/// Checks that nothing acknowledged is lost when all nodes go down and come back from their disks (view-synchrony §6).
#[test]
fn all_down_and_up_again() {
    run(async {
        let mut cluster = Cluster::new(Durability::Disk);
        cluster.checkpoint_bytes = 8 << 10;
        let mut places = BTreeMap::new();
        let mut nodes = cluster.all();
        for round in 0..3 {
            for node in &nodes {
                ready(node, 3).await;
            }
            let first = round * 1_500;
            places.extend(load(&nodes[0], first..first + 1_000).await);
            places.extend(load(&nodes[2], first + 1_000..first + 1_500).await);
            for node in nodes {
                drop(node.close().await);
            }
            nodes = common::NAMES.map(|name| cluster.start(name));
        }
        assert_eq!(places.len(), 4_500);
        for node in &nodes {
            ready(node, 3).await;
            let journal = journal(node).await;
            assert_eq!(journal.len(), 4_500);
            check(&journal, &places);
        }
    });
}

/// A node without its disk comes back with an empty directory: it gets the state, keeps it, and votes again (MB-80, §4 of
/// view-synchrony).
#[test]
fn a_lost_disk_is_filled_again() {
    run(async {
        let cluster = Cluster::new(Durability::Disk);
        let [a, b, c] = cluster.all();
        for node in [&a, &b, &c] {
            ready(node, 3).await;
        }
        let mut places = load(&a, 0..1_000).await;
        drop(c.close().await);
        std::fs::remove_dir_all(cluster.dir("c")).unwrap();
        ready(&a, 2).await;
        let c = cluster.start("c");
        until(&c, "a voter again", |status| status.site.stack.as_ref().is_some_and(|it| it.voter))
            .await;
        places.extend(load(&c, 1_000..1_500).await);
        for node in [a, b, c] {
            drop(node.close().await);
        }
        // Without a, all depends on what c has.
        let [b, c] = ["b", "c"].map(|name| cluster.start(name));
        for node in [&b, &c] {
            ready(node, 2).await;
            let journal = journal(node).await;
            assert_eq!(journal.len(), 1_500);
            check(&journal, &places);
        }
    });
}

/// Starts a node on a thread of its own, which lasts until the node has closed.
async fn apart(cluster: &Cluster, name: &str) -> Replicated<Journal> {
    let config = cluster.config(name).bootstrap(true);
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let node = Replicated::start(config, Journal::default).unwrap();
            let closed = node.closed();
            assert!(tell.send(node).is_ok());
            closed.await;
        });
    });
    told.await.unwrap()
}

/// A node that stands still is declared dead, learns it, and starts anew in its process: what its callers wait for is
/// never said to be done when it is not. Checks MB-7 and MB-8 in the composition.
async fn declared_dead(durability: Durability) {
    let cluster = Cluster::new(durability);
    let [a, b] = ["a", "b"].map(|name| cluster.bootstrap(name));
    let c = apart(&cluster, "c").await;
    for node in [&a, &b, &c] {
        ready(node, 3).await;
    }
    let mut places = load(&c, 0..200).await;
    let (wake, woken) = std::sync::mpsc::channel::<()>();
    c.submit_read(true, move |_| {
        let _ = woken.recv_timeout(Duration::from_secs(20));
    });
    let lost = tokio::task::spawn_local({
        let c = c.clone();
        async move { load(&c, 200..300).await }
    });
    ready(&a, 2).await;
    places.extend(load(&a, 300..400).await);
    wake.send(()).unwrap();
    places.extend(lost.await.unwrap());
    let status = until(&c, "started anew", |status| status.site.restarts > 0).await;
    assert_eq!(status.site.restarts, 1);
    ready(&c, 3).await;
    places.extend(load(&c, 400..500).await);
    assert!(places.len() >= 400);
    let first = journal(&a).await;
    check(&first, &places);
    assert_eq!(journal(&b).await, first);
    assert_eq!(journal(&c).await, first);
}

#[test]
fn declared_dead_in_memory() {
    run(declared_dead(Durability::Memory));
}

#[test]
fn declared_dead_on_disk() {
    run(declared_dead(Durability::Disk));
}

/// A node alone of three executes nothing and answers no linearisable read, but says so at once (MB-11).
#[test]
fn a_minority_refuses() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let [a, b, c] = cluster.all();
        ready(&a, 3).await;
        let places = load(&a, 0..10).await;
        drop((b.close().await, c.close().await));
        until(&a, "a minority", |status| status.site.stack.as_ref().is_some_and(|it| it.minority))
            .await;
        assert_eq!(a.execute(&7u64.to_le_bytes()).await, Outcome::NotDone(NotDone::Minority));
        assert_eq!(a.read(|journal| journal.entries.len()).await, Err(NotDone::Minority));
        assert_eq!(a.read_local(|journal| journal.entries.len()).await, Ok(places.len()));
    });
}

/// A directory of another node is refused by name, and so is a second node in one directory.
#[test]
fn a_foreign_directory_is_refused() {
    run(async {
        let cluster = Cluster::new(Durability::Disk);
        let a = cluster.bootstrap("a");
        let second =
            Replicated::start(cluster.config("b").data_dir(cluster.dir("a")), Journal::default);
        assert!(second.unwrap_err().to_string().contains("in use"));
        drop(a.close().await);
        let foreign =
            Replicated::start(cluster.config("b").data_dir(cluster.dir("a")), Journal::default);
        assert!(foreign.unwrap_err().to_string().contains("belongs to node \"a\""));
        cluster.start("a");
    });
}

/// Whether some node's log has its first record yet.
fn has_first_segment(cluster: &Cluster) -> bool {
    let first = format!("log-{:016x}", 1);
    common::NAMES.iter().any(|name| cluster.dir(name).join(&first).exists())
}

/// The log is cut where checkpoints make it superfluous, and what is left brings back everything.
#[test]
fn the_log_is_cut_behind_checkpoints() {
    run(async {
        let mut cluster = Cluster::new(Durability::Disk);
        cluster.checkpoint_bytes = 4 << 20;
        let nodes = cluster.all();
        for node in &nodes {
            ready(node, 3).await;
        }
        assert!(has_first_segment(&cluster));
        let mut places = load(&nodes[0], 0..100).await;
        // Remembered nowhere but in the log: 40 MiB, more than two segments.
        for _ in 0..640 {
            assert_eq!(nodes[1].execute(&[1; 64 << 10]).await, Outcome::Done(Bytes::new()));
        }
        places.extend(load(&nodes[2], 100..200).await);
        for node in &nodes {
            until(node, "checkpoints", |status| status.replica.checkpoints > 2).await;
        }
        for node in nodes {
            drop(node.close().await);
        }
        assert!(!has_first_segment(&cluster));
        let nodes = common::NAMES.map(|name| cluster.start(name));
        for node in &nodes {
            ready(node, 3).await;
            let journal = journal(node).await;
            assert_eq!(journal.len(), 200);
            check(&journal, &places);
        }
    });
}

/// Nodes go down and come back one after the other while commands are in flight at all of them: what was acknowledged
/// stays, in its place, and nothing is executed twice.
async fn rolling_restarts(durability: Durability) {
    let mut cluster = Cluster::new(durability);
    cluster.checkpoint_bytes = 16 << 10;
    let mut nodes = cluster.all();
    let mut places = BTreeMap::new();
    for (round, victim) in (0..9).zip([0, 1, 2].into_iter().cycle()) {
        for node in &nodes {
            ready(node, 3).await;
        }
        let mut loads = tokio::task::JoinSet::new();
        for (node, first) in nodes.iter().zip((round * 3_000..).step_by(1_000)) {
            let node = node.clone();
            loads.spawn_local(async move { load(&node, first..first + 1_000).await });
        }
        tokio::task::yield_now().await;
        drop(nodes[victim].clone().close().await);
        nodes[victim] = cluster.start(common::NAMES[victim]);
        while let Some(done) = loads.join_next().await {
            places.extend(done.unwrap());
        }
    }
    ready(&nodes[0], 3).await;
    let first = journal(&nodes[0]).await;
    check(&first, &places);
    println!("{} of 27,000 acknowledged, {} executed", places.len(), first.len());
    assert!(places.len() > 9_000);
    let once: std::collections::BTreeSet<_> = first.iter().collect();
    assert_eq!(once.len(), first.len());
    for node in &nodes {
        ready(node, 3).await;
        assert_eq!(journal(node).await, first);
        assert_eq!(node.status().await.unwrap().replica.diverged, 0);
    }
}

#[test]
fn rolling_restarts_in_memory() {
    run(rolling_restarts(Durability::Memory));
}

#[test]
fn rolling_restarts_on_disk() {
    run(rolling_restarts(Durability::Disk));
}

/// Checks that a node does not start with peers that it could never dial.
#[test]
fn a_peer_that_cannot_be_dialled_is_refused() {
    run(async {
        let start = |peer: &str| {
            let own = ("a".to_owned(), "127.0.0.1:0".parse().unwrap());
            let nodes = [own, ("b".to_owned(), peer.parse().unwrap())].into();
            let config = mainstay::Config::new(ClusterId::from_entropy(1), "a", nodes);
            Replicated::start(config.durability(Durability::Memory), Journal::default)
                .err()
                .unwrap()
        };
        let far = start("10.0.0.1:9");
        assert!(
            matches!(far, StartError::PeerNotLoopback { ref name, .. } if name == "b"),
            "{far}"
        );
        let nowhere = start("127.0.0.1:0");
        assert!(matches!(nowhere, StartError::PeerWithoutPort { .. }), "{nowhere}");
    });
}

/// Checks that a node whose address is taken says which one that is, and what the system says.
#[test]
fn an_address_in_use_is_named() {
    run(async {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let nodes = [("a".to_owned(), address)].into();
        let config = mainstay::Config::new(ClusterId::from_entropy(1), "a", nodes);
        let config = config.durability(Durability::Memory).bootstrap(true);
        let refused = Replicated::start(config, Journal::default).err().unwrap();
        let text = refused.to_string();
        assert!(text.contains(&address.to_string()), "{text}");
        let StartError::Listen(TcpError::Listen { address: at, error, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!((at, error.kind()), (address, ErrorKind::AddrInUse));
        assert!(text.contains(&error.to_string()), "{text}");
    });
}
