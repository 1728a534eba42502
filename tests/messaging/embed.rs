//! Embeds of senders, and previews of the pages that messages link to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use imks::testing::page_fetcher::Policy;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::on_both;
use crate::server::{Kind, TestServer, first_channel};

on_both! {
    async fn an_embed_is_shown_to_everybody_and_kept_with_its_message(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let embed = json!({
            "title": "Build 7", "url": "https://ci.example/7", "color": 0x00ff00, "author": { "name": "ci" },
            "fields": [{ "name": "branch", "value": "main", "inline": true }, { "name": "result", "value": "通过" }],
        });
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "done", "embeds": [embed] })).await;
        let shown = &sent["message"]["embeds"][0];
        assert_eq!((&shown["title"], &shown["kind"], &shown["source"]), (&json!("Build 7"), &json!("rich"), &json!("sender")));
        assert_eq!(shown["fields"][1], json!({ "name": "result", "value": "通过", "inline": false }));
        assert_eq!(bob.expect("message:new").await["embeds"][0], *shown);
        let history = bob.ok("history", json!({ "channel_id": channel })).await;
        assert_eq!(history["messages"][0]["embeds"][0], *shown);
        let wrong = json!({ "channel_id": channel, "body": "x", "embeds": [{ "title": "t", "url": "javascript:x" }] });
        let error = alice.refused("message:send", wrong).await;
        assert_eq!((&error["code"], &error["details"]["field"]), (&json!("invalid_input"), &json!("embeds[0].url")));
        let many = json!({ "channel_id": channel, "body": "x", "embeds": vec![json!({ "title": "t" }); 11] });
        assert_eq!(alice.refused("message:send", many).await["details"]["field"], "embeds");
        alice.ok("message:delete", json!({ "channel_id": channel, "message_id": sent["message"]["id"] })).await;
        let history = bob.ok("history", json!({ "channel_id": channel })).await;
        assert_eq!(history["messages"][0]["embeds"], json!([]));
    }
}

/// A web site with pages of every kind, and the number of requests that it got.
async fn site() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = requests.clone();
    let page = async move |Path(name): Path<String>| -> Response {
        counter.fetch_add(1, Ordering::Relaxed);
        match name.as_str() {
            "redirect" => Redirect::temporary("/good").into_response(),
            "loop" => Redirect::temporary("/loop").into_response(),
            "inside" => Redirect::temporary("http://169.254.169.254/latest/meta-data").into_response(),
            "binary" => ([(header::CONTENT_TYPE, "application/zip")], "PK").into_response(),
            "picture" => ([(header::CONTENT_TYPE, "image/png")], "png").into_response(),
            "gzip" => (
                [(header::CONTENT_TYPE, "text/html"), (header::CONTENT_ENCODING, "gzip")],
                "<title>x</title>",
            )
                .into_response(),
            "endless" => {
                let chunk = || Ok::<_, std::io::Error>(axum::body::Bytes::from_static(&[b'<'; 8192]));
                let body = Body::from_stream(futures_util::stream::repeat_with(chunk));
                ([(header::CONTENT_TYPE, "text/html")], body).into_response()
            }
            "silent" => std::future::pending().await,
            name => {
                let html = format!(
                    "<head><title>Page {name} &lt;script&gt;</title><meta name=description content='About &amp; more'></head>"
                );
                ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response()
            }
        }
    };
    let router = Router::new().route("/{name}", get(page));
    TaskTracker::new().spawn(async move { axum::serve(listener, router).await.unwrap() });
    (base, requests)
}

async fn with_previews(kind: Kind, policy: Policy) -> TestServer {
    TestServer::start_with(kind, move |config| {
        (config.messaging.link_previews, config.messaging.preview_policy) = (true, policy);
    })
    .await
}

async fn a_link_becomes_an_embed(kind: Kind) {
    let (base, _) = site().await;
    let server = with_previews(kind, Policy::Loopback).await;
    let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
    let channel = first_channel(&alice);
    let body = format!("look: {base}/redirect, {base}/picture {base}/endless");
    let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": body })).await;
    assert_eq!(sent["message"]["embeds"], json!([]), "sending does not wait for it");
    let updated = bob.expect("message:updated").await;
    assert_eq!(
        (&updated["kind"], &updated["edited_at"], &updated["version"]),
        (&json!("embeds"), &json!(null), &json!(1))
    );
    let embeds = updated["embeds"].as_array().unwrap();
    assert_eq!(embeds.len(), 2, "{embeds:?}");
    assert_eq!(
        (&embeds[0]["title"], &embeds[0]["description"]),
        (&json!("Page good <script>"), &json!("About & more"))
    );
    assert_eq!(
        (&embeds[0]["kind"], &embeds[0]["source"], &embeds[0]["url"]),
        (&json!("link"), &json!("preview"), &json!(format!("{base}/redirect")))
    );
    assert_eq!(
        (&embeds[1]["kind"], &embeds[1]["image_url"]),
        (&json!("image"), &json!(format!("{base}/picture")))
    );
    let history = bob.ok("history", json!({ "channel_id": channel })).await;
    assert_eq!(history["messages"][0]["embeds"], updated["embeds"]);
    // An edit takes the previews of links away that are gone.
    let edit = json!({ "channel_id": channel, "message_id": updated["id"], "body": "nothing" });
    alice.ok("message:edit", edit).await;
    assert_eq!(bob.expect("message:updated").await["kind"], "edit");
    assert_eq!(bob.expect("message:updated").await["embeds"], json!([]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_becomes_an_embed_after_the_message_was_sent_on_sqlite() {
    Box::pin(a_link_becomes_an_embed(Kind::Sqlite)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_becomes_an_embed_after_the_message_was_sent_on_postgres() {
    Box::pin(a_link_becomes_an_embed(Kind::Postgres)).await;
}

/// Sends links, then one to a good page: what comes before its update was nothing.
async fn first_update(server: &TestServer, links: &[String], last: &str) -> Value {
    let mut alice = server.client("alice").await;
    let channel = first_channel(&alice);
    for link in links {
        alice.ok("message:send", json!({ "channel_id": channel, "body": link })).await;
    }
    alice.ok("message:send", json!({ "channel_id": channel, "body": last })).await;
    alice.expect("message:updated").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_pages_become_no_embed_and_keep_no_other_from_becoming_one() {
    let (base, _) = site().await;
    let server = with_previews(Kind::Sqlite, Policy::Loopback).await;
    let hostile = ["loop", "inside", "binary", "gzip", "silent"].map(|page| format!("{base}/{page}"));
    let suppressed = format!("<{base}/good>");
    let links = [hostile.as_slice(), &[suppressed]].concat();
    let last = format!("{base}/last");
    assert_eq!(first_update(&server, &links, &last).await["body"], last);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_the_operators_network_is_fetched_however_it_is_written() {
    let (base, requests) = site().await;
    let port = base.rsplit_once(':').unwrap().1.to_owned();
    let server = with_previews(Kind::Sqlite, Policy::Public).await;
    let mut alice = server.client("alice").await;
    let channel = first_channel(&alice);
    for host in
        ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::1]", "[::ffff:127.0.0.1]", "0"]
    {
        let body = format!("http://{host}:{port}/good");
        alice.ok("message:send", json!({ "channel_id": channel, "body": body })).await;
    }
    server.stop().await;
    assert_eq!(requests.load(Ordering::Relaxed), 0);
}
