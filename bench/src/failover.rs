//! How long a client of a node that lives goes without an acknowledgement when another node fails.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use mainstay::Durability;
use tokio::time::{sleep, timeout_at};

use crate::client::{Client, is_done};
use crate::node::{Nodes, Place};
use crate::output::{Measured, Report};
use crate::process::Process;

/// The client runs so long before the failure.
const BEFORE: Duration = Duration::from_secs(1);
/// A stopped process stands so long.
const STOPPED: Duration = Duration::from_secs(3);
/// The client runs so long from the failure on.
const AFTER: Duration = Duration::from_secs(5);
/// Without an acknowledgement so long before the end, the service has not come back.
const BACK: Duration = Duration::from_millis(500);
/// Between a refusal and the next attempt.
const PAUSE: Duration = Duration::from_millis(1);

#[derive(Clone, Copy)]
enum Failure {
    /// The sequencer is killed; it manages the views too: both are the oldest member.
    KillSequencer,
    /// Another member is killed.
    KillFollower,
    /// A follower is stopped, and goes on after [`STOPPED`].
    StopFollower,
}

/// Measures all cases, each with a cluster of its own.
pub(crate) fn run(place: &Place, report: &mut Report) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cases = [
        ("failover/kill/sequencer", Failure::KillSequencer),
        ("failover/kill/follower", Failure::KillFollower),
        ("failover/stop/follower", Failure::StopFollower),
    ];
    for (name, failure) in cases {
        report.case("failover", name, || {
            runtime.block_on(measure(Nodes::start(place, Durability::Disk)?, failure))
        });
    }
    Ok(())
}

async fn measure(mut nodes: Nodes, failure: Failure) -> io::Result<Vec<Measured>> {
    let fails_sequencer = matches!(failure, Failure::KillSequencer);
    let victim = nodes.members.iter().position(|it| it.is_sequencer == fails_sequencer);
    let victim = victim.ok_or_else(|| io::Error::other("the nodes agree on no sequencer"))?;
    let victim = nodes.members.remove(victim).process;
    let follower = nodes.members.iter().find(|it| !it.is_sequencer).and_then(|it| it.clients);
    let follower = follower.ok_or_else(|| io::Error::other("there is no node for the client"))?;
    let until = Instant::now() + BEFORE + AFTER;
    // On a thread of its own: what it waits for must not hold up the client.
    let failing = thread::spawn(move || fail(victim, failure));
    let acknowledged = watch(follower, until).await;
    let failed = failing.join().map_err(|_| io::Error::other("the failing thread panicked"))?;
    let (at, _victim) = failed?;
    let acknowledged = acknowledged?;
    if acknowledged.last().is_none_or(|last| *last + BACK < until) {
        return Err(io::Error::other("no SET was acknowledged any more"));
    }
    let (before, after) = gaps(&acknowledged, at);
    Ok(vec![Measured::millis("gap_ms", after), Measured::millis("gap_before_ms", before)])
}

/// Lets the process fail: when it did, and the process, that it is not killed earlier than the others.
fn fail(mut victim: Process, failure: Failure) -> io::Result<(Instant, Process)> {
    thread::sleep(BEFORE);
    let at = Instant::now();
    match failure {
        Failure::KillSequencer | Failure::KillFollower => victim.kill()?,
        Failure::StopFollower => {
            victim.signal("STOP")?;
            thread::sleep(STOPPED);
            victim.signal("CONT")?;
        }
    }
    Ok((at, victim))
}

/// SETs one after the other until then: when each was acknowledged.
async fn watch(address: SocketAddr, until: Instant) -> io::Result<Vec<Instant>> {
    let mut client = Client::connect(address, 0).await?;
    let mut acknowledged = Vec::new();
    while Instant::now() < until {
        client.fill(1).await?;
        let mut done = false;
        let received = client.receive(|reply, _| done = is_done(&reply));
        match timeout_at(until.into(), received).await {
            Ok(received) => received?,
            Err(_) => break,
        }
        if done {
            acknowledged.push(Instant::now());
        } else {
            sleep(PAUSE).await;
        }
    }
    Ok(acknowledged)
}

/// The longest times between two acknowledgements before the failure, and across it or after it.
pub(crate) fn gaps(acknowledged: &[Instant], at: Instant) -> (Duration, Duration) {
    let split = acknowledged.partition_point(|it| *it < at);
    let longest = |part: &[Instant]| part.windows(2).map(|it| it[1] - it[0]).max();
    let after = longest(&acknowledged[split.saturating_sub(1)..]);
    (longest(&acknowledged[..split]).unwrap_or_default(), after.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_across_the_failure_is_one_of_the_failure() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let acknowledged = [0, 3, 4, 30, 35].map(after);
        let (before, gap) = gaps(&acknowledged, after(10));
        assert_eq!((before, gap), (Duration::from_millis(3), Duration::from_millis(26)));
        assert_eq!(gaps(&[], start), (Duration::ZERO, Duration::ZERO));
    }
}
