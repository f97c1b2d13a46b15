//! Criteria and their verdicts, over one run or many.

use std::fmt;

/// How often a criterion was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Row {
    id: &'static str,
    text: &'static str,
    judged: u64,
    broken: u64,
    /// The first time: the seed, and what was wrong.
    first: Option<(u64, String)>,
}

/// The verdicts over all runs, in the order in which criteria were first judged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Table(Vec<Row>);

impl Table {
    /// One more verdict.
    pub fn add(
        &mut self,
        seed: u64,
        id: &'static str,
        text: &'static str,
        verdict: Result<(), String>,
    ) {
        let at = self.0.iter().position(|row| row.id == id).unwrap_or(self.0.len());
        if at == self.0.len() {
            self.0.push(Row { id, text, judged: 0, broken: 0, first: None });
        }
        let row = &mut self.0[at];
        row.judged += 1;
        if let Err(what) = verdict {
            row.broken += 1;
            row.first.get_or_insert((seed, what));
        }
    }

    /// Something was judged, and no criterion was broken.
    #[must_use]
    pub fn passes(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|row| row.broken == 0)
    }
}

/// A line for each criterion: its id, `pass` or `FAIL`, and what it says.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.0 {
            let verdict = if row.broken == 0 { "pass" } else { "FAIL" };
            writeln!(f, "{:<6} {verdict}  {}", row.id, row.text)?;
            if let Some((seed, what)) = &row.first {
                writeln!(
                    f,
                    "             in {} of {} runs; seed {seed}: {what}",
                    row.broken, row.judged
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that one failure among many runs is a failure, and that nothing judged is no pass.
    #[test]
    fn one_failure_fails() {
        let mut table = Table::default();
        assert!(!table.passes());
        table.add(1, "A-1", "a", Ok(()));
        assert!(table.passes());
        table.add(2, "A-1", "a", Err("this".to_owned()));
        table.add(3, "A-1", "a", Ok(()));
        assert!(!table.passes());
        let text = table.to_string();
        assert!(text.contains("A-1    FAIL  a\n") && text.contains("1 of 3 runs; seed 2: this"));
    }
}
