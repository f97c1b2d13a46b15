//! Process groups of users' actors, on three nodes over loopback and on disk, beside replicated state machines.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[path = "../common/mod.rs"]
mod common;
mod keeper;
mod slow;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Context, Handler};
use common::{Cluster, Journal, NAMES, run};
use keeper::{Member, numbered};
use mainstay::{
    CastCommand, CastError, Durability, Events, GroupConfig, GroupEvent, Level, MESSAGE_BYTES_MAX,
    Node, NotReached, Order, Porter, Reason, Recipient, StartError, ViewChanged,
};
use std::sync::Arc;
use tokio::sync::Notify;

/// Messages of all are delivered in one order at all; a receipt tells how far one has got. What is cast before the start waits
/// for the first view.
#[test]
fn one_order_at_all_members() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let config = GroupConfig::memory();
        let members = Member::all(&cluster, &config);
        let mut receipts = Vec::new();
        for (member, first) in members.iter().zip([0, 100, 200]) {
            for payload in numbered(first..first + 100) {
                receipts.push(member.group.cast(payload, Order::Total).await.unwrap());
            }
        }
        for receipt in &receipts {
            receipt.delivered().await.unwrap();
            receipt.majority().await.unwrap();
            receipt.safe().await.unwrap();
            assert_eq!(receipt.disk().await, Err(NotReached::Level(Level::Disk)));
        }
        let first = members[0].has(300).await;
        for member in &members {
            member.node.ready().await.unwrap();
            assert_eq!(member.has(300).await, first);
            member.until(|kept| kept.views.last().is_some_and(|it| it.len() == 3)).await;
            // A group that has just been made has nothing to lose.
            assert_eq!((member.kept.borrow().maybe_lost, member.kept.borrow().states), (0, 1));
        }
        let fifo = members[1].group.cast("fifo", Order::Fifo).await.unwrap();
        fifo.delivered().await.unwrap();
        for member in &members {
            member.until(|kept| kept.fifo == ["fifo"]).await;
        }
    });
}

/// A joiner gets the state from another member; the library writes it down before the node says that it is whole. Then the two
/// that had it before fail: nothing that was acknowledged is lost. So U2 of the trial cannot be done wrongly.
#[test]
fn a_transferred_state_is_forced_by_the_library() {
    run(async {
        let cluster = Cluster::new(Durability::Disk);
        let config = GroupConfig::disk().checkpoint_bytes(20_000);
        let [a, b, c] = Member::all(&cluster, &config);
        for payload in numbered(0..1_000) {
            a.group.cast(payload, Order::Total).await.unwrap();
        }
        let last = a.group.cast_for("last", Order::Total, Level::Disk).await.unwrap();
        last.disk().await.unwrap();
        // b goes, its disk too; it comes back with nothing.
        b.node.close().await;
        std::fs::remove_dir_all(cluster.dir("b")).unwrap();
        let b = Member::start(&cluster, "b", config.clone());
        b.node.ready().await.unwrap();
        let states = b.has(1_001).await;
        let more = a.group.cast_for("more", Order::Total, Level::Disk).await.unwrap();
        more.disk().await.unwrap();
        // The two that were there from the beginning fail; b, and c with its log, have all.
        a.node.close().await;
        c.node.close().await;
        b.node.close().await;
        let [b, c] = ["b", "c"].map(|name| Member::start(&cluster, name, config.clone()));
        for member in [&b, &c] {
            member.node.ready().await.unwrap();
            let kept = member.has(1_002).await;
            assert_eq!(kept[..1_001], states);
            assert_eq!(kept[1_001], "more");
        }
        assert!(b.kept.borrow().blocked == 0 && c.kept.borrow().blocked == 0);
    });
}

/// A node on disk is restarted: its actor gets the last checkpoint and what follows it, once.
#[test]
fn a_restarted_node_gives_its_actor_the_past() {
    run(async {
        let cluster = Cluster::new(Durability::Disk);
        let config = GroupConfig::disk().checkpoint_bytes(10_000);
        let [a, b, c] = Member::all(&cluster, &config);
        for payload in numbered(0..500) {
            a.group.cast(payload, Order::Total).await.unwrap();
        }
        a.group.cast("end", Order::Total).await.unwrap().disk().await.unwrap();
        let all = a.has(501).await;
        for member in [a, b, c] {
            member.node.close().await;
        }
        let members = NAMES.map(|name| Member::start(&cluster, name, config.clone()));
        for member in &members {
            member.node.ready().await.unwrap();
            assert_eq!(member.has(501).await, all);
        }
        members[2].group.cast("again", Order::Total).await.unwrap();
        for member in &members {
            assert_eq!(member.has(502).await[501], "again");
        }
    });
}

/// A node that is started without one of its groups would cut that out of its log: it is refused, and nothing is lost, until somebody
/// says that the group is to be forgotten.
#[test]
fn a_group_that_is_left_out_is_not_lost() {
    run(async {
        let cluster = Cluster::new(Durability::Disk);
        let [a, b, c] = Member::all(&cluster, &GroupConfig::disk());
        a.group.cast("kept", Order::Total).await.unwrap().disk().await.unwrap();
        for member in [a, b, c] {
            member.node.close().await;
        }
        let without = |forget: bool| {
            let mut builder = Node::builder(cluster.config("a")).unwrap();
            builder.group("other", GroupConfig::disk()).unwrap();
            if forget {
                builder.forget_group("chat");
            }
            builder.start()
        };
        let error = without(false).unwrap_err().to_string();
        assert!(error.contains("was on disk here, and is not now"), "{error}");
        let members = NAMES.map(|name| Member::start(&cluster, name, GroupConfig::disk()));
        for member in members {
            assert_eq!(member.has(1).await, ["kept"]);
            member.node.close().await;
        }
        without(true).unwrap().close().await;
    });
}

/// The views reach an actor and a task, with names, and with who left and why.
#[test]
fn views_say_who_left_and_why() {
    struct Views(Rc<RefCell<Vec<Arc<ViewChanged>>>>, Rc<Notify>);
    impl Actor for Views {
        type Context = Context<Self>;
    }
    impl Handler<Events<Arc<ViewChanged>>> for Views {
        type Result = ();
        fn handle(&mut self, events: Events<Arc<ViewChanged>>, _: &mut Context<Self>) {
            self.0.borrow_mut().extend(events.iter().cloned());
            self.1.notify_one();
        }
    }
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let [a, b, c] = Member::all(&cluster, &GroupConfig::memory());
        let (seen, changed) = (Rc::<RefCell<Vec<_>>>::default(), Rc::<Notify>::default());
        let views = Views(Rc::clone(&seen), Rc::clone(&changed)).start();
        assert!(a.node.views().subscribe(views.recipient()).await);
        let mut watched = a.node.views().watch().unwrap();
        watched.wait_for(|view| view.members.len() == 3).await.unwrap();
        c.node.close().await;
        let view = watched.wait_for(|view| view.members.len() == 2).await.unwrap().clone();
        assert!(view.is_member && view.member("c").is_none() && view.member("b").is_some());
        assert_eq!(view.left.len(), 1);
        let (who, why) = &view.left[0];
        assert_eq!(&*who.name, "c");
        assert_eq!(*why, Reason::Closed);
        while seen.borrow().last().is_none_or(|last| last.id != view.id) {
            changed.notified().await;
        }
        let ids: Vec<_> = seen.borrow().iter().map(|view| view.id.number).collect();
        assert!(ids.is_sorted(), "{ids:?}");
        b.node.close().await;
    });
}

/// A node that hears no majority any more tells so, to the actors of its groups and to those that hear its views, and tells when it does
/// again; what was cast meanwhile is delivered then.
#[test]
fn a_minority_is_told_and_its_end_too() {
    run(async {
        let cluster = Cluster::new(Durability::Disk);
        let [a, b, c] = Member::all(&cluster, &GroupConfig::disk());
        let mut views = a.node.views().watch().unwrap();
        assert!(!views.borrow().has_majority, "before the first view");
        for member in [&a, &b, &c] {
            member.node.ready().await.unwrap();
        }
        assert!(views.borrow_and_update().has_majority);
        a.group.cast("first", Order::Total).await.unwrap().safe().await.unwrap();
        c.node.close().await;
        let two = views.wait_for(|view| view.members.len() == 2).await.unwrap().clone();
        assert!(two.has_majority && a.kept.borrow().minority.is_empty());
        b.node.close().await;
        let lost = views.wait_for(|view| !view.has_majority).await.unwrap().clone();
        assert_eq!((lost.id, &lost.members, lost.is_member), (two.id, &two.members, true));
        assert!(lost.joined.is_empty() && lost.left.is_empty());
        a.until(|kept| kept.minority == [true]).await;
        let receipt = a.group.cast("meanwhile", Order::Total).await.unwrap();
        assert_eq!(receipt.has_reached(Level::Delivered), None);
        let _b = Member::start(&cluster, "b", GroupConfig::disk());
        views.wait_for(|view| view.has_majority).await.unwrap();
        a.until(|kept| kept.minority == [true, false]).await;
        receipt.majority().await.unwrap();
        assert_eq!(a.has(2).await, ["first", "meanwhile"]);
    });
}

/// Who has a recipient of the group and no handle casts, in the order of its messages, and is refused as with the handle.
#[test]
fn casts_come_as_messages() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let [a, b, c] = Member::all(&cluster, &GroupConfig::memory());
        let door: Recipient<CastCommand> = Porter::start(a.group.clone()).recipient();
        let casts = numbered(0..100).map(|it| door.send(CastCommand::new(it, Order::Total)));
        let mut receipts = Vec::new();
        for cast in casts.collect::<Vec<_>>() {
            receipts.push(cast.await.unwrap().unwrap());
        }
        receipts.last().unwrap().safe().await.unwrap();
        assert!(receipts.iter().map(mainstay::Receipt::number).is_sorted());
        assert_eq!(b.has(100).await, numbered(0..100).collect::<Vec<_>>());
        let large = vec![0; MESSAGE_BYTES_MAX + 1];
        let refused = door.send(CastCommand::new(large, Order::Total)).await.unwrap();
        assert_eq!(refused.unwrap_err(), CastError::TooLarge(MESSAGE_BYTES_MAX + 1));
        a.node.close().await;
        let refused = door.send(CastCommand::new("late", Order::Total)).await.unwrap();
        assert_eq!(refused.unwrap_err(), CastError::Closed);
        drop((b, c));
    });
}

/// Whoever asks for what cannot be had is told at once, in types.
#[test]
fn bad_input_is_refused_in_types() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let mut builder = Node::builder(cluster.config("a")).unwrap();
        let group = builder.group("chat", GroupConfig::memory()).unwrap();
        let twice = builder.group("chat", GroupConfig::disk()).unwrap_err();
        assert!(matches!(twice, StartError::Taken(name) if name == "chat"));
        let twice = builder.replicate("chat", Journal::default).unwrap_err();
        assert!(matches!(twice, StartError::Taken(_)));
        let level = builder.group("d", GroupConfig::memory().deliver_at(Level::Disk)).unwrap_err();
        assert!(matches!(level, StartError::Group(_)), "{level}");
        let refused = group.cast_for("x", Order::Fifo, Level::Majority).await.unwrap_err();
        assert_eq!(refused, CastError::Level(Level::Majority));
        let refused = group.try_cast_for("x", Order::Total, Level::Disk).unwrap_err();
        assert_eq!(refused, CastError::Level(Level::Disk));
        let large = vec![0; MESSAGE_BYTES_MAX + 1];
        let refused = group.try_cast(large, Order::Total).unwrap_err();
        assert_eq!(refused, CastError::TooLarge(MESSAGE_BYTES_MAX + 1));
        // Nothing takes them before the start: then it is full, and the bytes come back.
        let mut filled = 0;
        let full = loop {
            match group.try_cast(vec![7; MESSAGE_BYTES_MAX], Order::Total) {
                Ok(_) => filled += 1,
                Err(error) => break error,
            }
        };
        assert!(filled > 8, "{filled}");
        assert!(matches!(full, CastError::Full(bytes) if bytes.len() == MESSAGE_BYTES_MAX));
        let receipt = group.cast_for("never", Order::Total, Level::Safe);
        let node = builder.start().unwrap();
        let waits = tokio::time::timeout(Duration::from_millis(1), receipt);
        drop(waits.await);
        let other = node.clone();
        node.close().await;
        assert_eq!(group.cast("x", Order::Total).await.unwrap_err(), CastError::Closed);
        assert!(other.ready().await.is_err());
        let config =
            cluster.config("a").timeouts(Duration::from_millis(10), Duration::from_millis(50));
        let refused = Node::builder(config).unwrap().start().unwrap_err();
        assert!(matches!(refused, StartError::Timeouts { .. }), "{refused}");
    });
}

/// Groups, in memory and on disk, and state machines, on one node: each for itself.
#[test]
fn a_node_hosts_several() {
    run(async {
        let cluster = Cluster::new(Durability::Disk);
        let start = |name: &str| {
            let mut builder = Node::builder(cluster.config(name)).unwrap();
            let jobs = builder.replicate("jobs", Journal::default).unwrap();
            let users = builder.replicate("users", Journal::default).unwrap();
            let group = builder.group("chat", GroupConfig::memory().stateless()).unwrap();
            (builder.start().unwrap(), jobs, users, group)
        };
        let nodes = NAMES.map(start);
        for (node, ..) in &nodes {
            node.ready().await.unwrap();
        }
        let [(_, jobs, users, group), (_, jobs_b, ..), ..] = &nodes;
        for number in 0..50_u64 {
            assert!(common::place(&jobs.execute(&number.to_le_bytes()).await).is_some());
        }
        assert!(common::place(&users.execute(&7_u64.to_le_bytes()).await).is_some());
        group.cast("hello", Order::Total).await.unwrap().safe().await.unwrap();
        assert_eq!(common::journal(jobs_b).await, (0..50).collect::<Vec<_>>());
        assert_eq!(common::journal(users).await, [7]);
        let status = nodes[0].0.status().await.unwrap();
        assert_eq!(status.stack.unwrap().groups.len(), 3);
    });
}

/// A node that stands still is declared dead and begins anew. The actors of its group and those that hear its views are told so before they are told
/// of a view that has it again: who led leads no more.
#[test]
fn who_is_declared_dead_is_told() {
    struct Ear<E>(Rc<RefCell<Vec<E>>>);
    impl<E: Unpin + 'static> Actor for Ear<E> {
        type Context = Context<Self>;
    }
    impl Handler<Events<Arc<ViewChanged>>> for Ear<(bool, bool)> {
        type Result = ();
        fn handle(&mut self, events: Events<Arc<ViewChanged>>, _: &mut Context<Self>) {
            let told = events.iter().map(|view| (view.is_member, view.has_majority));
            self.0.borrow_mut().extend(told);
        }
    }
    impl Handler<Events<GroupEvent>> for Ear<&'static str> {
        type Result = ();
        fn handle(&mut self, events: Events<GroupEvent>, _: &mut Context<Self>) {
            self.0.borrow_mut().extend(events.iter().filter_map(|event| match event {
                GroupEvent::View(_) => Some("view"),
                GroupEvent::Died => Some("died"),
                _ => None,
            }));
        }
    }
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let build = |builder: &mut mainstay::NodeBuilder| {
            let group = builder.group("chat", GroupConfig::memory())?;
            Ok((group, builder.replicate("jobs", Journal::default)?))
        };
        let start = |name| {
            let mut builder = Node::builder(cluster.config(name)).unwrap();
            let handles = build(&mut builder).unwrap();
            (builder.start().unwrap(), handles)
        };
        let [a, b] = ["a", "b"].map(start);
        let (node, (group, jobs)) = Node::spawn(cluster.config("c"), build).await.unwrap();
        let (views, events) = (Rc::default(), Rc::default());
        let (view_ear, event_ear) =
            (Ear(Rc::clone(&views)).start(), Ear(Rc::clone(&events)).start());
        group.subscribe(event_ear.recipient()).unwrap();
        assert!(node.views().subscribe(view_ear.recipient()).await);
        for node in [&a.0, &b.0, &node] {
            node.ready().await.unwrap();
        }
        let mut seen = a.0.views().watch().unwrap();
        seen.wait_for(|view| view.members.len() == 3).await.unwrap();
        let (wake, woken) = std::sync::mpsc::channel::<()>();
        jobs.submit_read(true, move |_| {
            let _ = woken.recv_timeout(Duration::from_secs(20));
        });
        seen.wait_for(|view| view.members.len() == 2).await.unwrap();
        wake.send(()).unwrap();
        seen.wait_for(|view| view.members.len() == 3).await.unwrap();
        let is_back = || {
            let events = events.borrow();
            let died = events.iter().position(|it| *it == "died");
            died.is_some_and(|at| events[..at].contains(&"view") && events[at..].contains(&"view"))
        };
        let views_say = || {
            let views = views.borrow();
            let out = views.iter().rposition(|it| *it == (false, false));
            out.is_some_and(|at| {
                views[..at].contains(&(true, true)) && views[at..].contains(&(true, true))
            })
        };
        while !(is_back() && views_say()) {
            tokio::task::yield_now().await;
        }
        node.close().await;
    });
}
