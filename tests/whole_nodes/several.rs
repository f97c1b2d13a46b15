//! Several state machines on one node: together they do no more in a turn than one alone.

use std::cell::Cell;
use std::rc::Rc;

use mainstay::{Config, Durability, Node, Replicated, Status};
use mainstay_base::Duration;
use mainstay_kit as kit;
use mainstay_sim::live::{Outside, Room, Start};

use super::large::{Large, Weight};
use super::model::Op;
use super::run::{WHOLE_WITHIN, WORK, options, silent};
use super::{HEAVY, TURN_MAX, all_killed, heavy};

const NODES: usize = 3;
/// If each did all that a turn may, a turn would take 24 ms.
const MACHINES: usize = 12;

/// A node, and its state machines.
type Placed = (Node, Vec<Replicated<Large>>);

fn begin(
    start: Start,
    turn_work: Option<Duration>,
    longest: &Rc<Cell<Duration>>,
) -> Result<Placed, String> {
    let weight = Weight { faster: HEAVY.faster * start.index as u32, ..HEAVY };
    let (first, time) = (start.first, Rc::clone(&start.ports.time));
    let settings = |config: Config| {
        let replica = mainstay_paradigm::Config::builder().checkpoint_bytes(1 << 10);
        let config = config.durability(Durability::Disk).bootstrap(first);
        let config = config.replica(replica.build().unwrap());
        match turn_work {
            Some(most) => config.turn_work(most),
            None => config,
        }
    };
    let placed = kit::start(start, settings, |builder| {
        let machine = |number| builder.replicate(&format!("m{number}"), move || Large::new(weight));
        (0..MACHINES).map(machine).collect::<Result<Vec<_>, _>>()
    })?;
    let (asked, longest) = (placed.0.clone(), Rc::clone(longest));
    tokio::task::spawn_local(async move {
        while let Some(status) = asked.status().await {
            longest.set(longest.get().max(status.turns.longest));
            time.sleep_until(time.now() + Duration::from_millis(25)).await;
        }
    });
    Ok(placed)
}

/// Writes to all state machines in turn, wherever a node runs.
async fn write(nodes: Outside<Placed>, user: usize) {
    let mut serial = 0;
    while nodes.now() < mainstay_base::Instant::ZERO + WORK {
        nodes.sleep(Duration::from_millis(5)).await;
        let Some((_, machines)) = nodes.node(user % NODES) else { continue };
        serial += 1;
        let command = Op::Set(user as u64, serial).encode();
        let machine = machines[serial as usize % MACHINES].clone();
        tokio::select! {
            _ = machine.execute(&command) => {}
            () = nodes.sleep(Duration::from_millis(500)) => {}
        }
    }
}

/// How each state machine of each node is once all have what all others have.
async fn whole(nodes: Outside<Placed>) -> Vec<Vec<Status>> {
    loop {
        let mut all = Vec::new();
        for index in 0..NODES {
            let Some((_, machines)) = nodes.node(index) else { break };
            let mut statuses = Vec::new();
            for machine in &machines {
                statuses.extend(machine.status().await.ok());
            }
            all.push(statuses);
        }
        let is_one = |machine: usize| {
            let of = |node: &Vec<Status>| node.get(machine).and_then(|it| it.replica.hash);
            all.len() == NODES
                && of(&all[0]).is_some()
                && all.iter().all(|it| of(it) == of(&all[0]))
        };
        if (0..MACHINES).all(is_one) {
            return all;
        }
        nodes.sleep(Duration::from_millis(50)).await;
    }
}

/// The longest turn of a run, how often somebody was silent, and how many checkpoints were written.
fn all_restored(seed: u64, turn_work: Option<Duration>) -> (Duration, usize, u64) {
    let (setup, longest) = (heavy(NODES, Durability::Disk), Rc::default());
    let noted = Rc::clone(&longest);
    let start = move |start: Start| begin(start, turn_work, &noted);
    let mut room = Room::new(seed, NODES, options(seed, &setup), all_killed(NODES), start);
    for user in 0..NODES {
        room.spawn(write(room.outside(), user));
    }
    room.run(WORK).unwrap();
    let nodes = room.outside();
    let statuses = room.finish(whole(nodes), WHOLE_WITHIN).unwrap();
    let checkpoints = statuses.iter().flatten().map(|it| it.replica.checkpoints).sum();
    (longest.get(), statuses.iter().map(|node| silent(&node[0])).sum(), checkpoints)
}

/// Checks that state machines of one node, all heavy and all restored at once, share a turn: it is as short as with one, and nobody
/// is taken for dead (MB-21).
#[test]
fn several_heavy_states_share_a_turn() {
    let mut all = 0;
    for seed in mainstay_sim::seeds(0..6) {
        let (longest, silent, checkpoints) = all_restored(seed, None);
        assert!(longest <= TURN_MAX, "seed {seed}: {longest:?}");
        assert_eq!(silent, 0, "seed {seed}");
        all += checkpoints;
    }
    assert!(all > 0, "no state was heavy");
}

/// Checks that the same is noticed where each does all that there is to do.
#[test]
fn several_heavy_states_without_a_bound_are_noticed() {
    let (longest, ..) = all_restored(0, Some(Duration::from_secs(3_600)));
    assert!(longest > TURN_MAX, "{longest:?}");
}
