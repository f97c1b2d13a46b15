//! The swarm: what its runs are.

use mainstay_base::{Duration, Rng};
use mainstay_sim::{Atlas, Options, Wire, schedule};
use mainstay_troupe::fault::Fault;
use mainstay_troupe::{Begin, Collator, Sequence, Serving};

use super::{Part, Play, setup, short};

pub const NODES: usize = 7;

/// What a run of the swarm is; what is not said is drawn.
#[derive(Clone, Debug, Default)]
pub struct Kind {
    pub sequence: Option<Sequence>,
    pub begin: Option<Begin>,
    pub fault: Option<Fault>,
    pub calm: bool,
}

impl Kind {
    fn parts(&self, seed: u64) -> Vec<Part> {
        let mut rng = Rng::new(seed).stream("kind");
        let sequences =
            [Sequence::Independent, Sequence::Independent, Sequence::Cast, Sequence::Commit];
        let drawn = *rng.pick(&sequences).unwrap();
        let sequence = self.sequence.unwrap_or(drawn);
        let begins = [Begin::First, Begin::First, Begin::All, Begin::Majority];
        let drawn = *rng.pick(&begins).unwrap();
        let begin = self.begin.unwrap_or(drawn);
        let collators = [Collator::First, Collator::First, Collator::Majority, Collator::Unanimous];
        let collator = *rng.pick(&collators).unwrap();
        let serving = Serving { begin, sequence, ..Serving::default() };
        let depth = rng.between(1, 4);
        let mut front = Part { serving, ..Part::server("front", &[1, 2, 3]) };
        // What may be undone calls nobody.
        front.nests = (sequence != Sequence::Commit).then_some("back");
        if sequence == Sequence::Independent && begin != Begin::First {
            // Replicas that are at different calls would wait for each other where what they call waits for all of them.
            front.serving.at_once = 32;
        }
        let mut back = Part::server("back", &[2, 3, 4]);
        back.serving.begin = begin;
        let one = Part { collator, ..Part::client("one", &[5, 6], "front", depth) };
        let two = Part::client("two", &[4], "front", 1);
        vec![front, back, one, two]
    }

    /// One run.
    pub fn run(&self, seed: u64) -> Result<Play, String> {
        let mut options = Options::from_seed(seed, Wire::Channel, Atlas { down: 2, lost: 0 });
        if self.calm {
            options = Options::calm(Wire::Channel);
        }
        options.span = Duration::from_millis(1_200);
        options.length /= 2;
        let schedule = schedule(seed, NODES, &options);
        let fault = self.fault;
        let setup = setup(move |config| {
            let mut config = short(config);
            config.fault = fault;
            if seed.is_multiple_of(3) {
                (config.window, config.retained_max) = (2, 2);
            }
            config
        });
        let mut play = Play::new(seed, NODES, self.parts(seed), setup, options, schedule);
        let run = |play: &mut Play| {
            play.run(Duration::from_millis(1_600))?;
            play.finish()
        };
        let serving = play.parts[0].serving;
        match run(&mut play) {
            Ok(()) => Ok(play),
            Err(what) => {
                Err(format!("{:?}, {:?}, {:?}: {what}", serving.begin, serving.sequence, play.lost))
            }
        }
    }
}
