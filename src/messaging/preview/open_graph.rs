//! What a page says about itself: Open Graph, and the elements `title` and `meta`. A scanner that reads the head of the
//! page once; whatever it does not understand is left out.

use crate::models::message_embed::{Embed, WebAddress};
use crate::models::text::ShortText;
use crate::page_fetcher::{Page, resolve};

/// Returns an embed with what a page says about itself.
pub(super) fn read(page: &Page) -> Embed {
    let html = decode(page);
    let about = about(&html);
    let address = |text: &str| resolve(&page.address, text).and_then(|uri| WebAddress::new(&uri.to_string()));
    Embed {
        title: about.get(&["og:title", "twitter:title", "title"]).and_then(ShortText::cut),
        description: about
            .get(&["og:description", "twitter:description", "description"])
            .and_then(ShortText::cut),
        site_name: about.get(&["og:site_name", "application-name"]).and_then(ShortText::cut),
        thumbnail_url: about.get(&["og:image:secure_url", "og:image", "twitter:image"]).and_then(address),
        ..Embed::default()
    }
}

/// Names and values, in the order of the page.
#[derive(Default)]
struct About(Vec<(String, String)>);

impl About {
    /// Returns the value of the first name that has one.
    fn get(&self, names: &[&str]) -> Option<&str> {
        let value =
            |name: &&str| self.0.iter().find(|(known, value)| known == name && !value.trim().is_empty());
        names.iter().find_map(value).map(|(_, value)| value.as_str())
    }
}

fn about(html: &str) -> About {
    let (mut about, mut rest) = (About::default(), html);
    let mut elements = 0;
    for _ in 0..TAGS_MAX {
        let Some(at) = rest.find('<').filter(|_| elements < ELEMENTS_MAX) else { break };
        rest = &rest[at + 1..];
        let tag = &rest[..rest.floor_char_boundary(TAG_BYTES_MAX)];
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, after)| after);
            continue;
        }
        let name: String = tag.chars().take_while(char::is_ascii_alphanumeric).take(NAME_CHARS_MAX).collect();
        let name = name.to_ascii_lowercase();
        elements += usize::from(matches!(&*name, "meta" | "title"));
        match &*name {
            "body" => break,
            "meta" => about.0.extend(meta(tag)),
            "title" => about.0.extend(title(tag)),
            // What stands in these is not a part of the page's text.
            skipped @ ("script" | "style") => rest = after_element(rest, skipped),
            _ => {}
        }
    }
    about
}

/// Returns the text behind the end of an element whose content is not HTML.
fn after_element<'a>(text: &'a str, name: &str) -> &'a str {
    let end = format!("</{name}");
    let is_end =
        |at: &(usize, &str)| text[at.0..].get(..end.len()).is_some_and(|tag| tag.eq_ignore_ascii_case(&end));
    text.match_indices("</").find(is_end).map_or("", |(at, _)| &text[at + end.len()..])
}

fn title(rest: &str) -> Option<(String, String)> {
    let (_, content) = rest.split_once('>')?;
    let (content, _) = content.split_once('<')?;
    Some(("title".into(), unescape(content)))
}

/// Returns the name (`property` or `name`) and the content of a `meta` element.
fn meta(rest: &str) -> Option<(String, String)> {
    let (mut name, mut content) = (None, None);
    let mut rest = rest.get("meta".len()..)?;
    loop {
        rest = rest.trim_start_matches(|it: char| it.is_whitespace() || it == '/');
        if rest.is_empty() || rest.starts_with('>') {
            break;
        }
        let end =
            rest.find(|it: char| it.is_whitespace() || matches!(it, '=' | '>' | '/')).unwrap_or(rest.len());
        let key = rest[..end].to_ascii_lowercase();
        rest = rest[end..].trim_start();
        let Some(after) = rest.strip_prefix('=') else {
            // An attribute without a value, or a character that begins none.
            rest = if end == 0 { rest.get(1..).unwrap_or_default() } else { rest };
            continue;
        };
        let (value, after) = attribute_value(after.trim_start());
        rest = after;
        match key.as_str() {
            "property" | "name" => name = name.or_else(|| Some(value.to_ascii_lowercase())),
            "content" => content = Some(unescape(value)),
            _ => {}
        }
    }
    Some((name?, content?))
}

/// Returns the value at the beginning of a text, and what follows it.
fn attribute_value(text: &str) -> (&str, &str) {
    for quote in ['"', '\''] {
        if let Some(quoted) = text.strip_prefix(quote) {
            return quoted.split_once(quote).unwrap_or((quoted, ""));
        }
    }
    text.split_at(text.find(|it: char| it.is_whitespace() || it == '>').unwrap_or(text.len()))
}

/// Replaces character references, and white space by single spaces.
fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        match reference(rest) {
            Some((character, length)) => {
                plain.push(character);
                rest = &rest[length..];
            }
            None => {
                plain.push('&');
                rest = &rest[1..];
            }
        }
    }
    plain.push_str(rest);
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the character that a reference at the beginning of a text stands for, and the length of the reference.
fn reference(text: &str) -> Option<(char, usize)> {
    let end = text.bytes().take(REFERENCE_BYTES_MAX).position(|byte| byte == b';')?;
    let name = text.get(1..end)?;
    let character = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => ' ',
        "ndash" => '–',
        "mdash" => '—',
        "hellip" => '…',
        _ => {
            let number = name.strip_prefix('#')?;
            let number = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(number).filter(|character| !character.is_control() || character.is_whitespace())?
        }
    };
    Some((character, end + 1))
}

/// Returns the text of a page. Pages in other charsets than UTF-8 and Latin-1 are read as far as they are ASCII.
fn decode(page: &Page) -> String {
    let is_latin = |charset: &str| matches!(charset, "iso-8859-1" | "latin1" | "windows-1252");
    let declared = page.charset.clone().or_else(|| charset_in(&page.bytes));
    match declared.as_deref().is_some_and(is_latin) {
        true => page.bytes.iter().map(|byte| char::from(*byte)).collect(),
        false => String::from_utf8_lossy(&page.bytes).replace('\u{fffd}', ""),
    }
}

/// Returns the charset that a page names at its beginning.
fn charset_in(bytes: &[u8]) -> Option<String> {
    let beginning = String::from_utf8_lossy(&bytes[..bytes.len().min(CHARSET_WITHIN)]).to_ascii_lowercase();
    let (_, after) = beginning.split_once("charset=")?;
    let after = after.trim_start_matches(['"', '\'']);
    Some(after.split(|it: char| !it.is_ascii_alphanumeric() && it != '-' && it != '_').next()?.to_owned())
}

/// The most elements of a page that are read, with or without a value.
const ELEMENTS_MAX: usize = 200;
/// The most tags of a page that are looked at.
const TAGS_MAX: usize = 10_000;
/// The bytes of one tag, and of the title, that are read.
const TAG_BYTES_MAX: usize = 4_096;
/// The longest name of a tag that matters.
const NAME_CHARS_MAX: usize = 16;
/// The longest character reference, in bytes.
const REFERENCE_BYTES_MAX: usize = 12;
/// How far into a page its charset is looked for.
const CHARSET_WITHIN: usize = 1_024;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn page(bytes: &[u8], charset: Option<&str>) -> Page {
        Page {
            address: "https://a.example/dir/page".parse().unwrap(),
            media_type: "text/html".into(),
            charset: charset.map(str::to_owned),
            bytes: Bytes::copy_from_slice(bytes),
        }
    }

    fn shown(html: &str) -> (Option<String>, Option<String>, Option<String>) {
        let embed = read(&page(html.as_bytes(), None));
        let text = |text: &str| text.to_owned();
        (
            embed.title.map(|it| text(it.as_str())),
            embed.description.map(|it| text(it.as_str())),
            embed.thumbnail_url.map(|it| text(it.as_str())),
        )
    }

    #[test]
    fn a_page_is_shown_by_what_it_says_about_itself() {
        let html = r#"<!doctype html><html><head><!-- <title>no</title> --><script>"<title>no</title>"</script>
            <TITLE>Plain &amp; simple</TITLE>
            <meta property="og:title" content="Tom &#38; Jerry &#x2764;">
            <meta content='A "nice"
               page' name=description /><meta property=og:image content=/pic.png>
            </head><body><meta property="og:title" content="late"></body>"#;
        let image = Some("https://a.example/pic.png".to_owned());
        assert_eq!(shown(html), (Some("Tom & Jerry ❤".into()), Some("A \"nice\" page".into()), image));
        assert_eq!(shown("<title> Only  this </title>").0.as_deref(), Some("Only this"));
    }

    #[test]
    fn a_hostile_page_shows_nothing_that_is_not_text() {
        assert_eq!(
            shown(
                r#"<meta property="og:image" content="javascript:alert(1)"><meta property="og:title" content="">"#
            ),
            (None, None, None)
        );
        assert_eq!(shown(&"<title ".repeat(70_000)), (None, None, None));
        let long = shown(&format!("<title>{}</title>", "x".repeat(3_000))).0.unwrap();
        assert_eq!(long.chars().count(), 256);
        let useless = "<meta ".repeat(ELEMENTS_MAX);
        assert_eq!(shown(&format!("{useless}><title>late</title>")), (None, None, None), "read no further");
        assert_eq!(shown(&"<".repeat(500_000)), (None, None, None));
        assert_eq!(shown("<title>a\0b&#0;c</title>").0.as_deref(), Some("ab&#0;c"));
    }

    #[test]
    fn a_page_in_latin_1_is_read_as_such_and_one_in_another_charset_as_far_as_it_is_ascii() {
        let title = |bytes: &[u8], charset| read(&page(bytes, charset)).title.unwrap().as_str().to_owned();
        assert_eq!(title(b"<title>Gr\xfc\xdfe</title>", Some("iso-8859-1")), "Grüße");
        assert_eq!(title(b"<meta charset='ISO-8859-1'><title>Gr\xfc\xdfe</title>", None), "Grüße");
        assert_eq!(title("<title>Grüße</title>".as_bytes(), None), "Grüße");
        assert_eq!(title(b"<title>abc\xff\xfe</title>", Some("shift_jis")), "abc");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_page(bytes in prop::collection::vec(any::<u8>(), 0..300), html in "[<>a-z='\"&#; /!-]{0,200}") {
            read(&page(&bytes, None));
            read(&page(format!("<meta {html}").as_bytes(), Some("utf-8")));
        }
    }
}
