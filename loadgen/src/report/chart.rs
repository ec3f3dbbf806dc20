//! A line chart as inline SVG. Its colours are the page's (`--c0` and so on), so that it reads in light and dark.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 30.0;

/// A line: its name, and its points, of which some may be missing.
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// How a value stands on an axis.
#[derive(Clone, Copy)]
pub(super) enum Scale {
    Linear,
    Logarithmic,
}

pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) lines: Vec<Line>,
    pub(super) scale: Scale,
    pub(super) unit: &'a str,
    /// Places below the chart, and what stands there.
    pub(super) marks: Vec<(f64, String)>,
}

/// From the least value to the most, and the steps between.
struct Axis {
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Axis {
    fn of(values: &[f64], scale: Scale) -> Self {
        let most = values.iter().copied().fold(0.0, f64::max);
        match scale {
            Scale::Linear => {
                let raw = (most / 5.0).max(1e-9);
                let power = 10_f64.powf(raw.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0]
                    .map(|times| times * power)
                    .into_iter()
                    .find(|step| *step >= raw)
                    .unwrap_or(raw);
                let count = (most / step).ceil().max(1.0);
                let ticks = (0..=count as u32).map(|number| f64::from(number) * step);
                Self {
                    low: 0.0,
                    high: count * step,
                    ticks: ticks.collect(),
                }
            }
            Scale::Logarithmic => {
                let least = values.iter().copied().filter(|value| *value > 0.0);
                let least = least.fold(f64::INFINITY, f64::min);
                let low = if least.is_finite() { least } else { 1.0 };
                let (from, to) = (low.log10().floor(), most.max(low).log10().ceil());
                let to = to.max(from + 1.0);
                let ticks = (from as i32..=to as i32).map(|power| 10_f64.powi(power));
                Self {
                    low: from,
                    high: to,
                    ticks: ticks.collect(),
                }
            }
        }
    }

    fn y(&self, value: f64, scale: Scale) -> f64 {
        let value = match scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(1e-9).log10(),
        };
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }
}

impl Chart<'_> {
    pub(super) fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let values: Vec<f64> = points().filter_map(|(_, value)| *value).collect();
        let axis = Axis::of(&values, self.scale);
        let last = points().map(|(x, _)| *x).fold(1e-9, f64::max);
        let x = |value: f64| LEFT + value / last * (WIDTH - LEFT - RIGHT);
        let mut svg = format!(
            "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{}\">",
            self.title, self.title
        );
        for tick in &axis.ticks {
            let y = axis.y(*tick, self.scale);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0,
                number(*tick)
            );
        }
        for (place, text) in &self.marks {
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                x(*place),
                HEIGHT - 10.0
            );
        }
        for (index, line) in self.lines.iter().enumerate() {
            let _ = write!(
                svg,
                "<path class=\"c{index}\" d=\"{}\"/>",
                self.path(line, &axis, x)
            );
        }
        svg.push_str("</svg><p class=\"legend\">");
        for (index, line) in self.lines.iter().enumerate() {
            let _ = write!(svg, "<span class=\"k{index}\">{}</span> ", line.name);
        }
        let _ = write!(svg, "<span>in {}</span></p></figure>", self.unit);
        svg
    }

    fn path(&self, line: &Line, axis: &Axis, x: impl Fn(f64) -> f64) -> String {
        let mut path = String::new();
        let mut pen = 'M';
        for (place, value) in &line.points {
            let Some(value) = value else {
                pen = 'M';
                continue;
            };
            let _ = write!(
                path,
                "{pen}{:.1} {:.1}",
                x(*place),
                axis.y(*value, self.scale)
            );
            pen = 'L';
        }
        path
    }
}

/// Without digits that say nothing.
pub(super) fn number(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => trimmed(format!("{value:.1}")),
        value if value >= 1.0 => trimmed(format!("{value:.2}")),
        value => trimmed(format!("{value:.3}")),
    }
}

fn trimmed(text: String) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
