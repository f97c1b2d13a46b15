//! The convergence functions: what n clocks are ahead of the own one becomes one correction.
//!
//! Each takes the own clock in as 0, and stays within reach of the correct ones whatever f of the values are.

/// The mean of all; used on what is left when the extremes are gone.
pub(super) fn mean(all: &[i64]) -> i64 {
    let sum: i128 = all.iter().map(|it| i128::from(*it)).sum();
    sum.div_euclid(all.len().max(1) as i128) as i64
}

/// CNV: what differs by more than `limit` from the own clock is taken for equal to it. The mean of all n.
pub(super) fn egocentric(all: &[i64], limit: i64) -> i64 {
    let near = |it: &i64| if it.unsigned_abs() > limit.unsigned_abs() { 0 } else { *it };
    mean(&all.iter().map(near).collect::<Vec<_>>())
}

/// Fast convergence: only those within `near` of at least n - f count. What is replaced by the mean of the others does not change it.
pub(super) fn fast(all: &[i64], near: i64, faulty: usize) -> i64 {
    let enough = all.len() - faulty;
    let is_near = |one: i64, other: i64| one.abs_diff(other) <= near.unsigned_abs();
    let supported = |it: &&i64| all.iter().filter(|other| is_near(**it, **other)).count() >= enough;
    let kept: Vec<i64> = all.iter().filter(supported).copied().collect();
    mean(&kept)
}

/// Without the `faulty` lowest and highest.
fn reduced(all: &mut [i64], faulty: usize) -> &[i64] {
    all.sort_unstable();
    all.get(faulty..all.len().saturating_sub(faulty)).unwrap_or_default()
}

/// The middle between the lowest and the highest that are left.
pub(super) fn midpoint(mut all: Vec<i64>, faulty: usize) -> i64 {
    let left = reduced(&mut all, faulty);
    match (left.first(), left.last()) {
        (Some(low), Some(high)) => (i128::from(*low) + i128::from(*high)).div_euclid(2) as i64,
        _ => 0,
    }
}

/// The mean of what is left.
pub(super) fn average(mut all: Vec<i64>, faulty: usize) -> i64 {
    mean(reduced(&mut all, faulty))
}
