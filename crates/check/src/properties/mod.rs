//! The checkers, one file per property or closely related pair.

mod acked;
mod atomicity;
mod failure_last;
mod fifo;
mod incarnation;
mod integrity;
mod numbering;
mod same_set;
mod same_view;
mod self_inclusion;
mod sequence;
mod total;

pub use acked::AckedInEveryLaterCut;
pub use atomicity::{Atomicity, Validity};
pub use failure_last::FailureLast;
pub use fifo::FifoPerSender;
pub use incarnation::Incarnations;
pub use integrity::Integrity;
pub use numbering::Numbering;
pub use same_set::SameSet;
pub use same_view::SameView;
pub use self_inclusion::SelfInclusion;
pub use sequence::{CommittedPrefix, ViewSequence};
pub use total::TotalOrder;

use crate::property::Property;

/// Id and meaning of every property, in the order of the README.
pub const PROPERTIES: [(&str, &str); 14] = [
    (Numbering::ID, Numbering::SAYS),
    (ViewSequence::ID, ViewSequence::SAYS),
    (SelfInclusion::ID, SelfInclusion::SAYS),
    (Incarnations::ID, Incarnations::SAYS),
    (CommittedPrefix::ID, CommittedPrefix::SAYS),
    (SameSet::ID, SameSet::SAYS),
    (Integrity::ID, Integrity::SAYS),
    (Atomicity::ID, Atomicity::SAYS),
    (Validity::ID, Validity::SAYS),
    (FifoPerSender::ID, FifoPerSender::SAYS),
    (TotalOrder::ID, TotalOrder::SAYS),
    (FailureLast::ID, FailureLast::SAYS),
    (SameView::ID, SameView::SAYS),
    (AckedInEveryLaterCut::ID, AckedInEveryLaterCut::SAYS),
];
