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

#[cfg(test)]
mod tests {
    use mainstay_base::Rng;

    use super::*;

    /// n values, the own 0 among them, of which f are whatever a liar says and the others lie within `skew` of each other.
    fn draw(rng: &mut Rng, faulty: usize, skew: u64) -> (Vec<i64>, i64, i64) {
        let low = -(rng.below(skew + 1) as i64);
        let mut right = vec![0, low, low + skew as i64];
        while right.len() < 2 * faulty + 1 {
            right.push(low + rng.below(skew + 1) as i64);
        }
        let lie = |rng: &mut Rng| match rng.below(3) {
            0 => i64::from(rng.next_u64() as i32),
            1 => low - rng.below(2 * skew + 1) as i64,
            _ => low + rng.below(3 * skew + 1) as i64,
        };
        let mut all = right;
        (0..faulty).for_each(|_| all.push(lie(rng)));
        (all, low, low + skew as i64)
    }

    /// Checks what CLK-11 rests on: whatever f clocks say, midpoint and average end between correct clocks, the others not further out than their
    /// limits let them.
    #[test]
    fn no_lie_takes_a_correction_out_of_reach() {
        let mut rng = Rng::new(1);
        for _ in 0..20_000 {
            let faulty = rng.between(1, 3) as usize;
            let skew = rng.between(1, 1_000);
            let (mut all, low, high) = draw(&mut rng, faulty, skew);
            let nodes = 3 * faulty + 1;
            all.resize(nodes, 0);
            rng.shuffle(&mut all);
            let within = |by: i64, beyond: i64| low - beyond <= by && by <= high + beyond;
            assert!(within(midpoint(all.clone(), faulty), 1));
            assert!(within(average(all.clone(), faulty), 1));
            let near = skew as i64;
            assert!(within(egocentric(&all, near), near * faulty as i64 / nodes as i64 + 1));
            assert!(within(fast(&all, near, faulty), near * faulty as i64 / nodes as i64 + 1));
        }
    }

    /// Checks CLK-13: a clock that is too far off changes nothing, however far.
    #[test]
    fn a_clock_beyond_the_limit_counts_as_the_own_one() {
        let with = |value: i64| egocentric(&[0, 10, -4, value], 100);
        assert_eq!(with(101), with(0));
        assert_eq!(with(i64::MAX), with(0));
        assert_eq!(with(i64::MIN), with(0));
        assert_ne!(with(100), with(0));
    }

    /// Checks CLK-12: with the same readings, nothing dropped, all come to the same clock.
    #[test]
    fn without_faults_all_meet() {
        let clocks = [0i64, 700, -300, 41];
        let to = |function: fn(Vec<i64>, usize) -> i64| {
            clocks.map(|own| own + function(clocks.map(|it| it - own).to_vec(), 0))
        };
        assert!(to(midpoint).iter().all(|it| *it == 200));
        assert!(to(average).iter().all(|it| *it == 110));
    }
}
