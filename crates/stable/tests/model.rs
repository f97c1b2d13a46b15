//! The log against a simple model: random appends, forces, cuts, crashes and kills over many generations.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::sync::Arc;

use mainstay_stable::{Fault, Log, Lsn, MemoryMedium, Options, Owner};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Operation {
    Append(u8, usize),
    Force,
    Truncate(u8),
    /// The power fails inside a call not far ahead, leaving one of the possible images.
    Crash(u64, usize),
    /// The process is killed between two calls.
    Kill,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (0..=127_u8, 0..90_usize).prop_map(|(kind, size)| Operation::Append(kind, size)),
        3 => Just(Operation::Force),
        1 => any::<u8>().prop_map(Operation::Truncate),
        2 => (0..6_u64, any::<usize>()).prop_map(|(ahead, choice)| Operation::Crash(ahead, choice)),
        1 => Just(Operation::Kill),
    ]
}

/// All records ever appended and not lost, from lsn 1; how many of them are forced; where it was cut.
#[derive(Default)]
struct Model {
    appended: Vec<(u8, Vec<u8>)>,
    forced: u64,
    cut: u64,
}

struct Tested {
    medium: MemoryMedium,
    log: Log,
    model: Model,
}

fn options() -> Options {
    Options { segment_bytes: 256, ..Options::new(Owner([1; 16])) }
}

impl Tested {
    fn new() -> Self {
        let medium = MemoryMedium::new();
        let (log, _) = Log::open(Arc::new(medium.clone()), options()).unwrap();
        Self { medium, log, model: Model::default() }
    }

    /// Opens `medium` and compares it with the model; from then on the model is what was found.
    fn reopen(&mut self, medium: MemoryMedium) {
        let (log, recovered) = Log::open(Arc::new(medium.clone()), options()).unwrap();
        let last = log.forced().0;
        assert!(last >= self.model.forced && last <= self.model.appended.len() as u64, "ST-30");
        assert!(log.first().0 <= self.model.cut.max(1), "ST-1");
        assert!(recovered.records.iter().map(|r| r.lsn.0).eq(log.first().0..=last), "ST-30");
        for record in recovered.records {
            let (kind, payload) = &self.model.appended[record.lsn.0 as usize - 1];
            assert!(record.kind == *kind && record.payload == *payload, "ST-31");
        }
        self.model.appended.truncate(last as usize);
        self.model.forced = last;
        (self.medium, self.log) = (medium, log);
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Append(kind, size) => {
                let payload = vec![self.model.appended.len() as u8; size];
                if let Ok(lsn) = self.log.append(kind, payload.clone().into()) {
                    self.model.appended.push((kind, payload));
                    assert_eq!(lsn, Lsn(self.model.appended.len() as u64));
                }
            }
            Operation::Force => {
                if let Ok(lsn) = self.log.force() {
                    assert_eq!(lsn.0, self.model.appended.len() as u64);
                    self.model.forced = lsn.0;
                }
            }
            Operation::Truncate(part) => {
                let lsn = self.model.forced * u64::from(part) / 255;
                self.model.cut = self.model.cut.max(lsn);
                let _ = self.log.truncate_before(Lsn(lsn));
            }
            Operation::Crash(ahead, choice) => {
                self.medium.inject(Fault::CrashAt(self.medium.calls().mutating + ahead));
                self.apply(Operation::Force);
                self.apply(Operation::Truncate(128));
                let crashes = self.medium.crashes();
                self.reopen(self.medium.crash(crashes[choice % crashes.len()]));
            }
            Operation::Kill => self.reopen(self.medium.restart()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    /// Checks ST-1, ST-30 and ST-31 over many generations.
    #[test]
    fn the_log_does_what_the_model_does(operations in prop::collection::vec(operation(), 1..80)) {
        let mut tested = Tested::new();
        operations.into_iter().for_each(|operation| tested.apply(operation));
        tested.reopen(tested.medium.restart());
    }
}
