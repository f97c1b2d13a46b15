//! A disk with as much room as a test likes.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use mainstay_runtime::{Disk, FileDisk, LogDevice, Space, Store};
use mainstay_stable::{FileMediumError, Medium};

/// As much room as the test likes, and how often somebody looked.
#[derive(Default)]
pub struct Free {
    pub bytes: Cell<u64>,
    pub looks: Cell<u64>,
}

impl Free {
    pub fn new(bytes: u64) -> Rc<Self> {
        Rc::new(Self { bytes: Cell::new(bytes), ..Self::default() })
    }

    pub fn set(&self, bytes: u64) {
        self.bytes.set(bytes);
    }
}

/// A disk that has it.
pub struct Small(pub FileDisk, pub Rc<Free>);

impl fmt::Debug for Small {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Disk for Small {
    fn open(&self, inner: Option<&str>) -> Result<Arc<dyn Medium>, FileMediumError> {
        self.0.open(inner)
    }

    fn store(&self, device: Box<dyn LogDevice>) -> Box<dyn Store> {
        self.0.store(device)
    }

    fn space(&self) -> Option<Space> {
        self.1.looks.set(self.1.looks.get() + 1);
        Some(Space { free: self.1.bytes.get(), total: 1 << 40 })
    }

    fn run(&self, step: Box<dyn FnOnce() + Send>) {
        self.0.run(step);
    }
}
