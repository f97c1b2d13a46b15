//! The multicast alone: three sites with one group, and nothing on it but a counter.

pub(crate) mod member;

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::{self, Member};
use crate::output::{Measured, Report};
use crate::usage::Usage;
use member::{GroupLevel, Mark};

const WARM_UP: Duration = Duration::from_millis(500);
const MEASURE: Duration = Duration::from_secs(3);
/// Most own messages of a sender that are on the way, and most bytes of them.
const OUTSTANDING_MAX: usize = 4_096;
const OUTSTANDING_BYTES_MAX: usize = 4 << 20;

/// What is cast, and by whom.
struct Case {
    name: &'static str,
    size: usize,
    outstanding: usize,
    level: GroupLevel,
    /// By all; else by one that is not the sequencer.
    by_all: bool,
    /// One message a call, from a task beside the site; else as much as may be on the way at each turn.
    calls: bool,
    /// Services beside the group; whether one of them streams, between two of the nodes, half of what the idle link does.
    services: usize,
    streams: bool,
}

impl Case {
    const fn total(name: &'static str, size: usize) -> Self {
        let fit = OUTSTANDING_BYTES_MAX / size;
        let outstanding = if fit < OUTSTANDING_MAX { fit } else { OUTSTANDING_MAX };
        let level = GroupLevel::Majority;
        Self {
            name,
            size,
            outstanding,
            level,
            by_all: false,
            calls: true,
            services: 0,
            streams: false,
        }
    }

    const fn latency(name: &'static str, level: GroupLevel) -> Self {
        let (services, streams) = (0, false);
        Self {
            name,
            size: 64,
            outstanding: 1,
            level,
            by_all: false,
            calls: false,
            services,
            streams,
        }
    }

    const fn by_all(self) -> Self {
        Self { by_all: true, ..self }
    }

    const fn beside(self, services: usize, streams: bool) -> Self {
        Self { services, streams, ..self }
    }

    const fn in_bursts(self) -> Self {
        Self { calls: false, ..self }
    }
}

const CASES: [Case; 9] = [
    Case::total("total/64B/1sender", 64),
    Case::total("total/1KiB/1sender", 1 << 10),
    Case::total("total/16KiB/1sender", 16 << 10),
    Case::total("total/64B/3senders", 64).by_all(),
    Case::total("burst/64B/1sender", 64).in_bursts(),
    Case::latency("latency/64B/delivered", GroupLevel::Delivered),
    Case::latency("latency/64B/delivered/bulk-half", GroupLevel::Delivered).beside(1, true),
    Case::latency("latency/64B/majority", GroupLevel::Majority),
    Case::latency("latency/64B/safe", GroupLevel::Safe),
];

/// Measures all cases, each with a cluster of its own.
pub(crate) fn run(report: &mut Report) -> io::Result<()> {
    for case in &CASES {
        report.case("multicast", case.name, || measure(case));
    }
    report.case("multicast", "idle/10services", idle);
    report.case("multicast", "view/kill/sequencer", || view(true));
    report.case("multicast", "view/kill/member", || view(false));
    Ok(())
}

/// Members, of which one streams `bulk` bytes a second.
fn start(case: &Case, bulk: u64) -> io::Result<Vec<Member>> {
    cluster::start(|_| {
        let Case { size, outstanding, level, services, .. } = case;
        let mut arguments = vec![
            "member".to_owned(),
            format!("--size={size}"),
            format!("--outstanding={outstanding}"),
            format!("--level={}", level.name()),
            format!("--services={services}"),
            format!("--bulk={bulk}"),
        ];
        arguments.extend(case.calls.then(|| "--calls".to_owned()));
        arguments
    })
}

/// Three nodes with a group and ten services, none of which has anything to do: the largest of them.
fn idle() -> io::Result<Vec<Measured>> {
    const WATCH: Duration = Duration::from_secs(10);
    let members = start(&Case::latency("idle", GroupLevel::Delivered).beside(10, false), 0)?;
    thread::sleep(WARM_UP * 4);
    let usages = || -> io::Result<Vec<Usage>> {
        members.iter().map(|member| Usage::of(member.process.id())).collect()
    };
    let before = usages()?;
    thread::sleep(WATCH);
    let after = usages()?;
    let used = before.iter().zip(&after).map(|(a, b)| b.processor - a.processor).max();
    let core = used.unwrap_or_default().as_secs_f64() / WATCH.as_secs_f64();
    let resident = after.iter().map(|usage| usage.resident_bytes).max().unwrap_or_default();
    Ok(vec![Measured::mebibytes("rss_mib", resident), Measured::percent("core_percent", core)])
}

/// From the kill of a member until all others are in a view without it; nothing is cast.
fn view(sequencer: bool) -> io::Result<Vec<Measured>> {
    let mut members = start(&CASES[0], 0)?;
    let victim = members.iter().position(|member| member.is_sequencer == sequencer);
    let victim = victim.ok_or_else(|| io::Error::other("the members agree on no sequencer"))?;
    let mut victim = members.remove(victim).process;
    thread::sleep(WARM_UP);
    let at = Instant::now();
    victim.kill()?;
    for member in &mut members {
        let left = member.process.hear("view")?;
        if left != ["2"] {
            return Err(io::Error::other(format!("a view of {left:?} instead of 2")));
        }
    }
    Ok(vec![Measured::millis("view_ms", at.elapsed())])
}

fn measure(case: &Case) -> io::Result<Vec<Measured>> {
    let half = if case.streams { streamed_alone(case)? / 2 } else { 0 };
    let mut members = start(case, half)?;
    if members.iter().filter(|member| member.is_sequencer).count() != 1 {
        return Err(io::Error::other("the members do not agree on one sequencer"));
    }
    let followers = members.iter().position(|member| !member.is_sequencer);
    for (index, member) in members.iter_mut().enumerate() {
        if case.by_all || Some(index) == followers {
            member.process.tell("cast")?;
        }
    }
    thread::sleep(WARM_UP);
    mark(&mut members)?;
    let streamed = case.streams.then(|| streamed(&mut members)).transpose()?;
    thread::sleep(MEASURE);
    let marks = mark(&mut members)?;
    let reached = match streamed {
        Some(before) => Some(self::streamed(&mut members)? - before),
        None => None,
    };
    if marks.iter().any(|mark| mark.disturbed > 0) {
        return Err(io::Error::other("the view changed: the machine is too busy"));
    }
    Ok(if case.outstanding == 1 {
        // Those that did not cast have no samples.
        let sampled = marks.iter().find(|mark| !mark.p50.is_zero());
        let mark = sampled.ok_or_else(|| io::Error::other("no cast was answered"))?;
        let mut all =
            vec![Measured::micros("p50_us", mark.p50), Measured::micros("p99_us", mark.p99)];
        all.extend(reached.map(|bytes| Measured::rate("bulk_bytes_per_s", bytes, mark.time)));
        all
    } else {
        let slowest = marks.iter().min_by(|a, b| a.rate().total_cmp(&b.rate()));
        slowest
            .map(|mark| Measured::rate("msgs_per_s", mark.delivered, mark.time))
            .into_iter()
            .collect()
    })
}

/// What a service streams in a second while nothing else goes on.
fn streamed_alone(case: &Case) -> io::Result<u64> {
    const WATCH: Duration = Duration::from_secs(1);
    let mut members = start(case, u64::MAX)?;
    thread::sleep(WARM_UP);
    let (before, at) = (streamed(&mut members)?, Instant::now());
    thread::sleep(WATCH);
    let bytes = streamed(&mut members)? - before;
    Ok((bytes as f64 / at.elapsed().as_secs_f64()) as u64)
}

/// Bytes that the members have got by streams so far.
fn streamed(members: &mut [Member]) -> io::Result<u64> {
    let mut sum = 0;
    for member in members {
        let words = member.process.ask("streamed")?;
        let bytes = words.first().and_then(|word| word.parse::<u64>().ok());
        sum += bytes.ok_or_else(|| io::Error::other(format!("not a number: {words:?}")))?;
    }
    Ok(sum)
}

/// What each member saw since the last mark.
fn mark(members: &mut [Member]) -> io::Result<Vec<Mark>> {
    for member in members.iter_mut() {
        member.process.tell("mark")?;
    }
    members.iter_mut().map(|member| Mark::read(&member.process.hear("mark")?)).collect()
}
