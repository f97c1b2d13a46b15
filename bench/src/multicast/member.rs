//! One member: casts when it is told to, and counts what is delivered.
//!
//! It says `view MEMBERS` when a view begins, and `ready ROLE` behind it if all are in it. On `cast` it casts for ever, on `mark` it says what happened since the last
//! one; it ends with its standard input.

mod bulk;
mod called;
mod turned;

use std::io;
use std::time::{Duration, Instant as Clock};

use mainstay_base::Level;

use crate::cluster::Seat;
use crate::output::percentile;
use crate::process::{self, orders, say};

/// Most times that are kept between two marks.
const SAMPLES_MAX: usize = 1 << 20;

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
    /// A task casts through the handle, one message a call, and an actor counts; else an application on the site casts as much as it may at
    /// each turn.
    #[arg(long)]
    calls: bool,
    /// Services mounted beside the group.
    #[arg(long, default_value = "0")]
    services: usize,
    /// Bytes a second that the first of them streams to one peer.
    #[arg(long, default_value = "0")]
    bulk: u64,
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
    process::run(serve(options))
}

async fn serve(options: Options) -> io::Result<()> {
    if options.calls { called::serve(options).await } else { turned::serve(options).await }
}

/// What a member counts between two marks.
struct Counts {
    since: Clock,
    samples: Vec<Duration>,
    delivered: u64,
    disturbed: u64,
}

impl Counts {
    fn new() -> Self {
        Self { since: Clock::now(), samples: Vec::new(), delivered: 0, disturbed: 0 }
    }

    fn sample(&mut self, time: Duration) {
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(time);
        }
    }

    fn mark(&mut self) {
        self.samples.sort_unstable();
        let mark = Mark {
            delivered: std::mem::take(&mut self.delivered),
            time: self.since.elapsed(),
            disturbed: std::mem::take(&mut self.disturbed),
            p50: percentile(&self.samples, 50),
            p99: percentile(&self.samples, 99),
        };
        self.samples.clear();
        self.since = Clock::now();
        say(&mark.line());
    }
}
