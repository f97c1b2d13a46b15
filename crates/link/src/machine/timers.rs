//! Deadlines, one table a peer.

use mainstay_base::Instant;

/// What a peer may wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timer {
    /// To dial it.
    Dial,
    /// To acknowledge what came from it.
    Ack,
    /// To send it something because nothing else was.
    Heartbeat,
    /// To send it again what it does not acknowledge.
    Resend,
    /// To give up the connection on which nothing comes.
    Silence,
    /// To give up the session of a guest that is not connected.
    Keep,
}

impl Timer {
    pub(crate) const ALL: [Self; 6] =
        [Self::Dial, Self::Ack, Self::Heartbeat, Self::Resend, Self::Silence, Self::Keep];
}

/// When each [`Timer`] is due.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers([Option<Instant>; Timer::ALL.len()]);

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    pub(crate) fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(crate) fn at(&self, timer: Timer) -> Option<Instant> {
        self.0[timer as usize]
    }

    pub(crate) fn is_due(&self, timer: Timer, now: Instant) -> bool {
        self.at(timer).is_some_and(|at| at <= now)
    }

    /// Stops all that belongs to a connection.
    pub(crate) fn stop_connected(&mut self) {
        for timer in [Timer::Ack, Timer::Heartbeat, Timer::Resend, Timer::Silence] {
            self.stop(timer);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Option<Instant>> + '_ {
        self.0.iter().copied()
    }
}
