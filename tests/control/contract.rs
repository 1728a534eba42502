//! The contract that programs can read, against what the server does for back ends and for everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use imks::testing::control::{Control, directory, incoming};
use serde_json::{Map, Value, json};

use crate::backend::Backend;
use crate::http_request::{Response, send};
use crate::schema::Schemas;
use crate::server::Kind;

/// Every call about the directory and of incoming webhooks, with a request that is right, in an order in which each
/// finds what it needs. What stands in braces is a field of an earlier answer.
const CALLS: &[(&str, &str)] = &[
    ("PutWorkspace", r#"{"name":"acme"}"#),
    ("ListWorkspaces", "{}"),
    ("PutUser", r#"{"name":"bob","bot":true}"#),
    ("PutUser", r#"{"name":"alice","login":"auth0|1","issuer":"https://id.example"}"#),
    ("ListUsers", "{}"),
    ("PutChannel", r#"{"users":["alice","bob"]}"#),
    ("PutChannel", r#"{"name":"acme/team","kind":"private","slow_mode_s":3,"retention_days":30}"#),
    ("ListChannels", r#"{"workspace":"acme"}"#),
    ("ListChannels", "{}"),
    ("PutMember", r#"{"place":"acme/","user":"alice"}"#),
    ("PutMember", r#"{"place":"acme/team","user":"bob","roles":["owner","member"],"muted_until":"never"}"#),
    (
        "PutMember",
        r#"{"place":"acme/team","user":"alice","notify_level":"none","muted_until":"2100-01-01T00:00:00Z"}"#,
    ),
    ("ListMembers", r#"{"place":"acme/"}"#),
    ("ListMembers", r#"{"place":"acme/team"}"#),
    ("PutRole", r#"{"workspace":"acme","name":"pinner","permissions":["PIN_MESSAGES"]}"#),
    ("ListRoles", r#"{"workspace":"acme"}"#),
    (
        "PutOverride",
        r#"{"channel":"acme/team","role":"pinner","allow":["READ_HISTORY"],"deny":["PIN_MESSAGES"]}"#,
    ),
    ("ListOverrides", r#"{"channel":"acme/team"}"#),
    ("GetPermissions", r#"{"channel":"acme/team","user":"alice"}"#),
    ("DeleteOverride", r#"{"channel":"acme/team","role":"pinner"}"#),
    ("DeleteRole", r#"{"workspace":"acme","role":"pinner"}"#),
    ("CreateEmoji", r#"{"workspace":"acme","name":"ship","picture":"https://acme.example/ship.png"}"#),
    ("ListEmoji", r#"{"workspace":"acme"}"#),
    ("DeleteEmoji", r#"{"workspace":"acme","name":"ship"}"#),
    ("CreateWebhook", r#"{"channel":"acme/team","name":"ci","avatar":"https://ci.example/robot.png"}"#),
    ("ListWebhooks", r#"{"channel":"acme/team"}"#),
    ("PostToWebhook", r#"{"token":"{path}","text":"done","priority":"important","ack_requested":true}"#),
    ("PostToWebhook", r#"{"token":"{path}","body":"done","icon_url":"https://ci.example/1.png"}"#),
    ("DeleteWebhook", r#"{"id":"{id}"}"#),
    ("CreateTokens", r#"{"user":"alice"}"#),
    ("ListTokens", r#"{"user":"alice"}"#),
    ("RefreshTokens", r#"{"refresh_token":"{refresh_token}"}"#),
    ("DeleteTokens", r#"{"session":"{session_id}"}"#),
    ("CreateSigningKey", "{}"),
    ("ListSigningKeys", "{}"),
    ("DeleteSigningKey", r#"{"kid":"{kid}"}"#),
    ("PutBan", r#"{"place":"acme/team","user":"alice","reason":"spam","ends_at":"2100-01-01T00:00:00Z"}"#),
    ("ListBans", r#"{"place":"acme/team"}"#),
    ("DeleteBan", r#"{"place":"acme/team","user":"alice"}"#),
    ("DeleteMember", r#"{"place":"acme/team","user":"bob"}"#),
    ("DeleteChannel", r#"{"channel":"acme/team"}"#),
    ("DeleteUser", r#"{"user":"alice"}"#),
    ("DeleteWorkspace", r#"{"workspace":"acme"}"#),
    (
        "Import",
        r#"{"user":[{"name":"carol"}],"channel":[{"name":"dev","members":["carol"],"archived":true}]}"#,
    ),
];

/// The files that mount the routes of the document.
const DESCRIBED: [&str; 4] = ["api.rs", "control.rs", "directory.rs", "incoming.rs"];
/// The files that mount routes which are not for programs, or which only signed addresses lead to.
const NOT_DESCRIBED: [&str; 5] = ["admin_ui.rs", "documents.rs", "files.rs", "routes.rs", "webtransport.rs"];

/// The document about the routes.
struct Document(Schemas);

/// A call in the document.
struct Call<'a> {
    name: &'a str,
    method: String,
    path: &'a str,
    described: &'a Value,
}

impl Document {
    async fn read(backend: &Backend) -> Self {
        Self(Schemas(send(backend.addr(), "GET /api/v1/openapi.json", &[], "").await.body))
    }

    fn calls(&self) -> impl Iterator<Item = Call<'_>> {
        let paths = self.0.0["paths"].as_object().unwrap().iter();
        paths.flat_map(|(path, methods)| {
            methods.as_object().unwrap().iter().map(|(method, described)| Call {
                name: described["operationId"].as_str().unwrap(),
                method: method.to_uppercase(),
                path,
                described,
            })
        })
    }
}

impl Call<'_> {
    /// Sends a request with these fields, which are what the document says.
    async fn ask(&self, backend: &Backend, document: &Document, mut fields: Map<String, Value>) -> Response {
        let mut path = self.path.to_owned();
        let mut query = form_urlencoded::Serializer::new(String::new());
        for parameter in self.described["parameters"].as_array().unwrap() {
            let name = parameter["name"].as_str().unwrap();
            let Some(value) = fields.remove(name) else {
                assert_ne!(parameter["required"], true, "{} needs {name}", self.name);
                continue;
            };
            document.0.check(&parameter["schema"], &value).unwrap();
            match parameter["in"].as_str().unwrap() {
                "path" => path = path.replace(&format!("{{{name}}}"), value.as_str().unwrap()),
                "query" => drop(query.append_pair(name, value.as_str().unwrap())),
                other => panic!("{}: {name} in {other}", self.name),
            }
        }
        let (body, fields) = (&self.described["requestBody"]["content"]["application/json"], json!(fields));
        match body.get("schema") {
            Some(schema) => {
                document.0.check(schema, &fields).unwrap_or_else(|it| panic!("{}: {it}", self.name))
            }
            None => assert_eq!(fields, json!({}), "{}", self.name),
        }
        let body = if body.is_null() { String::new() } else { fields.to_string() };
        let key = format!("Bearer {}", backend.key);
        let request = format!("{} {path}?{}", self.method, query.finish());
        send(backend.addr(), &request, &[("authorization", &key)], &body).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_about_the_directory_is_answered_as_the_document_says() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let backend = Backend::start(kind).await;
        let document = Document::read(&backend).await;
        let (mut known, mut asked) = (BTreeMap::new(), BTreeSet::new());
        for (name, template) in CALLS {
            let call =
                document.calls().find(|call| call.name == *name).unwrap_or_else(|| panic!("no {name}"));
            let filled =
                known.iter().fold((*template).to_owned(), |text, (field, value): (&String, &String)| {
                    text.replace(&format!("{{{field}}}"), value)
                });
            let answer = call.ask(&backend, &document, serde_json::from_str(&filled).unwrap()).await;
            assert_eq!(answer.status, 200, "{name}: {}", answer.body);
            let schema = &call.described["responses"]["200"]["content"]["application/json"]["schema"];
            document.0.check(schema, &answer.body).unwrap_or_else(|problem| panic!("{name}: {problem}"));
            for (field, value) in answer.body["data"].as_object().unwrap() {
                let text = value.as_str().and_then(|text| text.rsplit('/').next()).unwrap_or_default();
                known.insert(field.clone(), text.to_owned());
            }
            asked.insert(format!("{} {}", call.method, call.path));
        }
        assert_eq!(asked, about_the_directory(), "a new call needs a row here");
        backend.stop().await;
    }
}

/// The method and path of every call about the directory and of incoming webhooks.
fn about_the_directory() -> BTreeSet<String> {
    let calls = directory::operations().iter();
    let calls = calls.map(|call| format!("{:?} /api/v1/admin{}", call.method, call.path));
    let post = format!("{:?} /api/v1{}", incoming::PLACE.method, incoming::PLACE.path);
    calls.chain([post]).map(|route| upper(&route)).collect()
}

/// `Get /users` → `GET /users`.
fn upper(route: &str) -> String {
    let (method, path) = route.split_once(' ').unwrap();
    format!("{} {path}", method.to_uppercase())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_is_in_the_document_and_every_documented_route_is_there() {
    let backend = Backend::start(Kind::Sqlite).await;
    let document = Document::read(&backend).await;
    let described: BTreeSet<String> =
        document.calls().map(|call| format!("{} {}", call.method, call.path)).collect();
    let calls = Control::operations().iter();
    let mut mounted: BTreeSet<String> =
        calls.map(|call| upper(&format!("{:?} /api/v1/admin{}", call.method, call.path))).collect();
    mounted.extend(backend.api_routes().iter().map(|route| upper(&route.replacen(' ', " /api/v1", 1))));
    mounted.extend(about_the_directory());
    mounted.insert("GET /api/v1/server".into());
    assert_eq!(described, mounted);

    let paths: BTreeSet<&str> = document.calls().map(|call| call.path).collect();
    for path in paths {
        let somewhere = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
        let somewhere = somewhere.collect::<Vec<_>>().join("/");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let answer = send(backend.addr(), &format!("{method} {somewhere}"), &[], "").await;
            let is_there = described.contains(&format!("{method} {path}"));
            assert_eq!(answer.status != 405, is_there, "{method} {path}: {}", answer.body);
            let no_page = answer.body["error"]["message"].to_string().contains("No such page");
            assert!(!no_page, "{method} {path}: {}", answer.body);
        }
    }
    backend.stop().await;
}

#[test]
fn whatever_mounts_routes_is_known_to_the_document_or_known_not_to_be_for_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    let mut mounts = BTreeSet::new();
    for file in std::fs::read_dir(root).unwrap() {
        let path = file.unwrap().path();
        let source = std::fs::read_to_string(&path).unwrap_or_default();
        let product = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let mut code = product.lines().filter(|line| !line.trim_start().starts_with("//"));
        if code.any(|line| line.contains(".route(")) {
            mounts.insert(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    let known = DESCRIBED.iter().chain(&NOT_DESCRIBED).map(|name| (*name).to_owned());
    assert_eq!(
        mounts,
        known.collect(),
        "describe new routes (`Contract::endpoint`), or name their file here"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_who_knows_an_address_may_post_to_it_and_back_ends_need_a_key_or_a_certificate() {
    let backend = Backend::start(Kind::Sqlite).await;
    let document = Document::read(&backend).await;
    for call in
        document.calls().filter(|call| !call.described["tags"].as_array().unwrap().contains(&json!("users")))
    {
        let is_for_back_ends = call.path.starts_with("/api/v1/admin/");
        let (tag, security) = match is_for_back_ends {
            true => ("back ends", json!([{ "key": [] }, { "certificate": [] }])),
            false => ("everybody", json!([])),
        };
        assert_eq!(
            (&call.described["tags"], &call.described["security"]),
            (&json!([tag]), &security),
            "{}",
            call.name
        );
    }
    let header = |name: &str| {
        let call = document.calls().find(|call| call.name == name).unwrap();
        let parameters = call.described["parameters"].as_array().unwrap().clone();
        parameters.into_iter().any(|it| it["name"] == "Idempotency-Key" && it["in"] == "header")
    };
    assert!(header("PostToWebhook") && header("CreateTokens") && !header("PutUser"));
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_is_no_text_is_refused_as_json() {
    let backend = Backend::start(Kind::Sqlite).await;
    for path in [
        "POST /api/v1/webhooks/%FF",
        "GET /api/v1/admin/channels/%FF/messages",
        "GET /api/v1/channels/%FF/messages",
    ] {
        let key = format!("Bearer {}", backend.key);
        let answer = send(backend.addr(), path, &[("authorization", &key)], "").await;
        assert_eq!(answer.code(), (400, "invalid_payload"), "{path}");
    }
    backend.stop().await;
}

/// What schemathesis checks of each answer.
const CHECKS: &str =
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_description_allows_a_back_end_gets_an_answer_that_it_describes() {
    let backend = Backend::start(Kind::Postgres).await;
    let document = Document::read(&backend).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // `Watch` waits for events, for as long as it is asked to.
    let output = tokio::process::Command::new(root.join("target/python/bin/schemathesis"))
        .args(["run", &format!("http://{}/api/v1/openapi.json", backend.addr())])
        .args(["--include-tag", "back ends", "--include-tag", "everybody", "--exclude-operation-id", "Watch"])
        .args(["--phases", "fuzzing", "--checks", CHECKS, "--max-examples", "10", "--seed", "1"])
        .args(["--header", &format!("Authorization: Bearer {}", backend.key), "--no-color", "--no-shrink"])
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .kill_on_drop(true)
        .output()
        .await
        .expect("schemathesis; `make test` installs it");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let tried = document.calls().filter(|it| it.described["tags"] != json!(["users"]) && it.name != "Watch");
    assert!(said.contains(&format!("Tested: {}\n", tried.count())), "{said}");
    backend.stop().await;
}
