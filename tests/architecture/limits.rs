//! Limits: docs/limits.md shows every constant that bounds something.

use super::modules::Modules;
use super::rust::{Constant, constants};
use super::{markdown, report, update_or_compare};

#[test]
fn the_table_of_limits_shows_every_bound_in_the_code() {
    let (mut rows, mut silent) = (Vec::new(), Vec::new());
    for (_, file, code) in Modules::read().code() {
        let bounds: Vec<Constant> =
            constants(code).into_iter().filter(|it| it.name.ends_with("_MAX")).collect();
        silent.extend(
            bounds.iter().filter(|it| it.meaning.is_empty()).map(|it| format!("{file}: {}", it.name)),
        );
        rows.extend(bounds.iter().map(|it| row(it, file)));
    }
    report(&silent, "Say in a doc comment what the constant bounds.");
    rows.sort();
    let table = format!(
        "| where | constant | value | what it bounds |\n| --- | --- | ---: | --- |\n{}",
        rows.concat()
    );
    update_or_compare("docs/limits.md", "limits", &table);
}

#[test]
fn values_are_shown_as_people_write_them() {
    for (written, shown) in [
        ("4_096", "4,096"),
        ("8 << 10", "8,192"),
        ("32 * 1024", "32,768"),
        ("64", "64"),
        ("Duration :: from_millis (250)", "250 ms"),
        ("Duration :: from_secs (21_600)", "21,600 s"),
        ("Duration :: from_mins (1)", "1 min"),
        ("Duration :: from_hours (14 * 24)", "336 h"),
        ("std :: time :: Duration :: from_millis (30)", "30 ms"),
        ("9_007_199_254_740_991.0", "9,007,199,254,740,991"),
        ("size_of :: < T > ()", "`size_of::<T>()`"),
    ] {
        assert_eq!(value(written), shown);
    }
}

fn row(constant: &Constant, file: &str) -> String {
    let Constant { name, value: written, meaning } = constant;
    let meaning = markdown::without_item_links(meaning).replace('|', "\\|");
    format!("| `{file}` | `{name}` | {} | {meaning} |\n", value(written))
}

fn value(written: &str) -> String {
    let number = |text: &str| evaluated(text).map(grouped);
    let in_unit = |constructor: &str, unit: &str| {
        let argument = written.trim_start_matches("std :: time :: ").strip_prefix("Duration :: ")?;
        let argument = argument.strip_prefix(constructor)?.trim().trim_matches(['(', ')']);
        Some(format!("{} {unit}", number(argument)?))
    };
    let units = [("from_millis", "ms"), ("from_secs", "s"), ("from_mins", "min"), ("from_hours", "h")];
    let duration = units.into_iter().find_map(|(constructor, unit)| in_unit(constructor, unit));
    number(written).or(duration).unwrap_or_else(|| format!("`{}`", written.replace(' ', "")))
}

/// Sums are not among the constants.
fn evaluated(text: &str) -> Option<u64> {
    if let Some((left, right)) = text.split_once("<<") {
        return evaluated(left)?.checked_shl(evaluated(right)?.try_into().ok()?);
    }
    if let Some((left, right)) = text.split_once('*') {
        return evaluated(left)?.checked_mul(evaluated(right)?);
    }
    text.trim().trim_end_matches(".0").replace('_', "").parse().ok()
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let (first, groups) = digits.split_at(digits.len() % 3);
    let groups = groups.as_bytes().chunks(3).map(|it| String::from_utf8_lossy(it).into_owned());
    let all: Vec<String> =
        Some(first.to_owned()).filter(|it| !it.is_empty()).into_iter().chain(groups).collect();
    all.join(",")
}
