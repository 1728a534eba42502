//! As much of Rust as the checks need: product code as tokens, and what is named in it.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// The tokens of a source file without what is built for tests only.
pub fn product_code(source: &str) -> Vec<TokenTree> {
    let tokens: TokenStream = source.parse().expect("the compiler reads it too");
    without_tests(tokens)
}

/// Every string literal, as it stands between its quotes.
pub fn texts(code: &[TokenTree]) -> Vec<String> {
    let mut found = Vec::new();
    visit(code, &mut |level, at| found.extend(text(&level[at])));
    found
}

/// Names that are the first part of a path: `sqlx` in `sqlx::query` and in `use sqlx::{…}`.
pub fn path_heads(code: &[TokenTree]) -> Vec<String> {
    let mut found = Vec::new();
    visit(code, &mut |level, at| {
        let head = !is_path_sign(level, at.wrapping_sub(2)) && is_path_sign(level, at + 1);
        found.extend(word(&level[at]).filter(|_| head));
    });
    found
}

/// First arguments of the calls of one of `functions` that are string literals: `x` in `on("x", …)`.
pub fn text_arguments(code: &[TokenTree], functions: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    visit(code, &mut |level, at| {
        let called = word(&level[at]).is_some_and(|name| functions.contains(&&*name));
        if let (true, Some(TokenTree::Group(arguments))) = (called, level.get(at + 1)) {
            found.extend(arguments.stream().into_iter().next().as_ref().and_then(text));
        }
    });
    found
}

/// String literals that follow the literal `key` and a colon, as in `json!`.
pub fn text_values(code: &[TokenTree], key: &str) -> Vec<String> {
    let mut found = Vec::new();
    visit(code, &mut |level, at| {
        let is_key = text(&level[at]).is_some_and(|it| it == key) && is_sign(level.get(at + 1), ':');
        found.extend(level.get(at + 2).filter(|_| is_key).and_then(text));
    });
    found
}

/// One name that a file uses from elsewhere, or a path written out in it.
#[derive(Debug, PartialEq, Eq)]
pub struct Path {
    /// As it stands there: it may begin with `crate`, `self` or `super`.
    pub segments: Vec<String>,
    /// The inline modules around it.
    pub within: Vec<String>,
    /// The name that a `use` gives it here.
    pub alias: Option<String>,
    /// `pub use`, whatever its reach.
    pub exported: bool,
}

/// All paths of more than one segment, and everything that is imported.
pub fn paths(code: &[TokenTree]) -> Vec<Path> {
    let mut found = Vec::new();
    paths_of_level(code, &mut Vec::new(), &mut found);
    found
}

/// A constant with its value as it is written.
pub struct Constant {
    pub name: String,
    pub value: String,
    /// The first sentence of its doc comment.
    pub meaning: String,
}

/// The constants of a file, those of inline modules and functions included.
pub fn constants(code: &[TokenTree]) -> Vec<Constant> {
    let mut found = Vec::new();
    visit(code, &mut |level, at| {
        if word(&level[at]).as_deref() != Some("const") || !is_sign(level.get(at + 2), ':') {
            return;
        }
        let Some(name) = level.get(at + 1).and_then(word) else { return };
        let rest = level[at..].iter().skip_while(|token| !is_sign(Some(token), '=')).skip(1);
        let value: TokenStream = rest.take_while(|token| !is_sign(Some(token), ';')).cloned().collect();
        let meaning = sentence(&documentation(level, at));
        found.push(Constant { name, value: value.to_string(), meaning });
    });
    found
}

/// Names of the modules that have a file of their own, also inside `cfg_if!`.
pub fn declared_modules(code: &[TokenTree]) -> Vec<String> {
    let declared =
        code.windows(3).filter(|it| word(&it[0]).as_deref() == Some("mod") && is_sign(it.get(2), ';'));
    let mut names: Vec<String> = declared.filter_map(|it| word(&it[1])).collect();
    for (at, token) in code.iter().enumerate() {
        let gate =
            at >= 2 && is_sign(code.get(at - 1), '!') && word(&code[at - 2]).as_deref() == Some("cfg_if");
        if let (true, TokenTree::Group(gate)) = (gate, token) {
            names.extend(inside(gate).iter().flat_map(|branch| match branch {
                TokenTree::Group(branch) => declared_modules(&inside(branch)),
                _ => Vec::new(),
            }));
        }
    }
    names
}

/// Calls `look` with each token and its neighbours, from the outside in.
fn visit(code: &[TokenTree], look: &mut impl FnMut(&[TokenTree], usize)) {
    for (at, token) in code.iter().enumerate() {
        look(code, at);
        if let TokenTree::Group(group) = token {
            visit(&inside(group), look);
        }
    }
}

fn without_tests(stream: TokenStream) -> Vec<TokenTree> {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        if is_test_attribute(&tokens[at..]) {
            at = end_of_item(&tokens, at + 2);
            continue;
        }
        kept.push(match &tokens[at] {
            TokenTree::Group(group) => {
                let content = without_tests(group.stream()).into_iter().collect();
                TokenTree::Group(Group::new(group.delimiter(), content))
            }
            token => token.clone(),
        });
        at += 1;
    }
    kept
}

/// `#[cfg(test)]`, also among others, but not `#[cfg(not(test))]`.
fn is_test_attribute(tokens: &[TokenTree]) -> bool {
    let [TokenTree::Punct(sign), TokenTree::Group(attribute), ..] = tokens else { return false };
    let attribute = attribute.stream().to_string();
    let names = |wanted: &str| attribute.split(|it: char| !it.is_alphanumeric()).any(|it| it == wanted);
    sign.as_char() == '#'
        && attribute.starts_with("cfg ") | attribute.starts_with("cfg(")
        && names("test")
        && !names("not")
}

/// Items end with their braces or a semicolon; fields, variants and arms with a comma.
fn end_of_item(tokens: &[TokenTree], start: usize) -> usize {
    const ITEMS: [&str; 13] = [
        "pub", "mod", "use", "fn", "async", "impl", "struct", "enum", "trait", "const", "static", "type",
        "let",
    ];
    let mut first = start;
    while is_sign(tokens.get(first), '#') {
        first += 2;
    }
    let item = tokens.get(first).and_then(word).is_some_and(|it| ITEMS.contains(&&*it));
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => item && group.delimiter() == Delimiter::Brace,
        token => is_sign(Some(token), if item { ';' } else { ',' }),
    };
    let length = tokens.iter().skip(first).position(ends);
    length.map_or(tokens.len(), |length| first + length + 1)
}

fn paths_of_level(code: &[TokenTree], within: &mut Vec<String>, found: &mut Vec<Path>) {
    let mut at = 0;
    while at < code.len() {
        let name = word(&code[at]);
        match (name.as_deref(), &code[at], code.get(at + 1), code.get(at + 2)) {
            (Some("mod"), _, Some(module), Some(TokenTree::Group(content))) => {
                within.push(word(module).unwrap_or_default());
                paths_of_level(&inside(content), within, found);
                within.pop();
                at += 2;
            }
            (Some("use"), ..) => {
                let exported = at > 0 && is_visibility(&code[at - 1]);
                at = use_tree(code, at + 1, &[], &mut |segments, alias| {
                    let within = within.clone();
                    found.push(Path { segments, within, alias: Some(alias), exported });
                });
            }
            (Some(_), ..) if is_path_sign(code, at + 1) && !is_path_sign(code, at.wrapping_sub(2)) => {
                let (segments, end) = written_out(code, at);
                found.push(Path { segments, within: within.clone(), alias: None, exported: false });
                at = end - 1;
            }
            (_, TokenTree::Group(group), ..) => paths_of_level(&inside(group), within, found),
            _ => {}
        }
        at += 1;
    }
}

/// `a::b::<T>` gives `a::b`.
fn written_out(code: &[TokenTree], start: usize) -> (Vec<String>, usize) {
    let (mut segments, mut at) = (Vec::new(), start);
    while let Some(segment) = code.get(at).and_then(word) {
        segments.push(segment);
        at += 1;
        if !is_path_sign(code, at) {
            break;
        }
        at += 2;
    }
    (segments, at)
}

/// Tells every name of one tree; returns where it ends.
fn use_tree(
    code: &[TokenTree],
    start: usize,
    prefix: &[String],
    tell: &mut dyn FnMut(Vec<String>, String),
) -> usize {
    let (segments, mut at) = written_out(code, start);
    let mut path = [prefix, &segments].concat();
    match code.get(at) {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
            let trees = inside(group);
            let mut next = 0;
            while next < trees.len() {
                next = use_tree(&trees, next, &path, tell) + 1;
            }
            return at + 1;
        }
        Some(token) if word(token).as_deref() == Some("as") => {
            let alias = code.get(at + 1).and_then(word).unwrap_or_default();
            tell(path, alias);
            at += 2;
        }
        _ => {
            if path.len() > prefix.len() && path.last().is_some_and(|it| it == "self") && !prefix.is_empty() {
                path.pop();
            }
            let glob = is_sign(code.get(at), '*');
            let alias = if glob { "*".to_owned() } else { path.last().cloned().unwrap_or_default() };
            tell(path, alias);
            at += usize::from(glob);
        }
    }
    at
}

/// The doc comment in front of an item whose keyword is at `at`.
fn documentation(level: &[TokenTree], at: usize) -> String {
    let mut start = at;
    while start > 0 && is_visibility(&level[start - 1]) {
        start -= 1;
    }
    let mut lines = Vec::new();
    while start >= 2 && is_sign(level.get(start - 2), '#') {
        start -= 2;
        let TokenTree::Group(attribute) = &level[start + 1] else { break };
        if let [name, _, content] = &inside(attribute)[..]
            && word(name).as_deref() == Some("doc")
        {
            lines.extend(text(content));
        }
    }
    lines.reverse();
    lines.concat().trim().to_owned()
}

fn sentence(text: &str) -> String {
    text.split_once(". ").map_or(text, |(first, _)| first).trim_end_matches('.').to_owned()
}

fn inside(group: &Group) -> Vec<TokenTree> {
    group.stream().into_iter().collect()
}

fn word(token: &TokenTree) -> Option<String> {
    match token {
        TokenTree::Ident(name) => Some(name.to_string()),
        _ => None,
    }
}

fn text(token: &TokenTree) -> Option<String> {
    let TokenTree::Literal(literal) = token else { return None };
    let written = literal.to_string();
    let (_, content) = written.split_once('"')?;
    Some(content.rsplit_once('"')?.0.replace("\\\"", "\"").replace("\\\\", "\\"))
}

fn is_visibility(token: &TokenTree) -> bool {
    match token {
        TokenTree::Ident(name) => name == "pub",
        TokenTree::Group(group) => group.delimiter() == Delimiter::Parenthesis,
        _ => false,
    }
}

fn is_sign(token: Option<&TokenTree>, sign: char) -> bool {
    matches!(token, Some(TokenTree::Punct(it)) if it.as_char() == sign)
}

fn is_path_sign(level: &[TokenTree], at: usize) -> bool {
    is_sign(level.get(at), ':') && is_sign(level.get(at.wrapping_add(1)), ':')
}
