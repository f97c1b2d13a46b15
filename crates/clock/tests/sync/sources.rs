//! The clocks that a status lists: used or not, and why. Of each algorithm that reads others, with one liar.

use mainstay_base::{Duration, Rng};
use mainstay_clock::sync::{Algorithm, Kind, Message, Source, Verdict};

use crate::support::{Liar, Run, Scene, each};
use crate::{interval, probabilistic, synchroniser};

/// The last node lies: each correct clock lists it with this verdict, and all correct ones as used.
fn lists(run: &Run, liar: Verdict) -> Result<(), String> {
    let last = run.nodes() - 1;
    for node in run.correct() {
        let sources: Vec<Source> = run.service(node).algorithm().sources().collect();
        if sources.len() != last {
            return Err(format!("{node} lists {sources:?}"));
        }
        for source in sources {
            let wanted = if source.place == last { liar } else { Verdict::Used };
            if source.verdict != wanted {
                return Err(format!("{node} lists {source:?}, wanted {wanted:?}"));
            }
        }
    }
    Ok(())
}

/// An interval that is voted out is listed so, though it is near; and so is the own reference.
#[test]
fn intervals_that_are_voted_out_are_listed() {
    each(0..40, |seed| {
        let mut rng = Rng::new(seed).stream("sources");
        let mut config = interval::config(&mut rng);
        (config.nodes, config.faulty) = (4, 1);
        let off = 20_000_000_000 * (seed.is_multiple_of(2) as i64 * 2 - 1);
        let lie = move |_: &Liar, _, message| match message {
            Message::Reply { nonce, value, error, term, held } => {
                vec![Message::Reply { nonce, value: value + off, error, term, held }]
            }
            other => vec![other],
        };
        let mut run = Scene::new(seed, config).lie(1, lie).run();
        run.periods(2.5)?;
        lists(&run, Verdict::Outvoted)
    });
}

/// The round of a synchroniser is what a clock says of itself: those that come late, and only pass on what others have said, are listed as well.
#[test]
fn synchronisers_list_who_says_that_a_round_has_come() {
    each(0..60, |seed| {
        let mut rng = Rng::new(seed).stream("sources");
        let kinds =
            [Kind::Srikanth { signed: false }, Kind::Srikanth { signed: true }, Kind::Halpern];
        let kind = rng.pick(&kinds).expect("three").clone();
        let name = if kind == Kind::Halpern { "hssd" } else { "st" };
        let config = synchroniser::config(&mut rng, kind, &[(4, 1), (7, 1)]);
        // All that it says is of the round after.
        let lie = move |liar: &Liar, _, message| match message {
            Message::Init { round } => vec![Message::Init { round: round + 1 }],
            Message::Echo { .. } => Vec::new(),
            Message::Signed { round, .. } => vec![synchroniser::signed(liar, name, round + 1)],
            other => vec![other],
        };
        let mut run = Scene::new(seed, config).lie(1, lie).run();
        run.periods(4.6)?;
        lists(&run, Verdict::Far)?;
        // One that says nothing is missed.
        let mut scene = run.scene.clone().lie(1, |_, _, _| Vec::new());
        scene.seed += 1;
        let mut run = scene.run();
        run.periods(4.6)?;
        let last = run.nodes() - 1;
        for node in run.correct() {
            let mut sources = run.service(node).algorithm().sources();
            if sources.any(|it| it.place == last || it.verdict != Verdict::Used) {
                let all: Vec<Source> = run.service(node).algorithm().sources().collect();
                return Err(format!("{node} lists {all:?}"));
            }
        }
        Ok(())
    });
}

/// The one source of a clock, if there is one.
fn source(algorithm: &Algorithm) -> Option<Source> {
    algorithm.sources().next()
}

/// A master that answers too late to be believed is none that is used; one that is far away is listed so.
#[test]
fn a_master_is_listed_as_it_was_believed() {
    let (mut algorithm, now) = probabilistic::follower(probabilistic::config(&mut Rng::new(1)));
    let nonce = probabilistic::question(&mut algorithm, now).expect("it asks the new master");
    let reply = |nonce, value| Message::Reply { nonce, value, error: 0, term: 1, held: 0 };
    let late = now + probabilistic::ERROR_MAX * 3;
    let value = algorithm.clock().nanos(late);
    algorithm.on_datagram(late, late, 1, reply(nonce, value));
    assert_eq!((source(&algorithm), algorithm.rejected().untimely), (None, 1));
    let again = algorithm.deadline().expect("it asks again");
    let nonce = probabilistic::question(&mut algorithm, again).expect("it asks again");
    let at = again + Duration::from_micros(300);
    let away = algorithm.clock().nanos(at) + 1_000_000_000;
    algorithm.on_datagram(at, at, 1, reply(nonce, away));
    assert_eq!(source(&algorithm).map(|it| (it.place, it.verdict)), Some((1, Verdict::Far)));
}
