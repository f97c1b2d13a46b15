//! What all example systems have in common, so that an example is its composition and its scenario.
//!
//! An [`Example`] says how one run of it goes and by which criteria its log is judged; [`main`] does the rest:
//!
//! - **SYS-1** Without arguments an example runs to a verdict. `--seed` changes the schedule of faults, `--faults` replaces it
//!   ([`script`] is the format). Each seed runs twice, and the logs must be equal. A script that goes outside the failure model is
//!   refused (OV-1): [`HarnessError::Beyond`].
//! - **SYS-2** Without faults (`--no-faults`) the results are those of a sequential model.
//! - **SYS-3** It prints which service stands on which, and why; that must be what the [figure](structure) says of these services.
//! - **SYS-4** `--campaign` runs many seeds, within the failure model.
//! - **SYS-5** `--outside` runs a script outside the failure model, and shows the consequence that is documented.
//!
//! Criteria are judged from the log alone, but for SYS-3. `--broken` plants a fault; `cargo xtask examples NAME --broken` shows that each criterion
//! fails under at least one.

mod options;
mod picture;
pub mod process;
mod run;
pub mod script;
pub mod structure;
mod table;

use std::fmt::{self, Debug, Write as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use mainstay_sim::FaultEvent;
use mainstay_sim::live::{Beyond, Stuck};
use thiserror::Error;

pub use options::Options;
use process::Child;
pub use run::{Kind, Run};
pub use structure::{Edge, Style};
pub use table::Table;

/// Why a run did not come to its end, or did not begin.
pub type Failure = Box<dyn std::error::Error>;

/// Something that happened in a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry<E> {
    /// When, from the start of the run.
    pub at: Duration,
    /// What.
    pub what: E,
}

/// What a log is asked for.
pub struct Criterion<E> {
    /// Its id, of at most six characters.
    pub id: &'static str,
    /// What it says.
    pub text: &'static str,
    /// What is wrong in a log.
    pub judge: fn(&[Entry<E>]) -> Result<(), String>,
}

/// A script outside the failure model.
pub struct Outside<E> {
    /// Its name.
    pub name: &'static str,
    /// The script.
    pub script: &'static str,
    /// Ids of the criteria that hold all the same.
    pub holds: &'static [&'static str],
    /// The consequence, as it is documented.
    pub consequence: &'static str,
    /// What in a log is not that consequence.
    pub judge: fn(&[Entry<E>]) -> Result<(), String>,
}

/// A fault that is planted on purpose, to show that a criterion can fail.
pub struct Broken {
    /// Its name.
    pub name: &'static str,
    /// What is wrong.
    pub about: &'static str,
    /// The arguments under which it shows.
    pub arguments: &'static str,
    /// The id of the criterion that it breaks.
    pub breaks: &'static str,
}

/// An example system.
pub trait Example {
    /// What its log is made of.
    type Event: Clone + PartialEq + Debug + 'static;
    /// What clients see.
    type Results: PartialEq + Debug;

    /// Its name: the package is `mainstay-NAME`.
    const NAME: &'static str;
    /// Which service stands on which.
    const STRUCTURE: &'static [Edge];
    /// By what its multicast and membership know time. Default: by no clock.
    const STYLE: Style = Style::Clockless;
    /// By what each run is judged.
    const CRITERIA: &'static [Criterion<Self::Event>];
    /// Scripts outside the failure model.
    const OUTSIDE: &'static [Outside<Self::Event>];
    /// Faults that can be planted.
    const BROKEN: &'static [Broken];

    /// The faults of a seed, within the failure model; of a run of real processes, if `real`. What a script cannot say is left out
    /// of them ([`script::render`]).
    fn faults(seed: u64, real: bool) -> Vec<FaultEvent>;

    /// What is printed of [`STRUCTURE`](Self::STRUCTURE): all of it, unless a planted fault keeps something back.
    fn structure(broken: Option<&str>) -> Vec<Edge> {
        let _ = broken;
        Self::STRUCTURE.to_vec()
    }

    /// One run on virtual time, in the [room](Run::room) of the run.
    ///
    /// # Errors
    /// It did not come to its end, and why.
    fn run(run: &Run) -> Result<Vec<Entry<Self::Event>>, Failure>;

    /// One run of real [processes](process::Processes).
    ///
    /// # Errors
    /// It did not come to its end, and why.
    fn run_real(run: &Run) -> Result<Vec<Entry<Self::Event>>, Failure>;

    /// The life of one such process.
    ///
    /// # Errors
    /// Why it ended before its input.
    fn child(child: Child) -> Result<(), Failure>;

    /// What clients see in the end.
    fn results(log: &[Entry<Self::Event>]) -> Self::Results;

    /// What they would see if all was done by one machine, one thing after the other.
    fn model(run: &Run) -> Self::Results;

    /// The node at which something happened, for the picture of a run. Default: none; all is drawn in one lane.
    fn node(what: &Self::Event) -> Option<usize> {
        let _ = what;
        None
    }

    /// What is worth counting in a log, to see that something happened.
    fn counts(log: &[Entry<Self::Event>]) -> Vec<(&'static str, u64)>;
}

/// Why there is no verdict.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum HarnessError {
    /// A file could not be read or written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The script is none.
    #[error(transparent)]
    Script(#[from] script::ScriptError),
    /// There is no script outside the model, or no planted fault, of this name.
    #[error("there is no {what} of the name {name:?}; there are {known}")]
    Unknown {
        /// Of what kind.
        what: &'static str,
        /// Which.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// The script goes outside the failure model.
    #[error(
        "{fault:?} is outside the failure model: {why}; what goes outside is run by --outside NAME"
    )]
    Beyond {
        /// The fault.
        fault: String,
        /// What is against it.
        why: Beyond,
    },
    /// A run did not come to its end.
    #[error("seed {seed}: {reason}")]
    Run {
        /// Of which seed.
        seed: u64,
        /// Why.
        reason: String,
    },
}

/// What came of all runs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// The verdicts.
    pub table: Table,
    /// Runs, each seed counted once.
    pub runs: u64,
    /// What was counted, over all runs.
    pub counts: Vec<(&'static str, u64)>,
    /// The log: of the first run that failed, else of the last one.
    pub log: String,
    /// The same run as an SVG.
    pub picture: String,
}

/// The whole program.
#[must_use]
pub fn main<E: Example>() -> ExitCode {
    if let Some(child) = Child::from_arguments() {
        let index = child.index;
        return E::child(child).map_or_else(
            |error| {
                tell(format_args!("{} n{index}: {error}", E::NAME));
                ExitCode::FAILURE
            },
            |()| ExitCode::SUCCESS,
        );
    }
    let options = Options::parse();
    if options.list_broken {
        say(format_args!("{}", broken::<E>()));
        return ExitCode::SUCCESS;
    }
    match report::<E>(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell(format_args!("{}: {error}", E::NAME));
            ExitCode::from(2)
        }
    }
}

/// The criteria, and the planted faults: name, arguments, what it breaks, what is wrong.
fn broken<E: Example>() -> String {
    let mut ids = vec!["SYS-1", "SYS-2", "SYS-3"];
    ids.extend((!E::OUTSIDE.is_empty()).then_some("SYS-5"));
    ids.extend(E::CRITERIA.iter().map(|criterion| criterion.id));
    let mut text = format!("criteria\t{}\n", ids.join(" "));
    for Broken { name, about, arguments, breaks } in E::BROKEN {
        let _ = writeln!(text, "broken\t{name}\t{arguments}\t{breaks}\t{about}");
    }
    text
}

/// Prints to standard output. Maybe nobody can read it, as behind a closed pipe: that costs the words and nothing else.
fn say(words: fmt::Arguments<'_>) {
    let _ = std::io::stdout().write_fmt(words);
}

/// Prints a line to standard error, in the same way.
fn tell(words: fmt::Arguments<'_>) {
    let _ = std::io::stderr().write_all(format!("{words}\n").as_bytes());
}

fn report<E: Example>(options: &Options) -> Result<bool, HarnessError> {
    say(format_args!("{}: what stands on what\n", E::NAME));
    for Edge { from, to, why } in E::structure(options.broken.as_deref()) {
        say(format_args!("  {from} -> {to}: {why}\n"));
    }
    let outcome = judge::<E>(options)?;
    let usual = || std::env::temp_dir().join(format!("mainstay-{}.log", E::NAME));
    let path = options.log.clone().unwrap_or_else(usual);
    write(&path, &outcome.log)?;
    if let Some(path) = &options.svg {
        write(path, &outcome.picture)?;
    }
    let counts: Vec<String> =
        outcome.counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let counts = counts.join(", ");
    say(format_args!("runs: {} from seed {}: {counts}\n", outcome.runs, options.seed));
    let passes = outcome.table.passes();
    let verdict = if passes { "PASS" } else { "FAIL" };
    say(format_args!("log: {}\n{}verdict: {verdict}\n", path.display(), outcome.table));
    Ok(passes)
}

fn write(path: &Path, text: &str) -> Result<(), HarnessError> {
    let written = std::fs::write(path, text);
    written.map_err(|error| HarnessError::File { path: path.to_owned(), error })
}

/// Runs what the options ask for and judges it.
///
/// # Errors
/// [`HarnessError`].
pub fn judge<E: Example>(options: &Options) -> Result<Outcome, HarnessError> {
    let outside = named("script", options.outside.as_deref(), E::OUTSIDE, |it| it.name)?;
    let broken = named("planted fault", options.broken.as_deref(), E::BROKEN, |it| it.name)?;
    let script = match (&options.faults, outside) {
        (Some(path), _) => {
            let read = std::fs::read_to_string(path);
            let read = read.map_err(|error| HarnessError::File { path: path.clone(), error })?;
            Some(script::parse(&read)?)
        }
        (None, Some(outside)) => Some(script::parse(outside.script)?),
        (None, None) => options.no_faults.then(Vec::new),
    };
    let kind = match (options.no_faults, outside) {
        (true, _) => Kind::Calm,
        (false, Some(_)) => Kind::Outside,
        (false, None) => Kind::Faults,
    };
    let mut outcome = Outcome::default();
    for seed in options.seed..options.seed.saturating_add(options.campaign.unwrap_or(1)) {
        // As a script, so that the one in the log gives the same run.
        let drawn = || script::parse(&script::render(&E::faults(seed, options.real)));
        let faults = script.clone().map_or_else(drawn, Ok)?;
        let run = Run::new(seed, faults, kind, broken.map(|it| it.name), script.is_some());
        one::<E>(&run, options.real, outside, &mut outcome)?;
    }
    Ok(outcome)
}

/// One seed: twice, if it is on virtual time.
fn one<E: Example>(
    run: &Run,
    real: bool,
    outside: Option<&Outside<E::Event>>,
    outcome: &mut Outcome,
) -> Result<(), HarnessError> {
    let seed = run.seed;
    let ended = |log: Result<_, Failure>| {
        log.map_err(|reason| match reason.downcast_ref() {
            Some(Stuck::Beyond { fault, why }) => {
                HarnessError::Beyond { fault: fault.clone(), why: *why }
            }
            _ => HarnessError::Run { seed, reason: reason.to_string() },
        })
    };
    let log = ended(if real { E::run_real(run) } else { E::run(run) })?;
    let so_far = outcome.table.passes();
    let table = &mut outcome.table;
    if !real {
        let same = same(&log, &ended(E::run(run))?);
        table.add(seed, "SYS-1", "a seed that runs twice has equal logs", same);
    }
    let text = "what stands on what is what the figure says of these services";
    let printed = E::structure(run.broken);
    table.add(seed, "SYS-3", text, structure::judge(&printed, E::STRUCTURE, E::STYLE));
    if run.kind == Kind::Calm {
        let text = "without faults the results are those of a sequential model";
        let (seen, model) = (E::results(&log), E::model(run));
        let equal = seen == model;
        let verdict = equal.then_some(()).ok_or_else(|| format!("{seen:?}, not {model:?}"));
        table.add(seed, "SYS-2", text, verdict);
    }
    if let Some(outside) = outside {
        table.add(seed, "SYS-5", outside.consequence, (outside.judge)(&log));
    }
    let holds = |id: &&str| outside.is_none_or(|outside| outside.holds.contains(id));
    for Criterion { id, text, judge } in E::CRITERIA.iter().filter(|it| holds(&it.id)) {
        table.add(seed, id, text, judge(&log));
    }
    if outcome.runs == 0 || so_far {
        outcome.log = written::<E>(run, &log);
        outcome.picture = picture::svg(E::NAME, &log, &run.took_place().0, E::node);
    }
    outcome.runs += 1;
    for (name, count) in E::counts(&log) {
        match outcome.counts.iter_mut().find(|it| it.0 == name) {
            Some(sum) => sum.1 += count,
            None => outcome.counts.push((name, count)),
        }
    }
    Ok(())
}

fn same<E: PartialEq + Debug>(log: &[Entry<E>], again: &[Entry<E>]) -> Result<(), String> {
    match log.iter().zip(again).position(|(one, other)| one != other) {
        Some(at) => Err(format!("entry {at} is {:?} {:?} once", log[at].at, log[at].what)),
        None if log.len() == again.len() => Ok(()),
        None => Err(format!("{} entries, and {} again", log.len(), again.len())),
    }
}

/// The log as it is written down: the script in comments, then a line for each entry.
fn written<E: Example>(run: &Run, log: &[Entry<E::Event>]) -> String {
    let mut text = format!("# {}, seed {}, {:?}\n", E::NAME, run.seed, run.kind);
    let (faults, left_out) = run.took_place();
    for line in script::render(&faults).lines() {
        let _ = writeln!(text, "# {line}");
    }
    for (fault, why) in left_out {
        let _ = writeln!(text, "# # left out, {why}: {fault}");
    }
    for Entry { at, what } in log {
        let _ = writeln!(text, "{:>12.6}  {what:?}", at.as_secs_f64());
    }
    text
}

fn named<T>(
    what: &'static str,
    name: Option<&str>,
    all: &'static [T],
    of: fn(&T) -> &'static str,
) -> Result<Option<&'static T>, HarnessError> {
    let Some(name) = name else { return Ok(None) };
    let known = || all.iter().map(of).collect::<Vec<_>>().join(", ");
    let found = all.iter().find(|it| of(it) == name);
    let unknown = || HarnessError::Unknown { what, name: name.to_owned(), known: known() };
    found.map(Some).ok_or_else(unknown)
}
