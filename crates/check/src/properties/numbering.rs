//! TRACE: the recorder did its work; everything else rests on it.

use std::collections::BTreeMap;

use mainstay_base::BootId;
use mainstay_base::trace::Event;

use crate::context::{name, violation};
use crate::property::{Property, Violation};

/// The events of a boot are numbered upwards, so that each has a name of its own.
#[derive(Default)]
pub struct Numbering {
    last: BTreeMap<BootId, u64>,
}

impl Property for Numbering {
    const ID: &'static str = "TRACE";
    const SAYS: &'static str =
        "the events of a boot are recorded in order, no two under one number";

    fn observe(&mut self, event: &Event) -> Result<(), Violation> {
        match self.last.insert(event.boot, event.number) {
            Some(last) if event.number <= last => Err(violation(
                Self::ID,
                format!("event {} recorded after event {last} of the same boot", event.number),
                [name(event), (event.boot, last)],
            )),
            _ => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<(), Violation> {
        Ok(())
    }
}
