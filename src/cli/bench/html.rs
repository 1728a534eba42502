//! The report of a run as one HTML file with a drawing of latency over time: nothing is loaded from elsewhere.

use std::fmt::Write;

use super::picture::short;
use super::summary::Summary;
use super::timeline::Point;

/// Returns the report.
pub(crate) fn page(summary: &Summary) -> String {
    let text = escape(summary.facts().trim_end());
    let mut notes = String::new();
    for note in &summary.notes {
        let _ = write!(notes, "<li>{}</li>", escape(note));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>imks bench: {title}</title>\n\
         <style>{STYLE}</style>\n<h1>imks bench: {title}</h1>\n<pre>{text}</pre>\n<h2>Latency</h2>\n{latency}\n\
         <h2>Rate</h2>\n{rate}\n<ul>{notes}</ul>\n<p>imks {version}</p>\n</html>\n",
        title = escape(&format!("{} on {}", summary.scenario, summary.url)),
        latency = drawing(
            &summary.timeline,
            "ms",
            &[("p99", "#e07a3f", |it| it.p99), ("p50", "#2f6fd0", |it| it.p50)]
        ),
        rate = drawing(&summary.timeline, "per second", &[("rate", "#3a9a5b", |it| Some(it.rate))]),
        version = summary.version,
    )
}

/// A line of a drawing: its name, its colour, and its value at a point.
type Line = (&'static str, &'static str, fn(&Point) -> Option<f64>);

/// Returns an SVG with the lines over time. A moment without a value is a gap.
fn drawing(points: &[Point], unit: &str, lines: &[Line]) -> String {
    let values = points.iter().flat_map(|point| lines.iter().filter_map(|(.., value)| value(point)));
    let top = values.fold(0.0, f64::max);
    let end = points.last().map_or(0.0, |point| point.at);
    if top <= 0.0 {
        return "<p>not measured</p>".into();
    }
    let x = |at: f64| LEFT + if end > 0.0 { at / end * WIDTH } else { 0.0 };
    let y = |value: f64| TOP + HEIGHT - value / top * HEIGHT;
    let (right, bottom) = (LEFT + WIDTH, TOP + HEIGHT);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {} {}\" role=\"img\"><path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>\
         <text x=\"4\" y=\"{}\">{} {unit}</text><text x=\"{LEFT}\" y=\"{}\">0 s</text>\
         <text x=\"{}\" y=\"{}\">{} s</text>",
        right + LEFT / 2.0,
        bottom + TOP * 2.0,
        TOP - 4.0,
        short(top),
        bottom + 16.0,
        right - 30.0,
        bottom + 16.0,
        short(end),
    );
    for (index, (name, colour, value)) in lines.iter().enumerate() {
        let path = path(points.iter().map(|point| value(point).map(|value| (x(point.at), y(value)))));
        let label = right - 60.0 * (index as f64 + 1.0);
        let _ = write!(
            svg,
            "<path d=\"{path}\" stroke=\"{colour}\"/><text x=\"{label}\" y=\"{}\" fill=\"{colour}\">{name}</text>",
            TOP - 4.0
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Returns a path through the points, which begins anew after each gap.
fn path(points: impl Iterator<Item = Option<(f64, f64)>>) -> String {
    let (mut path, mut is_drawing) = (String::new(), false);
    for point in points {
        if let Some((x, y)) = point {
            let command = if is_drawing { 'L' } else { 'M' };
            // A line of no length with round ends shows a point between two gaps.
            let dot = if is_drawing { "" } else { "h0" };
            let _ = write!(path, "{command}{x:.1} {y:.1}{dot}");
        }
        is_drawing = point.is_some();
    }
    path
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
    pre{background:#8881;padding:1rem;overflow:auto}svg{width:100%}\
    path{fill:none;stroke-width:2;stroke-linecap:round}.axis{stroke:#888;stroke-width:1}\
    text{font-size:12px;fill:#888}:root{color-scheme:light dark}";
const LEFT: f64 = 48.0;
const TOP: f64 = 20.0;
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 200.0;

#[cfg(test)]
mod tests {
    use super::super::summary::tests::example;
    use super::*;

    #[test]
    fn a_report_is_whole_and_an_address_cannot_change_the_page() {
        let mut summary = example();
        summary.url = "http://x/<script>alert(1)</script>".into();
        let page = page(&summary);
        assert!(!page.contains("<script>"), "{page}");
        assert!(page.contains("&lt;script&gt;"));
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(page.contains("p50 1 ms, p95 2.5 ms"), "{page}");
        assert!(!page.contains('█'), "{page}");
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    }

    #[test]
    fn a_run_without_an_answer_has_no_drawing() {
        let page = page(&Summary { timeline: Vec::new(), ..example() });
        assert_eq!(page.matches("<p>not measured</p>").count(), 2);
    }

    #[test]
    fn a_gap_in_time_is_a_gap_in_the_line() {
        let points = [Some((0.0, 1.0)), Some((1.0, 1.0)), None, Some((3.0, 1.0))];
        assert_eq!(path(points.into_iter()), "M0.0 1.0h0L1.0 1.0M3.0 1.0h0");
    }
}
