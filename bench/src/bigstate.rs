//! How nodes bear a large state: it is loaded, written to checkpoints meanwhile, and made anew after one node was killed, and
//! after all were.

mod load;
mod plain;
mod probe;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::failover::gaps;
use crate::node::{Bounds, Nodes, Place, Seen};
use crate::output::{Measured, Report, percentile};

use load::Load;
use probe::Probe;

/// The state of three nodes fits into it: a small entry counts 142 bytes, a large one 1,165.
const BYTES_MAX: u64 = 4 << 30;
/// So many checkpoints of each node belong to the load.
const CHECKPOINTS: u64 = 2;
/// Between two looks at the nodes, and at their files.
const LOOK: Duration = Duration::from_millis(5);
const ASK: Duration = Duration::from_millis(250);
/// The client runs so long before a node is killed.
const BEFORE: Duration = Duration::from_secs(1);
/// What is whole is looked at so long for views that follow.
const AFTER: Duration = Duration::from_secs(2);
/// Nodes that need longer for a step have failed.
const PATIENCE: Duration = Duration::from_secs(600);

/// Other sizes than those of the cases.
#[derive(Default, clap::Args)]
pub(crate) struct Size {
    /// So many keys, in each case; the cases are called after it.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    keys: Option<u64>,
    /// A checkpoint is due after so many bytes of commands [default: 64 MiB].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    checkpoint_bytes: Option<u64>,
}

/// Measures all cases, each with a cluster of its own.
pub(crate) fn run(place: &Place, size: &Size, report: &mut Report) -> io::Result<()> {
    let checkpoint_bytes = size.checkpoint_bytes.unwrap_or(64 << 20);
    let bounds = Bounds { bytes_max: BYTES_MAX, checkpoint_bytes };
    for (kind, count, keys, value_bytes) in
        [("small", "5M", 5_000_000, 1), ("large", "1M", 1_000_000, 1 << 10)]
    {
        let count = size.keys.map_or_else(|| count.to_owned(), |keys| keys.to_string());
        let load = Load { keys: size.keys.unwrap_or(keys), value_bytes };
        report.case("bigstate", &format!("bigstate/{kind}/{count}"), || {
            let mut cluster = Cluster {
                nodes: Nodes::start_bounded(place, &bounds)?,
                bounds: bounds.clone(),
                load,
            };
            cluster.measure()
        });
    }
    Ok(())
}

struct Cluster {
    nodes: Nodes,
    bounds: Bounds,
    load: Load,
}

impl Cluster {
    fn measure(&mut self) -> io::Result<Vec<Measured>> {
        let mut all = self.load()?;
        let loaded = self.nodes.seen()?;
        all.extend(turns(["load_longest_turn_ms", "load_longest_turn_at_work_ms"], &loaded));
        let mut recovering = self.kill_one(&loaded, &mut all)?;
        let (serve, copy, keeper) = self.kill_all(&mut recovering, &mut all)?;
        let names = ["recovery_longest_turn_ms", "recovery_longest_turn_at_work_ms"];
        all.extend(turns(names, &recovering));
        self.nodes.kill(&[0, 1, 2])?;
        let member = &self.nodes.members[keeper];
        let begun = Instant::now();
        let replica = plain::load(&copy, member.cluster, member.name, &self.bounds)?;
        let plain = begun.elapsed();
        let keys = replica.machine().map_or(0, |directory| directory.len() as u64);
        if keys < self.load.keys {
            return Err(io::Error::other(format!("the plain load found {keys} keys")));
        }
        all.extend([
            Measured::seconds("plain_load_s", plain),
            Measured::ratio("serve_ratio", serve, plain),
        ]);
        Ok(all)
    }

    /// Loads the keys, and goes on until each node has written its checkpoints.
    fn load(&mut self) -> io::Result<Vec<Measured>> {
        let before = self.nodes.seen()?;
        let addresses = self.nodes.clients()?;
        let (loading, enough) = self.load.start(addresses.clone());
        // A single client is not at the sequencer, as in the other benches.
        let probe = Probe::start(addresses[0], false);
        let shelves = self.shelves()?;
        let (mut spans, mut looked, mut was) = (Vec::new(), Instant::now(), false);
        let mut asked = looked;
        while !loading.is_finished() && !probe.has_ended() {
            thread::sleep(LOOK);
            let (now, is) = (Instant::now(), is_writing(&shelves)?);
            if is || was {
                spans.push((looked, now));
            }
            (looked, was) = (now, is);
            if now - asked > ASK {
                asked = now;
                let written = self.nodes.seen()?.iter().map(|it| it.checkpoints).min();
                enough.set(written.unwrap_or_default() >= CHECKPOINTS);
            }
        }
        enough.set(true);
        let probed = probe.stop();
        let time = loading.join().map_err(|_| io::Error::other("the load panicked"))??;
        let met = |sample: &&(Instant, Instant)| {
            spans.iter().any(|span| sample.0 <= span.1 && span.0 <= sample.1)
        };
        let probed = probed?;
        let mut samples: Vec<_> = probed.iter().filter(met).map(|it| it.1 - it.0).collect();
        samples.sort_unstable();
        let views = newest(&self.nodes.seen()?).saturating_sub(newest(&before));
        let mut all = vec![
            Measured::rate("load_keys_per_s", self.load.keys, time),
            Measured::count("views_under_load", views),
        ];
        if let Some(longest) = samples.last() {
            let p99 = percentile(&samples, 99);
            all.push(Measured::millis("checkpoint_p99_ms", p99));
            all.push(Measured::millis("checkpoint_max_ms", *longest));
        }
        Ok(all)
    }

    /// Kills a follower and starts it again; how the nodes were then, whose turns belong to it.
    fn kill_one(&mut self, loaded: &[Seen], all: &mut Vec<Measured>) -> io::Result<Vec<Seen>> {
        let is_follower = |it: &usize| !loaded[*it].is_sequencer;
        let followers: Vec<_> = (0..loaded.len()).filter(is_follower).collect();
        let [victim, other] = followers[..] else {
            return Err(io::Error::other("the nodes agree on no sequencer"));
        };
        let probe = Probe::start(self.address(other)?, true);
        thread::sleep(BEFORE);
        let at = Instant::now();
        self.nodes.kill(&[victim])?;
        self.nodes.restart(&[victim])?;
        let seen = self.until("the killed node is whole", |seen| {
            seen[victim].whole && seen.iter().all(|it| it.members == seen.len())
        });
        let whole = at.elapsed();
        thread::sleep(BEFORE);
        let acknowledged: Vec<_> = probe.stop()?.into_iter().map(|it| it.1).collect();
        let mut seen = seen?;
        all.push(Measured::millis("kill_one_gap_ms", gaps(&acknowledged, at).1));
        all.push(Measured::seconds("kill_one_whole_s", whole));
        // The longest turn of a process that did not get longer was one of the load.
        let later = |now: Duration, before| if now > before { now } else { Duration::ZERO };
        for survivor in (0..seen.len()).filter(|it| *it != victim) {
            let (now, before) = (&mut seen[survivor], &loaded[survivor]);
            now.longest = later(now.longest, before.longest);
            now.longest_at_work = later(now.longest_at_work, before.longest_at_work);
        }
        Ok(seen)
    }

    /// Kills all and starts them again: the time until one serves, and the files of one as they were, with its number.
    fn kill_all(
        &mut self,
        recovering: &mut Vec<Seen>,
        all: &mut Vec<Measured>,
    ) -> io::Result<(Duration, PathBuf, usize)> {
        let shelves = self.shelves()?;
        let until = Instant::now() + PATIENCE;
        while is_writing(&shelves)? {
            thread::sleep(LOOK);
            if Instant::now() > until {
                return Err(io::Error::other("a checkpoint was not finished"));
            }
        }
        let before = self.nodes.seen()?;
        // One that has not been killed yet: its checkpoint is not one of a transferred state.
        let keeper = before.iter().position(|it| it.is_sequencer);
        let keeper = keeper.ok_or_else(|| io::Error::other("the nodes agree on no sequencer"))?;
        let everyone = [0, 1, 2];
        let at = Instant::now();
        self.nodes.kill(&everyone)?;
        let copy = self.nodes.home().join("plain");
        preserve(&self.nodes.home().join(self.nodes.members[keeper].name), &copy)?;
        self.nodes.restart(&everyone)?;
        let addresses = everyone.map(|it| self.address(it));
        let mut probes = Vec::new();
        for address in addresses {
            probes.push(Probe::start(address?, true));
        }
        let served = probe::first(&probes, PATIENCE);
        for probe in probes {
            probe.stop()?;
        }
        let serve = served?.saturating_duration_since(at);
        self.until("all nodes are whole and equal", |seen| {
            let is_equal = |it: &Seen| {
                (it.view, it.position, it.hash) == (seen[0].view, seen[0].position, seen[0].hash)
            };
            seen.iter().all(|it| it.whole && it.members == seen.len() && is_equal(it))
        })?;
        let whole = at.elapsed();
        thread::sleep(AFTER);
        let seen = self.nodes.seen()?;
        // The first view is one that a restart of all cannot do without.
        let views = newest(&seen).saturating_sub(newest(&before) + 1);
        recovering.extend(seen);
        all.extend([
            Measured::seconds("kill_all_serve_s", serve),
            Measured::seconds("kill_all_whole_s", whole),
            Measured::count("views_after_kill_all", views),
        ]);
        Ok((serve, copy, keeper))
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&[Seen]) -> bool) -> io::Result<Vec<Seen>> {
        let until = Instant::now() + PATIENCE;
        loop {
            let seen = self.nodes.seen()?;
            if is_so(&seen) {
                return Ok(seen);
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!("waited in vain until {what}: {seen:?}")));
            }
            thread::sleep(LOOK);
        }
    }

    fn address(&self, member: usize) -> io::Result<std::net::SocketAddr> {
        let unknown = || io::Error::other("a node did not say where its clients connect");
        self.nodes.members[member].clients.ok_or_else(unknown)
    }

    /// Where the nodes have their checkpoints.
    fn shelves(&self) -> io::Result<Vec<PathBuf>> {
        let home = self.nodes.home();
        self.nodes.members.iter().map(|member| plain::shelf(&home.join(member.name))).collect()
    }
}

/// The number of the newest view that a node knows.
fn newest(seen: &[Seen]) -> u64 {
    seen.iter().map(|it| it.view).max().unwrap_or_default()
}

fn turns([longest, at_work]: [&'static str; 2], seen: &[Seen]) -> [Measured; 2] {
    let most = |of: fn(&Seen) -> Duration| seen.iter().map(of).max().unwrap_or_default();
    [
        Measured::millis(longest, most(|it| it.longest)),
        Measured::millis(at_work, most(|it| it.longest_at_work)),
    ]
}

/// Whether a checkpoint is being written: it has a temporary name until it is complete.
fn is_writing(shelves: &[PathBuf]) -> io::Result<bool> {
    for shelf in shelves {
        for entry in fs::read_dir(shelf)? {
            if entry?.file_name().to_string_lossy().ends_with(".tmp") {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The files of a node by other names: they stay when the node removes them, and take no time, whatever they hold. The newest
/// segment of the log, of at most 16 MiB, is copied: the node goes on writing to it.
fn preserve(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    let mut newest = None;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            preserve(&entry.path(), &to.join(entry.file_name()))?;
            continue;
        }
        fs::hard_link(entry.path(), to.join(entry.file_name()))?;
        if entry.file_name().to_string_lossy().starts_with("log-") {
            newest = newest.max(Some(entry.file_name()));
        }
    }
    if let Some(newest) = newest {
        fs::remove_file(to.join(&newest))?;
        fs::copy(from.join(&newest), to.join(newest))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
