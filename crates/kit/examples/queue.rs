//! The test of a queue of jobs with leases, and of the same queue with a bug: it takes a job for done without a look at the lease. The
//! right queue passes all seeds. With the bug a seed fails, and what is told is the fault that it takes.
//!
//! `cargo run -p mainstay-kit --example queue`

use std::ops::Range;

use mainstay::{Commands, Map, Position, Small};
use mainstay_kit::{Client, Cluster, Operation, answered};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Command {
    Put(u64),
    /// The first free job, under a new lease.
    Take,
    /// The job is done, if the lease is still this one.
    Done(u64, u64),
    /// Leases from before the last tick are void.
    Tick,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
enum Reply {
    /// A job and its lease.
    Taken(u64, u64),
    Yes,
    No,
}

/// The leases of the jobs that are not done; the last lease, and the last one at the last tick.
type State = (Map<u64, Option<u64>>, Small<(u64, u64)>);

#[derive(Clone, Debug, Default)]
struct Queue<const LOOKS: bool>(State);

impl<const LOOKS: bool> Commands for Queue<LOOKS> {
    type Command = Command;
    type Reply = Reply;
    type State = State;

    fn execute(&mut self, _at: Position, command: Command) -> Reply {
        let (jobs, leases) = &mut self.0;
        let (last, ticked) = &mut **leases;
        match command {
            Command::Put(job) => drop(jobs.insert(job, None)),
            Command::Take => {
                let free = jobs.iter().find(|(_, lease)| lease.is_none()).map(|(job, _)| *job);
                let Some(job) = free else { return Reply::No };
                *last += 1;
                jobs.insert(job, Some(*last));
                return Reply::Taken(job, *last);
            }
            Command::Done(job, lease) => match jobs.get(&job) {
                Some(held) if *held == Some(lease) || !LOOKS => drop(jobs.remove(&job)),
                _ => return Reply::No,
            },
            Command::Tick => {
                let is_void = |lease: &Option<u64>| lease.is_some_and(|lease| lease <= *ticked);
                let void: Vec<u64> =
                    jobs.iter().filter(|(_, it)| is_void(it)).map(|(job, _)| *job).collect();
                for job in void {
                    jobs.insert(job, None);
                }
                *ticked = *last;
            }
        }
        Reply::Yes
    }

    fn state(&self) -> &State {
        &self.0
    }

    fn state_mut(&mut self) -> &mut State {
        &mut self.0
    }
}

// What follows is the test.

/// Puts jobs and does them, each in its time; the first client ticks instead.
async fn work<const LOOKS: bool>(client: Client<Queue<LOOKS>>) {
    for job in 0.. {
        if client.is_over() {
            return;
        }
        if client.number() == 0 {
            client.sleep(150).await;
            let _ = client.execute(Command::Tick).await;
            continue;
        }
        let _ = client.execute(Command::Put(client.number() as u64 * 1_000 + job)).await;
        if let Ok(Reply::Taken(job, lease)) = client.execute(Command::Take).await {
            client.sleep(100 + client.below(50)).await;
            let _ = client.execute(Command::Done(job, lease)).await;
        }
    }
}

/// A job is done under the last lease that was given for it.
fn leases_count(history: &[Operation<Command, Reply>]) -> Result<(), String> {
    let is_later = |reply: &Reply, job: u64, lease: u64| matches!(*reply, Reply::Taken(other, later) if other == job && later > lease);
    for (command, reply) in answered(history) {
        if let (&Command::Done(job, lease), Reply::Yes) = (command, reply)
            && let Some((_, other)) = answered(history).find(|it| is_later(it.1, job, lease))
        {
            return Err(format!("job {job} is done under lease {lease}, and there was {other:?}"));
        }
    }
    Ok(())
}

fn queue<const LOOKS: bool>(seeds: Range<u64>) -> Cluster<Queue<LOOKS>> {
    Cluster::swarm(seeds).atlas(1, 0).client(work).check(|_, history| leases_count(history))
}

fn main() {
    let answered: usize = queue::<true>(0..4).run().iter().map(|report| report.answered).sum();
    println!("the right queue: {answered} commands answered");
    let found = queue::<false>(19..40).find().expect_err("the bug shows");
    println!("the queue with the bug: {found}");
    assert!(found.what.contains("is done under lease") && found.faults.len() < 10);
}
