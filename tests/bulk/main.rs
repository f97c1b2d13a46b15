//! A service that streams beside a group: what that costs the group, exactly, on virtual time and links with a rate.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, dead_code, reason = "shared with the benchmarks")]
#[path = "../../bench/src/multicast/member/bulk.rs"]
mod bulk;

use std::cell::RefCell;
use std::rc::Rc;

use bulk::{Bulk, Load};
use mainstay::{GroupConfig, GroupHandle, Level, Node, Order, ServiceHandle};
use mainstay_base::Duration;
use mainstay_kit as kit;
use mainstay_sim::live::{Outside, Room, Start};
use mainstay_sim::{Options, Wire};

const NODES: usize = 3;
/// Bytes that a link carries in a second: ten gigabits.
const RATE: u64 = 1_250_000_000;
/// The shortest way of a frame; it may take a tenth of a millisecond more.
const DELAY: Duration = Duration::from_micros(400);
/// Until then the cluster is made; after that so long is measured.
const CALM: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_millis(1_000);
/// A node casts so often.
const PACE: Duration = Duration::from_millis(1);

#[derive(Clone)]
struct Placed<const BELOW: bool> {
    node: Node,
    group: GroupHandle,
    bulk: ServiceHandle<Bulk<BELOW>>,
}

fn begin<const BELOW: bool>(start: Start, load: Load) -> Result<Placed<BELOW>, String> {
    let build = |builder: &mut mainstay::NodeBuilder| {
        let group = builder.group("g", GroupConfig::memory())?;
        Ok((group, builder.mount::<Bulk<BELOW>>("bulk", move |_| load)))
    };
    let (node, (group, bulk)) = kit::start(start, |config| config, build)?;
    Ok(Placed { node, group, bulk })
}

/// What a run showed.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    hash: u128,
    /// From a cast until it is delivered at its sender.
    p50: Duration,
    p99: Duration,
    /// Bytes that the service streamed in a second to the node that got most.
    streamed: u64,
    /// The view of all nodes in the end, and how many are in it.
    view: u64,
    members: usize,
}

async fn streamed<const BELOW: bool>(nodes: &Outside<Placed<BELOW>>) -> Vec<u64> {
    let mut bytes = Vec::new();
    for index in 0..NODES {
        bytes.push(nodes.node(index).unwrap().bulk.status().await.unwrap());
    }
    bytes
}

/// Each node casts at its pace, whether the casts before are delivered or not.
async fn cast<const BELOW: bool>(nodes: Outside<Placed<BELOW>>) -> Vec<Duration> {
    let taken = Rc::<RefCell<Vec<Duration>>>::default();
    let until = nodes.now() + MEASURED;
    let mut casts = tokio::task::JoinSet::new();
    while nodes.now() < until {
        for index in 0..NODES {
            let (at, placed) = (nodes.now(), nodes.node(index).unwrap());
            let (nodes, taken) = (nodes.clone(), Rc::clone(&taken));
            casts.spawn_local(async move {
                let level = Level::Delivered;
                let receipt =
                    placed.group.cast_for(vec![7; 64], Order::Total, level).await.unwrap();
                receipt.reached(level).await.unwrap();
                taken.borrow_mut().push(nodes.now() - at);
            });
        }
        nodes.sleep(PACE).await;
    }
    while let Some(cast) = casts.join_next().await {
        cast.unwrap();
    }
    taken.take()
}

fn run<const BELOW: bool>(load: Load, casts: bool) -> Seen {
    let mut options = Options::calm(Wire::Channel);
    options.delay = DELAY;
    let begin = move |start: Start| begin::<BELOW>(start, load);
    let mut room = Room::new(1, NODES, options, Vec::new(), begin).without_disks().rate(RATE);
    let nodes = room.outside();
    let all = async move {
        for index in 0..NODES {
            nodes.node(index).unwrap().node.ready().await.unwrap();
        }
        nodes.sleep(CALM).await;
        let (before, began) = (streamed(&nodes).await, nodes.now());
        let mut taken = if casts { cast(nodes.clone()).await } else { Vec::new() };
        nodes.sleep(began + MEASURED - nodes.now().min(began + MEASURED)).await;
        let most = streamed(&nodes).await.iter().zip(before).map(|(after, it)| after - it).max();
        let millis = (nodes.now() - began).as_millis() as u64;
        taken.sort_unstable();
        let at = |part: usize| taken.get(taken.len() * part / 100).copied().unwrap_or_default();
        let status = nodes.node(0).unwrap().node.status().await.unwrap().stack.unwrap();
        let (view, members) = (status.view, status.members.len());
        (at(50), at(99), most.unwrap() * 1_000 / millis, view.number, members)
    };
    let (p50, p99, streamed, view, members) = room.finish(all, Duration::from_secs(20)).unwrap();
    Seen { hash: room.hash(), p50, p99, streamed, view, members }
}

/// Half of what the idle link does, so many messages at once.
fn half(burst: u32) -> Load {
    let idle = run::<true>(Load { rate: u64::MAX, burst: 4 }, false);
    println!("idle: {idle:?}");
    // A window of 256 KiB and a way there and back.
    assert!(idle.streamed > 200_000_000, "{idle:?}");
    Load { rate: idle.streamed / 2, burst }
}

fn alone() -> Seen {
    run::<true>(Load { rate: 0, burst: 1 }, true)
}

/// As many messages of 60 kB as a service may have waiting.
const BURST: u32 = 16;

/// Checks that a stream at half of what the idle link does leaves the 99th percentile of *delivered* within one and a half times, be it
/// even or in bursts, and costs nobody its membership. What it can cost is its cap on each way: 256 KiB take 0.2 ms of such
/// a link. Equal runs are equal.
#[test]
fn a_stream_of_bulk_leaves_the_group_its_time() {
    let alone = alone();
    for burst in [1, BURST] {
        let half = half(burst);
        let beside = run::<true>(half, true);
        println!("alone: {alone:?}\nbeside {half:?}: {beside:?}");
        assert!(beside.streamed * 10 > half.rate * 9, "{beside:?} of {half:?}");
        assert!(beside.p99 * 2 <= alone.p99 * 3, "{:?} alone, {:?} beside", alone.p99, beside.p99);
        assert_eq!((beside.view, beside.members), (alone.view, NODES));
        assert_eq!(run::<true>(half, true), beside);
    }
}

/// Checks that the same stream in the class of the groups, where nothing caps what is on its way, is noticed.
#[test]
fn a_stream_in_the_class_of_the_groups_is_noticed() {
    let (alone, half) = (alone(), half(BURST));
    let beside = run::<false>(half, true);
    println!("alone: {alone:?}\nbeside {half:?}: {beside:?}");
    assert!(beside.streamed * 10 > half.rate * 9, "{beside:?} of {half:?}");
    assert!(beside.p99 * 2 > alone.p99 * 3, "{:?} alone, {:?} beside", alone.p99, beside.p99);
}
