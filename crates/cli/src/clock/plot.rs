//! A plot of skew against the bound over time, as one SVG without anything from outside.

use std::fmt::Write as _;
use std::time::Duration;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 160.0;
const LEFT: f64 = 70.0;

/// How far clocks were apart.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Sample {
    pub(super) at: Duration,
    /// Of the correct and synchronised clocks, in nanoseconds.
    pub(super) skew: u64,
    pub(super) bound: u64,
    /// How many they were.
    pub(super) judged: usize,
}

/// The run of an algorithm.
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) samples: Vec<Sample>,
}

pub(super) fn svg(panels: &[Panel]) -> String {
    let height = (HEIGHT + 50.0) * panels.len() as f64;
    let (width, mut out) = (LEFT + WIDTH + 20.0, String::new());
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (index, panel) in panels.iter().enumerate() {
        draw(&mut out, panel, (HEIGHT + 50.0) * index as f64 + 30.0);
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, panel: &Panel, top: f64) {
    let most = panel.samples.iter().map(|it| it.skew.max(it.bound)).max().unwrap_or(1).max(1);
    let long = panel.samples.last().map_or(1.0, |it| it.at.as_secs_f64()).max(0.001);
    let point = |at: Duration, value: u64| {
        let x = LEFT + at.as_secs_f64() / long * WIDTH;
        let y = top + HEIGHT - value as f64 / most as f64 * HEIGHT;
        format!("{x:.1},{y:.1} ")
    };
    let line = |value: fn(&Sample) -> u64| -> String {
        panel.samples.iter().filter(|it| it.judged > 1).map(|it| point(it.at, value(it))).collect()
    };
    let (bottom, right) = (top + HEIGHT, LEFT + WIDTH);
    let _ = write!(
        out,
        "<text x=\"{LEFT}\" y=\"{:.1}\">{}</text>\n<path d=\"M{LEFT} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"black\"/>\n<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.2} ms</text>\n<text x=\"{:.1}\" y=\"{bottom}\" text-anchor=\"end\">0</text>\n<text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\">{long:.1} s</text>\n<polyline points=\"{}\" fill=\"none\" stroke=\"#c22\" stroke-dasharray=\"6 3\"><title>bound</title></polyline>\n<polyline points=\"{}\" fill=\"none\" stroke=\"#226\" stroke-width=\"1.5\"><title>skew</title></polyline>\n<text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\"><tspan fill=\"#226\">skew</tspan> <tspan fill=\"#c22\">bound (dashed)</tspan></text>\n",
        top - 8.0,
        panel.title,
        LEFT - 6.0,
        top + 10.0,
        most as f64 / 1e6,
        LEFT - 6.0,
        bottom + 14.0,
        line(|it| it.bound),
        line(|it| it.skew),
        top - 8.0,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_a_line_for_the_skew_and_one_for_the_bound() {
        let sample = |at, skew| Sample { at: Duration::from_secs(at), skew, bound: 10, judged: 4 };
        let panel =
            Panel { title: "midpoint".to_owned(), samples: vec![sample(1, 5), sample(2, 0)] };
        let svg = svg(&[panel]);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("points=\"390.0,110.0 710.0,190.0 \""), "{svg}");
    }
}
