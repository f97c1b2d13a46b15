//! `mainstay check`: what the nodes of a run recorded, judged by the properties.

use std::path::PathBuf;

use mainstay_check::file::{ReadError, Recorded, read};
use mainstay_check::{Judged, Report, Verdict};
use serde_json::json;

use crate::failure::Failure;
use crate::out::say;
use crate::status::Output;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The traces of all nodes of a run: files, or directories of such files.
    #[arg(required = true)]
    traces: Vec<PathBuf>,
    /// Nothing was under way when the last processes were stopped, all together: MC-3 and MC-6 are judged as well.
    #[arg(long)]
    settled: bool,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Prints a line for each property and the verdict; whether it is PASS.
pub(crate) fn run(options: &Options) -> Result<bool, Failure> {
    let judgement = Judgement::of(&options.traces, options.settled)?;
    match options.output {
        Output::Text => judgement.print(),
        Output::Json => say!("{}", judgement.json()),
    }
    let passes = judgement.broken().is_none();
    say!("verdict: {}", if passes { "PASS" } else { "FAIL" });
    Ok(passes)
}

/// What became of each property in a run.
pub(crate) struct Judgement {
    recorded: Recorded,
    judged: Vec<Judged>,
}

impl Judgement {
    /// Reads the traces and judges them.
    pub(crate) fn of(traces: &[PathBuf], settled: bool) -> Result<Self, Failure> {
        let mut recorded = read(traces).map_err(|error| match error {
            ReadError::Damaged { .. } => Failure::damaged(error),
            _ => Failure::usage(error),
        })?;
        recorded.run = recorded.run.settled(settled);
        let judged = recorded.run.judge();
        Ok(Self { recorded, judged })
    }

    /// How many events there are.
    pub(crate) fn events(&self) -> usize {
        self.recorded.run.events().len()
    }

    /// How many properties were judged.
    pub(crate) fn judged(&self) -> usize {
        self.judged.iter().filter(|it| it.verdict != Verdict::NotJudged).count()
    }

    /// The first property that is broken, with the events that contradict each other.
    pub(crate) fn broken(&self) -> Option<String> {
        let broken = |it: &Judged| match &it.verdict {
            Verdict::Broken(violation) => Some(self.report().line(violation)),
            _ => None,
        };
        self.judged.iter().find_map(broken)
    }

    fn report(&self) -> Report<'_> {
        let names = &self.recorded.names;
        let report = Report::new(self.recorded.run.events());
        let report = names.nodes().iter().fold(report, |report, (id, name)| report.node(*id, name));
        names.groups().iter().fold(report, |report, (id, name)| report.group(*id, name))
    }

    fn print(&self) {
        let Recorded { run, missing, truncated, names, .. } = &self.recorded;
        let (boots, cut) = run.boots();
        let (nodes, events) = (names.nodes().len() - missing.len(), self.events());
        say!("{nodes} nodes, {boots} boots, {cut} of them without their end, {events} events");
        missing.iter().for_each(|name| say!("note: there is no trace of {name}"));
        truncated.iter().for_each(|why| say!("note: {why}"));
        for Judged { id, says, verdict } in &self.judged {
            match verdict {
                Verdict::Holds => say!("{id} ok, {events} events: {says}"),
                Verdict::NotJudged => say!("{id} not judged without --settled: {says}"),
                Verdict::Broken(violation) => {
                    let line = self.report().line(violation);
                    let line = line.strip_prefix(id).unwrap_or(&line);
                    say!("{id} FAIL:{line}");
                }
            }
        }
    }

    fn json(&self) -> serde_json::Value {
        let Recorded { run, missing, truncated, names, .. } = &self.recorded;
        let (boots, cut) = run.boots();
        let properties = self.judged.iter().map(|Judged { id, says, verdict }| {
            let (word, violation) = match verdict {
                Verdict::Holds => ("ok", None),
                Verdict::NotJudged => ("not judged", None),
                Verdict::Broken(violation) => ("FAIL", Some(violation)),
            };
            let events = violation.into_iter().flat_map(|it| &it.events).map(|(boot, number)| {
                let nonce = format!("{:032x}", boot.nonce.0);
                json!({"node": names.nodes().get(&boot.node), "boot": nonce, "n": number})
            });
            let events: Vec<_> = events.collect();
            let text = violation.map(|violation| self.report().line(violation));
            json!({"id": id, "says": says, "verdict": word, "violation": text, "events": events})
        });
        let properties: Vec<_> = properties.collect();
        json!({
            "events": self.events(), "boots": boots, "cut": cut, "missing": missing,
            "truncated": truncated, "properties": properties,
            "verdict": if self.broken().is_none() { "PASS" } else { "FAIL" },
        })
    }
}
