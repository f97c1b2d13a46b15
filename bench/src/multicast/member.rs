//! One member: casts when it is told to, and counts what is delivered.
//!
//! It says `view MEMBERS` when a view begins, and `ready ROLE` behind it if all are in it. On `cast` it casts for ever, on `mark` it says what happened since the last
//! one; it ends with its standard input.

use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use bytes::Bytes;
use mainstay_base::{GroupId, Instant, Level, NodeId, Order};
use mainstay_multicast::{Config, Event};
use mainstay_runtime::{OsEntropy, Tcp, TcpOptions, TokioTime};
use mainstay_site::{
    AppPort, Application, CheckpointDone, Command, SiteHandle, SiteParts, core, start,
};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;

use crate::cluster::{Seat, ready};
use crate::output::percentile;
use crate::process::{orders, say};

/// Most own bytes that are not known to be everywhere; the window of the link holds it more than twice.
const UNSTABLE_BYTES: usize = 8 << 20;
/// Most times that are kept between two marks.
const SAMPLES_MAX: usize = 1 << 20;
/// When a cast that was refused for want of room is tried again.
const RETRY: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum GroupLevel {
    /// In order at the member.
    Delivered,
    /// At a majority.
    Majority,
    /// At all.
    Safe,
}

impl GroupLevel {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Majority => "majority",
            Self::Safe => "safe",
        }
    }

    fn level(self) -> Level {
        match self {
            Self::Delivered => Level::Delivered,
            Self::Majority => Level::Majority,
            Self::Safe => Level::Safe,
        }
    }
}

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    seat: Seat,
    /// Bytes of a message.
    #[arg(long)]
    size: usize,
    /// Most own casts on the way.
    #[arg(long)]
    outstanding: u64,
    /// When messages are delivered, and what the caster waits for.
    #[arg(long, value_enum)]
    level: GroupLevel,
    /// A task beside the site casts, one message a call; else the application casts as much as it may at each turn.
    #[arg(long)]
    calls: bool,
}

/// What a member saw between two marks.
pub(crate) struct Mark {
    pub(crate) delivered: u64,
    pub(crate) time: Duration,
    /// Views that began, and restarts.
    pub(crate) disturbed: u64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Mark {
    /// Messages a second.
    pub(crate) fn rate(&self) -> f64 {
        self.delivered as f64 / self.time.as_secs_f64()
    }

    /// Reads what [`line`](Self::line) wrote, but for its first word.
    pub(crate) fn read(words: &[String]) -> io::Result<Self> {
        let numbers: Result<Vec<u64>, _> = words.iter().map(|word| word.parse()).collect();
        match numbers.as_deref() {
            Ok(&[delivered, nanos, disturbed, p50, p99]) => Ok(Self {
                delivered,
                time: Duration::from_nanos(nanos),
                disturbed,
                p50: Duration::from_nanos(p50),
                p99: Duration::from_nanos(p99),
            }),
            _ => Err(io::Error::other(format!("not a mark: {words:?}"))),
        }
    }

    fn line(&self) -> String {
        let [time, p50, p99] = [self.time, self.p50, self.p99].map(|time| time.as_nanos());
        format!("mark {} {time} {} {p50} {p99}", self.delivered, self.disturbed)
    }
}

pub(crate) fn run(options: Options) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(options))
}

async fn serve(options: Options) -> io::Result<()> {
    let calls = options.calls.then(|| {
        let room = usize::try_from(options.outstanding).unwrap_or(Semaphore::MAX_PERMITS);
        Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS)))
    });
    let payload = Bytes::from(vec![7; options.size]);
    let site = site(options, calls.clone())?;
    let mut orders = orders();
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            closed = site.closed() => {
                return Err(io::Error::other(format!("the site halted: {closed:?}")));
            }
        };
        let order = match order.as_deref() {
            Some("cast") => {
                if let Some(room) = calls.clone() {
                    tokio::task::spawn_local(call(site.clone(), room, payload.clone()));
                    continue;
                }
                Told::Cast
            }
            Some("mark") => Told::Mark,
            Some(other) => return Err(io::Error::other(format!("not an order: {other:?}"))),
            None => return Ok(()),
        };
        site.send(order).await.map_err(|_| io::Error::other("the site has closed"))?;
    }
}

/// Casts one message a call for as long as the site lives and there is room.
async fn call(site: SiteHandle<Told>, room: Arc<Semaphore>, payload: Bytes) {
    while let Ok(permit) = room.acquire().await {
        permit.forget();
        if site.send(Told::One(payload.clone())).await.is_err() {
            return;
        }
    }
}

fn site(options: Options, calls: Option<Arc<Semaphore>>) -> io::Result<SiteHandle<Told>> {
    let Options { seat, size, outstanding, level, .. } = options;
    let level = level.level();
    let names = seat.nodes();
    let nodes: BTreeSet<_> = names.keys().map(|name| NodeId::new(seat.cluster, name)).collect();
    let group = GroupId::new(seat.cluster, "bench");
    let me = NodeId::new(seat.cluster, &seat.name);
    let mut caster = Caster::new(group, me, nodes.len(), level, size, outstanding);
    caster.room = calls;
    let config = Config::new(group, nodes)
        .deliver_at(level)
        .stateful(false)
        .unstable_bytes(UNSTABLE_BYTES)
        .build()
        .map_err(io::Error::other)?;
    let time = Rc::new(TokioTime::new());
    let mut tcp = TcpOptions::listening(seat.address()?);
    tcp.queue_bytes_max = 5 * UNSTABLE_BYTES;
    let transport = Box::new(Tcp::new(tcp, time.clone()).map_err(io::Error::other)?);
    let entropy = Box::new(OsEntropy);
    let mut parts = SiteParts::new(seat.cluster, seat.name, names, transport, time, entropy);
    parts.groups = vec![config];
    parts.window_bytes = 4 * UNSTABLE_BYTES;
    parts.bootstrap = true;
    start(parts, Box::new(caster)).map_err(io::Error::other)
}

/// What the member is told to do.
enum Told {
    /// This message.
    One(Bytes),
    /// As many as may be on the way.
    Cast,
    Mark,
}

impl Command for Told {
    fn weight(&self) -> usize {
        let payload = if let Self::One(payload) = self { payload.len() } else { 0 };
        size_of::<Self>() + payload
    }
}

/// Keeps so many own casts on the way, and counts.
struct Caster {
    group: GroupId,
    me: NodeId,
    members: usize,
    level: Level,
    payload: Bytes,
    outstanding: u64,
    casting: bool,
    /// Casts without an answer, the number of the last one answered, and that of the last one that reached the level.
    asked: u64,
    cast: u64,
    reached: u64,
    retry_at: Option<Instant>,
    /// Of those who cast by calls, and how many of these were refused: they call again later.
    room: Option<Arc<Semaphore>>,
    refused: usize,
    /// When the one cast began, if there is only one at a time.
    begun: Option<Clock>,
    /// Since the last mark.
    marked: Clock,
    samples: Vec<Duration>,
    delivered: u64,
    disturbed: u64,
}

impl Caster {
    fn new(
        group: GroupId,
        me: NodeId,
        members: usize,
        level: Level,
        size: usize,
        outstanding: u64,
    ) -> Self {
        Self {
            group,
            me,
            members,
            level,
            payload: vec![7; size].into(),
            outstanding,
            casting: false,
            asked: 0,
            cast: 0,
            reached: 0,
            retry_at: None,
            room: None,
            refused: 0,
            begun: None,
            marked: Clock::now(),
            samples: Vec::new(),
            delivered: 0,
            disturbed: 0,
        }
    }

    fn on_group(&mut self, event: Event, port: &AppPort<'_>) {
        match event {
            Event::Deliver(batch) => self.delivered += batch.len() as u64,
            Event::View(view) => {
                self.disturbed += 1;
                say(&format!("view {}", view.members.len()));
                if view.members.len() == self.members {
                    let sequencer = port.group(self.group).and_then(|group| group.sequencer);
                    say(&ready(sequencer.is_some_and(|site| site.node == self.me)));
                }
            }
            Event::Reached { level, upto, .. } if level == self.level => {
                if let Some(room) = &self.room {
                    room.add_permits(upto.saturating_sub(self.reached) as usize);
                }
                self.reached = upto;
                if let Some(begun) = self.begun.take()
                    && self.samples.len() < SAMPLES_MAX
                {
                    self.samples.push(begun.elapsed());
                }
            }
            _ => {}
        }
    }

    fn fill(&mut self, port: &mut AppPort<'_>) {
        while self.asked + self.cast - self.reached < self.outstanding {
            if self.outstanding == 1 {
                self.begun = Some(Clock::now());
            }
            self.asked += 1;
            port.cast(self.group, 0, Order::Total, self.level, self.payload.clone());
        }
    }

    fn mark(&mut self) {
        self.samples.sort_unstable();
        let mark = Mark {
            delivered: std::mem::take(&mut self.delivered),
            time: self.marked.elapsed(),
            disturbed: std::mem::take(&mut self.disturbed),
            p50: percentile(&self.samples, 50),
            p99: percentile(&self.samples, 99),
        };
        self.samples.clear();
        self.marked = Clock::now();
        say(&mark.line());
    }
}

impl Application for Caster {
    type Command = Told;

    fn on_output(&mut self, now: Instant, output: core::Output, port: &mut AppPort<'_>) {
        match output {
            core::Output::Cast { result, .. } => {
                self.asked -= 1;
                match result {
                    Ok(message) => self.cast = message.sequence,
                    Err(_) => {
                        self.refused += 1;
                        self.retry_at = Some(now + RETRY);
                    }
                }
            }
            core::Output::Group { event, .. } => self.on_group(event, port),
            _ => {}
        }
    }

    fn on_command(&mut self, _now: Instant, told: Told, port: &mut AppPort<'_>) {
        match told {
            Told::One(payload) => {
                self.asked += 1;
                port.cast(self.group, 0, Order::Total, self.level, payload);
            }
            Told::Cast => self.casting = true,
            Told::Mark => self.mark(),
        }
    }

    fn on_checkpoint(&mut self, _now: Instant, _done: CheckpointDone, _port: &mut AppPort<'_>) {}

    fn restarted(&mut self, _now: Instant) {
        self.disturbed += 1;
        // The numbers of the next incarnation begin anew.
        (self.asked, self.cast, self.reached) = (0, 0, 0);
        (self.retry_at, self.begun) = (None, None);
    }

    fn end_turn(&mut self, now: Instant, port: &mut AppPort<'_>) {
        if self.retry_at.take_if(|at| *at <= now).is_some()
            && let Some(room) = &self.room
        {
            room.add_permits(std::mem::take(&mut self.refused));
        }
        if self.casting && self.retry_at.is_none() && port.is_up() {
            self.fill(port);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at
    }
}
