//! Tests that show that a check notices a defect.

use std::cell::Cell;
use std::fmt::Debug;
use std::panic::{self, RefUnwindSafe, UnwindSafe, catch_unwind};

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// What is said by the panic of a broken machine, or of a check that notices; `None`: nothing is noticed. Nothing is printed.
pub fn panic_of(run: impl FnOnce() + UnwindSafe) -> Option<String> {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.with(Cell::get) {
                hook(info);
            }
        }));
    });
    QUIET.with(|quiet| quiet.set(true));
    let panic = catch_unwind(run).err();
    QUIET.with(|quiet| quiet.set(false));
    let panic = panic?;
    let what = panic.downcast_ref::<String>().cloned();
    what.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).or(Some(String::new()))
}

/// The scene holds, and does not with any of these defects. What notices each is printed.
///
/// # Panics
/// If the scene does not hold, or a defect is not noticed.
pub fn holds_but_with<F: Copy + Debug + RefUnwindSafe>(
    scene: impl Fn(Option<F>) + RefUnwindSafe,
    defects: &[F],
) {
    scene(None);
    for defect in defects {
        let noticed = panic_of(|| scene(Some(*defect)));
        assert!(noticed.is_some(), "{defect:?} is not noticed");
        println!("{defect:?}: {}", noticed.unwrap_or_default().lines().next().unwrap_or_default());
    }
}

/// The first of so many seeds whose run notices a defect, by an error or a panic, and what it says.
pub fn noticed(seeds: u64, run: impl Fn(u64) -> Result<(), String>) -> Option<(u64, String)> {
    (0..seeds).find_map(|seed| {
        let mut found = None;
        let panic = panic_of(panic::AssertUnwindSafe(|| found = run(seed).err()));
        Some((seed, panic.or(found)?))
    })
}
