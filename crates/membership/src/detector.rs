//! The failure detector: silence, and the evidence of a refused connection.

use std::collections::BTreeMap;

use mainstay_base::{BootId, Duration, Instant};

/// Who was heard when. It says "silent", never "dead": what follows from it is the view manager's business.
#[derive(Clone, Debug)]
pub(crate) struct Detector {
    timeout: Duration,
    heard: BTreeMap<BootId, Instant>,
    wake: Option<Instant>,
}

impl Detector {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, heard: BTreeMap::new(), wake: None }
    }

    /// Watches exactly `boots`; those not watched before have a full period to be heard.
    pub(crate) fn watch(&mut self, now: Instant, boots: impl Iterator<Item = BootId>) {
        let before = std::mem::take(&mut self.heard);
        self.heard = boots.map(|boot| (boot, before.get(&boot).copied().unwrap_or(now))).collect();
    }

    pub(crate) fn on_heard(&mut self, now: Instant, boot: BootId) {
        if let Some(heard) = self.heard.get_mut(&boot) {
            *heard = now;
        }
    }

    /// The boots that have been silent too long. A host that wakes more than a third of the timeout late was stuck
    /// itself: it gives everybody a fresh period and accuses nobody (view-synchrony §1).
    pub(crate) fn silent(&mut self, now: Instant) -> Vec<BootId> {
        if let Some(wake) = self.wake.take()
            && now.saturating_since(wake) > self.timeout / 3
        {
            self.heard.values_mut().for_each(|heard| *heard = now);
        }
        let silent: Vec<_> = self
            .heard
            .iter()
            .filter(|(_, heard)| now.saturating_since(**heard) >= self.timeout)
            .map(|(boot, _)| *boot)
            .collect();
        self.wake = self.deadline_after(now);
        silent
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.wake
    }

    pub(crate) fn rearm(&mut self, now: Instant) {
        self.wake = self.deadline_after(now);
    }

    fn deadline_after(&self, now: Instant) -> Option<Instant> {
        self.heard.values().map(|heard| *heard + self.timeout).filter(|wake| *wake > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_base::{BootNonce, ClusterId, NodeId};

    const TIMEOUT: Duration = Duration::from_millis(250);

    fn boot(nonce: u128) -> BootId {
        BootId { node: NodeId::new(ClusterId::from_entropy(1), "n"), nonce: BootNonce(nonce) }
    }

    fn ms(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    /// Checks MB-20, MB-21.
    #[test]
    fn silence_of_the_timeout_is_reported_and_a_heartbeat_prevents_it() {
        let mut detector = Detector::new(TIMEOUT);
        detector.watch(ms(0), [boot(1), boot(2)].into_iter());
        // Four of five heartbeats of boot 1 are lost; boot 2 has crashed.
        detector.on_heard(ms(200), boot(1));
        assert_eq!(detector.silent(ms(249)), []);
        assert_eq!(detector.deadline(), Some(ms(250)));
        assert_eq!(detector.silent(ms(250)), [boot(2)]);
        assert_eq!(detector.deadline(), Some(ms(450)));
    }

    /// A node that was stopped itself accuses nobody until it has listened for a full period.
    #[test]
    fn a_late_wake_accuses_nobody() {
        let mut detector = Detector::new(TIMEOUT);
        detector.watch(ms(0), [boot(1)].into_iter());
        detector.rearm(ms(0));
        assert_eq!(detector.silent(ms(5_000)), []);
        assert_eq!(detector.silent(ms(5_249)), []);
        assert_eq!(detector.silent(ms(5_250)), [boot(1)]);
    }
}
