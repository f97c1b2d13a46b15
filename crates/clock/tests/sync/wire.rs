//! The words on the wire: frozen, and whatever else comes is refused without harm.

use std::sync::Arc;

use mainstay_agreement::sign::{Keyring, Signature};
use mainstay_base::service::Wire as _;
use mainstay_base::{Duration, Instant, Rng, codec};
use mainstay_clock::fault::Fault;
use mainstay_clock::sync::{Algorithm, Begin, Config, Kind, Message, Origin, Plan, Reading, Stamp};

fn words() -> Vec<(Message, &'static str)> {
    let chain = vec![(3, Signature::from_bytes([7; 64]))];
    vec![
        (Message::Tick { round: 1, value: -2, sure: true, pull: None }, "81a1749401fec3c0"),
        (
            Message::Tick { round: 300, value: 2, sure: false, pull: Some(5) },
            "81a17494cd012c02c205",
        ),
        (Message::Request { nonce: 9 }, "81a1719109"),
        (Message::Reply { nonce: 9, value: 8, error: 7, term: 6, held: 5 }, "81a161950908070605"),
        (Message::PeerRequest { nonce: 9 }, "81a1519109"),
        (
            Message::PeerReply { nonce: 9, value: 8, error: 7, rate: 6, held: 5 },
            "81a141950908070605",
        ),
        (Message::Relay { round: 1, hop: 2, values: vec![None, Some(3)] }, "81a17293010292c003"),
        (Message::Init { round: 1 }, "81a1699101"),
        (Message::Echo { round: 1 }, "81a1659101"),
        (Message::Candidate { term: 1 }, "81a1639101"),
        (Message::Vote { term: 1 }, "81a16f9101"),
        (Message::Master { term: 1, beat: 2 }, "81a16d920102"),
        (Message::Ahead { term: 1 }, "81a1689101"),
        (Message::Follow { term: 1, beat: 2 }, "81a166920102"),
        (Message::Signed { round: 1, chain: chain.clone() }, "81a1739201919203c440{7}"),
        (Message::Vouched { round: 1, of: 3, value: 4, chain }, "81a17694010304919203c440{7}"),
    ]
}

/// Golden vectors: to change one is to change the format.
#[test]
fn words_are_frozen() {
    for (word, golden) in words() {
        let (bytes, payload) = word.encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(payload.is_empty());
        assert_eq!(hex, golden.replace("{7}", &"07".repeat(64)));
        assert_eq!(Message::decode(&bytes, payload), Ok(word));
    }
}

fn every_kind() -> Vec<Kind> {
    let named = |name: &&str| Kind::named(name, None).expect("it is named");
    let mut kinds: Vec<Kind> = Kind::NAMES.iter().map(named).collect();
    let readings = Reading::NAMES.iter().map(|name| Reading::named(name).expect("it is named"));
    let choices = readings.flat_map(|reading| {
        Kind::NAMES.iter().filter_map(move |name| Kind::named(name, Some(reading)).ok())
    });
    kinds.extend(choices);
    let long = Duration::from_millis(10);
    kinds.push(Kind::Hardware { master: Some(1), pull_max: long, error: long });
    kinds
}

/// Words that are made up come to a clock.
pub(crate) fn made_up_words(
    kind: &Kind,
    origin: Origin,
    broken: Option<Fault>,
    seed: u64,
) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let config = Config { fault: broken, ..Config::lan(kind.clone(), 4, 1) };
    let plan = Arc::new(Plan::new(config).expect("allowed"));
    let now = Instant::ZERO + Duration::from_secs(100);
    let begin = Begin { plan, me: 0, origin, now, seed: 1, keys: Some(Keyring::ideal(0, 4, 11)) };
    let mut algorithm = Algorithm::new(begin).expect("it is built");
    let mut now = now;
    for _ in 0..4_000 {
        now = now + Duration::from_micros(rng.below(2_000));
        let from = rng.below(6) as usize;
        let word = made_up(&mut rng);
        let at = if rng.chance(1, 4) { Instant::ZERO } else { now };
        algorithm.on_deadline(now);
        let (before, was) = (algorithm.clock().nanos(now), algorithm.is_synchronised());
        algorithm.on_datagram(now, at, from, word.clone());
        let by = algorithm.clock().nanos(now).saturating_sub(before).unsigned_abs();
        // Only the words of that synchroniser are not signed, nor answers, nor kept until a round is over.
        let most = match (kind, was && algorithm.is_synchronised()) {
            (Kind::Srikanth { signed: false }, false) => u64::MAX,
            (Kind::Srikanth { signed: false }, true) => {
                algorithm.plan().bounds().correction.as_nanos() as u64
            }
            _ => 0,
        };
        if by > most {
            return Err(format!("CLK-2: {kind:?} is moved by {by}, through {word:?}"));
        }
        while algorithm.poll().is_some() {}
    }
    let rejected = algorithm.rejected();
    assert!(rejected.unknown > 500 && rejected.foreign > 500, "{kind:?}: {rejected:?}");
    Ok(())
}

/// Checks CLK-2: what is short, torn, altered, foreign, replayed or made up never panics, and moves no clock, or no further than a round may.
#[test]
fn whatever_comes_is_taken_without_harm() {
    for kind in every_kind() {
        for origin in [Origin::Together(0), Origin::Apart(0)] {
            made_up_words(&kind, origin, None, 5).expect("without harm");
        }
    }
}

/// Checks that the check has teeth.
#[test]
fn an_answer_to_nobodys_question_is_noticed() {
    let kind = Kind::Probabilistic {
        error_max: Duration::from_millis(100),
        attempts: 3,
        wait: Duration::from_millis(210),
        patience: Duration::from_secs(2),
        stamp: Stamp::Turn,
    };
    let run = |seed| made_up_words(&kind, Origin::Together(0), Some(Fault::BelievesAnyReply), seed);
    let error = (0..100).find_map(|seed| run(seed).err()).expect("it is noticed");
    assert!(error.starts_with("CLK-2:"), "{error}");
}

/// A word with the edges of numbers in it; now and then one whose bytes were altered, if it is one still.
fn made_up(rng: &mut Rng) -> Message {
    let edges = [0, 1, 100, 101, 102, u64::MAX, u64::MAX / 2, 1 << 40];
    let mut edge = || *rng.pick(&edges).expect("some");
    let (round, other, value) = (edge(), edge(), edge() as i64);
    let chain: Vec<_> = (0..rng.below(4))
        .map(|_| (rng.below(6) as u16, Keyring::ideal(1, 4, 11).sign(b"x")))
        .collect();
    let values = (0..rng.below(5)).map(|_| rng.chance(1, 2).then_some(value)).collect();
    let word = match rng.below(16) {
        0 | 1 => Message::Tick { round, value, sure: rng.chance(1, 2), pull: Some(value) },
        2 => Message::Request { nonce: round },
        3 => Message::Reply { nonce: round, value, error: other, term: other, held: other },
        4 => Message::Relay { round, hop: other as u8, values },
        5 => Message::Init { round },
        6 => Message::Echo { round },
        7 => Message::Candidate { term: round },
        8 => Message::Vote { term: round },
        9 => Message::Master { term: round, beat: other },
        10 => Message::Ahead { term: round },
        11 => Message::Follow { term: round, beat: other },
        12 => Message::Signed { round, chain },
        13 => Message::PeerRequest { nonce: round },
        14 => Message::PeerReply { nonce: round, value, error: other, rate: other, held: other },
        _ => Message::Vouched { round, of: other as u16, value, chain },
    };
    let mut bytes = codec::encode(&word).to_vec();
    if let Some(at) =
        rng.below(bytes.len() as u64 * 4).try_into().ok().filter(|at: &usize| *at < bytes.len())
    {
        bytes[at] ^= 1 << rng.below(8);
        bytes.truncate(bytes.len() - rng.below(2) as usize);
    }
    codec::decode(&bytes).unwrap_or(word)
}
