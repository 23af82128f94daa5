//! Charts as SVG in the page: bars with their spread, lines over rounds or percentiles.

use std::fmt::Write as _;

use crate::bulk::count_as_f64;
use crate::report::number;

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 300.0;
const BAR: f64 = 20.0;
/// Left of the bars, for their names; right of them, for their values.
const NAMES: f64 = 170.0;
const VALUES: f64 = 90.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 34.0;
/// Colours that people with any kind of sight can tell apart, then dashes.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#a6761d"];
/// Percentiles that the axis names.
const TICKS: [f64; 6] = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99];
/// Where the axis of percentiles ends: one in 100,000.
const NINES_MAX: f64 = 5.0;

/// A side's median and range.
#[derive(Debug)]
pub struct Bar {
    /// The side.
    pub name: String,
    /// Its median.
    pub value: f64,
    /// Its smallest value.
    pub least: f64,
    /// Its largest.
    pub most: f64,
}

/// A line.
#[derive(Debug)]
pub struct Series {
    /// What it is.
    pub name: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

/// How the axes run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// Both evenly, upwards from zero.
    Linear,
    /// Across by nines of a percentile, up by powers of ten.
    Percentiles,
}

/// Text as part of the page.
pub fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;")
}

/// Lying bars, each with a thin line from its smallest to its largest value.
pub fn bars(title: &str, bars: &[Bar]) -> String {
    let most = bars.iter().map(|bar| bar.most).fold(f64::MIN_POSITIVE, f64::max);
    let height = TOP + BAR * count_as_f64(bars.len() as u64) + 8.0;
    let mut svg = begin(title, height);
    let long = |value: f64| (WIDTH - NAMES - VALUES) * (value / most).max(0.0);
    let mut top = TOP;
    for bar in bars {
        let colour = if bar.name.contains("ringlake") { COLOURS[0] } else { COLOURS[6] };
        let middle = top + BAR / 2.0;
        let _ = write!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{NAMES}\" y=\"{:.0}\" width=\"{:.1}\" height=\"{:.0}\" fill=\"{colour}\"/>\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"#e69f00\" \
             stroke-width=\"2\"/><text class=\"soft\" x=\"{:.1}\" y=\"{:.0}\">{}</text>",
            NAMES - 6.0,
            middle + 4.0,
            escaped(&bar.name),
            top + 2.0,
            long(bar.value),
            BAR - 4.0,
            NAMES + long(bar.least),
            NAMES + long(bar.most),
            NAMES + long(bar.most) + 6.0,
            middle + 4.0,
            amount(bar.value),
        );
        top += BAR;
    }
    svg + "</svg>"
}

/// Lines with their names below.
pub fn lines(title: &str, all: &[Series], scale: Scale, across: &str) -> String {
    let points = || all.iter().flat_map(|series| &series.points);
    let right = points().map(|point| point.0).fold(1.0, f64::max);
    let most = points().map(|point| point.1).fold(0.001, f64::max);
    let least = points().map(|point| point.1).filter(|value| *value > 0.0).fold(most, f64::min);
    let legend = 16.0 * count_as_f64(all.len() as u64);
    let mut svg = begin(title, HEIGHT + legend);
    let x = |value: f64| {
        let share = match scale {
            Scale::Linear => (value - 1.0) / (right - 1.0).max(1.0),
            Scale::Percentiles => nines(value) / NINES_MAX,
        };
        LEFT + (WIDTH - LEFT - 12.0) * share
    };
    let (low, high) = (least.log10().floor(), most.log10().ceil().max(least.log10().floor() + 1.0));
    let y = |value: f64| {
        let share = match scale {
            Scale::Linear => value / most,
            Scale::Percentiles => (value.max(least).log10() - low) / (high - low),
        };
        HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share
    };
    for tick in ticks(scale, most, low, high) {
        let at = y(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"soft\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            amount(tick),
        );
    }
    let names: Vec<f64> = match scale {
        Scale::Linear => vec![1.0, right],
        Scale::Percentiles => TICKS.to_vec(),
    };
    for name in names {
        let _ = write!(
            svg,
            "<text class=\"soft\" x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{name}</text>",
            x(name),
            HEIGHT - BOTTOM + 16.0,
        );
    }
    let _ = write!(
        svg,
        "<text class=\"soft\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>",
        WIDTH - 4.0,
        HEIGHT - 4.0,
        escaped(across),
    );
    for (index, series) in all.iter().enumerate() {
        draw(&mut svg, index, series, x, y);
    }
    svg + "</svg>"
}

fn draw(
    svg: &mut String,
    index: usize,
    series: &Series,
    x: impl Fn(f64) -> f64,
    y: impl Fn(f64) -> f64,
) {
    let colour = COLOURS[index % COLOURS.len()];
    let dashes = if index < COLOURS.len() { "none" } else { "5 4" };
    let points: Vec<String> = series
        .points
        .iter()
        .map(|(across, up)| format!("{:.1},{:.1}", x(*across), y(*up)))
        .collect();
    let below = HEIGHT + 16.0 * count_as_f64(index as u64);
    let _ = write!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
         stroke-dasharray=\"{dashes}\"/><line x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{below}\" \
         y2=\"{below}\" stroke=\"{colour}\" stroke-width=\"3\" stroke-dasharray=\"{dashes}\"/>\
         <text x=\"{:.0}\" y=\"{:.0}\">{}</text>",
        points.join(" "),
        LEFT + 24.0,
        LEFT + 32.0,
        below + 4.0,
        escaped(&series.name),
    );
}

/// How many nines a percentile has: 0 is 0, 90 is 1, 99.9 is 3.
fn nines(percentile: f64) -> f64 {
    let left = (1.0 - percentile / 100.0).max(10_f64.powf(-NINES_MAX));
    -left.log10()
}

fn ticks(scale: Scale, most: f64, low: f64, high: f64) -> Vec<f64> {
    match scale {
        Scale::Linear => (0..=4_u32).map(|part| most * f64::from(part) / 4.0).collect(),
        Scale::Percentiles => (0..=20_u32)
            .map(f64::from)
            .map(|step| low + step)
            .take_while(|power| *power <= high)
            .map(|power| 10_f64.powf(power))
            .collect(),
    }
}

/// A number as short as it can be told.
fn amount(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        small if small < 0.1 => 3,
        small if small < 10.0 => 2,
        small if small < 100.0 => 1,
        _ => 0,
    };
    number(value, decimals)
}

fn begin(title: &str, height: f64) -> String {
    format!(
        "<svg width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\
         <title>{0}</title><text x=\"4\" y=\"16\" font-weight=\"600\">{0}</text>",
        escaped(title),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_nine_of_a_percentile_takes_as_much_room() {
        for (percentile, count) in [(0.0, 0.0), (90.0, 1.0), (99.0, 2.0), (99.9, 3.0), (100.0, 5.0)]
        {
            assert!((nines(percentile) - count).abs() < 1e-9, "{percentile}");
        }
    }

    #[test]
    fn names_of_sides_are_text() {
        let bar = Bar { name: "<b>".to_owned(), value: 1.0, least: 1.0, most: 1.0 };
        assert!(bars("a & b", &[bar]).contains("&lt;b&gt;"));
    }
}
