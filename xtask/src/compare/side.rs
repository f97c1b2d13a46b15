//! What several runs of one side of a comparison came to.

use crate::compare::lines::{Figure, figure};
use crate::compare::process::Ran;

/// A case of ours beside that of one peer.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    pub(crate) case: String,
    /// Nothing: we have no such case.
    pub(crate) ours: Option<Side>,
    pub(crate) peer: Side,
}

/// One side.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Side {
    pub(crate) name: String,
    pub(crate) guarantee: String,
    pub(crate) series: Vec<Series>,
    /// Why runs came to nothing.
    pub(crate) failures: Vec<String>,
    /// Runs altogether.
    pub(crate) runs: usize,
}

/// The figures of one metric, a run each.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) metric: String,
    pub(crate) unit: String,
    pub(crate) values: Vec<f64>,
}

impl Series {
    /// The middle; of an even count the mean of the middle two. With the smallest and the largest; nothing of no figures.
    pub(crate) fn median(&self) -> Option<(f64, f64, f64)> {
        let mut values = self.values.clone();
        values.sort_unstable_by(f64::total_cmp);
        let (smallest, largest) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let middle = values[half];
        let median = if values.len() % 2 == 1 { middle } else { (values[half - 1] + middle) / 2.0 };
        Some((median, smallest, largest))
    }
}

impl Side {
    /// One without a run yet.
    pub(crate) fn new(name: &str, guarantee: &str) -> Self {
        let (name, guarantee) = (name.to_owned(), guarantee.to_owned());
        Self { name, guarantee, series: Vec::new(), failures: Vec::new(), runs: 0 }
    }

    /// The series of this metric.
    pub(crate) fn of(&self, metric: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.metric == metric)
    }

    /// Adds a run of ours.
    pub(crate) fn add(&mut self, ran: Result<Ran, String>) {
        self.runs += 1;
        match ran {
            Ok(ran) => {
                let figures: Vec<_> = ran.stdout.lines().filter_map(figure).collect();
                if !ran.is_done() || figures.is_empty() {
                    self.failures.push(ran.why());
                } else {
                    figures.into_iter().for_each(|it| self.insert(it));
                }
            }
            Err(why) => self.failures.push(why),
        }
    }

    fn insert(&mut self, figure: Figure) {
        let Figure { metric, unit, value, .. } = figure;
        match self.series.iter_mut().find(|series| series.metric == metric) {
            Some(series) => series.values.push(value),
            None => self.series.push(Series { metric, unit, values: vec![value] }),
        }
    }
}

/// Adds a run of a peer's program, which may measure several systems. A failure is that of the system that stderr names
/// as `PROGRAM: CASE of SYSTEM: WHY`; one that names none is that of the program.
pub(crate) fn add_peers(
    sides: &mut Vec<Side>,
    program: &str,
    case: &str,
    ran: Result<Ran, String>,
) {
    let ran = match ran {
        Ok(ran) => ran,
        Err(why) => return fail(sides, program, why),
    };
    // A system has several figures in a run, and still it was one run.
    let mut seen = Vec::new();
    for figure in ran.stdout.lines().filter_map(figure).filter(|it| it.case == case) {
        let Some((name, guarantee)) = figure.peer.clone() else { continue };
        let side = side_of(sides, &name);
        if side.guarantee.is_empty() {
            side.guarantee = guarantee;
        }
        side.insert(figure);
        if !seen.contains(&name) {
            side.runs += 1;
            seen.push(name);
        }
    }
    if ran.is_done() {
        if seen.is_empty() {
            fail(sides, program, "it printed no figure".to_owned());
        }
        return;
    }
    let begin = format!("{program}: {case} of ");
    let told = ran.stderr.lines().filter_map(|line| line.strip_prefix(&begin)?.split_once(": "));
    let told: Vec<(&str, &str)> = told.collect();
    for (name, why) in &told {
        fail(sides, name, (*why).to_owned());
    }
    if told.is_empty() {
        fail(sides, program, ran.why());
    }
}

fn fail(sides: &mut Vec<Side>, name: &str, why: String) {
    let side = side_of(sides, name);
    side.runs += 1;
    side.failures.push(why);
}

fn side_of<'a>(sides: &'a mut Vec<Side>, name: &str) -> &'a mut Side {
    let index = sides.iter().position(|side| side.name == name).unwrap_or_else(|| {
        sides.push(Side::new(name, ""));
        sides.len() - 1
    });
    &mut sides[index]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(status: i32, stdout: &str, stderr: &str) -> Result<Ran, String> {
        let (stdout, stderr) = (stdout.to_owned(), stderr.to_owned());
        Ok(Ran { status: Some(status), is_late: false, stdout, stderr })
    }

    fn line(peer: &str, metric: &str, value: f64) -> String {
        format!(
            "{{\"bench\":\"b\",\"case\":\"c\",\"metric\":\"{metric}\",\"value\":null,\"unit\":\"us\",\
             \"peer\":\"{peer}\",\"peer_value\":{value},\"ratio\":null,\"guarantee\":\"g of {peer}\"}}\n"
        )
    }

    fn series(values: &[f64]) -> Series {
        Series { metric: "m".to_owned(), unit: "us".to_owned(), values: values.to_vec() }
    }

    /// Checks the median of odd and even counts, in any order, and of nothing.
    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(series(&[9.0, 1.0, 2.0]).median(), Some((2.0, 1.0, 9.0)));
        assert_eq!(series(&[9.0, 1.0, 4.0, 2.0]).median(), Some((3.0, 1.0, 9.0)));
        assert_eq!(series(&[]).median(), None);
    }

    /// Checks that runs of a program become a side for each system, with a value a run.
    #[test]
    fn systems_of_one_program_are_sides_of_their_own() {
        let mut sides = Vec::new();
        for value in [1.0, 2.0] {
            let said =
                [line("a", "p50_us", value), line("a", "p99_us", 7.0), line("b", "p50_us", 3.0)];
            add_peers(&mut sides, "peer-x", "c", ran(0, &said.concat(), ""));
        }
        let names: Vec<_> = sides.iter().map(|it| (it.name.as_str(), it.runs)).collect();
        assert_eq!(names, [("a", 2), ("b", 2)]);
        assert_eq!(sides[0].guarantee, "g of a");
        assert_eq!(sides[0].of("p50_us").map(|it| it.values.clone()), Some(vec![1.0, 2.0]));
        assert!(sides.iter().all(|it| it.failures.is_empty()));
    }

    /// Checks that a failure is that of the system that is named, and that the others keep their figures.
    #[test]
    fn a_failure_is_that_of_the_system_that_is_named() {
        let mut sides = Vec::new();
        let stderr = "peer-x: c of b: no leader: none\n";
        add_peers(&mut sides, "peer-x", "c", ran(1, &line("a", "p50_us", 1.0), stderr));
        assert_eq!((sides[0].runs, sides[0].failures.len()), (1, 0));
        assert_eq!((sides[1].name.as_str(), sides[1].runs), ("b", 1));
        assert_eq!(sides[1].failures, ["no leader: none"]);
        add_peers(&mut sides, "peer-x", "c", ran(101, "", "panicked"));
        assert_eq!(sides[2].failures, ["exit status 101: panicked"]);
        add_peers(
            &mut sides,
            "peer-x",
            "c",
            ran(0, &line("a", "p50_us", 1.0).replace("\"c\"", "\"d\""), ""),
        );
        assert_eq!(sides[2].failures[1], "it printed no figure");
    }

    /// Checks that a run of ours without a figure has failed, whatever its status, and that one with figures counts.
    #[test]
    fn a_run_of_ours_without_figures_has_failed() {
        let mut ours = Side::new("ours", "g");
        let said = "{\"case\":\"c\",\"metric\":\"m\",\"unit\":\"us\",\"value\":4.0,\"peer\":null}";
        ours.add(ran(0, said, ""));
        ours.add(ran(0, "", ""));
        ours.add(ran(1, said, "mainstay-bench: c: too busy"));
        ours.add(Err("cannot start".to_owned()));
        assert_eq!(ours.of("m").map(|it| it.values.len()), Some(1));
        assert_eq!((ours.runs, ours.failures.len()), (4, 3));
    }
}
