//! As much of Rust as the checks need: tokens, and the paths that start at the crate's root.

/// One token; comments are kept, since some rules are about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A name or a keyword; a number too.
    Word(String),
    /// The content of a string literal as it stands in the file.
    Text(String),
    /// A line comment with its slashes, and its line number.
    Comment(String, usize),
    /// Everything else.
    Sign(char),
}

impl Token {
    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(it) if it == word)
    }
}

/// Takes a source file apart.
pub fn tokens(source: &str) -> Vec<Token> {
    let characters: Vec<char> = source.chars().collect();
    let mut reader = Reader { characters, at: 0, line: 1, tokens: Vec::new() };
    while reader.at < reader.characters.len() {
        reader.step();
    }
    reader.tokens
}

/// The tokens without inline modules that are built for tests only.
pub fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        match test_module(&tokens, at) {
            Some(end) => at = end,
            None => {
                kept.push(tokens[at].clone());
                at += 1;
            }
        }
    }
    kept
}

/// Every path below the crate's root that is named in `tokens`: `use crate::a::{b, c}` gives `a::b` and `a::c`.
/// `depth` says how many `super::` lead from this file to the root.
pub fn crate_paths(tokens: &[Token], depth: usize) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let start = if tokens[at].is("crate") && follows(tokens, at + 1) {
            Some(at + 3)
        } else {
            after_supers(tokens, at, depth)
        };
        if let Some(start) = start {
            let mut next = start;
            use_tree(tokens, &mut next, &mut Vec::new(), &mut paths);
        }
        at += 1;
    }
    paths
}

/// Names that are the first part of a path: `sqlx` in `sqlx::query` and in `use sqlx::{…}`.
pub fn path_heads(tokens: &[Token]) -> Vec<&str> {
    let heads = tokens.iter().enumerate().filter_map(|(at, token)| match token {
        Token::Word(word) if follows(tokens, at + 1) && !(at >= 2 && follows(tokens, at - 2)) => {
            Some(&**word)
        }
        _ => None,
    });
    heads.collect()
}

struct Reader {
    characters: Vec<char>,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
}

impl Reader {
    fn peek(&self, ahead: usize) -> char {
        self.characters.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn step(&mut self) {
        match (self.peek(0), self.peek(1)) {
            ('\n', _) => {
                self.line += 1;
                self.at += 1;
            }
            ('/', '/') => self.line_comment(),
            ('/', '*') => self.block_comment(),
            ('"', _) => self.text(),
            ('\'', '\\') => self.skip_to_quote(3),
            ('\'', _) if self.peek(2) == '\'' => self.at += 3,
            (first, _) if first.is_alphanumeric() || first == '_' => self.word(),
            (space, _) if space.is_whitespace() => self.at += 1,
            (sign, _) => {
                self.tokens.push(Token::Sign(sign));
                self.at += 1;
            }
        }
    }

    fn line_comment(&mut self) {
        let end = self.position(self.at, |character| character == '\n');
        let comment = self.slice(self.at, end);
        self.tokens.push(Token::Comment(comment, self.line));
        self.at = end;
    }

    fn block_comment(&mut self) {
        let mut open = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => (open, self.at) = (open + 1, self.at + 2),
                ('*', '/') => (open, self.at) = (open - 1, self.at + 2),
                ('\0', _) => return,
                (character, _) => {
                    self.line += usize::from(character == '\n');
                    self.at += 1;
                }
            }
            if open == 0 {
                return;
            }
        }
    }

    fn text(&mut self) {
        let start = self.at + 1;
        let mut end = start;
        while end < self.characters.len() && self.characters[end] != '"' {
            end += if self.characters[end] == '\\' { 2 } else { 1 };
        }
        self.push_text(start, end.min(self.characters.len()));
        self.at = end + 1;
    }

    /// `r"…"` and `r#"…"#`, from the first `#` or quote on.
    fn raw_text(&mut self) {
        let hashes = self.position(self.at, |character| character != '#') - self.at;
        let start = self.at + hashes + 1;
        let mut end = start;
        while end < self.characters.len()
            && !(self.characters[end] == '"' && self.slice(end + 1, end + 1 + hashes) == "#".repeat(hashes))
        {
            end += 1;
        }
        self.push_text(start, end);
        self.at = end + 1 + hashes;
    }

    fn push_text(&mut self, start: usize, end: usize) {
        let text = self.slice(start, end);
        self.line += text.matches('\n').count();
        self.tokens.push(Token::Text(text));
    }

    fn word(&mut self) {
        let end = self.position(self.at, |character| !(character.is_alphanumeric() || character == '_'));
        let word = self.slice(self.at, end);
        self.at = end;
        let raw = matches!(&*word, "r" | "br" | "cr");
        if raw && (self.peek(0) == '"' || (self.peek(0) == '#' && matches!(self.peek(1), '"' | '#'))) {
            self.raw_text();
        } else {
            self.tokens.push(Token::Word(word));
        }
    }

    fn skip_to_quote(&mut self, ahead: usize) {
        self.at = self.position(self.at + ahead, |character| character == '\'') + 1;
    }

    fn position(&self, from: usize, wanted: impl Fn(char) -> bool) -> usize {
        (from..self.characters.len()).find(|at| wanted(self.characters[*at])).unwrap_or(self.characters.len())
    }

    fn slice(&self, start: usize, end: usize) -> String {
        self.characters[start.min(end)..end.min(self.characters.len())].iter().collect()
    }
}

fn follows(tokens: &[Token], at: usize) -> bool {
    matches!(tokens.get(at..at + 2), Some([Token::Sign(':'), Token::Sign(':')]))
}

/// Where the path goes on after `super::super::…`, when there are enough of them to reach the root.
fn after_supers(tokens: &[Token], at: usize, depth: usize) -> Option<usize> {
    if at >= 2 && follows(tokens, at - 2) {
        return None;
    }
    let (mut next, mut supers) = (at, 0);
    while tokens.get(next).is_some_and(|token| token.is("super")) && follows(tokens, next + 1) {
        (next, supers) = (next + 3, supers + 1);
    }
    (supers > 0 && supers >= depth).then_some(next)
}

fn use_tree(tokens: &[Token], at: &mut usize, prefix: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
    let length = prefix.len();
    loop {
        match tokens.get(*at) {
            Some(Token::Word(word)) => {
                prefix.push(word.clone());
                *at += 1;
                if follows(tokens, *at) {
                    *at += 2;
                    continue;
                }
                paths.push(prefix.clone());
            }
            Some(Token::Sign('{')) => use_group(tokens, at, prefix, paths),
            // `a::*`, or the turbofish of a call: the path up to here.
            _ => paths.push(prefix.clone()),
        }
        prefix.truncate(length);
        return;
    }
}

fn use_group(tokens: &[Token], at: &mut usize, prefix: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
    *at += 1;
    while let Some(token) = tokens.get(*at) {
        match token {
            Token::Sign('}') => {
                *at += 1;
                return;
            }
            Token::Word(word) if word != "as" => use_tree(tokens, at, prefix, paths),
            Token::Word(_) => *at += 2,
            Token::Sign('{') => use_group(tokens, at, prefix, paths),
            _ => *at += 1,
        }
    }
}

/// The end of `#[cfg(test)] … mod name { … }` that starts here.
fn test_module(tokens: &[Token], start: usize) -> Option<usize> {
    let (mut at, mut for_tests) = (start, false);
    while let Some([Token::Sign('#'), Token::Sign('[')]) = tokens.get(at..at + 2) {
        let end = closing(tokens, at + 1, '[', ']')?;
        let attribute = &tokens[at + 2..end];
        for_tests |= attribute[0].is("cfg") && attribute.iter().any(|token| token.is("test"));
        at = end + 1;
    }
    match tokens.get(at..at + 3) {
        Some([first, Token::Word(_), Token::Sign('{')]) if for_tests && first.is("mod") => {
            closing(tokens, at + 2, '{', '}').map(|end| end + 1)
        }
        _ => None,
    }
}

/// The sign that closes the one at `at`.
fn closing(tokens: &[Token], at: usize, open: char, close: char) -> Option<usize> {
    let mut depth = 0;
    for (offset, token) in tokens[at..].iter().enumerate() {
        match token {
            Token::Sign(sign) if *sign == open => depth += 1,
            Token::Sign(sign) if *sign == close => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at + offset);
        }
    }
    None
}
