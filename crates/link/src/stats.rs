//! Counters.

/// What a link has seen and done since it was made. Counters only grow; reading them changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Frames handed to the transport, of every kind.
    pub frames_sent: u64,
    /// User frames handed to the transport for the first time.
    pub user_sent: u64,
    /// User frames handed to the transport again.
    pub user_resent: u64,
    /// Frames that the transport brought, of every kind.
    pub frames_received: u64,
    /// User frames delivered.
    pub delivered: u64,
    /// Acknowledgements sent, heartbeats included.
    pub acks_sent: u64,
    /// Of these, sent only because nothing else was.
    pub heartbeats_sent: u64,
    /// Times that unacknowledged frames were sent again on the same connection.
    pub resend_rounds: u64,
    /// Dials asked for.
    pub dials: u64,
    /// Connections closed because another one of the same pair of boots is preferred.
    pub surplus_closed: u64,
    /// Connections closed because nothing, or no hello, came for too long.
    pub silent_closed: u64,
    /// Connections refused because the table of connections is full.
    pub conns_refused: u64,
    /// Messages of the user given back.
    pub not_sent: u64,
    /// Dropped: a user frame received before.
    pub dropped_duplicate: u64,
    /// Dropped: a user frame ahead of its turn.
    pub dropped_gap: u64,
    /// Dropped: more than this node's window waits for the user to take it.
    pub dropped_untaken: u64,
    /// Dropped: of another session.
    pub dropped_session: u64,
    /// Dropped: before the hello of its connection.
    pub dropped_early: u64,
    /// Dropped: on a connection that is not open.
    pub dropped_stray: u64,
    /// Dropped: not a message of this protocol, or one that contradicts what was said before.
    pub dropped_garbage: u64,
    /// Dropped: from an isolated or replaced boot.
    pub dropped_dead: u64,
    /// *You are dead* sent.
    pub dead_sent: u64,
    /// *You are dead* received.
    pub dead_received: u64,
    /// *Your name is taken* sent: hellos of a second boot beside one that lives.
    pub taken_sent: u64,
    /// *Your name is taken* received.
    pub taken_received: u64,
    /// Hellos of another cluster.
    pub hello_cluster: u64,
    /// Hellos meant for another node.
    pub hello_addressee: u64,
    /// Hellos of a node that is not configured.
    pub hello_unknown_node: u64,
    /// Hellos of another node than the one dialled.
    pub hello_other_node: u64,
    /// Hellos without a common version.
    pub hello_version: u64,
    /// Answers meant for another boot of this node.
    pub hello_boot: u64,
    /// Hellos that expect more than was ever sent.
    pub hello_expectation: u64,
    /// Hellos of guests that were not admitted.
    pub hello_guest: u64,
    /// Dropped: frames of guests on channels that are not theirs.
    pub dropped_guest: u64,
    /// Sessions of guests given up since they were not connected for too long.
    pub guests_gone: u64,
}

impl Stats {
    /// What was refused of what came from outside, for an operator: each reason with its count.
    #[must_use]
    pub fn refused(&self) -> [(&'static str, u64); 14] {
        [
            ("turned-away", self.conns_refused),
            ("silent", self.silent_closed),
            ("early", self.dropped_early),
            ("malformed", self.dropped_garbage),
            ("name-taken", self.taken_sent),
            ("hello-cluster", self.hello_cluster),
            ("hello-addressee", self.hello_addressee),
            ("hello-unknown-node", self.hello_unknown_node),
            ("hello-other-node", self.hello_other_node),
            ("hello-version", self.hello_version),
            ("hello-boot", self.hello_boot),
            ("hello-expectation", self.hello_expectation),
            ("hello-guest", self.hello_guest),
            ("guest-channel", self.dropped_guest),
        ]
    }
}
