use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use mainstay::{Config, Durability, Replicated};
use mainstay_base::ClusterId;
use mainstay_directory::host;
use mainstay_runtime::TcpClients;
use tokio::task::{LocalSet, spawn_local};

use super::load::{Enough, key};
use super::*;

const ANY_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// Checks on a node of its own that the load writes all keys and ends behind the checkpoints, that the node tells of them,
/// and that a plain load of its files makes the same state.
#[test]
fn what_is_loaded_is_in_the_files() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("n1");
    let bounds = Bounds { bytes_max: BYTES_MAX, checkpoint_bytes: 200_000 };
    let load = Load { keys: 20_000, value_bytes: 1 };
    let cluster = ClusterId::from_entropy(7);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let seen = LocalSet::new().block_on(&runtime, async {
        let nodes = BTreeMap::from([("n1".to_owned(), ANY_PORT.into())]);
        let config = Config::new(cluster, "n1", nodes).durability(Durability::Disk);
        let config = config.data_dir(&dir).bootstrap(true).replica(bounds.replica().unwrap());
        let state = bounds.clone();
        let node = Replicated::start(config, move || state.directory()).unwrap();
        let listener = TcpClients::new(ANY_PORT.into()).unwrap();
        let address = listener.local_addr().unwrap();
        let serving = spawn_local(host::serve(node.clone(), Box::new(listener)));
        let ask = async |is_so: fn(&Seen) -> bool| loop {
            let seen = Seen::of(&node.status().await.unwrap());
            if is_so(&seen) {
                break seen;
            }
            tokio::task::yield_now().await;
        };
        ask(|seen| seen.whole).await;
        let enough = Enough::default();
        let loading = spawn_local({
            let enough = enough.clone();
            async move { load.run(&[address, address], enough).await }
        });
        ask(|seen| seen.checkpoints >= CHECKPOINTS).await;
        enough.set(true);
        loading.await.unwrap().unwrap();
        let seen = ask(|_| true).await;
        serving.abort();
        // The tasks of clients have handles too.
        assert!(serving.await.unwrap_err().is_cancelled());
        node.close().await;
        seen
    });
    drop(runtime);
    assert!(seen.whole && seen.is_sequencer && seen.members == 1);
    let copy = home.path().join("plain");
    preserve(&dir, &copy).unwrap();
    // What the node writes from here on is not in the copy.
    let newest = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let newest = newest.filter(|path| path.to_string_lossy().contains("/log-")).max().unwrap();
    fs::write(newest, b"other bytes").unwrap();
    let replica = plain::load(&copy, cluster, "n1", &bounds).unwrap();
    let directory = replica.machine().unwrap();
    assert_eq!(directory.len(), 20_000);
    assert_eq!(directory.get(key(19_999).as_bytes()), Some(&b"v"[..]));
    assert_eq!((replica.position().0, replica.state_hash()), (seen.position, Some(seen.hash)));
}

/// Checks the size of a key, to the last that there may be.
#[test]
fn keys_have_13_bytes() {
    assert_eq!([0, 4_999_999, 900_000_999].map(|number| key(number).len()), [13; 3]);
}
