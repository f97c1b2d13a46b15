//! Actors that read late, or cast where they read.

use std::cell::RefCell;
use std::rc::Rc;

use actix::{Actor, Context, Handler};
use bytes::Bytes;
use mainstay::{CastError, Durability, Events, GroupConfig, GroupEvent, Node, NotReached, Order};

use tokio::sync::Notify;

use crate::common::{Cluster, NAMES, run};
use crate::keeper::{Keeper, Kept, Member, Stop, numbered};

/// An actor that never reads loses its subscription, and no one else loses anything.
#[test]
fn who_does_not_read_is_left_out() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let config = GroupConfig::memory().stateless().unread_bytes(20_000);
        let members = NAMES.map(|name| Member::start(&cluster, name, config.clone()));
        for member in &members {
            member.node.ready().await.unwrap();
        }
        // A mailbox that nobody empties until the end.
        struct Deaf {
            opens: Option<tokio::sync::oneshot::Receiver<()>>,
            heard: Rc<RefCell<(Vec<Bytes>, bool)>>,
        }
        impl Actor for Deaf {
            type Context = Context<Self>;
            fn started(&mut self, ctx: &mut Self::Context) {
                use actix::{AsyncContext as _, fut::ActorFutureExt as _};
                let opens = actix::fut::wrap_future(self.opens.take().unwrap());
                ctx.wait(opens.map(|_, _, _| ()));
            }
        }
        impl Handler<Events<GroupEvent>> for Deaf {
            type Result = ();
            fn handle(&mut self, events: Events<GroupEvent>, _: &mut Context<Self>) {
                let mut heard = self.heard.borrow_mut();
                assert!(!heard.1, "nothing comes after the end");
                heard.1 = events.is_end();
                heard.0.extend(events.iter().filter_map(|event| match event {
                    GroupEvent::Deliver(message) => Some(message.payload.clone()),
                    _ => None,
                }));
            }
        }
        let (open, opens) = tokio::sync::oneshot::channel();
        let heard = Rc::<RefCell<(Vec<Bytes>, bool)>>::default();
        let deaf = Deaf { opens: Some(opens), heard: Rc::clone(&heard) }.start();
        members[0].group.subscribe(deaf.recipient()).unwrap();
        for payload in numbered(0..1_000) {
            members[0].group.cast(payload, Order::Total).await.unwrap().safe().await.unwrap();
        }
        members[0].until(|kept| kept.state.len() == 1_000 && !kept.ended).await;
        assert_eq!(members[1].has(1_000).await, members[0].has(1_000).await);
        open.send(()).unwrap();
        while !heard.borrow().1 {
            tokio::task::yield_now().await;
        }
        // It has what it had room for, without a hole: 260 bytes a message, and a turn's more than the bound.
        let heard = heard.borrow().0.clone();
        assert!(heard.len() > 20_000 / 260 - 10 && heard.len() < 500, "{}", heard.len());
        assert_eq!(heard, members[0].has(1_000).await[..heard.len()]);
    });
}

/// The keeper of a state that does not read costs its node its part in the group: receipts say so, the others go on.
#[test]
fn without_its_keeper_a_node_leaves_the_group() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let config = GroupConfig::memory().unread_bytes(20_000);
        let [a, b, c] = Member::all(&cluster, &config);
        for member in [&a, &b, &c] {
            member.node.ready().await.unwrap();
        }
        let Member { node, group, keeper, .. } = c;
        keeper.send(Stop).await.unwrap();
        // What is cast before it is noticed goes on; then nothing does.
        let refused = loop {
            match group.cast("one", Order::Total).await {
                Ok(receipt) => match receipt.majority().await {
                    Ok(()) => {}
                    Err(error) => break error,
                },
                Err(CastError::Left) => break NotReached::Left,
                Err(error) => panic!("{error}"),
            }
        };
        assert!(matches!(refused, NotReached::Left | NotReached::Unknown), "{refused:?}");
        node.watch_ready().wait_for(|ready| !ready).await.unwrap();
        assert_eq!(group.cast("x", Order::Total).await.unwrap_err(), CastError::Left);
        a.group.cast("on", Order::Total).await.unwrap().safe().await.unwrap();
        node.close().await;
    });
}

/// A state that is larger than all that may be unread reaches its actor all the same.
#[test]
fn a_large_state_is_no_slow_reader() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let config = GroupConfig::memory().unread_bytes(100_000);
        let [a, b, c] = Member::all(&cluster, &config);
        for _ in 0..20 {
            let cast = a.group.cast(vec![7; 50_000], Order::Total).await.unwrap();
            cast.safe().await.unwrap();
        }
        b.node.close().await;
        let b = Member::start(&cluster, "b", config);
        b.node.ready().await.unwrap();
        c.group.cast("more", Order::Total).await.unwrap();
        assert_eq!(b.has(21).await.len(), 21);
        assert!(!b.kept.borrow().ended);
    });
}

/// An actor casts from within the handler of a delivery; its group is where it was.
#[test]
fn a_cast_from_a_handler_is_one_like_any() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let config = GroupConfig::memory();
        let [b, c] = ["b", "c"].map(|name| Member::start(&cluster, name, config.clone()));
        let mut builder = Node::builder(cluster.config("a")).unwrap();
        let group = builder.group("chat", config).unwrap();
        let (kept, changed) = (Rc::<RefCell<Kept>>::default(), Rc::<Notify>::default());
        let (own, tell) = (Rc::clone(&kept), Rc::clone(&changed));
        let answers = Some(group.clone());
        let keeper =
            Keeper { kept: own, changed: tell, is_mute: false, answers, in_chunks: false }.start();
        group.subscribe(keeper.clone().recipient()).unwrap();
        let node = builder.start().unwrap();
        b.group.cast("question", Order::Total).await.unwrap();
        for member in [&b, &c] {
            assert_eq!(member.has(2).await, ["question", "answer"]);
        }
        node.close().await;
    });
}

/// Casts, and reads nothing until there was room for it.
struct Go;

impl actix::Message for Go {
    type Result = ();
}

struct Eager {
    group: mainstay::GroupHandle,
    came_of_it: Rc<RefCell<Option<Result<(), CastError>>>>,
    heard: Rc<RefCell<usize>>,
}

impl Actor for Eager {
    type Context = Context<Self>;
}

impl Handler<Go> for Eager {
    type Result = ();

    fn handle(&mut self, _: Go, ctx: &mut Context<Self>) {
        use actix::AsyncContext as _;
        use actix::fut::{ActorFutureExt as _, wrap_future};
        let group = self.group.clone();
        let cast = async move { group.cast("at last", Order::Total).await.map(drop) };
        ctx.wait(wrap_future(cast).map(|came, eager: &mut Self, _| {
            *eager.came_of_it.borrow_mut() = Some(came);
        }));
    }
}

impl Handler<Events<GroupEvent>> for Eager {
    type Result = ();

    fn handle(&mut self, events: Events<GroupEvent>, _: &mut Context<Self>) {
        let is_message = |event: &&GroupEvent| matches!(event, GroupEvent::Deliver(_));
        *self.heard.borrow_mut() += events.iter().filter(is_message).count();
    }
}

/// An actor waits in its handler for room to cast, and reads nothing meanwhile. If it may leave so much unread it comes to its room; if not, its node
/// may leave the group first, and it is told so. It never hangs.
#[test]
fn who_waits_for_room_in_its_handler_does_not_hang() {
    for (unread, fits) in [(64 << 20, true), (20_000, false)] {
        run(async {
            let cluster = Cluster::new(Durability::Memory);
            let config = GroupConfig::memory().unread_bytes(unread);
            let mut builder = Node::builder(cluster.config("a")).unwrap();
            let group = builder.group("chat", config.clone()).unwrap();
            let (came_of_it, heard) = (Rc::default(), Rc::default());
            let eager = Eager {
                group: group.clone(),
                came_of_it: Rc::clone(&came_of_it),
                heard: Rc::clone(&heard),
            };
            let eager = eager.start();
            group.subscribe(eager.clone().recipient()).unwrap();
            let a = builder.start().unwrap();
            // There is no view yet: what is cast waits, until there is no room.
            let mut casts = 0;
            loop {
                match group.try_cast(vec![7; 100_000], Order::Total) {
                    Ok(_) => casts += 1,
                    Err(CastError::Full(_)) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            eager.send(Go).await.unwrap();
            let others = ["b", "c"].map(|name| Member::start(&cluster, name, config.clone()));
            while came_of_it.borrow().is_none() {
                tokio::task::yield_now().await;
            }
            let came = came_of_it.take().unwrap();
            assert!(came == Ok(()) || !fits && came == Err(CastError::Left), "{came:?}");
            while fits && *heard.borrow() < casts + 1 {
                tokio::task::yield_now().await;
            }
            for node in [&a, &others[0].node, &others[1].node] {
                node.clone().close().await;
            }
        });
    }
}
