//! Ways to break a group on purpose, so that tests can show that their checks notice.

/// One deliberate defect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Goes on accepting, ordering and acknowledging after the wedge.
    NoWedge,
    /// The sequencer orders otherwise than it tells.
    Renumbers,
    /// Says that it holds what a cut names without fetching it.
    SkipsHold,
    /// Delivers what it holds, whatever the level.
    DeliversEarly,
    /// Counts every configured node in the view as a member, whoever carries the group.
    CountsAll,
    /// Acknowledges what a view change has taken over, however few have it.
    CountsOneCopy,
}
