//! The format of scripts of faults.
//!
//! A script is text, one fault a line; `#` begins a comment. Nodes are `n0`, `n1`, and so on. Times are whole numbers with a unit:
//! `us`, `ms` or `s`; the first is when the fault begins, counted from the start of the run, the last how long it lasts. What a node
//! does is counted over all its boots, from the start of the run, by [`Room::points`](mainstay_sim::live::Room::points).
//!
//! ```text
//! 800ms  crash n0 300ms           # it keeps its disk; as `crash n0 300ms empty` it loses it
//! 900ms  crash-in-write n0 300ms  # as soon as a forced write is unfinished
//! 0ms    crash n0 300ms at send 17  # when it is about to send its 17th message; also receive, timer, write
//! 1s     pause n1 1500ms
//! 2s     cut n0 n1 400ms          # nothing passes between the two
//! 2s     mute n0 n1 400ms         # nothing passes from n0 to n1
//! 3s     partition n0,n2 600ms    # nothing passes between these and the rest
//! 4s     reset n0 n1              # their connections break
//! 4s     slow n2 20 500ms         # forced writes take 20 times as long
//! 4s     suspend n2 500ms         # as a virtual machine: paused, and its clock stands still
//! 4s     step n2 -5000            # its clock steps by nanoseconds; step-wall: the wall clock alone
//! 4s     freeze n2 500ms          # its clock stands still
//! 4s     race n2 1000000000 500ms # its clock gains parts of a billion: twice as fast
//! ```

use std::time::Duration;

use mainstay_base::Instant;
use mainstay_sim::{Action, ClockFault, Disk, Fault, FaultEvent, Moment, Point};
use thiserror::Error;

/// Most lines of a script.
pub const LINES_MAX: usize = 10_000;

/// Why a text is no script.
#[derive(Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ScriptError {
    /// A line says nothing that there is.
    #[error("line {line} is no fault: {text:?}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What it says.
        text: String,
    },
    /// It has more than [`LINES_MAX`] lines.
    #[error("more than {LINES_MAX} lines")]
    TooLong,
}

/// Reads a script; its faults are in order of time.
///
/// # Errors
/// [`ScriptError`].
pub fn parse(text: &str) -> Result<Vec<FaultEvent>, ScriptError> {
    let mut faults = Vec::new();
    for (index, whole) in text.lines().enumerate() {
        if index >= LINES_MAX {
            return Err(ScriptError::TooLong);
        }
        let line = whole.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            let wrong = || ScriptError::Line { line: index + 1, text: line.to_owned() };
            faults.push(fault(line).ok_or_else(wrong)?);
        }
    }
    faults.sort_by_key(|event| event.at);
    Ok(faults)
}

fn fault(line: &str) -> Option<FaultEvent> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (at, words) = words.split_first()?;
    let at = Instant::ZERO + time(at)?;
    let crash = |name: &str, length: &str, disk, moment| {
        Some(Fault::Crash { node: node(name)?, length: time(length)?, disk, moment })
    };
    let clock = |name: &str, clock, length: &str| {
        Some(Fault::Clock { node: node(name)?, clock, length: time(length)? })
    };
    let fault = match *words {
        [what @ ("crash" | "crash-in-write"), name, length, ref rest @ ..] => {
            let (disk, rest) = match *rest {
                ["empty", ref rest @ ..] => (Disk::Empty, rest),
                ref rest => (Disk::Kept, rest),
            };
            let moment = match (what, rest) {
                ("crash", []) => Moment::Now,
                ("crash", ["at", action, number]) => Moment::At(point(action, number)?),
                ("crash-in-write", []) => Moment::MidWrite,
                _ => return None,
            };
            crash(name, length, disk, moment)?
        }
        ["pause", name, length] => Fault::Pause { node: node(name)?, length: time(length)? },
        ["cut", one, other, length] => {
            Fault::Cut { one: node(one)?, other: node(other)?, length: time(length)? }
        }
        ["mute", from, to, length] => {
            Fault::OneWayCut { from: node(from)?, to: node(to)?, length: time(length)? }
        }
        ["partition", side, length] => {
            let side = side.split(',').map(node).collect::<Option<_>>()?;
            Fault::Partition { side, length: time(length)? }
        }
        ["reset", one, other] => Fault::Reset { one: node(one)?, other: node(other)? },
        ["slow", name, factor, length] => {
            let factor = factor.parse().ok()?;
            Fault::SlowDisk { node: node(name)?, factor, length: time(length)? }
        }
        ["suspend", name, length] => Fault::Suspend { node: node(name)?, length: time(length)? },
        ["step", name, nanos] => clock(name, ClockFault::Step(nanos.parse().ok()?), "0us")?,
        ["step-wall", name, nanos] => {
            clock(name, ClockFault::StepWall(nanos.parse().ok()?), "0us")?
        }
        ["freeze", name, length] => clock(name, ClockFault::Freeze, length)?,
        ["race", name, parts, length] => {
            clock(name, ClockFault::Race(parts.parse().ok()?), length)?
        }
        _ => return None,
    };
    Some(FaultEvent { at, fault })
}

fn point(action: &str, number: &str) -> Option<Point> {
    let action = match action {
        "send" => Action::Send,
        "receive" => Action::Receive,
        "timer" => Action::Timer,
        "write" => Action::Write,
        _ => return None,
    };
    Some(Point { action, number: number.parse().ok().filter(|number| *number > 0)? })
}

fn node(name: &str) -> Option<usize> {
    name.strip_prefix('n')?.parse().ok()
}

fn time(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..unit].parse().ok()?;
    let micros = match &text[unit..] {
        "us" => number,
        "ms" => number.checked_mul(1_000)?,
        "s" => number.checked_mul(1_000_000)?,
        _ => return None,
    };
    // A day: what is longer is a slip.
    (micros <= 86_400_000_000).then(|| Duration::from_micros(micros))
}

/// Writes a script that [`parse`] reads as the same faults. Backups of disks are left out, and an old disk is an empty one.
#[must_use]
pub fn render(faults: &[FaultEvent]) -> String {
    faults.iter().filter_map(line).collect()
}

fn line(FaultEvent { at, fault }: &FaultEvent) -> Option<String> {
    let said = match fault {
        Fault::Crash { node, length, disk, moment } => {
            let what = if *moment == Moment::MidWrite { "crash-in-write" } else { "crash" };
            let disk = if *disk == Disk::Kept { "" } else { " empty" };
            let point = match moment {
                Moment::At(Point { action, number }) => {
                    format!(" at {} {number}", format!("{action:?}").to_lowercase())
                }
                _ => String::new(),
            };
            format!("{what} n{node} {}{disk}{point}", micros(*length))
        }
        Fault::Backup { .. } => return None,
        Fault::Pause { node, length } => format!("pause n{node} {}", micros(*length)),
        Fault::Cut { one, other, length } => format!("cut n{one} n{other} {}", micros(*length)),
        Fault::OneWayCut { from, to, length } => {
            format!("mute n{from} n{to} {}", micros(*length))
        }
        Fault::Partition { side, length } => {
            let side: Vec<String> = side.iter().map(|node| format!("n{node}")).collect();
            format!("partition {} {}", side.join(","), micros(*length))
        }
        Fault::Reset { one, other } => format!("reset n{one} n{other}"),
        Fault::SlowDisk { node, factor, length } => {
            format!("slow n{node} {factor} {}", micros(*length))
        }
        Fault::Suspend { node, length } => format!("suspend n{node} {}", micros(*length)),
        Fault::Clock { node, clock, length } => match clock {
            ClockFault::Step(nanos) => format!("step n{node} {nanos}"),
            ClockFault::StepWall(nanos) => format!("step-wall n{node} {nanos}"),
            ClockFault::Freeze => format!("freeze n{node} {}", micros(*length)),
            ClockFault::Race(parts) => format!("race n{node} {parts} {}", micros(*length)),
        },
    };
    Some(format!("{} {said}\n", micros(*at - Instant::ZERO)))
}

fn micros(time: Duration) -> String {
    format!("{}us", time.as_micros())
}

#[cfg(test)]
mod tests {
    use mainstay_sim::{Atlas, Options, Wire, schedule};

    use super::*;

    /// Checks that whatever is drawn is read again as it was written.
    #[test]
    fn what_is_written_is_read() {
        let mut lines = 0;
        for seed in 0..50 {
            let options = Options::from_seed(seed, Wire::Channel, Atlas { down: 1, lost: 1 });
            let text = render(&schedule(seed, 3, &options));
            let again = parse(&text).expect("it is a script");
            assert_eq!(render(&again), text);
            lines += again.len();
        }
        assert!(lines > 100, "{lines}");
    }

    /// Checks each form, and that a slip is named with its line.
    #[test]
    fn forms_and_slips() {
        let forms = "1s crash n0 300ms # so\n\n2s crash-in-write n1 5us empty\n3s pause n1 1s\n4s cut n0 n1 1s\n\
                     5s mute n0 n1 1s\n6s partition n0,n2 1s\n7s reset n0 n1\n8s slow n2 20 1s\n\
                     9s crash n1 1s empty at receive 3\n9s suspend n1 1s\n9s step n0 -5000\n\
                     9s step-wall n0 1\n9s freeze n2 1s\n9s race n2 1000000000 1s";
        let faults = parse(forms).expect("it is a script");
        assert_eq!((faults.len(), parse(&render(&faults))), (14, Ok(faults)));
        for slip in [
            "1s",
            "1s crash",
            "1s crash n0 1s at send 0",
            "1s crash-in-write n0 1s at send 1",
            "1s crash 0 1s",
            "1 crash n0 1s",
            "1s crash n0 1m",
            "999999s reset n0 n1",
        ] {
            let error = ScriptError::Line { line: 2, text: slip.to_owned() };
            assert_eq!(parse(&format!("# first\n{slip}")), Err(error));
        }
    }
}
