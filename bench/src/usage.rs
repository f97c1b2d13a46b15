//! What a process uses, as Linux tells.

use std::fs;
use std::io;
use std::time::Duration;

/// Bytes of a page, and ticks of a second, on every Linux that Rust runs on.
const PAGE: u64 = 4096;
const TICK: Duration = Duration::from_millis(10);

/// Memory in use, and processor time used so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) resident_bytes: u64,
    pub(crate) processor: Duration,
}

impl Usage {
    /// Of the process with this number.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let memory = fs::read_to_string(format!("/proc/{pid}/statm"))?;
        let times = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let unknown = || io::Error::other("the system tells in another form what a process uses");
        Self::parse(&memory, &times).ok_or_else(unknown)
    }

    fn parse(memory: &str, times: &str) -> Option<Self> {
        let pages: u64 = memory.split_whitespace().nth(1)?.parse().ok()?;
        // The name of the program, which may have spaces in it, ends with the last parenthesis; user and system time are
        // the fields 14 and 15.
        let mut fields = times[times.rfind(')')? + 1..].split_whitespace().skip(11);
        let user: u32 = fields.next()?.parse().ok()?;
        let system: u32 = fields.next()?.parse().ok()?;
        Some(Self { resident_bytes: pages * PAGE, processor: TICK * (user + system) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_the_right_ones() {
        let times = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 5 6 7";
        let usage = Usage::parse("100 25 3 4 5 6 7", times).expect("they are well-formed");
        assert_eq!((usage.resident_bytes, usage.processor), (102_400, Duration::from_secs(2)));
        assert!(Usage::parse("", times).is_none() && Usage::parse("1 2", "7 (a) S").is_none());
    }
}
