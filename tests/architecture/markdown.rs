//! As much of Markdown as the checks need: tables, links, headings, code.

/// A document without its fenced code blocks.
pub fn prose(text: &str) -> String {
    let mut fenced = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What stands between `<!-- name` and `<!-- /name -->`, or the end of the text.
pub fn section<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let start = text.find(&format!("<!-- {name}"))?;
    let start = start + text[start..].find('\n')? + 1;
    let end = text[start..].find(&format!("<!-- /{name} -->")).map_or(text.len(), |end| start + end);
    Some(&text[start..end])
}

/// Cells of the rows of the first table in `text`, without the heading.
pub fn table(text: &str) -> Vec<Vec<String>> {
    let rows =
        text.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.skip(2)
        .map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// Everything in `backticks`.
pub fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Targets of links, those in backticks aside.
pub fn links(text: &str) -> Vec<String> {
    let plain: String = text.split('`').step_by(2).collect::<Vec<_>>().join("");
    let ends = plain.match_indices("](").map(|(at, _)| &plain[at + 2..]);
    ends.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned()).collect()
}

/// `[`Engine`](path)` and `[`Engine`]` become `Engine`.
pub fn without_item_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("[`") {
        let (name, after) = after.split_once("`]").unwrap_or((after, ""));
        plain.push_str(before);
        plain.push_str(&format!("`{name}`"));
        rest = match after.strip_prefix('(') {
            Some(link) => link.split_once(')').map_or("", |(_, after)| after),
            None => after,
        };
    }
    plain + rest
}

/// Anchors that the headings of a document make, as GitHub names them.
pub fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| slug(line.trim_start_matches('#').trim())).collect()
}

fn slug(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|it| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_'));
    kept.map(|it| if it == ' ' { '-' } else { it }).collect()
}
