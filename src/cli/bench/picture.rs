//! Latency over time as a small picture made of characters.

use super::timeline::Point;

/// Draws the points, at most `width` columns of six rows: full blocks up to the median, light ones up to the 99th
/// percentile. Empty without a latency.
pub(crate) fn picture(points: &[Point], width: usize) -> String {
    let columns = columns(points, width);
    let top = columns.iter().flatten().map(|(_, p99)| *p99).fold(0.0, f64::max);
    let Some(last) = points.last().filter(|_| top > 0.0) else { return String::new() };
    let mut text = String::new();
    for row in (0..ROWS).rev() {
        let label = match row {
            0 => "0 ms".to_owned(),
            _ if row + 1 == ROWS => format!("{} ms", short(top)),
            _ => String::new(),
        };
        text.push_str(&format!("{label:>10} │"));
        let line: String = columns.iter().map(|column| sign(*column, row, top)).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let end = format!("{} s", short(last.at));
    let gap = columns.len().saturating_sub(end.len() + 1).max(1);
    text.push_str(&format!(
        "{:>10} └{}\n{:>12}0{}{end}\n",
        "",
        "─".repeat(columns.len()),
        "",
        " ".repeat(gap)
    ));
    text.push_str(&format!("{:>12}█ p50  ░ p99, by the time of the answer\n", ""));
    text
}

/// Returns median and 99th percentile of each column: the worst of its points.
fn columns(points: &[Point], width: usize) -> Vec<Option<(f64, f64)>> {
    let per_column = points.len().div_ceil(width.max(1)).max(1);
    let worst = |points: &[Point]| {
        let latencies = points.iter().filter_map(|point| point.p50.zip(point.p99));
        latencies.reduce(|(p50, p99), next| (p50.max(next.0), p99.max(next.1)))
    };
    points.chunks(per_column).map(worst).collect()
}

fn sign(column: Option<(f64, f64)>, row: usize, top: f64) -> char {
    let Some((p50, p99)) = column else { return ' ' };
    let floor = row as f64 / ROWS as f64 * top;
    match () {
        () if p50 > floor => '█',
        () if p99 > floor => '░',
        // A latency of nothing is still an answer.
        () if row == 0 => '▁',
        () => ' ',
    }
}

/// Returns a number with three significant digits, without needless ones.
pub(crate) fn short(number: f64) -> String {
    let digits = match number.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{number:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

const ROWS: usize = 6;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point(at: f64, p50: f64, p99: f64) -> Point {
        Point { at, rate: 1.0, p50: Some(p50), p99: Some(p99) }
    }

    #[test]
    fn a_slow_moment_stands_out() {
        let points = [point(0.0, 1.0, 2.0), point(1.0, 6.0, 12.0), point(2.0, 1.0, 2.0)];
        let drawn = picture(&points, 60);
        let rows: Vec<&str> = drawn.lines().collect();
        assert_eq!(rows[0], "     12 ms │ ░");
        assert_eq!(rows[5], "      0 ms │███");
        assert!(rows[7].ends_with("0 2 s"), "{drawn}");
    }

    #[test]
    fn without_an_answer_there_is_no_picture() {
        let silent = Point { at: 0.0, rate: 0.0, p50: None, p99: None };
        assert_eq!(picture(&[], 60), "");
        assert_eq!(picture(&[silent], 60), "");
    }

    #[test]
    fn numbers_are_as_long_as_they_need_to_be() {
        assert_eq!([1234.5, 12.0, 0.25, 0.0, 3.999].map(short), ["1234", "12", "0.25", "0", "4"]);
    }

    proptest! {
        #[test]
        fn a_picture_fits_into_its_width(
            latencies in prop::collection::vec((0.0_f64..1e6, 0.0_f64..1e6), 1..300),
            width in 1_usize..100,
        ) {
            let numbered = latencies.iter().enumerate();
            let points: Vec<Point> = numbered.map(|(at, (p50, more))| point(at as f64, *p50, p50 + more)).collect();
            let drawn = picture(&points, width);
            prop_assert!(drawn.lines().take(ROWS).all(|line| line.chars().count() <= 12 + width));
        }
    }
}
