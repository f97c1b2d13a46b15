//! Which node to ask: the configured ones, what they say of the members, and who failed lately.

use std::collections::BTreeSet;

use mainstay_base::{Duration, Instant, NodeId, Rng};

#[derive(Clone, Debug)]
struct Endpoint {
    node: NodeId,
    failures: u32,
    not_before: Instant,
}

/// The nodes in an order of this client's own, so that clients spread over them.
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    nodes: Vec<Endpoint>,
    /// Where the next search begins.
    cursor: usize,
    /// The newest view that a node told of, and its members.
    view: u64,
    members: BTreeSet<NodeId>,
}

impl Endpoints {
    pub(super) fn new(nodes: &BTreeSet<NodeId>, rng: &mut Rng) -> Self {
        let endpoint =
            |node: &NodeId| Endpoint { node: *node, failures: 0, not_before: Instant::ZERO };
        let mut nodes: Vec<_> = nodes.iter().map(endpoint).collect();
        rng.shuffle(&mut nodes);
        Self { nodes, cursor: 0, view: 0, members: BTreeSet::new() }
    }

    /// Takes in what a node says of the members; an older view is passed over.
    pub(super) fn learn(&mut self, view: u64, members: &[NodeId]) {
        if view >= self.view {
            self.view = view;
            self.members = members.iter().copied().collect();
        }
    }

    pub(super) fn members(&self) -> (u64, &BTreeSet<NodeId>) {
        (self.view, &self.members)
    }

    /// The node to ask next, and from when on: one that has not failed lately, a member rather than another, the next
    /// in turn.
    pub(super) fn next(&self, now: Instant) -> Option<(NodeId, Instant)> {
        let count = self.nodes.len();
        let turn = |index: usize| (index + count - self.cursor) % count;
        let rank = |(index, it): &(usize, &Endpoint)| {
            (it.not_before.max(now), !self.members.contains(&it.node), turn(*index))
        };
        let (_, next) = self.nodes.iter().enumerate().min_by_key(rank)?;
        Some((next.node, next.not_before))
    }

    /// The node did not answer, or cannot serve.
    pub(super) fn failed(
        &mut self,
        node: NodeId,
        now: Instant,
        backoff: (Duration, Duration),
        rng: &mut Rng,
    ) {
        let Some(index) = self.nodes.iter().position(|it| it.node == node) else { return };
        self.cursor = (index + 1) % self.nodes.len();
        let endpoint = &mut self.nodes[index];
        endpoint.not_before = now + pause(backoff, endpoint.failures, rng);
        endpoint.failures = endpoint.failures.saturating_add(1);
    }

    /// The node gave an answer that it had to work for.
    pub(super) fn works(&mut self, node: NodeId) {
        if let Some(endpoint) = self.nodes.iter_mut().find(|it| it.node == node) {
            endpoint.failures = 0;
        }
    }
}

/// The pause after so many failures before this one: doubled each time, between half of it and all of it.
pub(super) fn pause((first, most): (Duration, Duration), failures: u32, rng: &mut Rng) -> Duration {
    let whole = first.saturating_mul(1 << failures.min(20)).min(most).as_nanos() as u64;
    Duration::from_nanos(rng.between(whole / 2, whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_base::ClusterId;

    const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

    /// All nodes have their turn, one that failed later than those that did not, and members come first.
    #[test]
    fn members_that_did_not_fail_come_first() {
        let mut rng = Rng::new(1);
        let names = ["a", "b", "c"];
        let nodes = names.map(|name| NodeId::new(ClusterId::from_entropy(1), name));
        let mut endpoints = Endpoints::new(&nodes.into(), &mut rng);
        let mut now = Instant::ZERO;
        let mut seen = BTreeSet::new();
        for _ in 0..3 {
            let (node, at) = endpoints.next(now).expect("there are nodes");
            assert!(at <= now);
            seen.insert(node);
            endpoints.failed(node, now, BACKOFF, &mut rng);
        }
        assert_eq!(seen, nodes.into());
        assert!(endpoints.next(now).is_some_and(|(_, at)| at > now), "all have failed");
        now = now + Duration::from_secs(2);
        endpoints.learn(2, &[nodes[1]]);
        endpoints.learn(1, &[nodes[2]]);
        assert_eq!(endpoints.next(now).map(|(node, _)| node), Some(nodes[1]));
        endpoints.failed(nodes[1], now, BACKOFF, &mut rng);
        assert_ne!(endpoints.next(now).map(|(node, _)| node), Some(nodes[1]));
    }

    /// Pauses grow to their bound and no further.
    #[test]
    fn pauses_are_bounded() {
        let mut rng = Rng::new(1);
        for failures in [0, 1, 5, 40, u32::MAX] {
            let pause = pause(BACKOFF, failures, &mut rng);
            assert!(pause >= BACKOFF.0 / 2 && pause <= BACKOFF.1, "{pause:?}");
        }
    }
}
