//! Lays panels and bands over a common time axis and writes them as SVG. It knows shapes, not what they mean.

use std::fmt::Write as _;

use super::axis::Axis;
use super::style;

/// A time series.
#[derive(Debug)]
pub(super) struct Trace {
    /// For the legend.
    pub(super) name: String,
    /// Its colour.
    pub(super) class: &'static str,
    /// How it is drawn.
    pub(super) shape: Shape,
    /// One a moment; none leaves a gap.
    pub(super) values: Vec<Option<f64>>,
}

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Line,
    Dashed,
    /// A line with the space below it filled.
    Area,
}

/// Series with a common scale.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) height: f64,
    pub(super) axis: Axis,
    pub(super) traces: Vec<Trace>,
}

/// What held when, as a strip of colours.
#[derive(Debug)]
pub(super) struct Band<'a> {
    pub(super) title: &'static str,
    /// One a moment: what has held since the moment before.
    pub(super) words: Vec<&'a str>,
    /// The colour of a word that is the n-th to appear.
    pub(super) class: fn(&str, usize) -> &'static str,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Picture<'a> {
    pub(super) title: String,
    pub(super) subtitle: String,
    /// The moments, seconds, rising.
    pub(super) times: Vec<f64>,
    pub(super) bands: Vec<Band<'a>>,
    pub(super) panels: Vec<Panel>,
}

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 976.0;
/// Title and subtitle.
const HEAD: f64 = 66.0;
/// Below the last panel: the labels of the time axis.
const FOOT: f64 = 44.0;
/// Above a panel or band: its name and its legend.
const CAPTION: f64 = 26.0;
const BAND: f64 = 12.0;
/// Between panels.
const GAP: f64 = 16.0;

impl Picture<'_> {
    /// As an SVG document.
    pub(super) fn svg(&self) -> String {
        let bands = self.bands.len() as f64 * (CAPTION + BAND);
        let panels: f64 = self.panels.iter().map(|panel| CAPTION + panel.height + GAP).sum();
        let height = HEAD + bands + panels + FOOT;
        let mut out = Svg::begin(height, self);
        let mut top = HEAD;
        for band in &self.bands {
            out.band(top, band, self);
            top += CAPTION + BAND;
        }
        for panel in &self.panels {
            top += GAP;
            out.panel(top, panel, self);
            top += CAPTION + panel.height;
        }
        out.time_labels(top, self);
        out.text.push_str("</svg>\n");
        out.text
    }

    fn time_axis(&self) -> Axis {
        Axis::of_time(self.times.last().copied().unwrap_or_default(), 10.0)
    }

    fn x(&self, time: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (time / self.time_axis().end).clamp(0.0, 1.0)
    }

    /// Longest time between moments that are joined by a line.
    fn reach(&self) -> f64 {
        let usual = self.times.last().copied().unwrap_or_default() / self.times.len().max(1) as f64;
        (usual * 10.0).max(1.0)
    }

    /// The series in pieces without gaps, as points of the picture.
    fn runs(&self, values: &[Option<f64>], y: impl Fn(f64) -> f64) -> Vec<Vec<(f64, f64)>> {
        let (mut runs, mut run, mut last) = (Vec::new(), Vec::new(), f64::NEG_INFINITY);
        for (&time, value) in self.times.iter().zip(values) {
            if (value.is_none() || time - last > self.reach()) && !run.is_empty() {
                runs.push(std::mem::take(&mut run));
            }
            run.extend(value.map(|value| (self.x(time), y(value))));
            last = time;
        }
        runs.push(run);
        runs.retain(|run| !run.is_empty());
        runs
    }
}

struct Svg {
    text: String,
}

impl Svg {
    fn begin(height: f64, picture: &Picture<'_>) -> Self {
        let (title, subtitle) = (escaped(&picture.title), escaped(&picture.subtitle));
        let text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" role=\"img\">\n<title>{title}</title>\n<style>{}</style>\n\
             <rect class=\"ground fill\" width=\"100%\" height=\"100%\"/>\n",
            style::sheet()
        );
        let mut svg = Self { text };
        svg.words("ink title", LEFT, 32.0, &title);
        svg.words("mute", LEFT, 53.0, &subtitle);
        svg
    }

    /// Text that has been escaped already.
    fn words(&mut self, class: &str, x: f64, y: f64, words: &str) {
        let _ = writeln!(self.text, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>");
    }

    fn rule(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ = writeln!(
            self.text,
            "<line class=\"{class} rule\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        );
    }

    fn block(&mut self, class: &str, x: f64, y: f64, width: f64) {
        let _ = writeln!(
            self.text,
            "<rect class=\"{class} fill\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAND}\"/>"
        );
    }

    fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let _ = write!(self.text, "<path class=\"{class}\" d=\"");
        for (n, (x, y)) in points.iter().enumerate() {
            let _ = write!(self.text, "{}{x:.1} {y:.1}", if n == 0 { "M" } else { "L" });
        }
        // A lone moment is a dot: round ends show a line without length.
        let dot = if points.len() == 1 { "h0" } else { "" };
        let _ = writeln!(self.text, "{dot}\"/>");
    }

    /// Name at the left, legend at the right.
    fn caption(&mut self, top: f64, title: &str, legend: &[(&str, &str, Mark)]) {
        let base = top + 17.0;
        self.words("ink head", LEFT, base, &escaped(title));
        let width = |name: &str| 40.0 + name.chars().map(letter_width).sum::<f64>();
        let mut x = RIGHT + 16.0 - legend.iter().map(|(name, ..)| width(name)).sum::<f64>();
        for (name, class, mark) in legend {
            match mark {
                Mark::Block => {
                    let (x, y) = (x + 8.0, base - 10.0);
                    let _ = writeln!(
                        self.text,
                        "<rect class=\"{class} fill\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"10\" height=\"10\" rx=\"2\"/>"
                    );
                }
                Mark::Of(shape) => {
                    let points = [(x, base - 4.0), (x + 18.0, base - 4.0)];
                    if *shape == Shape::Area {
                        let (x1, x2, low) = (x, x + 18.0, base + 1.0);
                        self.path(&format!("{class} area"), &[points[0], points[1], (x2, low), (x1, low)]);
                    }
                    self.path(&format!("{class} {}", line_class(*shape)), &points);
                }
            }
            self.words("mute", x + 24.0, base, &escaped(name));
            x += width(name);
        }
    }

    fn band(&mut self, top: f64, band: &Band<'_>, picture: &Picture<'_>) {
        let mut known: Vec<&str> = Vec::new();
        let mut from = 0.0;
        let mut moments = picture.times.iter().zip(&band.words).peekable();
        while let Some((&time, word)) = moments.next() {
            if moments.peek().is_some_and(|(_, next)| *next == word) {
                continue;
            }
            let place = known.iter().position(|name| name == word).unwrap_or(known.len());
            if place == known.len() {
                known.push(word);
            }
            let (left, right) = (picture.x(from), picture.x(time));
            self.block((band.class)(word, place), left, top + CAPTION, right - left);
            from = time;
        }
        let names: Vec<_> = known.iter().map(|word| word.replace('_', " ")).collect();
        let classes = known.iter().enumerate().map(|(place, word)| (band.class)(word, place));
        let legend: Vec<_> =
            names.iter().zip(classes).map(|(name, class)| (name.as_str(), class, Mark::Block)).collect();
        self.caption(top, band.title, &legend);
    }

    fn panel(&mut self, top: f64, panel: &Panel, picture: &Picture<'_>) {
        let legend: Vec<_> = panel
            .traces
            .iter()
            .map(|trace| (trace.name.as_str(), trace.class, Mark::Of(trace.shape)))
            .collect();
        self.caption(top, &panel.title, &legend);
        let (top, bottom) = (top + CAPTION, top + CAPTION + panel.height);
        let y = |value: f64| bottom - panel.height * (value / panel.axis.end).clamp(0.0, 1.0);
        for time in picture.time_axis().ticks() {
            self.rule("grid", (picture.x(time), top), (picture.x(time), bottom));
        }
        for value in panel.axis.ticks() {
            self.rule("grid", (LEFT, y(value)), (RIGHT, y(value)));
            self.words("mute end", LEFT - 8.0, y(value) + 4.0, &panel.axis.label(value));
        }
        for trace in &panel.traces {
            for run in picture.runs(&trace.values, y) {
                self.trace(trace, &run, bottom);
            }
        }
        self.rule("mute", (LEFT, bottom), (RIGHT, bottom));
    }

    fn trace(&mut self, trace: &Trace, run: &[(f64, f64)], bottom: f64) {
        if let (Shape::Area, [(first, _), .., (last, _)]) = (trace.shape, run) {
            let outline = [run, &[(*last, bottom), (*first, bottom)]].concat();
            self.path(&format!("{} area", trace.class), &outline);
        }
        self.path(&format!("{} {}", trace.class, line_class(trace.shape)), run);
    }

    fn time_labels(&mut self, bottom: f64, picture: &Picture<'_>) {
        let axis = picture.time_axis();
        for time in axis.ticks() {
            self.words("mute mid", picture.x(time), bottom + 18.0, &axis.time_label(time));
        }
        let words = "time since the first data packet left";
        self.words("mute mid", (LEFT + RIGHT) / 2.0, bottom + 36.0, words);
    }
}

/// What stands before a name in a legend.
#[derive(Clone, Copy)]
enum Mark {
    Block,
    Of(Shape),
}

const fn line_class(shape: Shape) -> &'static str {
    match shape {
        Shape::Line | Shape::Area => "line",
        Shape::Dashed => "line dash",
    }
}

/// What a letter takes, about: the reader's typeface is not known.
const fn letter_width(letter: char) -> f64 {
    match letter {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ' ' => 3.6,
        'f' | 'r' | 't' | '/' => 4.6,
        'm' | 'w' | 'M' | 'W' | '%' => 10.4,
        'A'..='Z' => 8.2,
        _ => 7.4,
    }
}

/// For XML text.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
