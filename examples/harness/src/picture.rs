//! A run as a picture: a lane a node, its events as dots, faults as bars behind them.

use std::fmt::{Debug, Write as _};

use mainstay_base::Instant;
use mainstay_sim::{Fault, FaultEvent};

use crate::{Entry, script};

/// Pixels: of the picture's width, of a lane's height, and before the first moment.
const WIDTH: f64 = 1_200.0;
const LANE: f64 = 60.0;
const LEFT: f64 = 70.0;

/// An SVG of a log. `lane` says at which node something happened; what happened at none has a lane of its own, the last.
pub(crate) fn svg<E: Debug>(
    name: &str,
    log: &[Entry<E>],
    faults: &[FaultEvent],
    lane: fn(&E) -> Option<usize>,
) -> String {
    let at_nodes = log.iter().filter_map(|entry| lane(&entry.what));
    let of_faults = faults.iter().flat_map(|event| bar(&event.fault).0);
    let nodes = at_nodes.chain(of_faults).max().map_or(0, |last| last + 1);
    let ends = faults.iter().map(|it| seconds(it.at) + bar(&it.fault).1);
    let events = log.iter().map(|entry| entry.at.as_secs_f64());
    let end = events.chain(ends).fold(0.001, f64::max);
    let x = |at: f64| LEFT + (WIDTH - LEFT - 20.0) * at / end;
    let y = |lane: usize| 40.0 + LANE * lane as f64;
    let height = y(nodes) + LANE;

    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"10\" y=\"18\">{}</text>\n",
        text(name)
    );
    for lane in 0..=nodes {
        let label = if lane < nodes { format!("n{lane}") } else { "clients".to_owned() };
        let (y, right) = (y(lane) + LANE / 2.0, WIDTH - 20.0);
        let _ = writeln!(
            out,
            "<text x=\"10\" y=\"{y:.0}\">{label}</text><line x1=\"{LEFT}\" y1=\"{y:.0}\" x2=\"{right}\" y2=\"{y:.0}\" stroke=\"#ccc\"/>"
        );
    }
    for event in faults {
        let (nodes, length) = bar(&event.fault);
        let (from, to) = (x(seconds(event.at)), x((seconds(event.at) + length).min(end)));
        let said = script::render(std::slice::from_ref(event));
        for node in nodes {
            let _ = writeln!(
                out,
                "<rect x=\"{from:.1}\" y=\"{:.0}\" width=\"{:.1}\" height=\"{:.0}\" fill=\"#d33\" fill-opacity=\"0.25\"><title>{}</title></rect>",
                y(node) + 8.0,
                (to - from).max(2.0),
                LANE - 16.0,
                text(said.trim())
            );
        }
    }
    for Entry { at, what } in log {
        let (at, lane) = (at.as_secs_f64(), lane(what).unwrap_or(nodes));
        let _ = writeln!(
            out,
            "<circle cx=\"{:.1}\" cy=\"{:.0}\" r=\"3\" fill=\"#26c\" fill-opacity=\"0.7\"><title>{at:.6} {}</title></circle>",
            x(at),
            y(lane) + LANE / 2.0,
            text(&format!("{what:?}"))
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"{:.0}\">0 s</text><text x=\"{:.0}\" y=\"{0:.0}\" text-anchor=\"end\">{end:.3} s</text>\n</svg>",
        height - 8.0,
        WIDTH - 20.0
    );
    out
}

fn seconds(at: Instant) -> f64 {
    at.saturating_since(Instant::ZERO).as_secs_f64()
}

/// Whose fault it is, and how many seconds it lasts.
fn bar(fault: &Fault) -> (Vec<usize>, f64) {
    let (nodes, length) = match fault {
        Fault::Crash { node, length, .. }
        | Fault::Pause { node, length }
        | Fault::Suspend { node, length }
        | Fault::Clock { node, length, .. }
        | Fault::SlowDisk { node, length, .. } => (vec![*node], Some(*length)),
        Fault::OneWayCut { from, to, length } => (vec![*from, *to], Some(*length)),
        Fault::Cut { one, other, length } => (vec![*one, *other], Some(*length)),
        Fault::Partition { side, length } => (side.clone(), Some(*length)),
        Fault::Reset { one, other } => (vec![*one, *other], None),
        Fault::Backup { node } => (vec![*node], None),
    };
    (nodes, length.map_or(0.0, |length| length.as_secs_f64()))
}

fn text(raw: &str) -> String {
    raw.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mainstay_sim::{Disk, Moment};

    use super::*;

    /// Each event is where and when it happened, and each fault as long as it lasted.
    #[test]
    fn a_run_is_drawn() {
        let entry = |millis, what| Entry { at: Duration::from_millis(millis), what };
        let log = [entry(0, Some(0)), entry(500, Some(1)), entry(1_000, None)];
        let length = Duration::from_millis(250);
        let fault = Fault::Crash { node: 2, length, disk: Disk::Kept, moment: Moment::Now };
        let at = Instant::ZERO + Duration::from_millis(500);
        let svg = svg("a<b", &log, &[FaultEvent { at, fault }], |what| *what);
        assert_eq!((svg.matches("<circle").count(), svg.matches("fill=\"#d33\"").count()), (3, 1));
        // Three nodes and the clients; from 70 to 1,180 is a second.
        for part in [
            "a&lt;b",
            ">n2<",
            ">clients<",
            "cx=\"625.0\" cy=\"130\"",
            "cx=\"1180.0\" cy=\"250\"",
            "x=\"625.0\" y=\"168\" width=\"277.5\"",
            "crash n2",
        ] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
    }
}
