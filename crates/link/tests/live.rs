//! Links with their actors on virtual time: kills, pauses, cuts, and readers that are slow.
//!
//! `MAINSTAY_SEED` is the first seed and `MAINSTAY_SEEDS` how many there are.
#![cfg(feature = "actor")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use mainstay_base::{BootId, ClusterId, Duration, Rng};
use mainstay_link::actor::{LinkEvent, LinkEvents, LinkHandle, LinkParts, Peer, SendError, open};
use mainstay_runtime::TimeSource;
use mainstay_sim::Atlas;
use mainstay_sim::live::{Plan, Room, Run, Start, swarm};

const NODES: usize = 3;

/// What each boot has been accepted for, and given of, each other one.
#[derive(Default)]
struct Book {
    accepted: BTreeMap<(BootId, BootId), u64>,
    given: BTreeMap<(BootId, BootId), u64>,
    acknowledged: BTreeMap<(BootId, BootId), u64>,
    replaced: u64,
    unsettled: u64,
    ends: bool,
    wrong: Vec<String>,
}

impl Book {
    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(what());
        }
    }

    fn on_event(&mut self, me: BootId, event: &LinkEvent) {
        match event {
            LinkEvent::Message { from, payload } => {
                let number = u64::from_le_bytes(payload[..8].try_into().unwrap());
                let given = self.given.entry((from.boot, me)).or_default();
                *given += 1;
                let given = *given;
                self.check(number == given, || format!("MB-27: {number} and not {given}"));
            }
            LinkEvent::Acknowledged { to, upto } => {
                let former = self.acknowledged.insert((me, to.boot), *upto).unwrap_or(0);
                self.check(former < *upto, || format!("{upto} is acknowledged after {former}"));
            }
            LinkEvent::Replaced { old, unsettled, .. } => {
                let of = (me, old.boot);
                let known = |of_what: &BTreeMap<_, u64>| of_what.get(&of).copied().unwrap_or(0);
                let (accepted, given) = (known(&self.accepted), known(&self.given));
                let (unknown, void) = (&unsettled.unknown, &unsettled.void);
                self.replaced += 1;
                self.unsettled += void.end - unknown.start;
                let acknowledged = known(&self.acknowledged);
                self.check(acknowledged < unknown.start, || "open, and acknowledged".to_owned());
                self.check(unknown.end == void.start, || format!("a hole in {unsettled:?}"));
                self.check(given < void.start.max(1), || format!("{given} of {unsettled:?}"));
                // One may have been accepted and not be in the book yet.
                let fits = (accepted..=accepted + 1).contains(&(void.end.max(1) - 1));
                self.check(fits, || format!("{accepted} were accepted, and {unsettled:?}"));
            }
            LinkEvent::Dead { by, .. } => self.wrong.push(format!("dead for {by}, which is wrong")),
            _ => {}
        }
    }
}

type Shared = Rc<RefCell<Book>>;

async fn sends(link: LinkHandle, to: Peer, time: Rc<dyn TimeSource>, mut rng: Rng, book: Shared) {
    let of = (link.me().boot, to.boot);
    for number in 1_u64.. {
        if book.borrow().ends {
            return;
        }
        let mut payload = number.to_le_bytes().to_vec();
        payload.resize(rng.between(8, 2_000) as usize, 0);
        match link.send(&to, payload).await {
            Ok(sent) => {
                book.borrow_mut().check(sent.number == number, || format!("{sent:?}, {number}"));
                book.borrow_mut().accepted.insert(of, number);
            }
            Err(SendError::Replaced(_) | SendError::Ended(_)) => return,
            Err(refused) => return book.borrow_mut().wrong.push(refused.to_string()),
        }
        if rng.below(20) == 0 {
            time.sleep_until(time.now() + Duration::from_millis(rng.below(30))).await;
        }
    }
}

async fn reads(
    link: LinkHandle,
    mut events: LinkEvents,
    time: Rc<dyn TimeSource>,
    mut rng: Rng,
    book: Shared,
) {
    let weak = link.downgrade();
    let me = link.me().boot;
    drop(link);
    while let Some(event) = events.next().await {
        let met = book.borrow().accepted.clone();
        if let (LinkEvent::Up { peer }, Some(link)) = (&event, weak.upgrade())
            && !met.contains_key(&(me, peer.boot))
        {
            book.borrow_mut().accepted.insert((me, peer.boot), 0);
            let (rng, book) = (rng.stream(&peer.name), Rc::clone(&book));
            tokio::task::spawn_local(sends(link, peer.clone(), Rc::clone(&time), rng, book));
        }
        book.borrow_mut().on_event(me, &event);
        if rng.below(50) == 0 {
            time.sleep_until(time.now() + Duration::from_millis(rng.below(200))).await;
        }
    }
}

fn starter(book: Shared) -> impl FnMut(Start) -> Result<LinkHandle, String> {
    let names = (0..NODES).map(|index| format!("n{index}"));
    let roster: BTreeMap<_, _> = names.zip(Room::<LinkHandle>::addresses(NODES)).collect();
    move |Start { index, mut ports, restored, .. }| {
        let rng = Rng::new(ports.entropy.draw().unwrap() as u64);
        let (cluster, time) = (ClusterId::from_entropy(1), Rc::clone(&ports.time));
        let (roster, name) = (roster.clone(), format!("n{index}"));
        let (transport, entropy) = (ports.transport, ports.entropy);
        let clock = Rc::clone(&time);
        let parts = LinkParts::new(cluster, name, roster, transport, clock, entropy);
        let mut parts = parts.configure(|config| config.window(2 << 20, 100));
        parts.unread_bytes = 4 << 10;
        let (link, events) = open(parts).map_err(|error| error.to_string())?;
        restored.tell();
        let reading = reads(link.clone(), events, time, rng, Rc::clone(&book));
        tokio::task::spawn_local(reading);
        Ok(link)
    }
}

fn scenario(run: &Run<'_>) -> Result<(u64, u64, u64, u128), String> {
    let book = Shared::default();
    let mut room = run.room(starter(Rc::clone(&book)));
    run.play(&mut room)?;
    book.borrow_mut().ends = true;
    let (nodes, kept) = (room.outside(), Rc::clone(&book));
    let all_given = async move {
        loop {
            let boots: Option<Vec<_>> =
                (0..NODES).map(|index| nodes.node(index).map(|link| link.me().boot)).collect();
            let is_whole = |from: &BootId, to: &BootId| {
                let book = kept.borrow();
                let known = |map: &BTreeMap<_, u64>| map.get(&(*from, *to)).copied();
                let accepted = known(&book.accepted);
                accepted.is_some()
                    && Some(known(&book.given).unwrap_or(0)) == accepted
                    && Some(known(&book.acknowledged).unwrap_or(0)) == accepted
            };
            if let Some(boots) = boots
                && boots
                    .iter()
                    .all(|from| boots.iter().filter(|to| *to != from).all(|to| is_whole(from, to)))
            {
                return;
            }
            nodes.sleep(Duration::from_millis(20)).await;
        }
    };
    run.finish(&mut room, all_given).map_err(|stuck| format!("not all comes: {stuck}"))?;
    let book = book.borrow();
    let given = book.given.values().sum();
    let report = (given, book.replaced, book.unsettled, room.hash());
    book.wrong.first().map_or(Ok(report), |wrong| Err(wrong.clone()))
}

/// Checks MB-27 and MB-25 for links with their actors: what is accepted comes once and in order, however slow its reader is; and
/// what is told of a boot that was replaced is right.
#[test]
fn slow_readers_kills_pauses_and_cuts_lose_nothing() {
    let mut plan = Plan::new(NODES, Atlas { down: 1, lost: 1 });
    plan.disks = false;
    let reports = swarm(0..40, &plan, scenario);
    let sum = |of: fn(&(u64, u64, u64, u128)) -> u64| reports.iter().map(of).sum::<u64>();
    let (given, replaced, unsettled) = (sum(|it| it.0), sum(|it| it.1), sum(|it| it.2));
    assert!(given > 1_000 && replaced > 10 && unsettled > 10, "{given} {replaced} {unsettled}");
    println!("given {given}, replaced {replaced}, open {unsettled}");
}
