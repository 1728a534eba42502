//! Reads tests/differential/rows.txt, where its words are explained.

const ROWS: &str = include_str!("rows.txt");

/// What many rows begin with.
const BEGINNINGS: &[(&str, &[&str])] = &[
    ("joined", &["ws", "until 0", "> 40", r#"until 42["auth""#]),
    ("polling", &["open", "post 40", r#"poll 42["auth""#]),
    ("probed", &["= polling", UPGRADE, "> 2probe", "until 3probe"]),
    ("upgraded", &["= probed", "> 5"]),
];
const UPGRADE: &str = "ws ?EIO=4&transport=websocket&sid={sid}";

/// What one client does.
pub(crate) struct Row {
    pub(crate) name: String,
    /// Against servers with short deadlines.
    pub(crate) hasty: bool,
    pub(crate) steps: Vec<String>,
}

/// All of them, with the values of `each` put in.
pub(crate) fn rows() -> Vec<Row> {
    ROWS.split("\n# ").skip(1).flat_map(row).collect()
}

fn row(text: &str) -> Vec<Row> {
    // A row ends with an empty line; headings may follow.
    let mut lines = text.lines().take_while(|line| !line.is_empty());
    let name = lines.next().expect("a name");
    let (mut hasty, mut each, mut steps) = (false, vec![], vec![]);
    for line in lines {
        match line.strip_prefix("each: ") {
            Some(values) => each = values.split(" | ").collect(),
            None if line == "hasty" => hasty = true,
            None => steps.extend(expanded(line)),
        }
    }
    if each.is_empty() {
        return vec![Row { name: name.into(), hasty, steps }];
    }
    let with = |value: &&str| Row {
        name: format!("{name}: {value}"),
        hasty,
        steps: steps.iter().map(|step| step.replace("{each}", value)).collect(),
    };
    each.iter().map(with).collect()
}

fn expanded(line: &str) -> Vec<String> {
    let Some(name) = line.strip_prefix("= ") else { return vec![line.to_owned()] };
    let (_, steps) = BEGINNINGS.iter().find(|(known, _)| *known == name).expect("a known beginning");
    steps.iter().flat_map(|step| expanded(step)).collect()
}
