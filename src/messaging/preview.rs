//! Link previews: embeds made of the pages that a message links to, after it was sent. Off unless the operator wants
//! them, because the server then sends requests to addresses that its users name ([`PageFetcher`] says to which not).

mod open_graph;

use std::sync::Arc;

use http::Uri;
use tokio::sync::Semaphore;
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ctx::Ctx;
use super::parts::Messaging;
use super::preview_queue::Wanted;
use crate::ImksResult;
use crate::auth::Permission;
use crate::models::append::{Authority, Scope};
use crate::models::message::{ContentType, FLAG_SUPPRESS_EMBEDS, MessageDetail};
use crate::models::message_embed::{Embed, EmbedKind, SetPreviews, WebAddress};
use crate::models::message_stream_state::Stream;
use crate::page_fetcher::{Page, PageFetcher};

/// Requests previews of a message that was sent or edited, if the server makes them. Those of a streamed message wait for
/// its end.
pub(super) fn request(ctx: &Ctx, message: &MessageDetail) {
    let suppressed = message.flags & FLAG_SUPPRESS_EMBEDS != 0 || message.content_type == ContentType::E2ee;
    let is_incomplete = message.stream.is_some_and(Stream::is_active);
    let Some(previews) = ctx.previews().filter(|_| !suppressed && !is_incomplete) else { return };
    let links = match message.content_type {
        ContentType::Markdown => links_of(outside_code(&message.body)),
        ContentType::Plain | ContentType::E2ee => links_of([&*message.body]),
    };
    // Without links, earlier previews have to go.
    if links.is_empty() && message.embeds.is_empty() {
        return;
    }
    let (channel_id, message_id, version) = (message.channel_id, message.id, message.version);
    previews.add(Wanted { channel_id, message_id, version, author: message.author.clone(), links });
}

/// Returns the parts of a Markdown text that are not code: code stands between two runs of equally many backticks.
fn outside_code(text: &str) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find('`') {
        let (before, code) = rest.split_at(at);
        let opening = code.len() - code.trim_start_matches('`').len();
        let (ticks, code) = code.split_at(opening);
        parts.push(before);
        rest = match end_of_code(code, opening) {
            Some(end) => &code[end..],
            // Backticks that nothing ends are text.
            None => {
                parts.push(ticks);
                code
            }
        };
    }
    parts.push(rest);
    parts
}

/// Returns where the first run of exactly `length` backticks ends.
fn end_of_code(text: &str, length: usize) -> Option<usize> {
    let mut at = 0;
    loop {
        at += text[at..].find('`')?;
        let run = text.len() - at - text[at..].trim_start_matches('`').len();
        at += run;
        if run == length {
            return Some(at);
        }
    }
}

/// Returns the first addresses in the parts of a text, as they would be clicked.
fn links_of<'a>(parts: impl IntoIterator<Item = &'a str>) -> Vec<Uri> {
    let mut links = Vec::new();
    parts.into_iter().for_each(|part| add_links(part, &mut links));
    links
}

fn add_links(text: &str, links: &mut Vec<Uri>) {
    let mut rest = text;
    while let Some(at) = rest.find("http").filter(|_| links.len() < LINKS_MAX) {
        let before = rest[..at].chars().next_back();
        rest = &rest[at..];
        let end = rest
            .find(|it: char| it.is_whitespace() || matches!(it, '<' | '>' | '"' | '`'))
            .unwrap_or(rest.len());
        let link =
            rest[..end].trim_end_matches(['.', ',', ';', ':', '!', '?', ')', ']', '}', '\'', '*', '_']);
        let is_word = before.is_some_and(char::is_alphanumeric);
        // An address in angle brackets is one that its sender wants no preview of.
        if !is_word && before != Some('<') && (link.starts_with("http://") || link.starts_with("https://")) {
            let uri: Option<Uri> = WebAddress::new(link).and_then(|link| link.as_str().parse().ok());
            links.extend(uri.filter(|uri| !links.contains(uri)));
        }
        rest = &rest[end.max(1)..];
    }
}

/// Looks at links until `stop`, several messages at once.
pub(super) async fn run(messaging: Messaging, fetcher: PageFetcher, stop: CancellationToken) {
    let Some(previews) = messaging.previews() else { return };
    let (tasks, at_once) = (TaskTracker::new(), Arc::new(Semaphore::new(MESSAGES_AT_ONCE)));
    while let Some(permit) = tokio::select! {
        () = stop.cancelled() => None,
        permit = Arc::clone(&at_once).acquire_owned() => permit.ok(),
    } {
        let wanted = tokio::select! {
            () = stop.cancelled() => break,
            wanted = previews.next() => wanted,
        };
        let (messaging, fetcher, stop) = (messaging.clone(), fetcher.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                shown = show(&messaging, &fetcher, wanted) => {
                    if let Err(error) = shown {
                        tracing::debug!(%error, "a message has no link previews");
                    }
                }
            }
            drop(permit);
        });
    }
    tasks.close();
    tasks.wait().await;
}

/// Fetches the pages of a message and adds what they say about themselves to it, if its author may have it shown.
async fn show(messaging: &Messaging, fetcher: &PageFetcher, wanted: Wanted) -> ImksResult<()> {
    let Wanted { channel_id, message_id, version, author, links } = wanted;
    messaging.permissions().require(author.id, channel_id, Permission::EmbedLinks).await?;
    let pages = links.iter().map(|link| fetcher.fetch(link.clone()));
    let pages = futures_util::future::join_all(pages).await;
    let previews = links.iter().zip(pages).filter_map(|(link, page)| embed(link, &page?)).collect();
    let scope = Scope { channel_id, actor: author, slow_mode: Duration::ZERO, authority: Authority::Any };
    let set = SetPreviews { message_id, version, previews };
    messaging.appender().submit(scope, set)?.await.map(drop)
}

/// Returns what a page says about itself.
fn embed(link: &Uri, page: &Page) -> Option<Embed> {
    let url = WebAddress::new(&link.to_string());
    if page.media_type.starts_with("image/") {
        return Some(Embed { kind: EmbedKind::Image, image_url: url.clone(), url, ..Embed::default() });
    }
    let about = open_graph::read(page);
    let embed = Embed { kind: EmbedKind::Link, url, ..about };
    (embed.title.is_some() || embed.description.is_some()).then_some(embed)
}

/// The most links of one message that are looked at.
const LINKS_MAX: usize = 3;
/// The messages whose links are looked at at once.
const MESSAGES_AT_ONCE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn links(text: &str) -> Vec<String> {
        links_of(outside_code(text)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_code_is_no_link_and_backticks_that_nothing_ends_are_text() {
        assert_eq!(
            links("`https://a.example` ``https://b.example ` `` https://c.example"),
            ["https://c.example/"]
        );
        assert_eq!(links("```\ncurl https://a.example\n```\nhttps://b.example/x"), ["https://b.example/x"]);
        assert_eq!(links("a ` b https://a.example ``` c"), ["https://a.example/"]);
        assert_eq!(outside_code(&"`".repeat(8_000)).concat().len(), 8_000);
    }

    #[test]
    fn links_are_the_addresses_that_a_reader_would_click() {
        assert_eq!(
            links("see https://a.example/x?y=1, (http://b.example)."),
            ["https://a.example/x?y=1", "http://b.example/"]
        );
        assert_eq!(links("xhttps://a.example <https://b.example> https:// http://u:p@c.example/"), [""; 0]);
        assert_eq!(links(&"https://a.example/ ".repeat(9)).len(), 1);
        let many: String = (0..9).map(|number| format!("https://{number}.example/ ")).collect();
        assert_eq!(links(&many).len(), LINKS_MAX);
    }
}
