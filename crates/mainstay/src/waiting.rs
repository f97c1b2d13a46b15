//! Who waits for what.

use std::collections::{BTreeMap, VecDeque};

use mainstay_base::{Duration, Instant};
use mainstay_paradigm::client::NotDone;

use crate::command::ReadFn;
use crate::outcome::{Answer, Fate};

/// Deadlines are kept in steps of this, so that the timer is seldom set anew.
const STEP: Duration = Duration::from_millis(50);

struct Caller {
    answer: Answer,
    until: Instant,
}

struct Reader<S> {
    read: ReadFn<S>,
    until: Instant,
}

/// Callers whose commands or reads have no answer yet. All have the same patience: the oldest is the first to lose it.
pub(crate) struct Waiting<S: 'static> {
    token: u64,
    /// Cast, by the sequence number of the message.
    cast: VecDeque<(u64, Caller)>,
    reads: BTreeMap<u64, Reader<S>>,
}

impl<S> Default for Waiting<S> {
    fn default() -> Self {
        Self { token: 0, cast: VecDeque::new(), reads: BTreeMap::new() }
    }
}

impl<S> Waiting<S> {
    /// The message is cast under this sequence number.
    pub(crate) fn cast(&mut self, sequence: u64, answer: Answer, until: Instant) {
        self.cast.push_back((sequence, Caller { answer, until: step(until) }));
    }

    pub(crate) fn read(&mut self, read: ReadFn<S>, until: Instant) -> u64 {
        self.token += 1;
        let token = self.token;
        self.reads.insert(token, Reader { read, until: step(until) });
        token
    }

    /// The own message with this sequence number was executed. Those before it that were not answered will not be.
    pub(crate) fn answer(&mut self, sequence: u64, fate: Fate) {
        while pop_if(&mut self.cast, |first, _| first < sequence).is_some() {}
        if let Some(caller) = pop_if(&mut self.cast, |first, _| first == sequence) {
            caller.answer.tell(fate);
        }
    }

    /// How many bytes the answer has.
    pub(crate) fn answer_read(&mut self, token: u64, state: Option<&S>) -> usize {
        let Some(reader) = self.reads.remove(&token) else { return 0 };
        (reader.read)(state.ok_or(NotDone::NoState))
    }

    pub(crate) fn fail_read(&mut self, token: u64, reason: NotDone) {
        if let Some(reader) = self.reads.remove(&token) {
            (reader.read)(Err(reason));
        }
    }

    /// The boot that was asked is dead: what it has sent may yet be executed.
    pub(crate) fn restarted(&mut self) {
        self.cast.clear();
        for reader in std::mem::take(&mut self.reads).into_values() {
            (reader.read)(Err(NotDone::Restarting));
        }
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        while pop_if(&mut self.cast, |_, caller| caller.until <= now).is_some() {}
        while let Some(entry) = self.reads.first_entry().filter(|entry| entry.get().until <= now) {
            (entry.remove().read)(Err(NotDone::Late));
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let cast = self.cast.front().map(|(_, caller)| caller.until);
        let read = self.reads.first_key_value().map(|(_, reader)| reader.until);
        [cast, read].into_iter().flatten().min()
    }

    /// How many commands and reads wait.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.cast.len(), self.reads.len())
    }
}

/// Takes out the first caller if it is the one; dropped, it is told `Unknown`.
fn pop_if(
    callers: &mut VecDeque<(u64, Caller)>,
    is_it: impl FnOnce(u64, &Caller) -> bool,
) -> Option<Caller> {
    callers.front().filter(|(number, caller)| is_it(*number, caller))?;
    callers.pop_front().map(|(_, caller)| caller)
}

/// The next step at or after `until`.
fn step(until: Instant) -> Instant {
    let step = STEP.as_nanos() as u64;
    Instant::from_nanos(until.as_nanos().div_ceil(step).saturating_mul(step))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    type Told = Arc<Mutex<Vec<(u64, Fate)>>>;

    fn cast(waiting: &mut Waiting<()>, told: &Told, sequence: u64) {
        let told = Arc::clone(told);
        let tell = move |fate| told.lock().expect("nobody panics").push((sequence, fate));
        waiting.cast(sequence, Answer::new(tell), Instant::from_nanos(1));
    }

    fn take(told: &Told) -> Vec<(u64, Fate)> {
        std::mem::take(&mut told.lock().expect("nobody panics"))
    }

    /// Every caller is told once: executed, passed over, too late, or with the boot dead.
    #[test]
    fn every_caller_is_told_once() {
        let (mut waiting, told) = (Waiting::<()>::default(), Told::default());
        (1..=4).for_each(|sequence| cast(&mut waiting, &told, sequence));
        let done = Fate::NotDone(NotDone::Skipped);
        waiting.answer(2, done.clone());
        assert_eq!(take(&told), [(1, Fate::Unknown), (2, done.clone())]);
        waiting.answer(2, done);
        assert_eq!(take(&told), []);
        let deadline = waiting.deadline().expect("two are cast");
        assert_eq!(deadline, Instant::ZERO + STEP);
        waiting.expire(Instant::from_nanos(1));
        assert_eq!(take(&told), []);
        waiting.expire(deadline);
        assert_eq!(take(&told), [(3, Fate::Unknown), (4, Fate::Unknown)]);
        cast(&mut waiting, &told, 5);
        waiting.restarted();
        assert_eq!(take(&told), [(5, Fate::Unknown)]);
        assert_eq!(waiting.len(), (0, 0));
    }
}
