//! A node that comes back without the group, and later with it.

use mainstay::{Durability, Level, Order};
use mainstay_base::{Duration, Instant};
use mainstay_sim::live::{Plan, swarm};
use mainstay_sim::{Atlas, Disk, Fault, FaultEvent, Moment};

use super::{NODES, Nodes, PATIENCE, Setup, scenario};

/// When the node comes back without the group, and when it is stopped again.
const LACKS: (u64, u64) = (1_500, 3_000);

fn at(millis: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(millis)
}

/// While the node lacks the group, the status of the others says so, what each of them casts becomes safe, and they keep none of it.
pub(super) async fn witness(nodes: &Nodes, out: usize) -> Result<(), String> {
    nodes.sleep(Duration::from_millis(LACKS.0 + 500)).await;
    for index in (0..NODES).filter(|index| *index != out) {
        let placed = nodes.node(index).ok_or("it runs")?;
        let group = placed.group.ok_or("it has the group")?;
        let number = u64::MAX - index as u64;
        let receipt = group.try_cast_for(number.to_le_bytes().to_vec(), Order::Total, Level::Safe);
        let receipt = receipt.map_err(|error| format!("node {index}: {error}"))?;
        tokio::select! {
            reached = receipt.reached(Level::Safe) => reached.map_err(|error| format!("node {index}: {error}"))?,
            () = nodes.sleep(PATIENCE) => return Err(format!("node {index}: its cast does not become safe")),
        }
        let stack =
            placed.node.status().await.and_then(|status| status.stack).ok_or("it has a status")?;
        if stack.absent.values().map(|absent| absent.len()).sum::<usize>() != 1 {
            return Err(format!("node {index}: nobody is absent"));
        }
    }
    Ok(())
}

fn plan(durability: Durability, out: usize) -> Plan {
    let mut plan = Plan::new(NODES, Atlas { down: 1, lost: 1 });
    plan.disks = durability == Durability::Disk;
    let disk = if plan.disks { Disk::Empty } else { Disk::Kept };
    let crash = |begin: u64, millis: u64| {
        let length = Duration::from_millis(millis);
        let fault = Fault::Crash { node: out, length, disk, moment: Moment::Now };
        FaultEvent { at: at(begin), fault }
    };
    plan.script = Some(vec![crash(1_000, LACKS.0 - 1_000), crash(LACKS.1, 400)]);
    plan.work = Duration::from_secs(5);
    plan
}

fn without_one(durability: Durability) {
    for out in 0..NODES {
        let setup = Setup { lacks: Some(out), ..Setup::new(durability) };
        swarm(0..8, &plan(durability, out), |run| scenario(run, &setup));
    }
}

/// The others go on without it, whichever it is, and when it has the group it has what they have.
#[test]
fn groups_in_memory_go_on_without_a_node_that_lacks_them() {
    without_one(Durability::Memory);
}

/// The same on disk; the node has lost its own.
#[test]
fn groups_on_disk_go_on_without_a_node_that_lacks_them() {
    without_one(Durability::Disk);
}
