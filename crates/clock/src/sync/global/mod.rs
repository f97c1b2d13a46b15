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
mod service;

pub use adjusted::Promise;
pub use clock::{Bounded, Forgotten, GlobalClock, LocalTime, Now, Unsynchronised};
#[cfg(feature = "service")]
pub use commands::{CancelAlarm, Reference, SetAlarm};
#[cfg(feature = "service")]
pub use face::{AlarmId, ClockHandle, Setup, Ticks, WaitError};
pub use service::{Command, Config, Event, Global, Limit, Past, Status, Why};
