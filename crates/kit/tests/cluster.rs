//! Clusters of a small state machine: the right one passes, and each of its bugs is found by the judge that is there for it.

use std::sync::atomic::{AtomicU64, Ordering};

use mainstay::{Commands, Position, Small};
use mainstay_kit::{
    Action, Client, Cluster, Disk, Duration, Fault, FaultEvent, Instant, Moment, Outcome, Point,
    differing,
};

/// Hands out numbers; with a bug, if there is one.
#[derive(Clone, Debug, Default)]
struct Numbers<const BUG: u8> {
    last: Small<u64>,
    /// With a bug: it is not in the state, and so not in a checkpoint.
    forgotten: u64,
}

/// The number is one that a process draws, and not one of the state.
const DRAWS: u8 = 1;
/// The number is counted beside the state.
const FORGETS: u8 = 2;
/// The number depends on what else is in the order.
const PLACED: u8 = 3;

impl<const BUG: u8> Commands for Numbers<BUG> {
    type Command = ();
    type Reply = u64;
    type State = Small<u64>;

    fn execute(&mut self, at: Position, (): ()) -> u64 {
        static DRAWN: AtomicU64 = AtomicU64::new(0);
        self.forgotten += 1;
        match BUG {
            DRAWS => *self.last = DRAWN.fetch_add(1, Ordering::Relaxed),
            PLACED => *self.last = at.0,
            _ => *self.last += 1,
        }
        if BUG == FORGETS { self.forgotten } else { *self.last }
    }

    fn state(&self) -> &Small<u64> {
        &self.last
    }

    fn state_mut(&mut self) -> &mut Small<u64> {
        &mut self.last
    }
}

async fn count<const BUG: u8>(client: Client<Numbers<BUG>>) {
    while !client.is_over() {
        client.sleep(client.below(60)).await;
        let _ = client.execute(()).await;
    }
}

fn numbers<const BUG: u8>(seeds: u64) -> Cluster<Numbers<BUG>> {
    Cluster::swarm(0..seeds).atlas(1, 1).client(count)
}

/// Checks PD-30 and PD-31 for clients over their connections: whatever fails, each command is executed once at most, and those that
/// were answered have an order.
#[test]
fn what_is_right_passes() {
    let within = |numbers: &Numbers<0>, history: &[mainstay_kit::Asked<Numbers<0>>]| {
        let unknown = history.iter().filter(|asked| asked.outcome == Outcome::Unknown).count();
        let range = (history.len() - unknown) as u64..=history.len() as u64;
        if range.contains(&*numbers.last) { Ok(()) } else { Err(format!("{range:?}")) }
    };
    let reports = numbers::<0>(12).check(within).run();
    let sum = |of: fn(&mainstay_kit::Report) -> u64| reports.iter().map(of).sum::<u64>();
    assert!(sum(|it| it.answered as u64) > 300 && sum(|it| it.crashes) > 0);
    assert!(sum(|it| it.unknown as u64) > 0, "nobody was left in the dark");
}

/// Checks that what differs from process to process is found.
#[test]
fn what_a_process_draws_is_found() {
    let found = numbers::<DRAWS>(1).find().expect_err("the bug shows");
    assert!(found.what.contains("differ"), "{found}");
    assert!(found.faults.is_empty(), "it takes no fault: {found}");
    let text = found.to_string();
    for node in ["n0", "n1", "n2"] {
        let lines: Vec<&str> = text.lines().filter(|line| line.trim().starts_with(node)).collect();
        assert_eq!(lines.len(), 2, "a hash and a state: {text}");
        assert!(lines[0].contains(": hash ") && lines[1].contains("Numbers { last: "), "{text}");
    }
    assert!(text.ends_with("the same again, with seed 0 and this script:\nvec![]"), "{text}");
}

/// Of large states the place is shown where they differ.
#[test]
fn the_place_where_states_differ_is_shown() {
    let mut states: Vec<Vec<u32>> = vec![(1_000..2_000).collect(); 3];
    let of =
        |states: &[Vec<u32>]| differing(&[("a", &states[0]), ("b", &states[1]), ("c", &states[2])]);
    assert_eq!(of(&states), None);
    states[2][500] = 77;
    let text = of(&states).unwrap();
    assert!(text.len() < 900 && text.contains("c: ...") && text.contains(", 77, "), "{text}");
    assert_eq!(text.matches(", 1500, ").count(), 2, "{text}");
}

/// Checks that a state machine which forgets something when it is restored is found: its answers are part of the state.
#[test]
fn what_is_forgotten_is_found() {
    let found = numbers::<FORGETS>(20).find().expect_err("the bug shows");
    assert!(found.what.contains("differ") && found.faults.len() < 4, "{found}");
    // What is printed goes into a test as it is.
    let code = mainstay_kit::as_code(&found.faults);
    assert!(found.to_string().ends_with(&code) && code.contains("Fault::"), "{found}");
}

/// Checks that answers which no order of the model explains are found, and only by the model.
#[test]
fn what_no_order_explains_is_found() {
    let found = numbers::<PLACED>(1).find().expect_err("the bug shows");
    assert!(found.what.contains("not linearisable"), "{found}");
    numbers::<PLACED>(1).without_model().run();
}

/// Checks OV-10 on whole nodes: a node crashes at what a script names, and all is well.
#[test]
fn nodes_crash_at_named_points() {
    for action in [Action::Send, Action::Receive, Action::Timer, Action::Write] {
        for number in [1, 2, 3, 5, 8, 13, 21, 34] {
            let crash = Fault::Crash {
                node: 0,
                length: Duration::from_millis(200),
                disk: Disk::Kept,
                moment: Moment::At(Point { action, number }),
            };
            let script = vec![FaultEvent { at: Instant::ZERO, fault: crash }];
            let cluster = numbers::<0>(1).work(Duration::from_secs(1)).faults(script);
            let reports =
                cluster.find().unwrap_or_else(|found| panic!("{action:?} {number}: {found}"));
            assert_eq!(reports[0].crashes, 1, "{action:?} {number}");
        }
    }
}
