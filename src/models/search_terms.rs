//! The words of a text as search sees them, in every script, and the numbers under which the index knows them.
//!
//! A word is a sequence of letters and digits, without case and accents. Scripts that put no spaces between words
//! (Chinese, Japanese, Korean, Thai), and emoji, form runs: a run is found by any part of it. The index knows a word
//! by one number, and a run by a number for each character and for each two neighbours.

use uuid::Uuid;

/// A part of a text that can be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// A word of a script with spaces.
    Word(String),
    /// Neighbouring characters of a script without spaces.
    Run(String),
}

/// Returns the tokens of a text.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Tokens::default();
    for character in text.chars() {
        match kind_of(character) {
            Kind::Ignored => {}
            Kind::Between => tokens.end(),
            Kind::Run => tokens.add(true, character),
            Kind::Word => fold(character, |folded| tokens.add(false, folded)),
        }
    }
    tokens.end();
    tokens.done
}

/// Whether a text contains everything that is searched for.
pub(crate) fn contains_all(text: &[Token], wanted: &[Token]) -> bool {
    let is_there = |wanted: &Token| match wanted {
        Token::Word(_) => text.contains(wanted),
        Token::Run(part) => text.iter().any(|token| matches!(token, Token::Run(run) if run.contains(part))),
    };
    wanted.iter().all(is_there)
}

/// Adds the numbers under which a text is found.
pub(crate) fn add_terms_of_text(tokens: &[Token], terms: &mut Vec<i32>) {
    for token in tokens {
        if let Token::Run(run) = token {
            terms.extend(
                run.chars().map(|character| term(b'c', character.encode_utf8(&mut [0; 4]).as_bytes())),
            );
        }
        add_terms_of_query(std::slice::from_ref(token), terms);
    }
}

/// Adds the numbers that a text must have in order to contain `tokens`. Other texts may have them too.
pub(crate) fn add_terms_of_query(tokens: &[Token], terms: &mut Vec<i32>) {
    for token in tokens {
        match token {
            Token::Word(word) => terms.push(term(b'w', word.as_bytes())),
            Token::Run(run) => add_terms_of_run(run, terms),
        }
    }
}

/// Adds the numbers of all neighbours in a run, or that of its only character.
fn add_terms_of_run(run: &str, terms: &mut Vec<i32>) {
    let mut starts = run.char_indices().map(|(at, _)| at).chain([run.len()]);
    let (Some(mut first), Some(mut second)) = (starts.next(), starts.next()) else { return };
    if second == run.len() {
        return terms.push(term(b'c', run.as_bytes()));
    }
    for end in starts {
        terms.push(term(b'p', &run.as_bytes()[first..end]));
        (first, second) = (second, end);
    }
}

/// Returns the number of an id in one role: a channel, an author, a mentioned user.
pub(crate) fn term_of_id(role: u8, id: Uuid) -> i32 {
    term(role, id.as_bytes())
}

/// Returns the number of a kind of content.
pub(crate) fn term_of_content(name: &str) -> i32 {
    term(b'h', name.as_bytes())
}

/// Returns a hash (FNV-1a) that is the same in all versions of the server. Different words may share a number.
fn term(role: u8, bytes: &[u8]) -> i32 {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in std::iter::once(&role).chain(bytes) {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    // FNV mixes its low bits badly with the last bytes.
    (hash ^ (hash >> 15)).cast_signed()
}

/// The tokens so far, and the one that is being read.
#[derive(Default)]
struct Tokens {
    done: Vec<Token>,
    text: String,
    is_run: bool,
    chars: usize,
}

impl Tokens {
    fn add(&mut self, is_run: bool, character: char) {
        if self.is_run != is_run {
            self.end();
        }
        self.is_run = is_run;
        self.chars += 1;
        if is_run || self.chars <= WORD_CHARS_MAX {
            self.text.push(character);
        }
    }

    fn end(&mut self) {
        self.chars = 0;
        let text = std::mem::take(&mut self.text);
        if !text.is_empty() {
            self.done.push(if self.is_run { Token::Run(text) } else { Token::Word(text) });
        }
    }
}

/// What a character is to search.
enum Kind {
    Word,
    Run,
    Between,
    Ignored,
}

fn kind_of(character: char) -> Kind {
    match character {
        '0'..='9' | 'a'..='z' | 'A'..='Z' => Kind::Word,
        '\0'..='\x7f' => Kind::Between,
        // Accents, variation selectors, joiners, soft hyphens.
        '\u{300}'..='\u{36f}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{200b}'..='\u{200d}'
        | '\u{2060}'
        | '\u{feff}'
        | '\u{ad}' => Kind::Ignored,
        // Thai, Lao, Myanmar, Khmer; Kana, Han, Hangul; emoji.
        '\u{e00}'..='\u{eff}'
        | '\u{1000}'..='\u{109f}'
        | '\u{1780}'..='\u{17ff}'
        | '\u{2600}'..='\u{27bf}'
        | '\u{3005}'..='\u{3007}'
        | '\u{3041}'..='\u{31ff}'
        | '\u{3400}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{ff66}'..='\u{ff9f}'
        | '\u{1f000}'..='\u{1faff}'
        | '\u{20000}'..='\u{3ffff}' => Kind::Run,
        // Full-width letters and digits.
        '\u{ff10}'..='\u{ff19}' | '\u{ff21}'..='\u{ff3a}' | '\u{ff41}'..='\u{ff5a}' => Kind::Word,
        other if other.is_alphanumeric() => Kind::Word,
        _ => Kind::Between,
    }
}

/// Passes on a letter in lower case, without accents, and in its usual width.
fn fold(character: char, mut add: impl FnMut(char)) {
    if character.is_ascii() {
        return add(character.to_ascii_lowercase());
    }
    let character = match character {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(character as u32 - 0xfee0).unwrap_or(character),
        other => other,
    };
    for lower in character.to_lowercase().filter(|lower| !matches!(kind_of(*lower), Kind::Ignored)) {
        match ACCENTED.iter().find(|(_, letters)| !lower.is_ascii() && letters.contains(lower)) {
            Some((plain, _)) => plain.chars().for_each(&mut add),
            None => add(lower),
        }
    }
}

/// Lower case letters with accents, by the letters that people type instead.
const ACCENTED: [(&str, &str); 38] = [
    ("a", "àáâãäåāăąǎǻȁȃạảấầẩẫậắằẳẵặ"),
    ("ae", "æǽ"),
    ("c", "çćĉċč"),
    ("d", "ďđ"),
    ("e", "èéêëēĕėęěȅȇẹẻẽếềểễệ"),
    ("g", "ĝğġģǧ"),
    ("h", "ĥħ"),
    ("i", "ìíîïĩīĭįıǐȉȋỉị"),
    ("j", "ĵ"),
    ("k", "ķǩ"),
    ("l", "ĺļľŀł"),
    ("n", "ñńņňŋǹ"),
    ("o", "òóôõöøōŏőơǒǿȍȏọỏốồổỗộớờởỡợ"),
    ("oe", "œ"),
    ("r", "ŕŗřȑȓ"),
    ("s", "śŝşšșſ"),
    ("ss", "ß"),
    ("t", "ţťŧț"),
    ("th", "þ"),
    ("u", "ùúûüũūŭůűųưǔǖǘǚǜȕȗụủứừửữự"),
    ("w", "ŵẁẃẅ"),
    ("y", "ýÿŷỳỵỷỹ"),
    ("z", "źżž"),
    ("α", "ά"),
    ("ε", "έ"),
    ("η", "ή"),
    ("ι", "ίϊΐ"),
    ("ο", "ό"),
    ("υ", "ύϋΰ"),
    ("ω", "ώ"),
    ("σ", "ς"),
    ("е", "ёѐ"),
    ("и", "йѝ"),
    ("і", "ї"),
    ("г", "ґѓ"),
    ("к", "ќ"),
    ("у", "ў"),
    ("ا", "أإآٱ"),
];

/// The characters of a word that count; longer words are equal if these are.
const WORD_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(text: &str) -> Vec<String> {
        let text_of = |token| match token {
            Token::Word(word) => word,
            Token::Run(run) => format!("[{run}]"),
        };
        tokens(text).into_iter().map(text_of).collect()
    }

    #[test]
    fn words_have_no_case_and_no_accents_and_runs_need_no_spaces() {
        assert_eq!(
            said("Café, Ｔｅｓｔ e\u{301}té: STRASSE/Straße"),
            ["cafe", "test", "ete", "strasse", "strasse"]
        );
        assert_eq!(said("我在上海abc很好👍🏽"), ["[我在上海]", "abc", "[很好👍🏽]"]);
        assert_eq!(said("snake_case don't v1.2"), ["snake", "case", "don", "t", "v1", "2"]);
        assert_eq!(said("Ёлка İstanbul Ψυχή"), ["елка", "istanbul", "ψυχη"]);
        assert_eq!(said("… -- !"), Vec::<String>::new());
    }

    #[test]
    fn a_word_of_two_chinese_characters_is_found_inside_of_a_sentence() {
        let contains = |text, wanted| contains_all(&tokens(text), &tokens(wanted));
        assert!(contains("我昨天在上海东站", "上海"));
        assert!(contains("我昨天在上海东站", "东"));
        assert!(contains("see you in 上海 Tomorrow", "tomorrow 上海"));
        assert!(!contains("我昨天在海上", "上海"));
        assert!(!contains("tomorrows", "tomorrow"));
    }

    proptest! {
        #[test]
        fn whoever_contains_what_is_searched_for_has_its_numbers(
            text in "[a-zA-Z上海东京한국ก👍é .]{0,40}", from in 0_usize..40, count in 1_usize..8,
        ) {
            let wanted: String = text.chars().skip(from).take(count).collect();
            let (text, wanted) = (tokens(&text), tokens(&wanted));
            let (mut has, mut needs) = (Vec::new(), Vec::new());
            add_terms_of_text(&text, &mut has);
            add_terms_of_query(&wanted, &mut needs);
            if contains_all(&text, &wanted) {
                prop_assert!(needs.iter().all(|term| has.contains(term)), "{text:?} {wanted:?}");
            }
        }

        #[test]
        fn any_text_has_tokens_and_finds_itself(text in any::<String>()) {
            let tokens = tokens(&text);
            prop_assert!(contains_all(&tokens, &tokens));
        }
    }
}
