//! Which service stands on which: figure 3 of Mishra and Schlichting, *Abstractions for Constructing Dependable Distributed Systems* (1992).
//!
//! An example says what its services stand on. That is right if it is exactly what the figure says of the services that it names:
//!
//! | service | stands on |
//! |---|---|
//! | object/action | atomic actions, rpc |
//! | conversations | resilient processes |
//! | state machine | multicast, membership, resilient processes, rpc |
//! | primary/backup | multicast, membership, shadow updating |
//! | atomic actions | resilient processes |
//! | rpc | shadow updating |
//! | replicated rpc | multicast |
//! | resilient processes | shadow updating, stable storage, membership |
//! | shadow updating | stable storage |
//! | multicast | time, membership (clockless) |
//! | membership | multicast, time (clock-driven) |

use std::collections::BTreeSet;

/// A service stands on another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Edge {
    /// What stands.
    pub from: &'static str,
    /// What it stands on.
    pub to: &'static str,
    /// Which property rests on that.
    pub why: &'static str,
}

/// By what multicast and membership know time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// By synchronised clocks.
    ClockDriven,
    /// By no clock: by the order of messages.
    Clockless,
}

use Style::{ClockDriven, Clockless};

/// The arrows, and the style in which there is one; `None`: in both.
pub const FIGURE: &[(&str, &str, Option<Style>)] = &[
    ("object/action", "atomic actions", None),
    ("object/action", "rpc", None),
    ("conversations", "resilient processes", None),
    ("state machine", "multicast", None),
    ("state machine", "membership", None),
    ("state machine", "resilient processes", None),
    ("state machine", "rpc", None),
    ("primary/backup", "multicast", None),
    ("primary/backup", "membership", None),
    ("primary/backup", "shadow updating", None),
    ("atomic actions", "resilient processes", None),
    ("rpc", "shadow updating", None),
    ("replicated rpc", "multicast", None),
    ("resilient processes", "shadow updating", None),
    ("resilient processes", "stable storage", None),
    ("resilient processes", "membership", None),
    ("shadow updating", "stable storage", None),
    ("multicast", "time", None),
    ("multicast", "membership", Some(Clockless)),
    ("membership", "multicast", None),
    ("membership", "time", Some(ClockDriven)),
];

/// Whether `printed` is what the figure says of the services of `all`.
pub(crate) fn judge(printed: &[Edge], all: &[Edge], style: Style) -> Result<(), String> {
    let services: BTreeSet<&str> = all.iter().flat_map(|edge| [edge.from, edge.to]).collect();
    let pair = |edge: &Edge| (edge.from, edge.to);
    let printed: BTreeSet<_> = printed.iter().map(pair).collect();
    let is_here = |from: &str, to: &str| services.contains(from) && services.contains(to);
    let figure =
        FIGURE.iter().filter(|(from, to, of)| of.is_none_or(|of| of == style) && is_here(from, to));
    let figure: BTreeSet<_> = figure.map(|(from, to, _)| (*from, *to)).collect();
    let named = |edge: Option<&(&str, &str)>| edge.map(|(from, to)| format!("{from} -> {to}"));
    match (named(figure.difference(&printed).next()), named(printed.difference(&figure).next())) {
        (None, None) => Ok(()),
        (Some(missing), _) => Err(format!("{missing} is in the figure, and is not printed")),
        (None, Some(more)) => Err(format!("{more} is printed, and is not in the figure")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn edge(from: &'static str, to: &'static str) -> Edge {
        Edge { from, to, why: "" }
    }

    /// Checks that what is missing, and what is too much, is named, and that the style matters.
    #[test]
    fn what_differs_from_the_figure_is_named() {
        let clockless = [edge("multicast", "membership"), edge("membership", "multicast")];
        assert_eq!(judge(&clockless, &clockless, Clockless), Ok(()));
        let less = judge(&clockless[..1], &clockless, Clockless);
        assert!(
            less.is_err_and(|what| what.starts_with("membership -> multicast is in the figure"))
        );
        let more = judge(&clockless, &clockless, ClockDriven);
        assert!(more.is_err_and(|what| what.starts_with("multicast -> membership is printed")));
    }
}
