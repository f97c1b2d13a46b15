//! The clock of a node: adjusted, never going back, and read by anybody without a message.
//!
//! [`Global`] is a service: an [`Algorithm`](super::Algorithm) corrects a clock, and the adjusted clock walks after it. Who
//! reads it has a [`GlobalClock`].
//!
//! | property | how it is kept |
//! |---|---|
//! | CLK-1, the clock never goes back | a correction is walked off, a step goes forward only, what is ahead waits |
//! | CLK-3, spans keep their length | the walk has a bound, which is in [`Promise::rate`] |
//! | CLK-5, elapsed time | is read from the hardware, between the moments at which the clock said so |
//! | CLK-6, versions | each correction has the next one |
//! | CLK-10, not even over a crash | a reading is stored ahead, and the clock stops there until the next one is stored |
//! | CLK-40, timers | are entries that the first reading that is not below takes out |
//! | CLK-41, who needs the time is told | [`Event::Unsynchronised`], and [`GlobalClock::is_synchronised`] |
//!
//! # Example
//! The clock of a node that follows the wall clock of its machine, which is taken to be within 20 ms of the true time.
//!
//! ```
//! # #[cfg(not(all(feature = "service", feature = "external")))] fn main() {}
//! # #[cfg(all(feature = "service", feature = "external"))]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{collections::BTreeMap, net::TcpListener, time::Duration};
//! use mainstay_base::ClusterId;
//! use mainstay_clock::Time;
//! use mainstay_clock::sync::global::{Follow, Global, Setup};
//! use mainstay_clock::sync::{Config, Kind, Plan};
//! use mainstay_service::{StationParts, start};
//!
//! let kind = Kind::External { error: Duration::from_millis(20) };
//! let mut setup = Setup::new(Plan::new(Config::lan(kind, 1, 0))?)?;
//! setup.reference = Some(Follow::SystemClock { error: Duration::from_millis(19) });
//! let own = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
//! let all = BTreeMap::from([("a".to_owned(), own)]);
//! let run = async {
//!     let parts = StationParts::tcp(ClusterId::from_entropy(1), "a", all, None)?;
//!     let mounted = setup.clone();
//!     let station = start(parts, move |node| {
//!         let config = mounted.config(node);
//!         node.mount::<Global>("clock", config).map(drop)
//!     })?;
//!     let clock = setup.handle(station.service("clock"));
//!     // A clock that nobody has corrected yet says zero.
//!     let begun = clock.sleep_until(Time::from_nanos(1)).await?;
//!     let now = clock.wait_until_past(begun.time).await?;
//!     assert!(now.earliest > begun.time && clock.after(begun.time));
//!     Ok(())
//! };
//! tokio::task::LocalSet::new().run_until(run).await
//! # }
//! ```

mod adjusted;
#[cfg_attr(not(feature = "service"), allow(dead_code, reason = "only who has the service waits"))]
mod alarms;
mod clock;
#[cfg(feature = "service")]
mod commands;
mod course;
#[cfg(feature = "service")]
mod face;
mod figures;
mod page;
mod references;
mod reserved;
mod rings;
mod service;
mod words;

pub use adjusted::Promise;
pub use clock::{Bounded, Forgotten, GlobalClock, LocalTime, Now, Unsynchronised};
#[cfg(feature = "service")]
pub use commands::{CancelAlarm, Reference, SetAlarm};
#[cfg(feature = "service")]
pub use face::{AlarmId, ClockHandle, Follow, LOOK_ERROR, Setup, Ticks, WaitError};
pub use references::{Look, Looked, ReadClock, ReferenceClock};
pub use service::{Config, Global, Limit, Past};
pub use words::{Command, Event, ReferenceState, Status, Why};
