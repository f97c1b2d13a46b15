//! A talk.
fn main() {}
