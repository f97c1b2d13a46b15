//! Guests: processes outside the roster that call what nodes have opened to them, over real sockets.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod stations;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use actix::Message;
use mainstay_base::NodeId;
use mainstay_rpc::{Config, Executed, Procedure, Rpc, RpcHandle};
use mainstay_service::{StationHandle, StationParts, start};
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;

use stations::{cluster, node, roster, within};

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Add(u64);

impl Procedure for Add {
    const NAME: &'static str = "test.add";
}

/// Has the caller add one, and adds one.
#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Bounce(u64);

impl Procedure for Bounce {
    const NAME: &'static str = "test.bounce";
}

type Open = (StationHandle, RpcHandle);

/// A node with two instances: guests hear one of them.
async fn host(
    roster: &BTreeMap<String, SocketAddr>,
    name: &str,
    guests: usize,
) -> (Open, RpcHandle) {
    let parts = StationParts::tcp(cluster(), name, roster.clone(), None).unwrap();
    let station = start(StationParts { guests, ..parts }, |node| {
        node.mount::<Rpc>("public", Config::started_now())?;
        node.mount::<Rpc>("private", Config::started_now())?;
        node.open_to_guests::<Rpc>("public");
        Ok(())
    })
    .unwrap();
    let public = RpcHandle::open(station.service("public"), cluster(), name).await.unwrap();
    let private = RpcHandle::open(station.service("private"), cluster(), name).await.unwrap();
    for rpc in [&public, &private] {
        rpc.serve_fn(|Add(number), _| async move { Ok(number + 1) }).await.unwrap();
    }
    let bounce = |Bounce(number), context: mainstay_rpc::Context| async move {
        let back = context.to(context.client()).exactly_once(Add(number)).await;
        back.map(|it| it + 1).map_err(|it| it.to_string())
    };
    public.serve_fn(bounce).await.unwrap();
    ((station, public), private)
}

async fn guest(roster: &BTreeMap<String, SocketAddr>, instance: &str) -> Open {
    let parts = StationParts::tcp_guest(cluster(), roster.clone()).unwrap();
    let name = parts.name.clone();
    let mount = |node: &mut mainstay_service::Mounting<'_>| {
        node.mount::<Rpc>(instance, Config::started_now()).map(drop)
    };
    let station = start(parts, mount).unwrap();
    let rpc = RpcHandle::open(station.service(instance), cluster(), &name).await.unwrap();
    (station, rpc)
}

async fn add(rpc: &RpcHandle, to: NodeId) -> Result<u64, Executed> {
    let caller = rpc.to(to).deadline(Duration::from_millis(500));
    within(caller.exactly_once(Add(1))).await.map_err(|it| it.failure().unwrap().executed)
}

/// A guest calls nodes and is called back; it does not reach what is not open to guests, and one too many reaches nothing.
#[tokio::test]
async fn guests_call_what_is_open_to_them() {
    let run = async {
        let roster = roster(2);
        let _one = host(&roster, "n0", 2).await;
        let _two = host(&roster, "n1", 2).await;
        let (_first, rpc) = guest(&roster, "public").await;
        rpc.serve_fn(|Add(number), _| async move { Ok(number + 10) }).await.unwrap();
        for to in [node(0), node(1)] {
            assert_eq!(within(rpc.to(to).exactly_once(Add(1))).await, Ok(2));
            assert_eq!(within(rpc.to(to).exactly_once(Bounce(1))).await, Ok(12));
        }
        let (_second, private) = guest(&roster, "private").await;
        assert_eq!(add(&private, node(0)).await, Err(Executed::NotAtAll));
        let (_third, crowded) = guest(&roster, "public").await;
        assert_eq!(add(&crowded, node(0)).await, Err(Executed::NotAtAll));
        assert_eq!(within(rpc.to(node(0)).exactly_once(Add(1))).await, Ok(2));
    };
    LocalSet::new().run_until(run).await;
}

/// A node that is started anew is another boot: the guest's calls to it fail truthfully, and go on with the next.
#[tokio::test]
async fn a_node_of_a_guest_is_restarted() {
    let run = async {
        let roster = roster(1);
        let ((station, public), private) = host(&roster, "n0", 1).await;
        let (_guest, rpc) = guest(&roster, "public").await;
        assert_eq!(within(rpc.to(node(0)).exactly_once(Add(1))).await, Ok(2));
        let closed = station.closed();
        station.stop();
        drop((station, public, private));
        within(closed).await;
        // It may have been sent before the end of the connection was seen.
        let told = add(&rpc, node(0)).await;
        assert!(matches!(told, Err(Executed::NotAtAll | Executed::NotMoreThanOnce)), "{told:?}");
        let _again = host(&roster, "n0", 1).await;
        assert_eq!(within(rpc.to(node(0)).exactly_once(Add(1))).await, Ok(2));
    };
    LocalSet::new().run_until(run).await;
}

/// The other way round: the result of a large argument and a large result to a guest, which has a small window.
#[tokio::test]
async fn large_calls_of_a_guest_go_in_parts() {
    #[derive(Serialize, Deserialize, Message)]
    #[rtype(result = "Result<String, String>")]
    struct Twice(String);

    impl Procedure for Twice {
        const NAME: &'static str = "test.twice";
    }

    let run = async {
        let roster = roster(1);
        let ((_station, public), _private) = host(&roster, "n0", 1).await;
        public.serve_fn(|Twice(text), _| async move { Ok(text.repeat(2)) }).await.unwrap();
        let (_guest, rpc) = guest(&roster, "public").await;
        let text = "x".repeat(400 << 10);
        let told = within(rpc.to(node(0)).exactly_once(Twice(text.clone()))).await.unwrap();
        assert_eq!(told.len(), 2 * text.len());
    };
    LocalSet::new().run_until(run).await;
}
