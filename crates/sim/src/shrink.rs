//! Delta debugging: the few faults that matter out of many.

/// The smallest part of `schedule` found for which `fails` still answers true: none of its items can be left out.
///
/// Zeller and Hildebrandt's ddmin (2002). `fails` runs the world anew with what it is handed
/// ([`World::with_schedule`](crate::World::with_schedule)) and answers whether the same check fails. It is called
/// O(n²) times at worst, and O(n log n) times if few items matter. If the whole schedule does not fail, it is answered
/// unchanged.
///
/// ```
/// let needs_both = |part: &[u32]| part.contains(&3) && part.contains(&17);
/// assert_eq!(mainstay_sim::shrink((0..40).collect(), needs_both), [3, 17]);
/// ```
pub fn shrink<T: Clone>(schedule: Vec<T>, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    if !fails(&schedule) {
        return schedule;
    }
    let mut rest = schedule;
    let mut parts = 1;
    while !rest.is_empty() {
        let width = rest.len().div_ceil(parts);
        let without = |start: usize| {
            let end = (start + width).min(rest.len());
            [&rest[..start], &rest[end..]].concat()
        };
        let smaller = (0..rest.len()).step_by(width).map(without).find(|part| fails(part));
        match smaller {
            Some(part) => {
                rest = part;
                parts = parts.saturating_sub(1).max(1);
            }
            None if width == 1 => break,
            None => parts = (parts * 2).min(rest.len()),
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What cannot be left out stays, whatever else stands around it.
    #[test]
    fn what_matters_is_left() {
        for seed in 0..200 {
            let mut rng = mainstay_base::Rng::new(seed);
            let items: Vec<u64> = (0..rng.between(1, 80)).collect();
            let mut wanted: Vec<u64> = (0..4).map(|_| rng.below(items.len() as u64)).collect();
            wanted.sort_unstable();
            wanted.dedup();
            let mut calls = 0;
            let left = shrink(items, |part| {
                calls += 1;
                wanted.iter().all(|item| part.contains(item))
            });
            assert_eq!(left, wanted);
            assert!(calls < 700, "{calls} calls");
        }
    }

    #[test]
    fn what_does_not_fail_or_fails_without_faults_is_told_apart() {
        assert_eq!(shrink(vec![1, 2], |_| false), [1, 2]);
        assert_eq!(shrink(vec![1, 2], |_| true), []);
    }
}
