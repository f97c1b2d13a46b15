use std::cell::RefCell;
use std::rc::Rc;

use actix::{Actor, Context, Handler};
use bytes::Bytes;
use mainstay_base::{Incarnation, MessageId, NodeId, Order, Position, SiteId, ViewId};
use mainstay_runtime::Events;

use super::super::told;
use super::*;
use crate::group::{Message, State};

const UNREAD: usize = 100_000;

/// Batches of positions as they were told; 0 is a state, `u64::MAX` is an end.
type Told = Rc<RefCell<Vec<Vec<u64>>>>;

struct Ear(Told);

impl Actor for Ear {
    type Context = Context<Self>;
}

impl Handler<Events<GroupEvent>> for Ear {
    type Result = ();

    fn handle(&mut self, events: Events<GroupEvent>, _: &mut Context<Self>) {
        let place = |event: &GroupEvent| match event {
            GroupEvent::Deliver(message) => message.position.map_or(0, |at| at.0),
            _ => 0,
        };
        let end = events.is_end().then_some(u64::MAX);
        self.0.borrow_mut().push(events.iter().map(place).chain(end).collect());
    }
}

fn message(number: u64) -> GroupEvent {
    let cluster = mainstay_base::ClusterId::from_entropy(1);
    let sender = SiteId { node: NodeId::new(cluster, "a"), incarnation: Incarnation::default() };
    GroupEvent::Deliver(Message {
        id: MessageId { sender, sequence: number },
        order: Order::Total,
        position: Some(Position(number)),
        view: ViewId::NONE,
        payload: Bytes::from_static(b"12345678"),
    })
}

/// A turn with time left.
fn turn(listeners: &mut Listeners) -> bool {
    listeners.take_work();
    listeners.hand_out(UNREAD, false)
}

fn past(listeners: &mut Listeners, count: u64) {
    listeners.push(GroupEvent::State(State::default()));
    log(listeners, 1..=count);
}

fn log(listeners: &mut Listeners, numbers: std::ops::RangeInclusive<u64>) {
    let delivery = |it| match message(it) {
        GroupEvent::Deliver(Message { id, order, position, view, payload }) => {
            Delivery { message: id, order, position, view, payload }
        }
        _ => unreachable!("a message"),
    };
    listeners.push_log(Log::new(numbers.map(delivery).collect()));
    listeners.end_past();
}

fn subscribe(listeners: &mut Listeners) -> Told {
    let told = Told::default();
    let ear = Ear(Rc::clone(&told)).start().recipient();
    listeners.subscribe(Subscriber::new(ear, UNREAD, GroupEvent::weight));
    told
}

fn on_a_thread<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("{error}"));
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

async fn read(told: &Told, upto: usize) {
    while told.borrow().iter().map(Vec::len).sum::<usize>() < upto {
        tokio::task::yield_now().await;
    }
}

/// A past that weighs more than may be unread is told in slices, as it is read; what happens meanwhile comes behind it.
#[test]
fn the_past_comes_in_slices_as_it_is_read() {
    for late in [false, true] {
        on_a_thread(async {
            let mut listeners = Listeners::new();
            let early = (!late).then(|| subscribe(&mut listeners));
            past(&mut listeners, 9_999);
            assert!(turn(&mut listeners));
            let told = early.unwrap_or_else(|| subscribe(&mut listeners));
            let mut live = 10_000;
            let (mut turns, mut steps) = (0, listeners.take_work().steps);
            while told.borrow().iter().map(Vec::len).sum::<usize>() < live {
                turns += 1;
                assert!(turns < 100);
                if turns == 2 {
                    let before = told.borrow().len();
                    assert!(listeners.hand_out(UNREAD, true), "the turn is spent: nothing is told");
                    assert!(listeners.more() && told.borrow().len() == before);
                }
                if turns <= 3 {
                    listeners.push(message(live as u64));
                    live += 1;
                }
                assert!(turn(&mut listeners), "its keeper reads");
                steps += listeners.take_work().steps;
                // Nothing more for who has read nothing.
                assert!(!listeners.more() && turn(&mut listeners));
                let before = told.borrow().len();
                while told.borrow().len() == before {
                    tokio::task::yield_now().await;
                }
            }
            let told = told.borrow();
            assert!(told.iter().all(|batch| batch.len() <= SLICE.0 + 3));
            assert!(told.concat().into_iter().eq(0..live as u64), "in order, none twice");
            assert!(steps >= 9_999, "{steps} are counted");
        });
    }
}

/// The past fills the reader to the brim: what happens before it has read that waits, and costs it nothing.
#[test]
fn who_has_yet_to_read_the_past_loses_nothing() {
    on_a_thread(async {
        let mut listeners = Listeners::new();
        let told = subscribe(&mut listeners);
        let other = subscribe(&mut listeners);
        past(&mut listeners, 400);
        assert!(turn(&mut listeners) && !listeners.more(), "all of it is told");
        for number in 401..=500 {
            listeners.push(message(number));
            assert!(turn(&mut listeners), "{number}");
        }
        read(&told, 401).await;
        assert!(listeners.more() && turn(&mut listeners));
        read(&told, 501).await;
        // Another past, while what happened after the first one is read: none of it is told that the state makes void.
        past(&mut listeners, 3_000);
        listeners.push(message(3_001));
        let count = |told: &Told| told.borrow().iter().map(Vec::len).sum::<usize>();
        while count(&told).min(count(&other)) < 501 + 3_002 {
            assert!(turn(&mut listeners));
            tokio::task::yield_now().await;
        }
        assert!(told.borrow().concat().into_iter().eq((0..=500).chain(0..=3_001)));
        assert!(other.borrow().concat().into_iter().eq((0..=500).chain(0..=3_001)));
    });
}

/// In a group without a state nothing makes what was told void: all of it is told, the past as well.
#[test]
fn without_a_state_nothing_is_void() {
    on_a_thread(async {
        let mut listeners = Listeners::new();
        (1..=10).for_each(|number| listeners.push(message(number)));
        assert!(turn(&mut listeners));
        log(&mut listeners, 11..=20);
        assert!(turn(&mut listeners));
        let told = subscribe(&mut listeners);
        listeners.push(message(21));
        assert!(turn(&mut listeners));
        read(&told, 21).await;
        assert!(told.borrow().concat().into_iter().eq(1..=21));
    });
}

/// A burst that would hold up the node while an actor on its thread works on it is told in slices, in order.
#[test]
fn a_burst_comes_in_slices() {
    on_a_thread(async {
        let mut listeners = Listeners::new();
        let told = Told::default();
        let ear = Ear(Rc::clone(&told)).start().recipient();
        listeners.subscribe(Subscriber::new(ear, 64 << 20, GroupEvent::weight));
        for number in 0..10_000 {
            listeners.push(message(number));
        }
        let mut turns = 0;
        while turns == 0 || listeners.more() {
            turns += 1;
            assert!(listeners.hand_out(64 << 20, false));
            if turns == 2 {
                listeners.push(message(10_000));
            }
        }
        read(&told, 10_001).await;
        assert_eq!(turns as usize, told.borrow().len());
        assert!(told.borrow().iter().all(|batch| batch.len() <= SLICE.0));
        assert!(told.borrow().concat().into_iter().eq(0..=10_000));
    });
}

/// Whoever reads nothing of the past may leave no more unread than others.
#[test]
fn what_waits_behind_the_past_is_bounded() {
    on_a_thread(async {
        let mut listeners = Listeners::new();
        let told = subscribe(&mut listeners);
        past(&mut listeners, 9_999);
        let mut turns = 0_usize;
        while turn(&mut listeners) {
            turns += 1;
            listeners.push(message(turns as u64));
            assert!(turns * 264 <= UNREAD + 1_000);
        }
        read(&told, 1).await;
    });
}

/// Where nobody listens, what happened is kept up to the bound and no further.
#[test]
fn nothing_is_kept_for_nobody() {
    on_a_thread(async {
        let mut listeners = Listeners::new();
        for number in 1..=10_000 {
            listeners.push(message(number));
            let fits = number * 264 <= UNREAD as u64;
            assert_eq!(turn(&mut listeners), fits);
            assert_eq!(listeners.held.is_some(), fits);
        }
        assert!(listeners.events.is_empty());
        let told = subscribe(&mut listeners);
        listeners.push(message(10_001));
        assert!(turn(&mut listeners));
        read(&told, 1).await;
        assert_eq!(told.borrow()[..], [[10_001]]);
    });
}

/// A state that nobody has read when another one follows is freed on another thread, and so is one that nobody came for.
#[test]
fn an_unread_state_is_freed_elsewhere() {
    let (to, freed) = std::sync::mpsc::channel();
    let here = std::thread::current().id();
    let state = || GroupEvent::State(State::new(vec![told::bytes(8, &to)]));
    let mut listeners = Listeners::new();
    for _ in 0..2 {
        listeners.push(state());
        listeners.end_past();
        listeners.hand_out(UNREAD, false);
    }
    assert!(freed.recv().is_ok_and(|it| it != here), "the first one");
    listeners.close();
    assert!(freed.recv().is_ok_and(|it| it != here), "the second one");
}
