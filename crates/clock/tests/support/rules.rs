//! Rules that the tests of each kind check, and those of broken variants again.

use mainstay_base::{ClusterId, Duration, Incarnation, NodeId, Rng, SiteId, ViewId};
use mainstay_clock::graph::{Config, Graph, Received};
use mainstay_clock::multipart::{self, Table, Timestamp};
use mainstay_clock::reserve::Reserve;
use mainstay_clock::timers::Timers;
use mainstay_clock::{Members, Rank, Relation, Time};
use std::collections::BTreeSet;
use std::num::NonZeroU64;

pub(crate) fn sites(count: usize) -> Vec<SiteId> {
    let node = |index| NodeId::new(ClusterId::from_entropy(1), &format!("n{index}"));
    (0..count).map(|index| SiteId { node: node(index), incarnation: Incarnation(1) }).collect()
}

pub(crate) fn table(count: usize) -> Members {
    Members::new(ViewId { number: 1, nonce: 7 }, sites(count)).expect("distinct nodes")
}

/// HA-21 and CLK-37: crashes at any moment, also between the write and the word that it is done.
pub(crate) fn restarts(seed: u64, recover: impl Fn(Option<u64>) -> Reserve) -> Result<u64, String> {
    let mut rng = Rng::new(seed);
    let (mut disk, mut writing) = (None, None);
    let mut numbers = recover(disk);
    let (mut used, mut last) = (BTreeSet::new(), 0);
    for _ in 0..400 {
        match rng.below(20) {
            0 => {
                // A write that was under way may have come to the medium or not.
                disk = writing.take().filter(|_| rng.chance(1, 2)).or(disk);
                numbers = recover(disk);
            }
            1..4 => writing = numbers.to_store().or(writing),
            4..8 => {
                if let Some(limit) = writing.take() {
                    disk = Some(limit);
                    numbers.stored(limit);
                }
            }
            _ => {
                if let Some(number) = numbers.take() {
                    if !used.insert(number) || number <= last {
                        return Err(format!("HA-21: {number} comes again"));
                    }
                    last = number;
                }
            }
        }
    }
    Ok(used.len() as u64)
}

/// Replicas take updates that follow others, and gossip; a table at the first one says what all have.
pub(crate) fn replicas(
    seed: u64,
    clock: impl Fn(multipart::Clock) -> multipart::Clock,
    table: impl Fn(Table) -> Table,
) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let text = |error: multipart::PartsError| error.to_string();
    let zero = Timestamp::zero(3).map_err(text)?;
    let new = |rank| {
        let every = NonZeroU64::new(4).expect("not zero");
        let numbers = Reserve::recover(every, None);
        multipart::Clock::recover(Rank(rank), zero.clone(), numbers).map(&clock)
    };
    let mut replicas = [new(0).map_err(text)?, new(1).map_err(text)?, new(2).map_err(text)?];
    let mut table = table(Table::new(3).map_err(text)?);
    let mut heard = zero;
    for _ in 0..200 {
        let at = rng.below(3) as usize;
        if let Some(limit) = replicas[at].to_store() {
            replicas[at].stored(limit);
        }
        if rng.chance(1, 2) {
            let issued = replicas[at].issue(&heard).map_err(|error| error.to_string())?;
            if heard.relation(&issued) != Ok(Relation::Before) {
                return Err(format!("{issued:?} is not above {heard:?}"));
            }
            heard = issued;
        } else {
            let from = (at + 1 + rng.below(2) as usize) % 3;
            let theirs = replicas[from].now().clone();
            replicas[at].learn(&theirs).map_err(text)?;
            table.record(Rank(at as u16), replicas[at].now()).map_err(text)?;
        }
        let everywhere = table.everywhere();
        for replica in &replicas {
            if replica.has(&everywhere) != Ok(true) {
                return Err(format!("{everywhere:?} is not everywhere: {:?}", replica.now()));
            }
        }
    }
    Ok(())
}

/// A participant is masked out with a last message: the next one is refused, whoever says it.
pub(crate) fn mask(graph: impl Fn(Graph<u8>) -> Graph<u8>) -> Result<(), String> {
    let members = table(3);
    let new = |index: usize| {
        Graph::new(Config::default(), &members, sites(3)[index]).map_err(|error| error.to_string())
    };
    let (mut gone, mut stays, mut other) = (new(0)?, graph(new(1)?), new(2)?);
    let first = gone.send(1).map_err(|error| error.to_string())?;
    let second = gone.send(2).map_err(|error| error.to_string())?;
    for graph in [&mut stays, &mut other] {
        let received = graph.receive(first.clone(), 1).map_err(|error| error.to_string())?;
        assert_eq!(received, Received::Attached(1));
    }
    stays.mask_out(Rank(0), 1).map_err(|error| error.to_string())?;
    if stays.receive(second.clone(), 2).is_ok() {
        return Err(format!("{:?} is behind the mask", second.id()));
    }
    // Who was not asked attached it, and names it.
    other.receive(second, 2).map_err(|error| error.to_string())?;
    let after = other.send(3).map_err(|error| error.to_string())?;
    let refused = stays.receive(after, 3).is_err();
    refused.then_some(()).ok_or_else(|| "what follows it is behind the mask".to_owned())
}

/// CLK-40 on a clock that is slewed, steps forward and goes back.
pub(crate) fn timers(seed: u64, mut timers: Timers<u64>) -> Result<usize, String> {
    let mut rng = Rng::new(seed);
    let (mut now, mut set, mut fired) = (1_000_u64, BTreeSet::new(), BTreeSet::new());
    for number in 0..500 {
        let at = now + rng.below(300);
        if timers.set(Time::from_nanos(at), number).is_ok() {
            set.insert((at, number));
        }
        now = match rng.below(10) {
            0 => now + 500,
            1 => now - rng.below(100),
            _ => now + rng.below(20),
        };
        let reading = Time::ZERO.saturating_add(Duration::from_nanos(now));
        while let Some((at, number)) = timers.fire(reading) {
            let at = at.as_nanos();
            if at > now || !set.contains(&(at, number)) || !fired.insert(number) {
                return Err(format!("CLK-40: the timer for {at} fires at {now}"));
            }
        }
        if let Some((at, _)) = set.iter().find(|(at, it)| *at <= now && !fired.contains(it)) {
            return Err(format!("CLK-40: the timer for {at} does not fire at {now}"));
        }
    }
    Ok(fired.len())
}
