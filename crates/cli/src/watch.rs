//! A node whose thread hangs is ended: the others should not wait for it, nor its clients. And so is one that its peers
//! refuse since they hear another process of its name. Nothing else ends a node that waits.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use mainstay::Replicated;
use mainstay_base::NodeId;
use mainstay_directory::Directory;
use mainstay_runtime::{Beacon, Beat, Pulse};
use mainstay_site as site;

use crate::log::Lines;
use crate::out::tell;

/// How often the node's thread is asked whether it comes round.
const PERIOD: Duration = Duration::from_millis(500);
/// So many questions without an answer, one after the other, end the process. They are counted and not timed: a process
/// that was stopped as a whole has missed no more than one of them.
const MISSED_MAX: u32 = 20;

/// Watches the thread behind `pulse` while the beacon lives, and calls `hung` from another one if it hangs.
///
/// # Errors
/// The operating system gives no thread.
pub(crate) fn start(
    pulse: Arc<Pulse>,
    mut hung: impl FnMut() + Send + 'static,
) -> io::Result<Beacon> {
    let mut missed = Missed::default();
    Beacon::start(pulse, PERIOD, move |beat| {
        if missed.observe(beat) {
            hung();
        }
    })
}

/// Ends the process with status 70.
pub(crate) fn end(whose: &str, log: &Lines) {
    log.finish();
    tell!("mainstay: {whose}: the node's thread hangs, the process is ended");
    std::process::exit(70);
}

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Deaths are counted over so many looks: ten seconds.
const LOOKS: usize = 40;
/// In so many looks in a row the node was refused, without a break: a process that has died holds its name no longer than
/// the failure timeout.
const REFUSED_MAX: usize = 20;

/// Ends if the node is to give way to another of its name for five seconds without a break, and answers the peers that
/// refuse it. They hear the other one: nothing less shows that there is one. A node that is alone, is kept out or is declared
/// dead again and again waits; how often that last happened is kept in `deaths`, for the status.
pub(crate) async fn until_doubled(node: &Replicated<Directory>, deaths: &Cell<u64>) -> Vec<String> {
    let mut counted = Deaths::default();
    let mut refused = 0;
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        let Ok(status) = node.status().await else { return std::future::pending().await };
        deaths.set(counted.observe(status.site.restarts));
        let by = refusing(&status.site);
        refused = if by.is_empty() { 0 } else { refused + 1 };
        if refused >= REFUSED_MAX {
            return by;
        }
    }
}

/// The peers that refuse the node, if it is to give way to the other of its name.
fn refusing(site: &site::Status) -> Vec<String> {
    let Some(stack) = &site.stack else { return Vec::new() };
    if !gives_way(&stack.refused_by, &stack.connected) {
        return Vec::new();
    }
    let refuses = |id: &NodeId| stack.refused_by.contains(id);
    site.roster.iter().filter(|(_, id)| refuses(id)).map(|(name, _)| name.clone()).collect()
}

/// Of two processes under one name the one that more peers refuse gives way; if those are as many as it is connected with,
/// the one that the first of all these peers refuses. So never both, and one of them if they share all peers: no view
/// admits either as long as there is a member that it does not reach.
fn gives_way(refused_by: &BTreeSet<NodeId>, connected: &BTreeSet<NodeId>) -> bool {
    let by_first = || refused_by.first() < connected.first();
    match refused_by.len().cmp(&connected.len()) {
        Ordering::Less => false,
        Ordering::Equal => !refused_by.is_empty() && by_first(),
        Ordering::Greater => true,
    }
}

/// How often the node had died at each of the last looks.
#[derive(Default)]
struct Deaths(VecDeque<u64>);

impl Deaths {
    /// The deaths within the last looks.
    fn observe(&mut self, deaths: u64) -> u64 {
        self.0.push_back(deaths);
        if self.0.len() > LOOKS {
            self.0.pop_front();
        }
        deaths - self.0.front().copied().unwrap_or(deaths)
    }
}

/// Questions in a row that the thread has not answered.
#[derive(Default)]
struct Missed(u32);

impl Missed {
    /// Whether there were too many.
    fn observe(&mut self, beat: Beat) -> bool {
        self.0 = if beat.stuck_for.is_zero() { 0 } else { self.0 + 1 };
        self.0 >= MISSED_MAX
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use std::sync::mpsc;

    use mainstay_base::ClusterId;
    use tokio::task::LocalSet;

    use super::*;
    use crate::cluster::Cluster;
    use crate::config::Durability;

    /// Checks that a node whose thread does not come round is noticed: here it waits until that has been so.
    #[test]
    fn a_thread_that_hangs_is_noticed() {
        let home = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::open(home.path(), Some(1), Some(Durability::Memory)).unwrap();
        cluster.release();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let pulse = Pulse::new();
            let settings = cluster.nodes[0].settings(true, Arc::clone(&pulse)).unwrap();
            let node = Replicated::start(settings, Directory::default).unwrap();
            let (tell, told) = mpsc::channel();
            let _beacon = start(pulse, move || tell.send(()).unwrap_or_default()).unwrap();
            told.recv_timeout(Duration::from_secs(30)).unwrap();
            drop(node.close().await);
        });
    }

    /// Checks that of two who share the peers in any way exactly one gives way, and nobody whom no peer refuses.
    #[test]
    fn one_of_two_gives_way() {
        let cluster = ClusterId::from_entropy(1);
        let peers = [0, 1, 2, 3].map(|number| NodeId::new(cluster, &format!("n{number}")));
        for count in 1..=peers.len() {
            for of_one in 0..1 << count {
                let side = |one: bool| {
                    let is_of = |index: &usize| (of_one >> index & 1 == 1) == one;
                    (0..count).filter(is_of).map(|index| peers[index]).collect::<BTreeSet<_>>()
                };
                let (one, other) = (side(true), side(false));
                assert_ne!(gives_way(&other, &one), gives_way(&one, &other));
                assert!(!gives_way(&BTreeSet::new(), &one));
            }
        }
    }

    /// Checks that only deaths of the last seconds count.
    #[test]
    fn deaths_are_forgotten() {
        let mut deaths = Deaths::default();
        assert_eq!((deaths.observe(100), deaths.observe(107)), (0, 7));
        for _ in 0..LOOKS {
            deaths.observe(107);
        }
        assert_eq!(deaths.observe(108), 1);
    }

    /// Checks that a long stop of the whole process counts once, and that only silence in a row ends it.
    #[test]
    fn questions_are_counted_and_not_timed() {
        let beat = |stuck_for| Beat { turns: 1, stuck_for };
        let mut missed = Missed::default();
        assert!(!missed.observe(beat(Duration::from_secs(3_600))));
        assert!(!missed.observe(beat(Duration::ZERO)));
        assert!((1..MISSED_MAX).all(|_| !missed.observe(beat(PERIOD))));
        assert!(missed.observe(beat(PERIOD)));
    }
}
