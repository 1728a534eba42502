//! The first page: what a development server shows at `/`, to whom it gives tokens, and two people who chat in Chromium.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "client/database.rs"]
#[allow(dead_code, reason = "tests of clients use the rest")]
mod database;
#[path = "client/script.rs"]
#[allow(dead_code, reason = "tests of clients use the rest")]
mod script;
#[path = "client/server.rs"]
#[allow(dead_code, reason = "tests of clients use the rest")]
mod server;

use std::io::{Read, Write};
use std::net::TcpStream;

use database::{Database, Kind};
use script::Script;
use serde_json::Value;
use server::{Core, Server, free_port};

/// An answer over HTTP.
struct Answer {
    status: u16,
    /// In lower case.
    head: String,
    body: String,
}

impl Answer {
    /// The status, and the code of an error.
    fn code(&self) -> (u16, String) {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        (self.status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
    }
}

/// Sends a request with these header fields and body.
fn send(server: &Server, request: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let url = server.url();
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head =
        format!("{request} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Answer { status: head[9..12].parse().unwrap(), head: head.to_lowercase(), body: body.to_owned() }
}

fn get(server: &Server, path: &str) -> Answer {
    send(server, &format!("GET {path}"), &[("Host", "127.0.0.1")], "")
}

/// The header fields with which the page asks for a token.
fn own(server: &Server) -> [(String, String); 4] {
    let (origin, json) = (server.url(), "application/json".to_owned());
    let host = origin.strip_prefix("http://").unwrap().to_owned();
    [
        ("Host".into(), host),
        ("Origin".into(), origin),
        ("Sec-Fetch-Site".into(), "same-origin".into()),
        ("Content-Type".into(), json),
    ]
}

/// Asks for a token as the page does, but with other values for some header fields; an empty one leaves its field out.
fn ask(server: &Server, changed: &[(&str, &str)], body: &str) -> Answer {
    let mut headers = own(server).to_vec();
    for (name, value) in changed {
        headers.retain(|(known, _)| known != name);
        headers.push(((*name).into(), (*value).into()));
    }
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (&**name, &**value))
        .collect();
    send(server, "POST /first/token", &headers, body)
}

const ADA: &str = r#"{"name":"ada"}"#;

#[test]
fn a_server_in_development_shows_its_page_and_lets_nothing_from_elsewhere_into_it() {
    let database = Database::create(Kind::Sqlite);
    let server = Server::start(&database);
    let page = get(&server, "/");
    assert_eq!(page.status, 200);
    assert!(page.body.contains("/first/page.js"), "{}", page.body);
    let named = page.body.split('"').filter(|part| part.starts_with("/first/") || part.starts_with("/api/"));
    let paths: Vec<&str> = named.chain(["/", "/first/person.js", "/first/client.js"]).collect();
    assert!(paths.len() > 7, "{paths:?}");
    for path in paths {
        let answer = get(&server, path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.head.contains("x-content-type-options: nosniff"), "{path}: {}", answer.head);
        assert!(!answer.head.contains("set-cookie"), "{path}: {}", answer.head);
        if path.starts_with("/api/") {
            continue;
        }
        assert!(
            answer.head.contains("content-security-policy: default-src 'none'; script-src 'self'"),
            "{path}"
        );
        assert!(!answer.head.contains("unsafe"), "{path}: {}", answer.head);
        let is_elsewhere = |text: &str| text.contains("http://") || text.contains("https://");
        let foreign: Vec<&str> = answer
            .body
            .lines()
            .filter(|line| is_elsewhere(line) && !line.contains("www.w3.org/2000/svg"))
            .collect();
        assert!(foreign.is_empty(), "{path}: {foreign:?}");
    }
    for path in ["/first", "/first/", "/first/../Cargo.toml", "/first/index.html", "/index.html"] {
        assert_eq!(get(&server, path).code(), (404, "not_found".into()), "{path}");
    }
    assert_eq!(get(&server, "/first/token").code(), (405, "method_not_allowed".into()));
}

#[test]
fn the_page_gets_a_token_of_a_member_of_the_playground() {
    let database = Database::create(Kind::Sqlite);
    let server = Server::start(&database);
    let answer = ask(&server, &[], ADA);
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(
        (answer.status, &body["ok"], &body["data"]["path"]),
        (200, &true.into(), &"/socket.io".into())
    );
    assert!(answer.head.contains("cache-control: no-store"), "{}", answer.head);
    let bearer = format!("Bearer {}", body["data"]["token"].as_str().unwrap());
    let headers = [("Host", "test"), ("Authorization", &*bearer)];
    let drafts = send(&server, "GET /api/v1/drafts", &headers, "");
    assert_eq!(drafts.status, 200, "the token is good: {}", drafts.body);
    let members = server::run(&database, &["directory", "member", "list", "playground/first-page"]);
    assert!(members.contains("ada"), "{members}");
}

/// A proxy on the same machine that hides itself passes on what anybody sends, and whoever sends it sets the origin.
#[test]
fn who_pretends_to_be_the_page_gets_no_token_of_a_user_and_with_their_own_reads_nothing_of_others() {
    let database = Database::create(Kind::Sqlite);
    let server = Server::start(&database);
    let alice = server::token(&database, "alice", &[]);
    server::token(&database, "bob", &[]);
    let listed = server::run(&database, &["directory", "channel", "list"]);
    let general = listed.lines().find_map(|line| line.strip_prefix("general\t")?.split('\t').next()).unwrap();
    let direct = server::run(&database, &["directory", "channel", "direct", "alice", "bob"]);
    let paths = [general, &direct].map(|id| format!("/api/v1/channels/{id}/messages"));
    let with = |token: &str, request: &str, body: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("Host", "test"), ("Authorization", &*bearer), ("Content-Type", "application/json")];
        send(&server, request, &headers, body)
    };
    for path in &paths {
        let sent = with(&alice, &format!("POST {path}"), r#"{"body":"for us only"}"#);
        assert_eq!(sent.status, 201, "{}", sent.body);
    }
    let pretended = [("Sec-Fetch-Site", "")];
    let refused = ask(&server, &pretended, r#"{"name":"alice"}"#);
    assert_eq!(refused.code(), (409, "conflict".into()));
    assert!(refused.body.contains("`imks token alice`"), "{}", refused.body);
    let body: Value = serde_json::from_str(&ask(&server, &pretended, ADA).body).unwrap();
    let ada = body["data"]["token"].as_str().unwrap();
    for path in &paths {
        assert_eq!(with(ada, &format!("GET {path}"), "").code(), (404, "not_found".into()));
        let written = with(ada, &format!("POST {path}"), r#"{"body":"hello there"}"#);
        assert_eq!(written.code(), (404, "not_found".into()));
        let page = with(&alice, &format!("GET {path}"), "").body;
        assert!(page.contains("for us only") && !page.contains("hello there"), "{page}");
    }
    for (token, is_found) in [(&*alice, true), (ada, false)] {
        let found = with(token, "GET /api/v1/search?q=only", "");
        assert_eq!((found.status, found.body.contains("for us only")), (200, is_found), "{}", found.body);
    }
}

#[test]
fn pages_of_other_sites_and_programs_get_no_token() {
    let database = Database::create(Kind::Sqlite);
    let server = Server::start(&database);
    let elsewhere = "http://127.0.0.1:1";
    for changed in [
        &[("Origin", "https://evil.example")][..],
        &[("Origin", elsewhere)],
        &[("Origin", "null")],
        &[("Origin", "")],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site")],
        // A name of somebody else that resolves to this machine.
        &[("Host", "evil.example:3000"), ("Origin", "http://evil.example:3000")],
        &[("X-Forwarded-For", "192.0.2.1")],
        &[("Forwarded", "for=192.0.2.1")],
    ] {
        assert_eq!(ask(&server, changed, ADA).code(), (403, "forbidden".into()), "{changed:?}");
    }
    for kind in ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let refused = ask(&server, &[("Content-Type", kind)], ADA);
        assert_eq!(refused.code(), (400, "invalid_payload".into()), "{kind}");
    }
    let preflight = [("Host", "127.0.0.1"), ("Origin", elsewhere), ("Access-Control-Request-Method", "POST")];
    let answer = send(&server, "OPTIONS /first/token", &preflight, "");
    assert_eq!(answer.code(), (405, "method_not_allowed".into()));
    assert!(!answer.head.contains("access-control-allow"), "{}", answer.head);
    let users = server::run(&database, &["directory", "user", "list"]);
    assert!(!users.contains("ada"), "nobody was made: {users}");
}

#[test]
fn a_request_for_a_token_that_makes_no_sense_is_refused_with_a_reason() {
    let database = Database::create(Kind::Sqlite);
    let server = Server::start(&database);
    let long = format!(r#"{{"name":"{}"}}"#, "a".repeat(2_000));
    for (body, code) in [
        ("", (400, "invalid_payload")),
        ("{}", (400, "invalid_payload")),
        (r#"{"name":7}"#, (400, "invalid_payload")),
        (r#"{"name":""}"#, (400, "invalid_input")),
        (&*long, (413, "payload_too_large")),
    ] {
        assert_eq!(ask(&server, &[], body).code(), (code.0, code.1.to_owned()), "{body:.40}");
    }
}

#[test]
fn a_server_in_production_has_neither_the_page_nor_its_tokens() {
    let address = free_port().to_string();
    let core_url = format!("http://{address}");
    let core_database = Database::create(Kind::Sqlite);
    let _core = Core::start(&core_database, &address);
    for (name, value) in
        [("IMKS_FIRST_PAGE", "off"), ("IMKS_CORE_URL", &*core_url), ("IMKS_ENGINE_WEBSOCKET", "false")]
    {
        let database = Database::create(Kind::Sqlite).with(name, value);
        assert_no_page(&Server::start(&database), name);
    }
}

fn assert_no_page(server: &Server, why: &str) {
    for path in ["/", "/first/page.js"] {
        assert_eq!(get(server, path).code(), (404, "not_found".into()), "{why}: {path}");
    }
    assert_eq!(ask(server, &[], ADA).code(), (404, "not_found".into()), "{why}");
}

#[test]
fn two_people_on_one_page_miss_nothing_when_a_network_is_cut_or_the_server_restarts() {
    let database = Database::create(Kind::Sqlite);
    let mut server = Server::start(&database);
    server::token(&database, "alice", &[]);
    let mut page = Script::start("first_page.js", &[("URL", &*server.url())]);
    page.hears(|line| line["ready"] == "for a restart");
    server.kill_and_restart(&database);
    page.tell("restarted");
    page.done();
}
