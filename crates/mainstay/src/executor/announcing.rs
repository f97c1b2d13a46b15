//! Views on their way into the order of the commands.

use std::collections::VecDeque;

use bytes::Bytes;
use mainstay_base::{Departures, NodeId, Order, SiteId};
use mainstay_paradigm::{Envelope, StateMachine, VIEW_MEMBERS_MAX};
use mainstay_site::AppPort;

use super::Executor;

/// Most views that are kept until they are in the order; of more the oldest are left out.
const VIEWS_MAX: usize = 64;

/// The views that a member was told and that are not in the order yet. The member of rank 0 casts them; the others keep
/// them for the case that it fails first: then a member that was in one of them alone is still told of, as joined and as left.
#[derive(Default)]
pub(super) struct Announcing {
    views: VecDeque<(u64, Bytes)>,
    /// This member has rank 0 in the last one.
    is_first: bool,
    /// Up to here they were cast by this boot.
    cast: u64,
}

impl Announcing {
    /// A view begins.
    pub(super) fn begins(
        &mut self,
        me: NodeId,
        number: u64,
        members: &[SiteId],
        departures: &Departures,
    ) {
        self.is_first = members.first().is_some_and(|first| first.node == me);
        if members.len() > VIEW_MEMBERS_MAX {
            return tracing::error!(number, "a view is too large for the state machine");
        }
        self.views.push_back((number, Envelope::view(number, members, departures)));
        if self.views.len() > VIEWS_MAX {
            self.views.pop_front();
        }
    }

    /// Views up to `number` are in the order.
    fn ordered(&mut self, number: u64) {
        self.views.retain(|(it, _)| *it > number);
    }

    /// The next view to be cast.
    fn next(&self) -> Option<&(u64, Bytes)> {
        self.views.iter().find(|(number, _)| self.is_first && *number > self.cast)
    }
}

impl<S: StateMachine + 'static> Executor<S> {
    /// Casts the views that are due. What there is no room for is cast in a later turn: when there is room again there is one.
    pub(super) fn announce(&mut self, port: &mut AppPort<'_>) {
        if let Some(number) = self.replica.view_number() {
            self.announcing.ordered(number);
        }
        while let Some((number, payload)) = self.announcing.next() {
            let number = *number;
            match port.cast(Order::Total, self.settings.level, payload.clone()) {
                Ok(message) => {
                    self.site = Some(message.sender);
                    self.announcing.cast = number;
                }
                Err(error) => return tracing::debug!(number, %error, "a view is not cast yet"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mainstay_base::{ClusterId, Incarnation};

    use super::*;

    /// Who comes to rank 0 casts what the former one may not have cast any more; nobody casts what is in the order, or the
    /// same twice.
    #[test]
    fn the_first_member_casts_what_is_not_in_the_order() {
        let node = |name| NodeId::new(ClusterId::from_entropy(1), name);
        let site = |name| SiteId { node: node(name), incarnation: Incarnation(1) };
        let none = Departures::default();
        let mut views = Announcing::default();
        let due = |views: &Announcing| views.next().map(|(number, _)| *number);
        views.begins(node("b"), 1, &[site("a"), site("b")], &none);
        views.begins(node("b"), 2, &[site("a"), site("b"), site("c")], &none);
        assert_eq!(due(&views), None);
        views.ordered(1);
        views.begins(node("b"), 3, &[site("b")], &none);
        for number in [2, 3] {
            assert_eq!(due(&views), Some(number));
            views.cast = number;
        }
        assert_eq!(due(&views), None);
        views.ordered(3);
        assert!(views.views.is_empty());
        (4..200).for_each(|number| views.begins(node("b"), number, &[site("b")], &none));
        assert_eq!((views.views.len(), due(&views)), (VIEWS_MAX, Some(200 - VIEWS_MAX as u64)));
    }
}
