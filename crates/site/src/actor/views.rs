//! The views of the sites, told to whoever wants to know: with names, and with what changed.

use std::collections::BTreeMap;
use std::sync::Arc;

pub use mainstay_base::NamedSite as Member;
use mainstay_base::{NodeId, Reason, SiteId, ViewId};
use mainstay_membership::View;
use mainstay_runtime::Subscriber;
use tokio::sync::watch;

/// A view of the sites is installed at this node.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ViewChanged {
    /// Its number is a fencing token: it only grows.
    pub id: ViewId,
    /// The oldest first: the place in this list is the rank.
    pub members: Vec<Member>,
    /// Of these, who was not in the view before that this node has seen.
    pub joined: Vec<Member>,
    /// Who was in that and is no more, and why: the same at all who install this view.
    pub left: Vec<(Member, Reason)>,
    /// This node is a member. Otherwise it takes no part; if it did, it was declared dead, and a node of `mainstay` starts anew by itself
    /// in its process. That is told at once, with the last view and nobody in [`joined`](Self::joined) and [`left`](Self::left).
    pub is_member: bool,
    /// This node hears a majority of the nodes. A member that does not stays in its last view, and does not know what the others do: they may
    /// have another view by now. When that changes the view is told again, with nobody in [`joined`](Self::joined) and [`left`](Self::left).
    pub has_majority: bool,
}

impl ViewChanged {
    /// The member of that name.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| &*member.name == name)
    }
}

/// The last view, and who is told of the next.
pub(super) struct Views {
    names: BTreeMap<NodeId, Arc<str>>,
    last: watch::Sender<Arc<ViewChanged>>,
    subscribers: Vec<Subscriber<Arc<ViewChanged>>>,
    minority: bool,
}

impl Views {
    pub(super) fn new(names: &BTreeMap<String, NodeId>) -> Self {
        let none = ViewChanged {
            id: ViewId::NONE,
            members: Vec::new(),
            joined: Vec::new(),
            left: Vec::new(),
            is_member: false,
            has_majority: false,
        };
        Self {
            names: names.iter().map(|(name, node)| (*node, name.as_str().into())).collect(),
            last: watch::Sender::new(Arc::new(none)),
            subscribers: Vec::new(),
            minority: false,
        }
    }

    /// Always the last view; before the first one the empty one with number 0.
    pub(super) fn watch(&self) -> watch::Receiver<Arc<ViewChanged>> {
        self.last.subscribe()
    }

    fn named(&self, site: SiteId) -> Member {
        let name = self.names.get(&site.node).map_or_else(|| "?".into(), Arc::clone);
        Member::new(name, site)
    }

    pub(super) fn install(&mut self, view: &View, is_member: bool) {
        let last = Arc::clone(&self.last.borrow());
        let members: Vec<_> = view.members.iter().map(|member| self.named(member.site)).collect();
        let joined = members.iter().filter(|it| !last.members.contains(it)).cloned().collect();
        // Each view that a site is left out of says why.
        let why = |member: &Member| view.departures.why(member.site).unwrap_or(Reason::Absent);
        let gone = last.members.iter().filter(|it| !members.contains(it));
        let left = gone.map(|member| (member.clone(), why(member))).collect();
        let has_majority = !self.minority;
        let id = view.id;
        self.tell(ViewChanged { id, members, joined, left, is_member, has_majority });
    }

    fn tell(&mut self, changed: ViewChanged) {
        let changed = Arc::new(changed);
        self.subscribers.retain_mut(|it| it.tell(vec![Arc::clone(&changed)]));
        self.last.send_replace(changed);
    }

    /// Too few nodes are heard for a majority, or enough again.
    pub(super) fn minority(&mut self, on: bool) {
        self.minority = on;
        let last = (**self.last.borrow()).clone();
        let (joined, left) = (Vec::new(), Vec::new());
        self.tell(ViewChanged { has_majority: !on, joined, left, ..last });
    }

    /// The boot is dead: the node is no member until another view has it.
    pub(super) fn killed(&mut self) {
        self.minority = false;
        let last = (**self.last.borrow()).clone();
        let (joined, left) = (Vec::new(), Vec::new());
        self.tell(ViewChanged { is_member: false, has_majority: false, joined, left, ..last });
    }

    /// From here on an actor is told each view; at once the last one.
    pub(super) fn subscribe(&mut self, mut subscriber: Subscriber<Arc<ViewChanged>>) {
        let last = Arc::clone(&self.last.borrow());
        if subscriber.tell(vec![last]) {
            self.subscribers.push(subscriber);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use actix::{Actor, Context, Handler};
    use mainstay_runtime::Events;

    use super::*;

    /// Counts what it is told, and whether it was told the end.
    struct Ear(Rc<Cell<(usize, bool)>>);

    impl Actor for Ear {
        type Context = Context<Self>;
    }

    impl Handler<Events<Arc<ViewChanged>>> for Ear {
        type Result = ();

        fn handle(&mut self, events: Events<Arc<ViewChanged>>, _: &mut Context<Self>) {
            let (count, _) = self.0.get();
            self.0.set((count + events.iter().count(), events.is_end()));
        }
    }

    /// Who reads nothing is told as much as it may leave unread, and that it is the end; who reads is told all.
    #[test]
    fn a_subscriber_that_does_not_read_is_let_go() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.unwrap_or_else(|error| panic!("{error}"));
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let mut views = Views::new(&BTreeMap::new());
            let heard = [Rc::<Cell<(usize, bool)>>::default(), Rc::default()];
            for (heard, unread) in heard.iter().zip([8, 1_000]) {
                let ear = Ear(Rc::clone(heard)).start().recipient();
                views.subscribe(Subscriber::new(ear, unread, |_| 1));
            }
            for turn in 0..100 {
                views.minority(turn % 2 == 0);
            }
            assert_eq!(views.subscribers.len(), 1);
            while heard[1].get().0 < 101 {
                tokio::task::yield_now().await;
            }
            let (count, ended) = heard[0].get();
            assert!(ended && (8..=9).contains(&count), "{count}");
            assert_eq!(heard[1].get(), (101, false));
        });
    }
}
