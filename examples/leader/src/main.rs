//! `cargo run --release -p mainstay-leader`; see `README.md`.

fn main() -> std::process::ExitCode {
    mainstay_harness::main::<mainstay_leader::Leader>()
}
