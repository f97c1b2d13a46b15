//! Faults as code: what a failed run prints goes into a test as it is.

use std::fmt::{self, Write as _};

use mainstay_base::{Duration, Instant};

use crate::schedule::nanos;
use crate::{Action, ClockFault, Disk, Fault, FaultEvent, Moment, Point};

/// A script of faults as the Rust expression that makes it, a `Vec<FaultEvent>`. It names the types of this crate, and `Instant` and `Duration`
/// of `mainstay_base`, without their paths.
#[must_use]
pub fn as_code(faults: &[FaultEvent]) -> String {
    let mut code = "vec![".to_owned();
    for FaultEvent { at, fault } in faults {
        let _ = write!(code, "\n    FaultEvent {{ at: {}, fault: {} }},", At(*at), Code(fault));
    }
    code.push_str(if faults.is_empty() { "]" } else { "\n]" });
    code
}

struct At(Instant);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Instant::from_nanos({})", grouped(self.0.as_nanos()))
    }
}

struct For(Duration);

impl fmt::Display for For {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = nanos(self.0);
        match (nanos % 1_000_000, nanos % 1_000) {
            (0, _) => write!(f, "Duration::from_millis({})", grouped(nanos / 1_000_000)),
            (_, 0) => write!(f, "Duration::from_micros({})", grouped(nanos / 1_000)),
            _ => write!(f, "Duration::from_nanos({})", grouped(nanos)),
        }
    }
}

/// As the linter wants numbers of more than four digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

fn signed(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", grouped(number.unsigned_abs()))
}

struct Code<'a>(&'a Fault);

impl fmt::Display for Code<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Fault::Crash { node, length, disk, moment } => {
                let (length, moment) = (For(*length), moment_of(*moment));
                let disk = match disk {
                    Disk::Kept => "Disk::Kept",
                    Disk::Empty => "Disk::Empty",
                    Disk::Old => "Disk::Old",
                };
                write!(
                    f,
                    "Fault::Crash {{ node: {node}, length: {length}, disk: {disk}, moment: {moment} }}"
                )
            }
            Fault::Backup { node } => write!(f, "Fault::Backup {{ node: {node} }}"),
            Fault::Pause { node, length } => {
                write!(f, "Fault::Pause {{ node: {node}, length: {} }}", For(*length))
            }
            Fault::OneWayCut { from, to, length } => {
                let length = For(*length);
                write!(f, "Fault::OneWayCut {{ from: {from}, to: {to}, length: {length} }}")
            }
            Fault::Cut { one, other, length } => {
                let length = For(*length);
                write!(f, "Fault::Cut {{ one: {one}, other: {other}, length: {length} }}")
            }
            Fault::Partition { side, length } => {
                let length = For(*length);
                write!(f, "Fault::Partition {{ side: vec!{side:?}, length: {length} }}")
            }
            Fault::Reset { one, other } => {
                write!(f, "Fault::Reset {{ one: {one}, other: {other} }}")
            }
            Fault::Clock { node, clock, length } => {
                let (clock, length) = (clock_of(*clock), For(*length));
                write!(f, "Fault::Clock {{ node: {node}, clock: {clock}, length: {length} }}")
            }
            Fault::Suspend { node, length } => {
                write!(f, "Fault::Suspend {{ node: {node}, length: {} }}", For(*length))
            }
            Fault::SlowDisk { node, factor, length } => {
                let length = For(*length);
                write!(f, "Fault::SlowDisk {{ node: {node}, factor: {factor}, length: {length} }}")
            }
        }
    }
}

fn moment_of(moment: Moment) -> String {
    match moment {
        Moment::Now => "Moment::Now".to_owned(),
        Moment::MidWrite => "Moment::MidWrite".to_owned(),
        Moment::At(Point { action, number }) => {
            let action = match action {
                Action::Send => "Send",
                Action::Receive => "Receive",
                Action::Timer => "Timer",
                Action::Write => "Write",
            };
            let number = grouped(number);
            format!("Moment::At(Point {{ action: Action::{action}, number: {number} }})")
        }
    }
}

fn clock_of(clock: ClockFault) -> String {
    match clock {
        ClockFault::Step(nanos) => format!("ClockFault::Step({})", signed(nanos)),
        ClockFault::Freeze => "ClockFault::Freeze".to_owned(),
        ClockFault::Race(gain) => format!("ClockFault::Race({})", signed(gain)),
        ClockFault::StepWall(nanos) => format!("ClockFault::StepWall({})", signed(nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of an expression, and its text.
    macro_rules! both {
        ($code:expr) => {
            ($code, stringify!($code))
        };
    }

    fn dense(text: &str) -> String {
        text.replace(char::is_whitespace, "").replace(",}", "}").replace(",]", "]")
    }

    /// What is printed of a script is the code that makes it, for each kind of fault.
    #[test]
    fn a_script_is_printed_as_the_code_that_makes_it() {
        let (script, code) = both!(vec![
            FaultEvent {
                at: Instant::from_nanos(300_000_000),
                fault: Fault::Crash {
                    node: 0,
                    length: Duration::from_millis(1_500),
                    disk: Disk::Kept,
                    moment: Moment::At(Point { action: Action::Write, number: 1_234 }),
                },
            },
            FaultEvent {
                at: Instant::from_nanos(7),
                fault: Fault::Crash {
                    node: 2,
                    length: Duration::from_micros(20),
                    disk: Disk::Empty,
                    moment: Moment::MidWrite,
                },
            },
            FaultEvent {
                at: Instant::from_nanos(0),
                fault: Fault::Pause { node: 1, length: Duration::from_nanos(1_000_001) },
            },
            FaultEvent {
                at: Instant::from_nanos(0),
                fault: Fault::Partition { side: vec![0, 2], length: Duration::from_millis(1) },
            },
            FaultEvent {
                at: Instant::from_nanos(0),
                fault: Fault::OneWayCut { from: 0, to: 1, length: Duration::from_millis(5) },
            },
            FaultEvent {
                at: Instant::from_nanos(0),
                fault: Fault::Cut { one: 0, other: 1, length: Duration::from_millis(5) },
            },
            FaultEvent { at: Instant::from_nanos(1_000), fault: Fault::Reset { one: 3, other: 1 } },
            FaultEvent { at: Instant::from_nanos(1_000), fault: Fault::Backup { node: 1 } },
            FaultEvent {
                at: Instant::from_nanos(1_000),
                fault: Fault::Clock {
                    node: 1,
                    clock: ClockFault::Step(-1_000_000),
                    length: Duration::from_millis(1),
                },
            },
            FaultEvent {
                at: Instant::from_nanos(1_000),
                fault: Fault::Suspend { node: 1, length: Duration::from_millis(1) },
            },
            FaultEvent {
                at: Instant::from_nanos(1_000),
                fault: Fault::SlowDisk { node: 1, factor: 10, length: Duration::from_millis(1) },
            },
        ]);
        assert_eq!(dense(&as_code(&script)), dense(code));
        assert_eq!(as_code(&[]), "vec![]");
    }
}
