//! Names that nodes register at run time: real sockets, two registries.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod stations;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use actix::Message;
use mainstay_rpc::{
    Config, Failure, Names, NamesError, Procedure, Reason, Refusal, RegistryError, Rpc, RpcHandle,
};
use mainstay_service::{StationHandle, StationParts, start};
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;

use stations::{Place, cluster, node, roster, station, within};

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Who;

impl Procedure for Who {
    const NAME: &'static str = "test.who";
}

/// Leases do not end within a test, unless it is about that.
const LEASE: Duration = Duration::from_secs(60);

struct Node {
    station: StationHandle,
    rpc: RpcHandle,
    names: Names,
}

/// A node with names at nodes 0 and 1, that says who it is.
async fn named(roster: &BTreeMap<String, SocketAddr>, index: usize, lease: Duration) -> Node {
    let name = format!("n{index}");
    let parts = StationParts::tcp(cluster(), &name, roster.clone(), None).unwrap();
    let mount = |node: &mut mainstay_service::Mounting<'_>| {
        node.mount::<Rpc>("rpc", Config::started_now()).map(drop)
    };
    let station = start(parts, mount).unwrap();
    let names = Names::new([node(0), node(1)], lease);
    let resolver = Box::new(names.clone());
    let rpc = RpcHandle::open_with(station.service("rpc"), node(index), resolver, Vec::new());
    let rpc = rpc.await.unwrap();
    names.attach(&rpc).await.unwrap();
    rpc.serve_fn(move |Who, _| async move { Ok(index as u64) }).await.unwrap();
    Node { station, rpc, names }
}

async fn stop(station: StationHandle, rpc: RpcHandle) {
    let closed = station.closed();
    station.stop();
    drop((station, rpc));
    within(closed).await;
}

/// A name is registered, found, followed and resolved; taken back, and void when its node is lost; one of two registries is enough.
#[tokio::test]
async fn names_are_registered_and_followed() {
    let run = async {
        let roster = roster(4);
        let config = Config::started_now;
        let (first, registry) = station(&roster, 0, Place::Mounted, config(), None).await;
        registry.serve_names().await.unwrap();
        let (_second, other) = station(&roster, 1, Place::Mounted, config(), None).await;
        other.serve_names().await.unwrap();
        let two = named(&roster, 2, LEASE).await;
        let three = named(&roster, 3, LEASE).await;
        let mut printers = three.names.follow("printer").unwrap();
        assert_eq!(within(printers.next()).await, []);
        let unresolved = Failure::not_at_all(Reason::Unresolved);
        assert_eq!(three.rpc.to_name("printer").unwrap_err(), unresolved);
        let registered = within(two.names.register("printer")).await.unwrap();
        assert_eq!(within(printers.next()).await, [node(2)]);
        assert_eq!(within(three.names.find("printer")).await, Ok(vec![node(2)]));
        let printer = three.rpc.to_name("printer").unwrap();
        assert_eq!(within(printer.exactly_once(Who)).await, Ok(2));
        let own = within(three.names.register("printer")).await.unwrap();
        let mut both = vec![node(2), node(3)];
        both.sort_unstable();
        assert_eq!(within(printers.next()).await, both);
        drop(registered);
        assert_eq!(within(printers.next()).await, [node(3)]);
        drop(own);
        assert_eq!(within(printers.next()).await, []);
        // Without one of the registries.
        stop(first, registry).await;
        let again = within(two.names.register("scanner")).await.unwrap();
        let mut scanners = three.names.follow("scanner").unwrap();
        while within(scanners.next()).await != [node(2)] {}
        // The node is restarted, and has registered nothing since.
        let Node { station, rpc, names } = two;
        stop(station, rpc).await;
        drop((names, again));
        let _two = named(&roster, 2, LEASE).await;
        assert_eq!(within(scanners.next()).await, []);
    };
    LocalSet::new().run_until(run).await;
}

/// A registry that is restarted is told all names again at once, not after a third of the lease; meanwhile the other one is asked.
#[tokio::test]
async fn a_registry_that_is_restarted_is_told_at_once() {
    let run = async {
        let roster = roster(4);
        let config = Config::started_now;
        let (first, registry) = station(&roster, 0, Place::Mounted, config(), None).await;
        registry.serve_names().await.unwrap();
        let (second, other) = station(&roster, 1, Place::Mounted, config(), None).await;
        other.serve_names().await.unwrap();
        let two = named(&roster, 2, LEASE).await;
        let _registered = within(two.names.register("printer")).await.unwrap();
        let one = named(&roster, 3, LEASE).await;
        stop(first, registry).await;
        let (_first, registry) = station(&roster, 0, Place::Mounted, config(), None).await;
        registry.serve_names().await.unwrap();
        assert_eq!(within(one.names.find("printer")).await, Ok(vec![node(2)]));
        stop(second, other).await;
        while within(one.names.find("printer")).await != Ok(vec![node(2)]) {}
    };
    LocalSet::new().run_until(run).await;
}

/// A registry that is restarted has all names again; a node that is away for its lease loses its names, and has them again.
#[tokio::test]
async fn leases_end_and_are_renewed() {
    let run = async {
        let roster = roster(4);
        let config = Config::started_now;
        let lease = Duration::from_millis(600);
        let (first, registry) = station(&roster, 0, Place::Mounted, config(), None).await;
        registry.serve_names().await.unwrap();
        let two = named(&roster, 2, lease).await;
        let three = named(&roster, 3, LEASE).await;
        let _registered = within(two.names.register("printer")).await.unwrap();
        stop(first, registry).await;
        let (_first, registry) = station(&roster, 0, Place::Mounted, config(), None).await;
        registry.serve_names().await.unwrap();
        let mut printers = three.names.follow("printer").unwrap();
        while within(printers.next()).await != [node(2)] {}
        // It goes without a word that it is lost.
        two.station.stop();
        while !within(printers.next()).await.is_empty() {}
        assert_eq!(within(three.names.find("printer")).await, Ok(vec![]));
    };
    LocalSet::new().run_until(run).await;
}

/// What the last handle serves is withdrawn although registries are awaited that are not there.
#[tokio::test]
async fn registries_that_are_away_hold_nothing_up() {
    let run = async {
        let roster = roster(4);
        let (_two, client) = station(&roster, 2, Place::Mounted, Config::started_now(), None).await;
        let Node { station: _station, rpc, names } = named(&roster, 3, LEASE).await;
        let who = client.to(node(3));
        assert_eq!(within(who.exactly_once(Who)).await, Ok(3));
        drop((rpc, names));
        let refused = Failure::not_at_all(Reason::Refused(Refusal::Procedure));
        // A call that is handed out in the moment in which the handle goes is ended by its deadline.
        let call = || who.clone().deadline(Duration::from_millis(200)).exactly_once(Who);
        let withdrawn = async { while call().await != Err(refused.into()) {} };
        within(withdrawn).await;
    };
    LocalSet::new().run_until(run).await;
}

/// Names that are none, too many of them, no registry, and none attached: each has its answer.
#[tokio::test]
async fn names_have_bounds() {
    let run = async {
        let roster = roster(4);
        let (_first, registry) =
            station(&roster, 0, Place::Mounted, Config::started_now(), None).await;
        registry.serve_names().await.unwrap();
        assert!(registry.serve_names().await.is_err());
        let two = named(&roster, 2, LEASE).await;
        for name in [String::new(), "n".repeat(256)] {
            let told = within(two.names.register(&name)).await.unwrap_err();
            assert_eq!(told, NamesError::Registry(RegistryError::Name));
            let told = within(two.names.find(&name)).await.unwrap_err();
            assert_eq!(told, NamesError::Registry(RegistryError::Name));
        }
        let all: Vec<_> =
            (0..1_024).map(|it| two.names.follow(&format!("n{it}")).unwrap()).collect();
        assert_eq!(two.names.follow("one more").unwrap_err(), RegistryError::TooMany);
        let again = two.names.follow("n7").unwrap();
        drop((all, again));
        let _one = two.names.follow("one more").unwrap();
        let names = Names::new([], LEASE);
        assert_eq!(within(names.register("n")).await.unwrap_err(), NamesError::Detached);
        // Nobody serves names there: each registry says so.
        let names = Names::new([node(2)], LEASE);
        let three = station(&roster, 3, Place::Mounted, Config::started_now(), None);
        let (_three, rpc) = three.await;
        names.attach(&rpc).await.unwrap();
        let told = within(names.register("n")).await.unwrap_err();
        assert!(matches!(told, NamesError::Failed(Failure { reason: Reason::Refused(_), .. })));
    };
    LocalSet::new().run_until(run).await;
}
