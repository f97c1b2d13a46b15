//! Logical time: stamps, merges, and messages attached to a context graph, all in memory on one thread. Synchronised clocks: what they promise
//! and what they do, in a simulation; and how well a clock is read.

mod reading;
mod skew;

use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mainstay_base::{ClusterId, Incarnation, NodeId, SiteId, ViewId};
use mainstay_clock::graph::{Config, Graph};
use mainstay_clock::vector::{Counting, Stamp};
use mainstay_clock::{Members, Time, hybrid, scalar, vector};

use crate::output::{Measured, Report};

const WARM_UP: Duration = Duration::from_millis(200);
const MEASURE: Duration = Duration::from_secs(1);
/// Steps between two looks at the time.
const BATCH: u64 = 1_000;
/// How far a hybrid stamp may be ahead, as is uhlc's default.
const AHEAD: Duration = Duration::from_millis(500);

/// Measures all cases.
pub(crate) fn run(report: &mut Report) {
    report.case("clock", "clock/stamp", stamps);
    report.case("clock", "clock/stamp/given", || {
        let mut clock = hybrid::Clock::new(site(0), AHEAD, hybrid::Moment::ZERO);
        let mut now = 0;
        let each = each(|| {
            now += 1;
            black_box(clock.stamp(Time::from_nanos(black_box(now / 8)))).is_ok()
        });
        Ok(vec![Measured::nanos("ns_per_stamp", each)])
    });
    report.case("clock", "clock/scalar", || {
        let mut clock = scalar::Clock::new(site(0));
        let each = each(|| black_box(clock.observe(black_box(7))).is_ok());
        Ok(vec![Measured::nanos("ns_per_stamp", each)])
    });
    report.case("clock", "clock/vector/merge/16", merges);
    report.case("clock", "clock/graph/attach/5", || attaches(5));
    reading::run(report);
    skew::run(report);
}

fn site(index: usize) -> SiteId {
    let node = NodeId::new(ClusterId::from_entropy(1), &format!("n{index}"));
    SiteId { node, incarnation: Incarnation(1) }
}

fn members(count: usize) -> io::Result<Members> {
    let view = ViewId { number: 1, nonce: 0 };
    Members::new(view, (0..count).map(site)).map_err(io::Error::other)
}

/// How long a step takes, in seconds.
fn each(mut step: impl FnMut() -> bool) -> f64 {
    each_for(WARM_UP, &mut step);
    each_for(MEASURE, &mut step)
}

fn each_for(window: Duration, step: &mut impl FnMut() -> bool) -> f64 {
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < window {
        assert!((0..BATCH).all(|_| step()), "no step fails");
        count += BATCH;
    }
    begun.elapsed().as_secs_f64() / count as f64
}

/// Hybrid stamps beside those of uhlc, in turns; both read the wall clock for each.
fn stamps() -> io::Result<Vec<Measured>> {
    let mut clock = hybrid::Clock::new(site(0), AHEAD, hybrid::Moment::ZERO);
    let other = uhlc::HLC::default();
    let mut ours = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        black_box(clock.stamp(Time::ZERO.saturating_add(now))).is_ok()
    };
    let mut theirs = || black_box(other.new_timestamp()).get_time().as_u64() > 0;
    let (mut our_sum, mut their_sum) = (0.0, 0.0);
    let slices = 10;
    for _ in 0..slices {
        our_sum += each_for(MEASURE / slices, &mut ours) / f64::from(slices);
        their_sum += each_for(MEASURE / slices, &mut theirs) / f64::from(slices);
    }
    Ok(vec![
        Measured::nanos("ns_per_stamp", our_sum),
        Measured::nanos("uhlc_ns_per_stamp", their_sum),
        Measured::ratio(
            "uhlc_over_ours",
            Duration::from_secs_f64(their_sum),
            Duration::from_secs_f64(our_sum),
        ),
    ])
}

/// Two stamps of 16 entries into one.
fn merges() -> io::Result<Vec<Measured>> {
    let members = members(16)?;
    let clock = |at| {
        vector::Clock::new(members.clone(), site(at), Counting::Events).map_err(io::Error::other)
    };
    let mut clocks = (0..16).map(clock).collect::<io::Result<Vec<_>>>()?;
    for at in 0..16 {
        let sent = clocks[at].send();
        clocks[(at * 7 + 3) % 16].receive(&sent).map_err(io::Error::other)?;
    }
    let stamps: Vec<Stamp> = clocks.iter().map(|clock| clock.now().clone()).collect();
    let (mut into, mut next) = (stamps[0].clone(), 0);
    let merge = each(|| {
        next = (next + 1) % stamps.len();
        black_box(&mut into).merge(black_box(&stamps[next])).is_ok()
    });
    let receive = each(|| {
        next = (next + 1) % stamps.len();
        let mut stamp = stamps[next].clone();
        stamp.merge(black_box(&stamps[0])).is_ok() && black_box(stamp).counts().len() == 16
    });
    Ok(vec![
        Measured::nanos("ns_per_merge", merge),
        Measured::nanos("ns_per_merge_into_a_copy", receive),
    ])
}

/// All graphs of a conversation in one thread: two of them say something at a time, so that there are branches.
fn attaches(count: usize) -> io::Result<Vec<Measured>> {
    let members = members(count)?;
    let new =
        |at| Graph::<u64>::new(Config::default(), &members, site(at)).map_err(io::Error::other);
    let mut graphs = (0..count).map(new).collect::<io::Result<Vec<_>>>()?;
    let (mut attached, mut most, mut round) = (0_u64, 0, 0);
    let mut talk = |window: Duration| {
        let (begun, before) = (Instant::now(), attached);
        while begun.elapsed() < window {
            for _ in 0..BATCH / 10 {
                round += 1;
                let speakers = [round % count, (round + 2) % count];
                let sent = speakers.map(|at| graphs[at].send(0).map(|links| (at, links)));
                for sent in sent {
                    let (from, links) = sent.map_err(io::Error::other)?;
                    for to in (0..count).filter(|to| *to != from) {
                        graphs[to].receive(links.clone(), 0).map_err(io::Error::other)?;
                    }
                }
                for graph in &mut graphs {
                    while graph.poll_attached().is_some() {
                        attached += 1;
                    }
                }
            }
            most = graphs.iter().map(|graph| graph.stats().attached).fold(most, usize::max);
        }
        io::Result::Ok(((attached - before), begun.elapsed()))
    };
    talk(WARM_UP)?;
    let (attached, time) = talk(MEASURE)?;
    Ok(vec![
        Measured::rate("attaches_per_s", attached, time),
        Measured::count("attached_max", most as u64),
    ])
}
