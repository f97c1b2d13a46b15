//! What handles ask of a replicated state machine, on its way in.

use bytes::Bytes;
use mainstay_base::Instant;
use mainstay_paradigm::StateMachine;
use mainstay_paradigm::client::NotDone;
use mainstay_runtime::{Intake, Place};
use mainstay_site::AppPort;

use super::{Executor, READ};
use crate::backlog::Look;
use crate::command::{Ask, Submit};
use crate::outcome::{AcceptLossError, Answer, Fate};
use crate::queue::Submitted;

/// So many commands, and so many questions, are taken in at a time.
const INTAKE_MAX: usize = 512;

/// What handles have put in and nobody has taken out.
pub(crate) struct Inboxes<S: 'static> {
    pub(crate) submits: Intake<Submit>,
    pub(crate) asks: Intake<Ask<S>>,
    /// There is more than was taken.
    pub(crate) more: bool,
}

impl<S: StateMachine + 'static> Executor<S> {
    /// Takes in what handles have sent.
    pub(super) fn take_in(&mut self, port: &mut AppPort<'_>) {
        let now = port.now();
        let (mut submits, mut asks) = (Vec::new(), Vec::new());
        let more = self.intake.submits.take(INTAKE_MAX, &mut submits);
        self.intake.more = self.intake.asks.take(INTAKE_MAX, &mut asks) | more;
        for (Submit { payload, answer }, place) in submits {
            self.on_submit(now, payload, answer, place, port);
        }
        self.cast_queued(now, port);
        for (ask, _place) in asks {
            self.on_ask(now, ask, port);
        }
    }

    fn on_submit(
        &mut self,
        now: Instant,
        payload: Bytes,
        answer: Answer,
        place: Place,
        port: &AppPort<'_>,
    ) {
        match self.refusal(port) {
            Some(reason) => answer.tell(Fate::NotDone(reason)),
            // Refused at once below, if the disk is almost full.
            None => self.queue.push(now, Submitted { payload, answer, _place: place }),
        }
    }

    #[inline(never)]
    fn on_ask(&mut self, now: Instant, ask: Ask<S>, port: &mut AppPort<'_>) {
        let refusal = self.refusal(port);
        let until = now + self.settings.deadline;
        match (ask, refusal) {
            (Ask::Skip { position, answer }, reason) => {
                self.skip(position, answer, reason, until, port);
            }
            (Ask::Read { read, local: true }, reason) => {
                let reason = reason.unwrap_or(NotDone::NoState);
                let spent = self.replica.is_spent() || !self.backlog.looks.is_empty();
                if spent && self.replica.machine().is_some() {
                    let token = self.waiting.read(read, until);
                    return self.backlog.looks.push_back(Look(token, reason));
                }
                let bytes = read(self.replica.machine().ok_or(reason));
                self.replica.charge(READ, bytes);
            }
            (Ask::Read { read, .. }, Some(reason)) => drop(read(Err(reason))),
            (Ask::Read { read, .. }, None) => {
                let token = self.waiting.read(read, until);
                port.read(token);
            }
            (Ask::Status(asked), _) => {
                // Nobody waits any more: then nobody is answered.
                let _ = asked.send(self.status.clone().of(
                    &self.replica,
                    &self.waiting,
                    self.queue.len(),
                ));
            }
            (Ask::AcceptLoss(asked), _) => {
                let answer = match port.is_up() {
                    false => Err(AcceptLossError::Restarting),
                    true if port.accept_loss() => Ok(()),
                    true => Err(AcceptLossError::NothingToAccept),
                };
                // Nobody waits any more: then nobody is answered.
                let _ = asked.send(answer);
            }
        }
    }
}

impl<S: StateMachine + 'static> Drop for Executor<S> {
    fn drop(&mut self) {
        let (mut submits, mut asks) = (Vec::new(), Vec::new());
        self.intake.submits.take(usize::MAX, &mut submits);
        self.intake.asks.take(usize::MAX, &mut asks);
        for (Submit { answer, .. }, _) in submits {
            answer.tell(Fate::NotDone(NotDone::Closed));
        }
        asks.into_iter().for_each(|(ask, _)| ask.refuse(NotDone::Closed));
    }
}
