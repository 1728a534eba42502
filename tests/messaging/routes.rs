//! Every route of the HTTP API, walked by a member, by somebody else, without a token and with bad input.

use std::collections::BTreeSet;

use imks::testing::clock;
use imks::testing::directory::RoleName;
use serde_json::{Value, json};

use super::api::{Response, send};
use crate::on_both;
use crate::server::{TestServer, text};

/// What somebody who is not in the channel gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stranger {
    /// 404, as if it did not exist.
    Refused,
    /// Success, because the route is about the caller's own data.
    Own,
}
use Stranger::{Own, Refused};

/// A route with input that is right for a member, the status of its answer, and what a stranger gets. The order
/// matters: what is removed is walked last.
type Row = (&'static str, &'static str, u16, Stranger);
const ROUTES: &[Row] = &[
    ("Get /channels/{channel_id}/messages", "limit=2", 200, Refused),
    ("Post /channels/{channel_id}/messages", r#"{"body":"hi"}"#, 201, Refused),
    ("Patch /channels/{channel_id}/messages/{message_id}", r#"{"body":"changed"}"#, 200, Refused),
    ("Get /channels/{channel_id}/emoji", "etag=1", 200, Refused),
    ("Get /channels/{channel_id}/messages/{message_id}/edits", "", 200, Refused),
    ("Get /channels/{channel_id}/messages/{message_id}/poll/{option_id}/voters", "", 200, Refused),
    ("Post /channels/{channel_id}/messages/{message_id}/reports", r#"{"reason":"spam"}"#, 201, Refused),
    ("Get /channels/{channel_id}/reports", "", 200, Refused),
    ("Get /channels/{channel_id}/receipts", "seq=1", 200, Refused),
    ("Get /channels/{channel_id}/pins", "", 200, Refused),
    ("Get /channels/{channel_id}/threads", "limit=2", 200, Refused),
    ("Get /threads/followed", "unread=true", 200, Own),
    ("Get /mentions", "limit=2", 200, Own),
    ("Get /search", "q=hello", 200, Own),
    ("Put /drafts/{channel_id}", r#"{"body":"begun"}"#, 200, Refused),
    ("Get /drafts", "", 200, Own),
    ("Delete /drafts/{channel_id}", "", 200, Own),
    ("Put /bookmarks/{message_id}", r#"{"channel_id":"{channel_id}"}"#, 200, Refused),
    ("Get /bookmarks", "limit=2", 200, Own),
    ("Delete /bookmarks/{message_id}", "", 200, Own),
    (
        "Post /scheduled-messages",
        r#"{"channel_id":"{channel_id}","body":"later","send_at":"{soon}"}"#,
        201,
        Refused,
    ),
    ("Get /scheduled-messages", "state=pending", 200, Own),
    ("Get /scheduled-messages/{id}", "", 200, Refused),
    ("Patch /scheduled-messages/{id}", r#"{"body":"much later"}"#, 200, Refused),
    ("Delete /scheduled-messages/{id}", "", 200, Refused),
    ("Post /channels/{channel_id}/messages/{message_id}/ack", "{}", 200, Refused),
    ("Get /channels/{channel_id}/messages/{message_id}/acks", "limit=2", 200, Refused),
    ("Post /channels/{channel_id}/messages/{message_id}/stream", r#"{"offset":2,"text":"!"}"#, 200, Refused),
    ("Post /channels/{channel_id}/messages/{message_id}/stream/finish", r#"{"offset":3}"#, 200, Refused),
    ("Post /channels/{channel_id}/messages/{message_id}/stream/abort", "{}", 200, Refused),
    ("Delete /channels/{channel_id}/messages/{message_id}", "", 200, Refused),
];

/// Routes whose right input is a file: `attachment.rs` walks them.
const WITH_FILES: &[&str] = &[
    "Post /attachments",
    "Post /attachments/{attachment_id}/complete",
    "Delete /attachments/{attachment_id}",
    "Get /channels/{channel_id}/attachments/{attachment_id}",
];

/// A channel of bob, who moderates it, with a message of his that has everything.
struct Place {
    channel: String,
    message: String,
    /// A message of somebody else that asks for acknowledgements.
    asked: String,
    /// Messages for which more text may come: one to finish, one to abort.
    streams: [String; 2],
    scheduled: String,
}

impl Place {
    async fn new(server: &TestServer) -> Self {
        let channel = server.channel("club", &[]).await;
        server.directory().ensure_user("bob").await.unwrap();
        server.directory().add_member("club", "bob", RoleName::Moderator).await.unwrap();
        let mut bob = server.client("bob").await;
        let poll = json!({ "question": "?", "options": ["A", "B"] });
        let sent =
            bob.ok("message:send", json!({ "channel_id": channel, "body": "hello", "poll": poll })).await;
        let request = json!({ "channel_id": channel, "body": "later", "send_at": soon() });
        let scheduled = bob.ok("schedule:create", request).await;
        let (message, scheduled) = (text(&sent["message"]["id"]), text(&scheduled["scheduled"]["id"]));
        let mut streams = [String::new(), String::new()];
        for stream in &mut streams {
            let begun = json!({ "channel_id": channel, "body": "so", "stream": true });
            *stream = text(&bob.ok("message:send", begun).await["message"]["id"]);
        }
        server.directory().ensure_user("carol").await.unwrap();
        server.directory().add_member("club", "carol", RoleName::Moderator).await.unwrap();
        let request = json!({ "channel_id": channel, "body": "read this", "ack_requested": true });
        let sent = server.client("carol").await.ok("message:send", request).await;
        let asked = text(&sent["message"]["id"]);
        Self { channel, message, asked, streams, scheduled }
    }

    fn fill(&self, text: &str) -> String {
        let message = match text.rsplit('/').next() {
            Some("ack" | "acks") => &self.asked,
            Some("stream" | "finish") => &self.streams[0],
            Some("abort") => &self.streams[1],
            _ => &self.message,
        };
        text.replace("{channel_id}", &self.channel)
            .replace("{message_id}", message)
            .replace("{option_id}", "1")
            .replace("{id}", &self.scheduled)
            .replace("{soon}", &soon())
    }
}

fn soon() -> String {
    clock::rfc3339(clock::now_micros() + 3_600_000_000)
}

/// Walks a route, with an input that is already filled in.
async fn walk(server: &TestServer, token: Option<&str>, route: &str, input: &str) -> Response {
    let (method, path) = route.split_once(' ').unwrap();
    let token = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = token.iter().map(|token| ("authorization", token.as_str())).collect();
    let has_body = matches!(method, "Post" | "Put" | "Patch");
    let (query, body) = if has_body { ("", input) } else { (input, "") };
    let request = format!("{} /api/v1{path}?{query}", method.to_uppercase());
    send(server.addr(), &request, &headers, body).await
}

on_both! {
    async fn every_route_serves_members_hides_from_strangers_and_names_the_field_that_is_wrong(server: TestServer) {
        let walked = ROUTES.iter().map(|(route, ..)| *route);
        let listed: BTreeSet<String> = walked.chain(WITH_FILES.iter().copied()).map(str::to_owned).collect();
        let registered: BTreeSet<String> = server.api_routes().into_iter().collect();
        assert_eq!(listed, registered, "a new route needs a row here");
        let place = Place::new(&server).await;
        let (bob, mallory) = (server.token("bob").await, server.token("mallory").await);
        for (route, input, status, stranger) in ROUTES {
            let (filled, input) = (place.fill(route), place.fill(input));
            let anonymous = walk(&server, None, &filled, &input).await;
            assert_eq!(anonymous.code(), (401, "unauthenticated"), "{route}");
            let refused = walk(&server, Some(&mallory), &filled, &input).await;
            match stranger {
                Refused => assert_eq!(refused.code(), (404, "not_found"), "{route}"),
                Own => assert_eq!(refused.status, 200, "{route}: {}", refused.body),
            }
            bad_input(&server, &bob, route, &input, &place).await;
            let served = walk(&server, Some(&bob), &filled, &input).await;
            assert_eq!((served.status, &served.body["ok"]), (*status, &Value::Bool(true)), "{route}: {}", served.body);
        }
    }
}

/// A path that is no id, a query that is no value, and a body that is no JSON, beside an input that is right.
async fn bad_input(server: &TestServer, token: &str, route: &str, right: &str, place: &Place) {
    for parameter in ["{channel_id}", "{message_id}", "{option_id}", "{id}"] {
        if route.contains(parameter) {
            let wrong = place.fill(&route.replace(parameter, "nonsense"));
            let refused = walk(server, Some(token), &wrong, right).await;
            let field = &refused.body["error"]["details"]["field"];
            let expected = (400, json!(parameter.trim_matches(['{', '}'])));
            assert_eq!((refused.status, field.clone()), expected, "{route}: {}", refused.body);
        }
    }
    let path = place.fill(route);
    if route.starts_with("Get ") {
        for wrong in ["limit=many", "before=%00", "after=1", "seq=x", "state=asleep", "unread=perhaps"] {
            let answer = walk(server, Some(token), &path, &format!("{right}&{wrong}")).await;
            let name = wrong.split_once('=').unwrap().0;
            let is_named = answer.body["error"]["details"]["field"] == name;
            assert!(answer.status == 200 || is_named, "{route}?{wrong}: {}", answer.body);
        }
    } else if !route.starts_with("Delete ") {
        for wrong in ["[]", "{", "\"text\""] {
            let refused = walk(server, Some(token), &path, wrong).await;
            assert_eq!(refused.code(), (400, "invalid_payload"), "{route}");
        }
    }
}
