//! `mainstay demo clock`: five processes keep their clocks together, and one of the clocks is faulty.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use mainstay_base::ClusterId;
use mainstay_clock::sync::global::Promise;
use mainstay_runtime::{Entropy as _, OsEntropy};
use thiserror::Error;

use super::faulty::AFTER;
use super::plot::{self, Panel, Sample};
use super::{DRIFT, FAULTY, NODES, SHOWN, Wrong, plan};
use crate::cluster::free_ports;
use crate::out::say;

const ROW_EVERY: Duration = Duration::from_millis(500);
/// How long a process may be silent.
const PATIENCE: Duration = Duration::from_secs(10);
const LINES_MAX: usize = 1024;
/// Of the column of a node.
const WIDTH: usize = 26;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// One algorithm alone, in place of all in turn.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(SHOWN.map(|(name, _)| name)))]
    algorithm: Option<String>,
    /// What is wrong with the faulty clock, in place of another fault for each algorithm.
    #[arg(long)]
    wrong: Option<Wrong>,
    /// How long each algorithm is shown.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Where the plot of skew and bound over time goes (SVG).
    #[arg(long)]
    plot: Option<PathBuf>,
}

/// Why the demo did not pass.
#[derive(Error, Debug)]
enum Failure {
    #[error("{0}")]
    System(#[from] io::Error),
    #[error("no entropy: {0}")]
    Entropy(#[from] mainstay_runtime::EntropyError),
    #[error("{0}")]
    Config(#[from] mainstay_clock::sync::ConfigError),
    #[error("{0}: {1}")]
    Violation(String, String),
    #[error("{0} does not withstand this fault: {1}")]
    Unfit(&'static str, &'static str),
    #[error("{0} ended by itself")]
    Ended(String),
    #[error("the processes are silent")]
    Silent,
}

pub(crate) fn run(options: &Options) -> ExitCode {
    match all(options) {
        Ok(()) => {
            say!("verdict: PASS");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            say!("verdict: FAIL: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn all(options: &Options) -> Result<(), Failure> {
    let chosen =
        |(name, _): &(&str, Wrong)| options.algorithm.as_deref().is_none_or(|only| only == *name);
    let mut panels = Vec::new();
    let mut failed = None;
    for (algorithm, wrong) in SHOWN.into_iter().filter(chosen) {
        let wrong = match options.wrong {
            Some(wrong) if wrong.is_withstood_by(algorithm) => wrong,
            Some(wrong) if options.algorithm.is_some() => {
                return Err(Failure::Unfit(algorithm, wrong.name()));
            }
            _ => wrong,
        };
        let mut run = Run::start(algorithm, wrong)?;
        let judged = run.watch(Duration::from_secs(options.seconds)).and_then(|()| run.judge());
        panels.push(run.panel());
        failed = failed.or_else(|| judged.err());
    }
    if let Some(path) = &options.plot {
        fs::write(path, plot::svg(&panels))?;
        say!("plot: {}", path.display());
    }
    failed.map_or(Ok(()), Err)
}

/// What a process said last.
#[derive(Clone, Copy, Default)]
struct Word {
    /// The clock less the time that all processes share.
    offset: i128,
    version: u64,
    synchronised: bool,
    bound: u64,
    heard: bool,
}

struct Process {
    child: Child,
    word: Word,
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

type Said = (usize, Option<String>);

struct Run {
    algorithm: &'static str,
    wrong: Wrong,
    processes: Vec<Process>,
    lines: Receiver<Said>,
    samples: Vec<Sample>,
    began: Instant,
    /// The fault showed: the faulty clock was outside the bound, or knew that it was; or it has said something wrong, or nothing where others wait for it.
    shown: bool,
    /// Words of the faulty one that it has changed or dropped.
    lies: u64,
    /// How far two clocks may be apart, in nanoseconds, where the algorithm promises that.
    precision: Option<u64>,
}

fn name(index: usize) -> String {
    format!("n{}", index + 1)
}

impl Run {
    fn start(algorithm: &'static str, wrong: Wrong) -> Result<Self, Failure> {
        let promise = Promise::of(&plan(algorithm)?)?.precision;
        let is_promised = promise != Duration::MAX;
        let precision = is_promised.then_some(promise.as_nanos() as u64);
        let cluster = ClusterId::from_entropy(OsEntropy.draw()?);
        let bound: Vec<TcpListener> = free_ports(OsEntropy.draw()?).take(NODES).collect();
        let addresses: Vec<SocketAddr> =
            bound.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
        drop(bound);
        let (said, lines) = mpsc::sync_channel(LINES_MAX);
        let mut processes = Vec::new();
        for index in 0..NODES {
            // From the slowest to the fastest.
            let drift = i64::from(DRIFT) * (2 * index as i64 - 4) / 4;
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["clock-node", "--cluster", &cluster.to_string()]);
            command.args(["--name", &name(index), "--algorithm", algorithm]);
            command.args(["--drift", &drift.to_string()]);
            for (index, address) in addresses.iter().enumerate() {
                command.args(["--node", &format!("{}={address}", name(index))]);
            }
            if index == FAULTY {
                command.args(["--wrong", wrong.name()]);
            }
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let out =
                child.stdout.take().ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
            let said = said.clone();
            thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    let _ = said.send((index, Some(line)));
                }
                let _ = said.send((index, None));
            });
            processes.push(Process { child, word: Word::default() });
        }
        let (samples, began) = (Vec::new(), Instant::now());
        let (shown, lies) = (false, 0);
        Ok(Self { algorithm, wrong, processes, lines, samples, began, shown, lies, precision })
    }

    fn watch(&mut self, time: Duration) -> Result<(), Failure> {
        say!("{}: {} has a faulty clock ({})", self.algorithm, name(FAULTY), self.wrong.name());
        let heads: String = (0..NODES).map(|index| format!("{:>WIDTH$}", name(index))).collect();
        say!("{:>6}{heads}{:>10}{:>10}", "s", "skew ms", "bound ms");
        let (mut row, mut heard) = (self.began + ROW_EVERY, Instant::now());
        while self.began.elapsed() < time {
            match self.lines.recv_timeout(Duration::from_millis(20)) {
                Ok((index, line)) => {
                    heard = Instant::now();
                    self.hear(index, line)?;
                }
                Err(RecvTimeoutError::Timeout) if heard.elapsed() < PATIENCE => {}
                Err(_) => return Err(Failure::Silent),
            }
            if Instant::now() >= row {
                row += ROW_EVERY;
                self.sample();
            }
        }
        Ok(())
    }

    fn hear(&mut self, index: usize, line: Option<String>) -> Result<(), Failure> {
        let line = line.ok_or_else(|| Failure::Ended(name(index)))?;
        if let Some(what) = line.strip_prefix("violation ") {
            // Whoever has a faulty clock is not judged.
            let is_judged = index != FAULTY;
            return if is_judged {
                Err(Failure::Violation(name(index), what.to_owned()))
            } else {
                Ok(())
            };
        }
        if let Some(count) = line.strip_prefix("lies ").and_then(|it| it.parse().ok()) {
            self.lies = count;
            self.shown |= index == FAULTY && count > 0;
            return Ok(());
        }
        let numbers: Vec<i128> =
            line.split(' ').skip(1).filter_map(|word| word.parse().ok()).collect();
        if let [real, clock, version, synchronised, bound] = numbers[..] {
            let last = self.processes[index].word;
            let is_late = self.began.elapsed() > AFTER;
            self.shown |= index == FAULTY && is_late && last.synchronised && synchronised == 0;
            self.processes[index].word = Word {
                offset: clock - real,
                version: version as u64,
                synchronised: synchronised == 1,
                bound: bound as u64,
                heard: true,
            };
        }
        Ok(())
    }

    fn correct(&self) -> impl Iterator<Item = &Word> {
        let words = self.processes.iter().take(FAULTY).map(|it| &it.word);
        words.filter(|word| word.heard && word.synchronised)
    }

    /// One row of the table, and one point of the plot.
    fn sample(&mut self) {
        let low = self.correct().map(|word| word.offset).min();
        let high = self.correct().map(|word| word.offset).max();
        let skew = high.zip(low).map_or(0, |(high, low)| (high - low) as u64);
        // Where each clock alone knows how far it may be wrong, two may be as far apart as both say.
        let said = self.correct().map(|word| word.bound).max().unwrap_or(0).saturating_mul(2);
        let bound = self.precision.unwrap_or(said);
        let faulty = self.processes[FAULTY].word;
        let from = |low: i128| (faulty.offset - low).unsigned_abs() > u128::from(bound);
        self.shown |= faulty.heard && low.is_some_and(from);
        let sample =
            Sample { at: self.began.elapsed(), skew, bound, judged: self.correct().count() };
        let millis = |nanos: i128| nanos as f64 / 1e6;
        let column = |process: &Process| {
            let Word { offset, version, synchronised, heard, bound } = process.word;
            let off = millis(offset - low.unwrap_or(offset));
            let mark = if !heard {
                "-"
            } else if synchronised {
                ""
            } else {
                "?"
            };
            let bound = millis(bound.into());
            format!("{:>WIDTH$}", format!("{off:+.3}{mark} ±{bound:.1} v{}", version % 1_000_000))
        };
        let columns: String = self.processes.iter().map(column).collect();
        let (skew, bound) = (millis(skew.into()), millis(bound.into()));
        say!("{:>6.1}{columns}{skew:>10.3}{bound:>10.3}", sample.at.as_secs_f64());
        self.samples.push(sample);
    }

    fn judge(&self) -> Result<(), Failure> {
        let fail = |what: String| Err(Failure::Violation(self.algorithm.to_owned(), what));
        if self.correct().count() < FAULTY {
            return fail("not all correct clocks are synchronised".to_owned());
        }
        let judged: Vec<&Sample> = self.samples.iter().filter(|it| it.judged > 1).collect();
        if judged.len() < 4 {
            return fail("too few readings".to_owned());
        }
        if !self.shown {
            return fail(format!("the fault did nothing: {}", self.wrong.name()));
        }
        match judged.iter().find(|it| it.skew > it.bound) {
            Some(it) => fail(format!("CLK-2: a skew of {} ns, {} at most", it.skew, it.bound)),
            None => {
                let worst = judged.iter().map(|it| it.skew).max().unwrap_or(0) as f64 / 1e6;
                let lies = match self.wrong {
                    Wrong::TwoFaced => format!(", {} words were wrong", self.lies),
                    Wrong::Silent => format!(", {} words were not said", self.lies),
                    Wrong::Offset | Wrong::Race => String::new(),
                };
                say!("{}: the worst skew was {worst:.3} ms{lies}\n", self.algorithm);
                Ok(())
            }
        }
    }

    fn panel(&self) -> Panel {
        let title = format!("{}, one clock {}", self.algorithm, self.wrong.name());
        Panel { title, samples: self.samples.clone() }
    }
}
