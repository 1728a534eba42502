//! The contract that programs can read, against what the server does for a member.

use std::collections::BTreeSet;

use imks::testing::directory::RoleName;
use serde_json::json;

use crate::fake_s3;
use crate::http_request::send;
use crate::server::{Kind, TestServer};
use crate::walk::{Documents, EVENTS, World, ask, ask_route, document, fill, payload, place};

/// Events of the server that no request of this file causes: tests of their own have them.
const NOT_CAUSED: &[&str] = &[
    "auth:expired",
    "auth:expiring",
    "auth:revoked",
    "channel:activity",
    "sync:required",
    "channel:horizon",
    "channel:updated",
    "message:ephemeral",
    "server:shutdown",
    "session:channels",
    "session:ended",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_of_a_member_gets_the_answer_that_the_document_says() {
    let World { server, documents, channel, token, mut bob, .. } = World::new().await;
    let listed: BTreeSet<String> = EVENTS.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(listed, documents.events("receive"), "a new event needs a row here");
    let ids = place(&server, &mut bob, &channel).await;
    for (event, template, _) in EVENTS {
        let request = fill(template, &ids, &token);
        documents.check(event, &request);
        let answer = ask(&mut bob, event, &request).await;
        assert_eq!(answer["ok"], true, "{event}: {answer}");
        documents.check(&format!("{event} (answer)"), &answer);
    }
    let refused = bob.call("message:send", json!({ "channel_id": channel })).await;
    documents.check("message:send (answer)", &refused);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_of_the_server_has_the_payload_that_the_document_says() {
    let World { server, documents, channel, token, mut bob, mut alice } = World::new().await;
    alice.ok("presence:subscribe", json!({ "user_ids": [bob.ready["user"]["id"]] })).await;
    let ids = place(&server, &mut bob, &channel).await;
    for (event, template, _) in EVENTS {
        ask(&mut bob, event, &fill(template, &ids, &token)).await;
    }
    bob.emit("no:such", json!({})).await;
    let mentions = json!({ "users": [ids["user_id"]] });
    alice.ok("message:send", json!({ "channel_id": channel, "body": "@bob", "mentions": mentions })).await;
    server.directory().remove_member("club", "alice").await.unwrap();
    let mut seen = vec![("session:ready".to_owned(), bob.ready.clone())];
    while seen.last().is_none_or(|(name, _)| name != "channel:left") {
        seen.push(alice.event().await);
    }
    server.directory().add_member("club", "alice", RoleName::default()).await.unwrap();
    seen.push(("channel:joined".to_owned(), alice.expect("channel:joined").await));
    seen.extend(bob.events_so_far().await);
    for (name, payload) in &seen {
        documents.check(name, payload);
    }
    let names =
        seen.into_iter().map(|(name, _)| name).chain(NOT_CAUSED.iter().map(|name| (*name).to_owned()));
    let names: BTreeSet<String> = names.collect();
    assert_eq!(
        names,
        documents.events("send"),
        "cause a new event of the server here, or say that others do"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_answers_a_member_as_the_document_says() {
    let World { server, documents, channel, token, mut bob, .. } = World::new().await;
    let ids = place(&server, &mut bob, &channel).await;
    for route in &documents.routes() {
        let (request, _) = payload(&route.event, &ids, &token);
        let answer = ask_route(&server, Some(&token), route, &request).await;
        let (response, place) =
            (&route.responses[answer.status.to_string()], format!("{} {}", route.method, route.path));
        assert!(answer.status < 300 && response.is_object(), "{place}: {} {}", answer.status, answer.body);
        let schema = &response["content"]["application/json"]["schema"];
        documents.routes.check(schema, &answer.body).unwrap_or_else(|problem| panic!("{place}: {problem}"));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_may_ask_what_a_server_speaks_and_every_feature_level_has_a_line_in_the_documentation() {
    let World { server, documents, bob, .. } = World::new().await;
    let answer = send(server.addr(), "GET /api/v1/server", &[], "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let route = &documents.routes.0["paths"]["/api/v1/server"]["get"];
    let schema = &route["responses"]["200"]["content"]["application/json"]["schema"];
    documents.routes.check(schema, &answer.body).unwrap();
    assert_eq!(route["security"], json!([]), "nobody needs a token for it");
    let (facts, ready) = (&answer.body["data"], &bob.ready);
    for field in ["protocol", "feature_level", "limits"] {
        assert_eq!(facts[field], ready[field], "{field}");
    }
    assert_eq!((&facts["name"], &facts["version"]), (&ready["server"]["name"], &ready["server"]["version"]));
    let fields: Vec<&String> = facts.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["feature_level", "limits", "name", "protocol", "version"], "nothing else is public");
    let protocol = std::fs::read_to_string("docs/protocol.md").unwrap();
    let (_, table) = protocol.split_once("| level | what it brought |\n| --- | --- |\n").unwrap();
    let lines = table.lines().take_while(|line| line.starts_with('|'));
    let levels: Vec<u64> =
        lines.map(|line| line.split('|').nth(1).unwrap().trim().parse().unwrap()).collect();
    let last = facts["feature_level"].as_u64().unwrap();
    assert_eq!(levels, (1..=last).collect::<Vec<_>>(), "a change of the contract is a new level with a line");
    let refused = send(server.addr(), "POST /api/v1/server", &[], "").await;
    assert_eq!(refused.code(), (405, "method_not_allowed"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_are_sent_once_to_whoever_has_them() {
    let server = TestServer::start(Kind::Sqlite).await;
    for file in ["openapi.json", "asyncapi.json", "imks.d.ts"] {
        let path = format!("/api/v1/{file}");
        let first = fake_s3::http(server.addr(), "GET", &path, &[], b"").await;
        let tag = first
            .head
            .split("etag: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next())
            .expect("an ETag")
            .to_owned();
        assert_eq!((first.status, first.body.is_empty()), (200, false));
        let again = fake_s3::http(server.addr(), "GET", &path, &[("if-none-match", &tag)], b"").await;
        assert_eq!((again.status, again.body.as_slice()), (304, b"".as_slice()));
    }
    assert_eq!(
        send(server.addr(), "POST /api/v1/openapi.json", &[], "").await.code(),
        (405, "method_not_allowed")
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_declarations_for_typescript_are_those_of_this_server() {
    let server = TestServer::start(Kind::Sqlite).await;
    let (path, made) = ("clients/types/imks.d.ts", document(&server, "imks.d.ts").await);
    if std::env::var_os("IMKS_UPDATE_DOCS").is_some() {
        std::fs::create_dir_all("clients/types").unwrap();
        std::fs::write(path, &made).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        stored == made,
        "{path} is stale: IMKS_UPDATE_DOCS=1 cargo test --test messaging_tests declarations"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_in_the_documentation_and_every_documented_event_is_in_the_contract() {
    let server = TestServer::start(Kind::Sqlite).await;
    let documents = Documents::read(&server).await;
    let contract: BTreeSet<String> =
        ["send", "receive"].iter().flat_map(|action| documents.events(action)).collect();
    let protocol = std::fs::read_to_string("docs/protocol.md").unwrap();
    let headings = protocol.lines().filter(|line| line.starts_with("##") && !line.starts_with("####"));
    let documented = headings.flat_map(|line| line.split('`').skip(1).step_by(2).map(str::to_owned));
    assert_eq!(contract, documented.collect());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_that_the_sources_send_is_in_the_contract() {
    let server = TestServer::start(Kind::Sqlite).await;
    let contract = Documents::read(&server).await.events("send");
    let mut sent = BTreeSet::new();
    for directory in ["src/messaging", "src/models", "src/control"] {
        for file in std::fs::read_dir(directory).unwrap() {
            let source = std::fs::read_to_string(file.unwrap().path()).unwrap_or_default();
            let product = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            for call in ["Push::new(\"", "tell_change(\"", "tell_state(\"", ".tell(\""] {
                let names = product.split(call).skip(1).filter_map(|rest| rest.split('"').next());
                sent.extend(names.map(str::to_owned));
            }
        }
    }
    assert!(sent.len() > 20);
    let forgotten: Vec<_> = sent.difference(&contract).collect();
    assert!(forgotten.is_empty(), "`events.sends(…)` where the feature registers its events: {forgotten:?}");
    server.stop().await;
}

/// Runs a program of the tests that must succeed. Its output says why it did not.
async fn run(program: &str, directory: &str, arguments: &[&str]) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let output =
        tokio::process::Command::new(if program.contains('/') { root.join(program) } else { program.into() })
            .args(arguments)
            .current_dir(root.join(directory))
            .kill_on_drop(true)
            .output()
            .await
            .unwrap_or_else(|error| panic!("{program}: {error}; `make test` installs what is missing"));
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{program} {arguments:?}:\n{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_parser_reads_the_description_of_the_events() {
    let server = TestServer::start(Kind::Sqlite).await;
    run("node", "tests/js", &["asyncapi.js", &format!("http://{}", server.addr())]).await;
    server.stop().await;
}

#[tokio::test]
async fn typescript_accepts_a_program_that_is_right_and_refuses_what_is_wrong_in_it() {
    run("node", "tests/js", &["node_modules/typescript/bin/tsc", "-p", "typed"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_description_allows_gets_an_answer_that_it_describes() {
    let World { server, channel, token, mut bob, .. } = World::new().await;
    place(&server, &mut bob, &channel).await;
    let url = format!("http://{}/api/v1/openapi.json", server.addr());
    let checks =
        "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
    let mut arguments =
        vec!["run", &url, "--include-tag", "users", "--phases", "fuzzing", "--checks", checks];
    let header = format!("Authorization: Bearer {token}");
    arguments.extend([
        "--header",
        &header,
        "--max-examples",
        "10",
        "--seed",
        "1",
        "--no-color",
        "--no-shrink",
    ]);
    run("target/python/bin/schemathesis", env!("CARGO_TARGET_TMPDIR"), &arguments).await;
    server.stop().await;
}
