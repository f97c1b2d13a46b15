//! Turns of a node: inputs, the end of the turn, its effects, and the timer.

use mainstay_base::{Duration, Instant};

use crate::node::{Effect, Effects};
use crate::world::{Task, World};
use crate::{Action, Node, schedule};

impl<N: Node> World<N> {
    /// One input and what follows, for a node that runs.
    pub(crate) fn give(&mut self, node: usize, input: impl FnOnce(&mut N, Instant)) {
        self.input(node, input);
        self.arm(node);
    }

    pub(crate) fn input<R>(
        &mut self,
        node: usize,
        input: impl FnOnce(&mut N, Instant) -> R,
    ) -> Option<R> {
        let answer = input(self.hosts[node].machine.as_mut()?, self.now);
        let batch = self.options.batch;
        let host = &mut self.hosts[node];
        if host.open_turn {
            return Some(answer);
        }
        if batch > 0 && self.network.rng(node).chance(batch, 1000) {
            host.open_turn = true;
            let task = Task::EndTurn { node: node as u16, generation: host.generation };
            let wait = Duration::from_nanos(self.network.rng(node).between(1, 50_000));
            self.at(self.now + wait, task);
        } else {
            self.end_turn(node);
        }
        Some(answer)
    }

    pub(crate) fn on_timer(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        // The call may be older than the deadline: it is looked up again.
        if host.armed.is_none_or(|armed| armed > self.now) {
            return;
        }
        host.armed = None;
        let due = host.machine.as_ref().and_then(Node::poll_timeout);
        if due.is_some_and(|due| due <= self.now) && !self.crash_at(node, Action::Timer) {
            self.input(node, |machine, now| machine.timeout(now));
        }
        self.arm(node);
    }

    /// Re-arms the timer after a turn. A turn that is still open has its deadline already.
    pub(crate) fn arm(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if host.open_turn {
            return;
        }
        let Some(due) = host.machine.as_ref().and_then(Node::poll_timeout) else { return };
        let due = due.max(self.now);
        if host.armed.is_none_or(|armed| due < armed) {
            host.armed = Some(due);
            self.at(due, Task::Timer { node: node as u16 });
        }
    }

    pub(crate) fn end_turn(&mut self, node: usize) {
        let mut effects = std::mem::replace(&mut self.effects, Effects::new());
        let host = &mut self.hosts[node];
        host.open_turn = false;
        if let Some(machine) = host.machine.as_mut() {
            machine.end_turn(self.now, &mut effects);
        }
        for effect in effects.list.drain(..) {
            if self.hosts[node].machine.is_none() {
                break;
            }
            self.on_effect(node, effect);
        }
        self.effects = effects;
    }

    fn on_effect(&mut self, node: usize, effect: Effect<N>) {
        let action = match effect {
            Effect::Send { .. } | Effect::SendOn { .. } => Some(Action::Send),
            Effect::Write { .. } => Some(Action::Write),
            _ => None,
        };
        if action.is_some_and(|action| self.crash_at(node, action)) {
            return;
        }
        match effect {
            Effect::Send { to, message } => self.on_send(node, to, message),
            Effect::SendOn { conn, message } => self.on_send_on(node, conn, message),
            Effect::Dial(to) => self.on_dial_wanted(node, to),
            Effect::Close(conn) => self.on_close_wanted(node, conn),
            Effect::Write { io, write } => {
                let host = &mut self.hosts[node];
                let at = host.disk.issue(self.now, self.options.disk, io, write);
                let task = Task::Written { node: node as u16, generation: host.generation };
                self.at(at, task);
                self.crash_in_write(node);
            }
            Effect::Trace(what) => self.record(node, what),
            Effect::Event(event) => self.events.push((self.hosts[node].boot, self.now, event)),
            Effect::Seen(what) => self.seen.mark(what),
            Effect::Exit(pause) => {
                self.stop(node, schedule::Disk::Kept);
                let generation = self.hosts[node].generation;
                self.at(self.now + pause, Task::Restart { node: node as u16, generation });
            }
            Effect::Fail(what) => self.fail(format!("{:?}: {what}", self.hosts[node].boot)),
        }
    }
}
