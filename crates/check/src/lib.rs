//! Recorded histories in, verdicts out: one checker per property, and a linearisability checker.
//!
//! A run of the services, simulated or real, records [`trace::Event`](mainstay_base::trace::Event)s. Each
//! [`Property`] here has the id of the specification and judges such a trace; a [`Violation`] names the events that
//! contradict each other. The checkers know nothing of the protocols, so they cannot share a protocol's mistake. What
//! they do not do: they judge no liveness beyond "arrived by the end of a quiescent trace" and read no clock.
//!
//! ```
//! use mainstay_check::{Report, check_all, testing};
//!
//! // Two sites, one message: b delivers it twice.
//! let trace = testing::trace(
//!     "ab start; ab view 1 ab; ab group 1 ab
//!      a castf a.1; ab gotf 1 a.1
//!      b gotf 1 a.1",
//! );
//! let violations = check_all(&trace);
//! assert_eq!(violations.len(), 1);
//! assert_eq!(violations[0].id, "MC-2");
//! assert_eq!(violations[0].events, [(testing::boot('b', 1), 4), (testing::boot('b', 1), 3)]);
//!
//! let report = Report::new(&trace)
//!     .node(testing::node('a'), "a")
//!     .node(testing::node('b'), "b")
//!     .group(testing::group("g"), "g");
//! assert_eq!(
//!     report.render(&violations),
//!     "MC-2 a/1.1 delivered twice: b(00000001)#4 delivered a/1.1 of g in view 1 at 0.009000 ms \
//!      | b(00000001)#3 delivered a/1.1 of g in view 1 at 0.008000 ms\n",
//! );
//! ```
//!
//! [`mod@file`] writes and reads the traces of real processes.
//! [`linear`] asks of a history of operations and answers whether one order explains all of them.

mod context;
pub mod file;
pub mod linear;
pub mod properties;
mod property;
mod report;
mod run;
pub mod testing;

pub use property::{Checkers, Property, Violation, check, check_all, check_survivors, check_with};
pub use report::Report;
pub use run::{End, Judged, Run, Verdict};
