//! What a link is told once, valid by construction.

use std::collections::BTreeSet;

use mainstay_base::{BootId, ClusterId, Duration, NodeId, frame};
use thiserror::Error;

#[cfg(feature = "test-util")]
use crate::fault::Fault;

/// The window between a node and a guest: the largest frame, and frames.
const GUEST_BYTES: usize = frame::BODY_SIZE_MAX;
const GUEST_FRAMES: usize = 4 << 10;

/// The settings of a [`Link`](crate::Link); made by a [`Builder`], immutable afterwards.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) cluster: ClusterId,
    pub(crate) me: BootId,
    pub(crate) roster_version: u64,
    pub(crate) peers: BTreeSet<NodeId>,
    pub(crate) window_bytes: usize,
    pub(crate) window_frames: usize,
    pub(crate) ack_bytes: usize,
    pub(crate) ack_delay: Duration,
    pub(crate) heartbeat: Duration,
    pub(crate) silence: Duration,
    pub(crate) hold: Duration,
    pub(crate) resend_after: Duration,
    pub(crate) redial_min: Duration,
    pub(crate) redial_max: Duration,
    pub(crate) version_min: u8,
    pub(crate) version_max: u8,
    pub(crate) features: u64,
    pub(crate) conns_max: usize,
    pub(crate) dead_max: usize,
    pub(crate) taken_by_user: bool,
    pub(crate) guests: Guests,
    #[cfg(feature = "test-util")]
    pub(crate) fault: Option<Fault>,
}

/// What a link has to do with guests: processes that are in no roster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Guests {
    /// This node is one.
    pub(crate) is_one: bool,
    /// Most guests at a time, connected or remembered.
    pub(crate) max: usize,
    /// Channels on which they may speak.
    pub(crate) channels: BTreeSet<u16>,
    /// How long the session of one that is not connected is kept.
    pub(crate) keep: Duration,
}

/// Why settings do not fit together. Nothing was made; the caller's settings are at fault.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The node is among its own peers.
    #[error("a node is not its own peer")]
    OwnPeer,
    /// The window must hold the largest frame.
    #[error("window_bytes is less than the largest frame body, {}", frame::BODY_SIZE_MAX)]
    WindowBytes,
    /// The window must hold at least one frame, and less than half of the sequence numbers.
    #[error("window_frames is not in 1..=2^30")]
    WindowFrames,
    /// Acknowledgements must come before the window is full.
    #[error("ack_bytes is not in 1..=window_bytes")]
    AckBytes,
    /// A duration is zero.
    #[error("{0} is zero")]
    Zero(&'static str),
    /// A lost heartbeat alone would close the connection, or a lost hello could not be repeated.
    #[error("silence is less than three heartbeats or less than twice resend_after")]
    Silence,
    /// An acknowledgement would come after the resend that it should prevent.
    #[error("ack_delay is not less than resend_after")]
    AckDelay,
    /// `redial_min` is more than `redial_max`.
    #[error("redial_min is more than redial_max")]
    Redial,
    /// `version_min` is more than `version_max`.
    #[error("version_min is more than version_max")]
    Version,
    /// There must be room for two connections with each peer, and for one dead boot.
    #[error("conns_max is less than two for each peer, or dead_max is zero")]
    Tables,
    /// A guest has no guests.
    #[error("a guest has no guests")]
    Guests,
}

impl Config {
    /// Settings for sites on one local network.
    pub fn lan(cluster: ClusterId, me: BootId, peers: BTreeSet<NodeId>) -> Builder {
        let conns_max = 16 + 4 * peers.len();
        Builder(Self {
            cluster,
            me,
            roster_version: 0,
            peers,
            window_bytes: 8 << 20,
            window_frames: 64 << 10,
            ack_bytes: 256 << 10,
            ack_delay: Duration::from_millis(10),
            heartbeat: Duration::from_millis(50),
            silence: Duration::from_secs(3),
            hold: Duration::from_millis(250),
            resend_after: Duration::from_secs(1),
            redial_min: Duration::from_millis(10),
            redial_max: Duration::from_millis(200),
            version_min: 1,
            version_max: 1,
            features: 0,
            conns_max,
            dead_max: 1024,
            taken_by_user: false,
            guests: Guests { keep: Duration::from_secs(10), ..Guests::default() },
            #[cfg(feature = "test-util")]
            fault: None,
        })
    }

    /// Settings for tests on virtual time: like [`Config::lan`] with small windows and short waits.
    pub fn for_test(cluster: ClusterId, me: BootId, peers: BTreeSet<NodeId>) -> Builder {
        Self::lan(cluster, me, peers)
            .window(2 << 20, 32)
            .acks(1 << 10, Duration::from_millis(5))
            .resend_after(Duration::from_millis(100))
            .silence(Duration::from_millis(400))
    }

    /// This boot.
    #[must_use]
    pub fn me(&self) -> BootId {
        self.me
    }

    /// The configured peers.
    #[must_use]
    pub fn peers(&self) -> &BTreeSet<NodeId> {
        &self.peers
    }

    /// What may be on the way to a peer or come from it, in bytes and frames.
    pub(crate) fn window(&self, guest: bool) -> (usize, usize) {
        if guest || self.guests.is_one {
            (self.window_bytes.min(GUEST_BYTES), self.window_frames.min(GUEST_FRAMES))
        } else {
            (self.window_bytes, self.window_frames)
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let zero = [
            ("ack_delay", self.ack_delay),
            ("heartbeat", self.heartbeat),
            ("resend_after", self.resend_after),
            ("redial_min", self.redial_min),
            ("guests", self.guests.keep),
        ];
        if let Some((name, _)) = zero.iter().find(|(_, value)| value.is_zero()) {
            return Err(ConfigError::Zero(name));
        }
        let rules = [
            (!self.peers.contains(&self.me.node), ConfigError::OwnPeer),
            (self.window_bytes >= frame::BODY_SIZE_MAX, ConfigError::WindowBytes),
            ((1..=1 << 30).contains(&self.window_frames), ConfigError::WindowFrames),
            ((1..=self.window_bytes).contains(&self.ack_bytes), ConfigError::AckBytes),
            (
                self.silence >= self.heartbeat * 3 && self.silence >= self.resend_after * 2,
                ConfigError::Silence,
            ),
            (self.ack_delay < self.resend_after, ConfigError::AckDelay),
            (self.redial_min <= self.redial_max, ConfigError::Redial),
            (self.version_min <= self.version_max, ConfigError::Version),
            (self.conns_max >= 2 * self.peers.len() && self.dead_max > 0, ConfigError::Tables),
            (!self.guests.is_one || self.guests.max == 0, ConfigError::Guests),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, error)| Err(error))
    }
}

/// Collects the settings of a [`Config`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder(Config);

impl Builder {
    /// The version of the roster that `peers` are from; told to peers, for information. Default 0.
    pub fn roster_version(mut self, version: u64) -> Self {
        self.0.roster_version = version;
        self
    }

    /// How much may be sent to one peer and not acknowledged yet. Default 8 MiB and 65,536 frames.
    pub fn window(mut self, bytes: usize, frames: usize) -> Self {
        self.0.window_bytes = bytes;
        self.0.window_frames = frames;
        self
    }

    /// After how many received bytes, or how long after a received frame, the acknowledgement goes out. A quarter of
    /// `window` in frames also brings it out. Default 256 KiB and 10 ms.
    pub fn acks(mut self, bytes: usize, delay: Duration) -> Self {
        self.0.ack_bytes = bytes;
        self.0.ack_delay = delay;
        self
    }

    /// The longest time without a frame to a connected peer. Default 50 ms.
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.0.heartbeat = every;
        self
    }

    /// A connection on which nothing came for so long is closed and dialled anew; so is one whose hello takes so long.
    /// Default 3 s. This is no suspicion: the session stays.
    pub fn silence(mut self, limit: Duration) -> Self {
        self.0.silence = limit;
        self
    }

    /// A boot that is connected and was heard within so long lives: another boot of its node is turned away meanwhile,
    /// and asks again. To be the silence after which a peer is suspected; zero: nobody is turned away. Default 250 ms.
    pub fn hold(mut self, limit: Duration) -> Self {
        self.0.hold = limit;
        self
    }

    /// Without progress of the acknowledgements for so long, unacknowledged frames are sent again; doubles each time.
    /// Default 1 s.
    pub fn resend_after(mut self, wait: Duration) -> Self {
        self.0.resend_after = wait;
        self
    }

    /// Bounds of the wait before a dial; it doubles from the one to the other and half of it is jitter. Default 10 ms
    /// and 200 ms.
    pub fn redial(mut self, min: Duration, max: Duration) -> Self {
        self.0.redial_min = min;
        self.0.redial_max = max;
        self
    }

    /// The versions of the services' messages that this build speaks. Default 1 to 1.
    pub fn versions(mut self, min: u8, max: u8) -> Self {
        self.0.version_min = min;
        self.0.version_max = max;
        self
    }

    /// Optional features that this build speaks; what both ends speak is in [`Event::Up`](crate::Event::Up). Default 0.
    pub fn features(mut self, bits: u64) -> Self {
        self.0.features = bits;
        self
    }

    /// A message is acknowledged when the user has said that it [took](crate::Input::Taken) it, and not when it came: who takes
    /// slowly closes the windows of its peers, and what it has not taken is bounded by a window of this node's size for each
    /// peer. Default: when it came.
    pub fn taken_by_user(mut self) -> Self {
        self.0.taken_by_user = true;
        self
    }

    /// Most connections at a time, and most dead boots remembered of one node. Default 16 and four for each peer;
    /// 1,024.
    pub fn tables(mut self, conns_max: usize, dead_max: usize) -> Self {
        self.0.conns_max = conns_max;
        self.0.dead_max = dead_max;
        self
    }

    /// Admits guests: processes that are in no roster. They dial, and are never dialled; their windows have 1 MiB; frames of theirs on
    /// other channels than these are dropped and counted. At most `max` at a time; the session of one that is not connected is
    /// kept for `keep`, and then gone ([`Event::Gone`](crate::Event::Gone)). Default: none, and 10 s.
    pub fn guests(
        mut self,
        max: usize,
        channels: impl IntoIterator<Item = u16>,
        keep: Duration,
    ) -> Self {
        self.0.conns_max =
            (self.0.conns_max - 2 * self.0.guests.max).saturating_add(max.saturating_mul(2));
        self.0.guests.max = max;
        self.0.guests.channels = channels.into_iter().collect();
        self.0.guests.keep = keep;
        self
    }

    /// This process is a guest of its peers: it is not in their roster, and it alone dials. It speaks all versions, since what nodes
    /// say to each other alone it does not hear. Default: it is not.
    pub fn as_guest(mut self) -> Self {
        self.0.guests.is_one = true;
        (self.0.version_min, self.0.version_max) = (0, u8::MAX);
        self
    }

    /// Breaks the machine on purpose.
    #[cfg(feature = "test-util")]
    #[doc(hidden)]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.0.fault = Some(fault);
        self
    }

    /// The settings, checked together.
    ///
    /// # Errors
    /// [`ConfigError`], the first rule that does not hold.
    pub fn build(self) -> Result<Config, ConfigError> {
        self.0.check()?;
        Ok(self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;
    use mainstay_base::BootNonce;

    fn lan() -> Builder {
        let cluster = ClusterId::from_entropy(1);
        let me = BootId { node: NodeId::new(cluster, "a"), nonce: BootNonce(1) };
        Config::lan(cluster, me, BTreeSet::from([NodeId::new(cluster, "b")]))
    }

    #[test]
    fn presets_are_valid() {
        lan().build().unwrap();
        let Builder(Config { cluster, me, peers, .. }) = lan();
        Config::for_test(cluster, me, peers).build().unwrap();
    }

    #[test]
    fn each_rule_refuses_what_breaks_it() {
        let ms = Duration::from_millis;
        let mut own = lan();
        own.0.peers.insert(own.0.me.node);
        let table = [
            (own, ConfigError::OwnPeer),
            (lan().window(1, 1), ConfigError::WindowBytes),
            (lan().window(8 << 20, 0), ConfigError::WindowFrames),
            (lan().window(8 << 20, 1 << 31), ConfigError::WindowFrames),
            (lan().acks(0, ms(1)), ConfigError::AckBytes),
            (lan().acks(1, ms(0)), ConfigError::Zero("ack_delay")),
            (lan().acks(1, ms(1000)), ConfigError::AckDelay),
            (lan().heartbeat(ms(0)), ConfigError::Zero("heartbeat")),
            (lan().heartbeat(ms(2000)), ConfigError::Silence),
            (lan().silence(ms(1999)), ConfigError::Silence),
            (lan().resend_after(ms(0)), ConfigError::Zero("resend_after")),
            (lan().redial(ms(2), ms(1)), ConfigError::Redial),
            (lan().versions(2, 1), ConfigError::Version),
            (lan().tables(1, 1), ConfigError::Tables),
            (lan().tables(9, 0), ConfigError::Tables),
            (lan().guests(1, [1], ms(0)), ConfigError::Zero("guests")),
            (lan().guests(1, [1], ms(1)).as_guest(), ConfigError::Guests),
        ];
        for (builder, error) in table {
            assert_eq!(builder.build().unwrap_err(), error);
        }
    }
}
