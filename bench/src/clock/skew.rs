//! Synchronised clocks over 1,000 simulated seconds: the worst skew beside the computed bound and the one that no algorithm gets below, and the messages of a period.
//!
//! The hardware of one half is fast and of the other one slow; each message takes the shortest or the longest time, or one between. The last f
//! clocks are two-faced where the algorithm withstands that: ahead for one half of the readers, behind for the other one.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use mainstay_agreement::sign::Keyring;
use mainstay_base::{Duration, Instant, Rng};
use mainstay_clock::sync::{
    Algorithm, Begin, Config, Drift, Function, Kind, Message, Origin, Output, Plan, Reading, Stamp,
    Way,
};

use crate::output::{Measured, Report};

const SECONDS: u64 = 1_000;
/// Parts of a billion: with a delay of 50 µs to 1 ms and a period of 1 s, u is more than 20 ρP.
const DRIFT: u32 = 10_000;
const EPOCH: u64 = 1_000_000_000_000;
const BILLION: i128 = 1_000_000_000;

/// The cases: each algorithm with the most faulty clocks that it withstands.
pub(super) fn run(report: &mut Report) {
    let averaging = |function, reading| Kind::Averaging { function, reading };
    let arrival = |function| averaging(function, Reading::ARRIVAL);
    let thirds = [(4, 1), (7, 2), (10, 3)];
    // Signatures of ten clocks take too long for a bench.
    let halves = [(3, 1), (5, 2)];
    let stamped = |way| averaging(Function::Midpoint, Reading { way, stamp: Stamp::Kernel });
    let kinds: [(Kind, &[(usize, usize)]); 16] = [
        (arrival(Function::Egocentric), &thirds),
        (arrival(Function::Fast), &thirds),
        (arrival(Function::Midpoint), &thirds),
        (averaging(Function::Midpoint, Reading::ROUND_TRIP), &thirds),
        (stamped(Way::Arrival), &thirds),
        (stamped(Way::RoundTrip), &thirds),
        (arrival(Function::Average), &thirds),
        (Kind::agreement(false), &thirds),
        (Kind::agreement(true), &halves),
        (Kind::Srikanth { signed: false }, &thirds),
        (Kind::Srikanth { signed: true }, &halves),
        (Kind::Halpern, &[(3, 1), (4, 2)]),
        (cristian(), &[(3, 1), (4, 1), (5, 2), (7, 3), (10, 4)]),
        (hardware(), &thirds),
        (Kind::External { error: REFERENCE }, &[(4, 0), (7, 0), (10, 0)]),
        (Kind::interval(REFERENCE), &[(4, 1), (7, 3), (10, 4)]),
    ];
    for (kind, sizes) in kinds {
        let way = match kind {
            Kind::Averaging { reading, .. } if reading != Reading::ARRIVAL => {
                format!("-{}", reading.name())
            }
            _ => String::new(),
        };
        for (nodes, faulty) in sizes {
            let case = format!("clock/skew/{}{way}/{nodes}/{faulty}", kind.name());
            report.case("clock", &case, || measure(&kind, *nodes, *faulty));
        }
    }
}

fn cristian() -> Kind {
    Kind::Probabilistic {
        error_max: Duration::from_micros(700),
        attempts: 20,
        wait: Duration::from_millis(5),
        patience: Duration::from_millis(50),
        stamp: Stamp::Turn,
    }
}

/// How far references are from the true time, and the clocks that say an interval at the start.
const REFERENCE: Duration = Duration::from_millis(1);
/// The longest delay of what is stamped, where the queue is none of it.
const WIRE: Duration = Duration::from_micros(150);
/// From one reading of a reference to the next.
const READS_EVERY: u64 = 500_000_000;

/// The first node has the reference.
fn hardware() -> Kind {
    Kind::Hardware { master: Some(0), pull_max: Duration::from_millis(2), error: REFERENCE }
}

/// Who reads a reference.
fn reads(kind: &Kind, node: usize) -> bool {
    match kind {
        Kind::Hardware { .. } | Kind::Interval { .. } => node == 0,
        Kind::External { .. } => true,
        _ => false,
    }
}

fn measure(kind: &Kind, nodes: usize, faulty: usize) -> io::Result<Vec<Measured>> {
    let mut config = Config::lan(kind.clone(), nodes, faulty);
    config.drift = Drift::per_billion(DRIFT);
    let is_stamped =
        matches!(kind, Kind::Averaging { reading, .. } if reading.stamp == Stamp::Kernel);
    if is_stamped {
        // The same delays, of which the most is the wait for the process. Clocks that begin further apart than they are kept hide what that gains.
        (config.delay.max, config.queue) = (WIRE, config.delay.max - WIRE);
        config.initial = WIRE;
    }
    let plan = Plan::new(config).map_err(io::Error::other)?;
    let (min, max) = (plan.config().delay.min, plan.config().delay.max);
    let lower = (max - min) * (nodes as u32 - 1) / nodes as u32;
    let says_itself = plan.bounds().precision == Duration::MAX;
    let promised = plan.bounds().precision;
    let mut world = World::new(Arc::new(plan), nodes as u64 * 100 + faulty as u64)?;
    world.run(SECONDS * 1_000_000_000);
    let worst = Duration::from_nanos(world.worst);
    // Where each clock says how far it may be wrong, two are no further apart than both say.
    let bound = if says_itself { Duration::from_nanos(world.said) } else { promised };
    if let Some(wrong) = world.wrong {
        return Err(io::Error::other(wrong));
    }
    let messages = world.sent as f64 / SECONDS as f64;
    let each = match kind {
        Kind::Probabilistic { error_max, .. } => trips(world.delay, *error_max),
        _ => 0.0,
    };
    check(kind, nodes, (worst, bound, lower), (messages, each)).map_err(io::Error::other)?;
    let read = world.asked as f64 / world.read as f64;
    if each > 0.0 && (read - each).abs() > each / 20.0 {
        let wrong = format!("{read} messages for each read, where {each} are expected");
        return Err(io::Error::other(wrong));
    }
    Ok(vec![
        Measured::micros("worst_us", worst),
        Measured::micros("bound_us", bound),
        Measured::micros("lower_us", lower),
        Measured::ratio("worst_over_lower", worst, lower),
        Measured::number("messages_per_period", messages),
    ])
}

/// The messages of a reading of Cristian's: a question and an answer, as often as it takes; 2/(1 - p) on average, where each fails with probability p. Each of
/// the two ways takes the shortest time, the longest, or one between.
fn trips((min, max): (u64, u64), error_max: Duration) -> f64 {
    let most = 2.0 * error_max.as_nanos() as f64 / (max - min) as f64;
    let even = |most: f64| most.clamp(0.0, 1.0);
    let sum = |most: f64| match most {
        ..0.0 => 0.0,
        0.0..1.0 => most * most / 2.0,
        1.0..2.0 => 1.0 - (2.0 - most) * (2.0 - most) / 2.0,
        _ => 1.0,
    };
    let at = |most: f64| if most >= 0.0 { 1.0 } else { 0.0 };
    let edges = (at(most) + 2.0 * at(most - 1.0) + at(most - 2.0)) / 16.0;
    let mixed = (even(most) + even(most - 1.0)) / 4.0;
    2.0 / (edges + mixed + sum(most) / 4.0)
}

/// What was promised of the skew, and of the messages.
fn check(
    kind: &Kind,
    nodes: usize,
    (worst, bound, lower): (Duration, Duration, Duration),
    (messages, each): (f64, f64),
) -> Result<(), String> {
    if worst > bound {
        return Err(format!("a skew of {worst:?}, where {bound:?} is the bound"));
    }
    let is_tight =
        matches!(kind, Kind::Averaging { function: Function::Midpoint | Function::Average, .. });
    // That is promised where delays count for more than drift.
    let drifts = Duration::from_secs(1) * DRIFT / 1_000_000_000 * 20;
    if is_tight && lower >= drifts && worst > lower * 4 {
        return Err(format!("a skew of {worst:?}, where four times {lower:?} is wanted"));
    }
    let pairs = (nodes * (nodes - 1)) as f64;
    let hops = ((nodes - 1) / 3 + 1) as f64;
    let most = match kind {
        Kind::Averaging { reading: Reading { way: Way::RoundTrip, .. }, .. } => 2.0 * pairs,
        Kind::Averaging { .. } => pairs,
        Kind::Agreement { signed: false, .. } => hops * pairs,
        // Each clock is passed on once by each other process.
        Kind::Agreement { signed: true, .. } => pairs * nodes as f64,
        Kind::Srikanth { .. } => 2.0 * (nodes * nodes) as f64,
        Kind::Halpern => (nodes * nodes) as f64,
        Kind::Hardware { .. } => pairs,
        Kind::Interval { .. } => 2.0 * pairs,
        Kind::External { .. } => 0.0,
        // Beats of the master, their answers, and reads.
        Kind::Probabilistic { patience, .. } => {
            let beats = 4.0 / patience.as_secs_f64();
            (nodes - 1) as f64 * (2.0 * beats + each * 1.05)
        }
    };
    // The last round may be under way, and clocks are not exact.
    if messages > most * 1.005 {
        return Err(format!("{messages} messages in a period, where {most} is the cost"));
    }
    Ok(())
}

struct World {
    rng: Rng,
    now: u64,
    nodes: Vec<Algorithm>,
    drifts: Vec<i64>,
    correct: usize,
    /// By when they are taken in, and in which order they were sent; and when they come.
    flying: BTreeMap<(u64, u64), (u64, usize, usize, Message)>,
    /// How long what has come may wait.
    queue: u64,
    sent: u64,
    /// Questions and answers, and readings that were taken.
    asked: u64,
    read: u64,
    worst: u64,
    reach: i64,
    delay: (u64, u64),
    kind: Kind,
    /// The next reading of a reference.
    reads: u64,
    /// The largest sum of what two clocks said of their errors.
    said: u64,
    /// A clock that was further off than it said.
    wrong: Option<String>,
}

impl World {
    fn new(plan: Arc<Plan>, seed: u64) -> io::Result<Self> {
        let mut rng = Rng::new(seed).stream("bench");
        let config = plan.config();
        let (nodes, drift) = (config.nodes, i64::from(DRIFT) - 1);
        let secrets: Vec<[u8; 32]> = (0..nodes).map(|it| [it as u8 + 1; 32]).collect();
        let publics: Vec<_> = secrets.iter().map(|it| Keyring::public(*it)).collect();
        let initial = config.initial.as_nanos() as u64;
        let begin = |me: usize| {
            let keys = Keyring::ed25519(me, secrets[me], &publics).map_err(io::Error::other)?;
            let begin = Begin {
                plan: Arc::clone(&plan),
                me,
                origin: Origin::Together(rng.below(initial) as i64),
                now: Instant::from_nanos(EPOCH),
                seed: rng.next_u64(),
                keys: Some(keys),
            };
            Algorithm::new(begin).map_err(io::Error::other)
        };
        let all = (0..nodes).map(begin).collect::<io::Result<_>>()?;
        let lies = !matches!(config.kind, Kind::Probabilistic { .. });
        Ok(Self {
            rng: Rng::new(seed).stream("network"),
            now: 0,
            nodes: all,
            drifts: (0..nodes).map(|it| if it % 2 == 0 { drift } else { -drift }).collect(),
            correct: nodes - if lies { config.faulty } else { 0 },
            flying: BTreeMap::new(),
            queue: config.queue.as_nanos() as u64,
            sent: 0,
            asked: 0,
            read: 0,
            worst: 0,
            reach: i64::try_from(plan.bounds().precision.as_nanos()).unwrap_or(1_000_000_000),
            kind: config.kind.clone(),
            reads: 0,
            said: 0,
            wrong: None,
            delay: (config.delay.min.as_nanos() as u64, config.delay.max.as_nanos() as u64),
        })
    }

    /// What the hardware clock of a node says at `real`.
    fn local(&self, node: usize, real: u64) -> Instant {
        let drifted = i128::from(real) * i128::from(self.drifts[node]) / BILLION;
        Instant::from_nanos((i128::from(EPOCH + real) + drifted) as u64)
    }

    /// When it says so.
    fn real(&self, node: usize, local: Instant) -> u64 {
        let passed = i128::from(local.as_nanos().saturating_sub(EPOCH));
        let mut real = (passed * BILLION / (BILLION + i128::from(self.drifts[node]))) as u64;
        while self.local(node, real) < local {
            real += 1;
        }
        real
    }

    fn run(&mut self, until: u64) {
        let mut due: BTreeMap<Reverse<usize>, u64> = BTreeMap::new();
        for node in 0..self.nodes.len() {
            self.after(node, &mut due);
        }
        loop {
            let timer = due.iter().min_by_key(|(_, at)| **at).map(|(node, at)| (*at, node.0));
            let flight = self.flying.first_key_value().map(|(at, _)| at.0);
            let reads = (0..self.nodes.len()).any(|it| reads(&self.kind, it)).then_some(self.reads);
            let at = [timer.map(|it| it.0), flight, reads].into_iter().flatten().min();
            let Some(at) = at.filter(|at| *at <= until) else { return };
            // Clocks are furthest apart just before one is corrected, or just after.
            self.now = at.max(self.now);
            self.look();
            if reads == Some(at) {
                self.refer(&mut due);
                continue;
            }
            let node = match timer {
                Some((due, node)) if due <= at => {
                    let now = self.local(node, self.now);
                    self.nodes[node].on_deadline(now);
                    node
                }
                _ => {
                    let Some((_, (came, from, to, message))) = self.flying.pop_first() else {
                        return;
                    };
                    let (now, at) = (self.local(to, self.now), self.local(to, came));
                    self.nodes[to].on_datagram(now, at, from, message);
                    to
                }
            };
            self.after(node, &mut due);
            self.look();
        }
    }

    /// Each reference is as far off as it may be, in one direction or the other.
    fn refer(&mut self, due: &mut BTreeMap<Reverse<usize>, u64>) {
        let readers: Vec<usize> =
            (0..self.correct).filter(|node| reads(&self.kind, *node)).collect();
        for node in readers {
            let now = self.local(node, self.now);
            let off = REFERENCE.as_nanos() as i64 * if node % 2 == 0 { 1 } else { -1 };
            self.nodes[node].on_reference(now, now, (EPOCH + self.now) as i64 + off);
            self.after(node, due);
        }
        self.reads = self.now + READS_EVERY;
        self.look();
    }

    /// What is said of the distance from the true time is so, where something is said. The common time of hardware is not near to it at first.
    fn look_at_errors(&mut self) {
        if !matches!(self.kind, Kind::Interval { .. } | Kind::External { .. }) {
            return;
        }
        let mut said = Vec::new();
        for node in 0..self.correct {
            let now = self.local(node, self.now);
            let Some(error) = self.nodes[node].error(now) else { continue };
            let off = self.nodes[node].clock().nanos(now).abs_diff((EPOCH + self.now) as i64);
            if off > error.unsigned_abs() {
                self.wrong = Some(format!("clock {node} is {off} ns off, and says {error}"));
            }
            said.push(error.unsigned_abs());
        }
        said.sort_unstable();
        self.said = self.said.max(said.iter().rev().take(2).sum());
    }

    fn look(&mut self) {
        self.look_at_errors();
        let clock = |node: usize| self.nodes[node].clock().nanos(self.local(node, self.now));
        let all = (0..self.correct).filter(|node| self.nodes[*node].is_synchronised()).map(clock);
        let (low, high) =
            all.fold((i64::MAX, i64::MIN), |(low, high), it| (low.min(it), high.max(it)));
        self.worst = self.worst.max(high.saturating_sub(low).max(0) as u64);
    }

    /// What a node says, and when it is due.
    fn after(&mut self, node: usize, due: &mut BTreeMap<Reverse<usize>, u64>) {
        while let Some(output) = self.nodes[node].poll() {
            self.read += u64::from(matches!(output, Output::Correct(_)));
            if let Output::Send { to, message } = output {
                self.sent += 1;
                let is_read = matches!(message, Message::Request { .. } | Message::Reply { .. });
                self.asked += u64::from(is_read);
                let message = if node < self.correct { message } else { self.lie(to, message) };
                let (min, max) = self.delay;
                let came = self.now + self.draw(min, max);
                let taken = if self.queue > 0 { came + self.draw(0, self.queue) } else { came };
                self.flying.insert((taken, self.sent), (came, node, to, message));
            }
        }
        match self.nodes[node].deadline() {
            Some(at) => due.insert(Reverse(node), self.real(node, at).max(self.now)),
            None => due.remove(&Reverse(node)),
        };
    }

    /// The shortest time, the longest, or one between.
    fn draw(&mut self, min: u64, max: u64) -> u64 {
        match self.rng.below(4) {
            0 => min,
            1 => max,
            _ => self.rng.between(min, max),
        }
    }

    fn lie(&self, to: usize, message: Message) -> Message {
        let off = if to.is_multiple_of(2) { self.reach } else { -self.reach };
        match message {
            Message::Tick { round, value, sure, pull } => {
                Message::Tick { round, value: value + off, sure, pull }
            }
            Message::Reply { nonce, value, error, term, held } => {
                Message::Reply { nonce, value: value + off, error, term, held }
            }
            other => other,
        }
    }
}
