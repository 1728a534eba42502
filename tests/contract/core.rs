//! `imks core` as a process of its own, whose directory a back end changes with curl, `imks serve` as another one, and
//! stock clients that hear of it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::authority::Authority;
use crate::curl::Curl;
use crate::database::{Database, Kind};
use crate::script::Script;
use crate::server::{Core, Server, free_port, run};

/// A core, the API of its directory, and a server that uses it.
struct World {
    of_core: Database,
    core: Core,
    api: Curl,
    _of_server: Database,
    server: Server,
}

impl World {
    fn start(kind: Kind) -> Self {
        let (address, of_core) = (free_port().to_string(), Database::create(kind));
        let core = Core::start(&of_core, &address);
        let api = Curl::with_key(core.api(), &run(&of_core, &["key", "add", "backend"]));
        let of_server = Database::create(Kind::Sqlite).with("IMKS_CORE_URL", &format!("http://{address}"));
        let server = Server::start(&of_server);
        Self { of_core, core, api, _of_server: of_server, server }
    }

    /// A new user with a session.
    fn user(&self, name: &str) -> Value {
        self.api.ask("PUT", "/users", &json!({ "name": name }));
        self.api.ask("POST", "/tokens", &json!({ "user": name }))
    }

    /// A stock client with the access token of a session.
    fn client(&self, session: &Value) -> Script {
        let token = session["access_token"].as_str().unwrap();
        let mut client = Script::start("listener.js", &[("URL", &self.server.url()), ("TOKEN", token)]);
        client.hears(|line| line["event"] == "session:ready");
        client
    }
}

/// The data of the next event of that name, which comes soon.
#[allow(clippy::disallowed_methods, reason = "another process has real time only")]
fn heard(client: &mut Script, event: &str) -> Value {
    let begun = Instant::now();
    let line = client.hears(|line| line["event"] == event);
    assert!(begun.elapsed() < SOON, "{event} took {:?}", begun.elapsed());
    line["data"].clone()
}

/// The id of the key that signed a token.
fn header(session: &Value) -> &str {
    session["access_token"].as_str().unwrap().split('.').next().unwrap()
}

fn what_a_back_end_tells_the_core_reaches_the_clients_of_its_servers(kind: Kind) {
    let world = World::start(kind);
    let api = &world.api;
    let session = world.user("alice");
    let team = api.ask("PUT", "/channels", &json!({ "name": "team", "kind": "private" }));
    let mut alice = world.client(&session);
    api.ask("PUT", "/members", &json!({ "place": "team", "user": "alice" }));
    assert_eq!(heard(&mut alice, "channel:joined")["channel_id"], team["id"]);
    api.ask("PUT", "/bans", &json!({ "place": "team", "user": "alice", "reason": "spam" }));
    assert_eq!(heard(&mut alice, "channel:left")["channel_id"], team["id"]);
    let key = api.ask("POST", "/signing-keys", &Value::Null);
    assert_eq!(api.ask("GET", "/signing-keys", &Value::Null)["keys"][0], key);
    let later = world.user("bob");
    assert_ne!(header(&session), header(&later), "signed with another key");
    world.client(&later).ends_when_told();
    api.ask("DELETE", &format!("/tokens?session={}", session["session_id"].as_str().unwrap()), &Value::Null);
    heard(&mut alice, "auth:revoked");
    assert_eq!(heard(&mut alice, "disconnect"), "io server disconnect", "it does not come back");
    alice.ends_when_told();
}

#[test]
fn members_bans_keys_and_sessions_that_a_back_end_changes_at_a_core_on_sqlite_count_at_once() {
    what_a_back_end_tells_the_core_reaches_the_clients_of_its_servers(Kind::Sqlite);
}

#[test]
fn members_bans_keys_and_sessions_that_a_back_end_changes_at_a_core_on_postgres_count_at_once() {
    what_a_back_end_tells_the_core_reaches_the_clients_of_its_servers(Kind::Postgres);
}

#[test]
fn a_refresh_token_that_is_used_twice_over_http_ends_its_session_and_the_connection() {
    let world = World::start(Kind::Sqlite);
    let refresh = |session: &Value| json!({ "refresh_token": session["refresh_token"] });
    let first = world.user("alice");
    let second = world.api.ask("POST", "/tokens/refresh", &refresh(&first));
    assert_eq!(first["session_id"], second["session_id"]);
    let mut alice = world.client(&second);
    assert_eq!(world.api.refused("POST", "/tokens/refresh", &refresh(&first)), "unauthenticated");
    heard(&mut alice, "auth:revoked");
    heard(&mut alice, "disconnect");
    alice.ends_when_told();
    assert_eq!(world.api.refused("POST", "/tokens/refresh", &refresh(&second)), "unauthenticated");
}

#[test]
fn a_back_end_without_a_key_or_its_scope_learns_why_and_a_repeat_makes_nothing_twice() {
    let world = World::start(Kind::Sqlite);
    let (core, api, nothing) = (&world.core, &world.api, Value::Null);
    assert_eq!(Curl::with(core.api(), &[]).refused("GET", "/users", &nothing), "unauthenticated");
    let users =
        Curl::with_key(core.api(), &run(&world.of_core, &["key", "add", "users", "--scope", "users"]));
    for (method, path) in [("POST", "/tokens"), ("POST", "/tokens/refresh"), ("POST", "/signing-keys")] {
        assert_eq!(users.refused(method, path, &nothing), "forbidden", "{path}");
    }
    let [first, again] = [(), ()].map(|()| users.ask("PUT", "/users", &json!({ "name": "alice" })));
    assert_eq!(first, again);
    let bob = users.ask("PUT", "/users", &json!({ "name": "bob" }));
    assert_eq!(users.refused("PUT", "/users", &json!({ "id": bob["id"], "name": "alice" })), "conflict");
    assert_eq!(users.refused("DELETE", "/users?user=carol", &nothing), "not_found");
    assert_eq!(users.refused("PUT", "/users", &json!({ "nmae": "x" })), "invalid_payload");
    assert_eq!(users.refused("PATCH", "/users", &nothing), "method_not_allowed");
    assert_eq!(users.refused("GET", "/everything", &nothing), "not_found");
    let seed = json!({ "channel": [{ "name": "team", "owners": ["alice"], "members": ["carol"] }] });
    assert_eq!(api.ask("PUT", "/import", &seed)["users"], json!({ "made": 1, "there": 1 }));
    assert_eq!(api.ask("PUT", "/import", &seed)["users"], json!({ "made": 0, "there": 2 }));
    let allowed = api.ask("GET", "/permissions?channel=team&user=alice", &nothing);
    let printed = run(&world.of_core, &["directory", "permissions", "team", "alice", "--json"]);
    assert_eq!(allowed["permissions"], serde_json::from_str::<Value>(&printed).unwrap());
}

#[test]
fn a_core_says_where_it_listens_how_it_is_and_how_to_make_the_first_key() {
    let [address, internal] = [(), ()].map(|()| free_port().to_string());
    let database = Database::create(Kind::Sqlite).with("IMKS_INTERNAL_LISTEN", &internal);
    let core = Core::start(&database, &address);
    assert_eq!(core.api(), format!("http://{internal}/api/v1/admin"));
    assert_eq!(run(&database, &["healthcheck", "--core", "--ready"]), "/health/ready answers 200");
    assert!(run(&database, &["check-config", "--core"]).contains(&internal));
    let says = core.greeting().to_owned();
    for part in
        [&format!("IMKS_CORE_URL=http://{address}"), "database ", "/api/v1/admin", "imks key add", "/health"]
    {
        assert!(says.contains(part), "{part} in {says}");
    }
    let at = core.api().trim_end_matches("/api/v1/admin").to_owned();
    let health = |path: &str| Curl::with(&at, &[]).answer("GET", path, &Value::Null);
    assert_eq!(
        (&health("/health/live")["status"], &health("/health/ready")["status"]),
        (&json!("ok"), &json!("ok"))
    );
    assert_eq!(health("/health")["checks"]["sqlite"]["status"], "up");
    run(&database, &["key", "add", "backend", "--scope", "users"]);
    drop(core);
    let again = Core::start(&database, &address);
    assert!(!again.greeting().contains("imks key add"), "{}", again.greeting());
}

#[test]
fn a_core_takes_the_certificate_of_a_back_end_instead_of_a_key() {
    let (files, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let text = |path: std::path::PathBuf| path.display().to_string();
    let ca = text(authority.write(&files, "ca"));
    let [server, shop, other] = ["server", "shop", "other"]
        .map(|name| authority.sign(&files, name))
        .map(|(cert, key)| (text(cert), text(key)));
    let database = Database::create(Kind::Sqlite)
        .with("IMKS_INTERNAL_TLS_CERT", &server.0)
        .with("IMKS_INTERNAL_TLS_KEY", &server.1)
        .with("IMKS_INTERNAL_CLIENT_CA", &ca)
        .with("IMKS_CONTROL_CALLERS", "shop");
    let core = Core::start(&database, &free_port().to_string());
    assert!(core.api().starts_with("https://"), "{}", core.api());
    let api = core.api().replace("127.0.0.1", "localhost");
    let shows =
        |(cert, key): &(String, String)| Curl::with(&api, &["--cacert", &ca, "--cert", cert, "--key", key]);
    assert_eq!(shows(&shop).ask("PUT", "/users", &json!({ "name": "alice" }))["username"], "alice");
    assert_eq!(shows(&other).refused("GET", "/users", &Value::Null), "unauthenticated");
    let key = format!("Authorization: Bearer {}", run(&database, &["key", "add", "backend"]));
    let with_key = Curl::with(&api, &["--cacert", &ca, "-H", &key]);
    assert_eq!(with_key.ask("GET", "/users", &Value::Null)["users"][0]["username"], "alice");
}

/// The promise is a second; these tests share the machine with each other.
const SOON: Duration = Duration::from_secs(4);
