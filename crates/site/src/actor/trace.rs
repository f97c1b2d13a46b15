//! The trace of a hosted site: its boots' events, numbered, turn by turn.

use std::fmt;

use mainstay_base::trace::{Event, GroupWord, ProcessWord, What};
use mainstay_base::{BootId, GroupId, Instant, MessageId, Order};

use crate::core::{Core, Output};
use crate::trace::Recorder;

/// Where the events of a site go; see [`SiteParts::trace`](crate::SiteParts::trace).
pub trait TraceSink: fmt::Debug + Send + Sync {
    /// Takes the events of a turn, in order and never empty. A boot begins with `Started`; another one may follow it in
    /// the same process, after its `Killed`.
    ///
    /// It is called within the turns of the site, on its thread: it must not block, and a failure is its own affair.
    fn record(&self, events: Vec<Event>);
}

/// The events of a boot that are not handed on yet.
pub(super) struct Recording {
    boot: BootId,
    number: u64,
    recorder: Recorder,
    events: Vec<Event>,
}

impl Recording {
    /// Of a boot that starts now.
    pub(super) fn begin(boot: BootId, now: Instant) -> Self {
        let what = What::Process(ProcessWord::Started);
        let started = Event { boot, number: 0, at: now, what };
        Self { boot, number: 1, recorder: Recorder::new(), events: vec![started] }
    }

    pub(super) fn observe(&mut self, now: Instant, core: &Core, output: &Output) {
        let Self { boot, number, recorder, events } = self;
        recorder.observe(core, output, &mut |what| {
            events.push(Event { boot: *boot, number: *number, at: now, what });
            *number += 1;
        });
    }

    /// A cast that went past the outputs.
    pub(super) fn cast(&mut self, now: Instant, group: GroupId, message: MessageId, order: Order) {
        let what = What::Group(GroupWord::Cast { group, message, order });
        self.events.push(Event { boot: self.boot, number: self.number, at: now, what });
        self.number += 1;
    }

    /// What has not been taken yet.
    pub(super) fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}
