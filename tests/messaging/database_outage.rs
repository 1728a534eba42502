//! What users see while PostgreSQL refuses, is cut off, is slow or fails over, and for how long.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::client::TestClient;
use crate::http::get;
use crate::postgres;
use crate::proxy::{Line, Proxy};
use crate::server::{Kind, TestServer};
use crate::speaker::{ANSWERED, Speaker, is_refusal_for_now};

/// Service is back within this time after the database is.
const BACK: Duration = Duration::from_secs(8);

/// A server whose database is behind a proxy.
struct World {
    proxy: std::sync::Arc<Proxy>,
    server: TestServer,
    /// The database, past the proxy.
    url: String,
}

impl World {
    async fn start(url: String) -> Self {
        let proxy = Proxy::start(address(&url)).await;
        let through = url.replacen(&address(&url).to_string(), &proxy.addr.to_string(), 1);
        let server =
            TestServer::start_with(Kind::Sqlite, |config| config.database.url = Some(through.into())).await;
        Self { proxy, server, url }
    }

    async fn speaker(&self) -> Speaker {
        Speaker::connect(self.server.addr(), &self.server.token("alice").await).await
    }

    /// Everything that users try while the database is away, and that all of it works when it is back.
    async fn goes_through<B, E>(self, begins: impl FnOnce(String) -> B, ends: impl FnOnce(String) -> E)
    where
        B: Future<Output = ()>,
        E: Future<Output = ()>,
    {
        let mut alice = self.speaker().await;
        let token = self.server.token("bob").await;
        alice.says("before").await;
        begins(self.url.clone()).await;
        alice.is_refused_for_now("meanwhile").await;
        let asked = Instant::now();
        is_refusal_for_now(&alice.client.call("bookmark:list", json!({})).await);
        assert!(asked.elapsed() < ANSWERED, "{:?}", asked.elapsed());
        let mut bob = TestClient::open(self.server.addr()).await;
        bob.raw(&format!("40{}", json!({ "token": token }))).await;
        assert_eq!(get(self.server.addr(), "/health/ready").await.0, 503, "new clients go elsewhere");
        assert_eq!(get(self.server.addr(), "/health/live").await.0, 200, "a restart would not help");
        alice.client.ok("ping", json!({})).await;
        ends(self.url.clone()).await;
        let took = alice.says_again_and_again("meanwhile").await;
        assert!(took < BACK, "{took:?}");
        assert_eq!(bob.event().await.0, "session:ready", "who came meanwhile was held and is let in");
        alice.finds_what_was_acknowledged().await;
        self.server.stop().await;
    }
}

/// Where the server of a URL is.
fn address(url: &str) -> SocketAddr {
    let host = url.rsplit_once('@').unwrap().1.split('/').next().unwrap();
    host.replace("localhost", "127.0.0.1").parse().unwrap()
}

async fn execute(url: &str, statements: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await.unwrap();
}

/// Makes the database take connections again, or no more, and ends those that are open.
async fn allow_connections(url: String, allowed: bool) {
    let (server, name) = url.rsplit_once('/').unwrap();
    let statements = format!(
        "ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}; \
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    );
    execute(&format!("{server}/postgres"), &statements).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgresql_refuses_connections_everybody_is_told_to_come_back_and_nothing_is_lost() {
    let world = World::start(postgres::create().await).await;
    world.goes_through(|url| allow_connections(url, false), |url| allow_connections(url, true)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgresql_is_cut_off_everybody_is_told_to_come_back_and_nothing_is_lost() {
    let world = World::start(postgres::create().await).await;
    let (cut, open) = (world.proxy.clone(), world.proxy.clone());
    world.goes_through(|_| async move { cut.set(Line::Cut) }, |_| async move { open.set(Line::Open) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgresql_is_far_too_slow_everybody_is_told_to_come_back_and_nothing_is_lost() {
    let world = World::start(postgres::create().await).await;
    let (slow, open) = (world.proxy.clone(), world.proxy.clone());
    let far_too_slow = Line::Slow(Duration::from_secs(4));
    world
        .goes_through(|_| async move { slow.set(far_too_slow) }, |_| async move { open.set(Line::Open) })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_postgresql_makes_answers_late_and_nothing_is_refused() {
    let world = World::start(postgres::create().await).await;
    let mut alice = world.speaker().await;
    world.proxy.set(Line::Slow(Duration::from_millis(50)));
    alice.says_again_and_again("the connections are new").await;
    for number in 0..5 {
        alice.says(&format!("{number}, late")).await;
    }
    alice.finds_what_was_acknowledged().await;
    world.server.stop().await;
}

/// A PostgreSQL of the test, which ends with it.
struct Cluster {
    directory: TempDir,
    port: u16,
}

impl Cluster {
    /// A directory for one, and a port; nothing runs.
    fn new() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let cluster = Self { directory: tempfile::tempdir().unwrap(), port };
        if rustix::process::getuid().is_root() {
            let chown = Command::new("chown").arg("postgres").arg(cluster.directory.path()).status();
            assert!(chown.unwrap().success());
        }
        cluster
    }

    fn data(&self) -> String {
        self.directory.path().join("data").display().to_string()
    }

    fn url(&self) -> String {
        format!("postgres://imks@127.0.0.1:{}/postgres", self.port)
    }

    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    fn pg_ctl(&self, arguments: &[&str]) {
        run("pg_ctl", &[&["-D", &self.data(), "-w", "-s"], arguments].concat());
    }

    fn start(&self) {
        let (data, port) = (self.data(), self.port);
        let log = format!("{data}/log");
        let options = format!("-p {port} -h 127.0.0.1 -k {data} -c fsync=off");
        self.pg_ctl(&["-l", &log, "-o", &options, "start"]);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let data = self.data();
        let _ = command("pg_ctl", &["-D", &data, "-s", "-m", "immediate", "stop"]).status();
    }
}

/// Where the programs of PostgreSQL are.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let programs = versions.filter_map(Result::ok).map(|version| version.path().join("bin"));
    programs.filter(|bin| bin.join("initdb").exists()).max()
}

/// A program of PostgreSQL, which refuses to run as root.
fn command(program: &str, arguments: &[&str]) -> Command {
    let program = programs().unwrap().join(program);
    let mut command = match rustix::process::getuid().is_root() {
        true => Command::new("runuser"),
        false => Command::new(&program),
    };
    if rustix::process::getuid().is_root() {
        command.args(["-u", "postgres", "--"]).arg(program);
    }
    command.args(arguments).current_dir(Path::new("/")).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn run(program: &str, arguments: &[&str]) {
    assert!(command(program, arguments).status().unwrap().success(), "{program} {arguments:?}");
}

/// Waits until a query of a server says so.
async fn until(url: &str, query: &'static str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    while !sqlx::query_scalar::<_, bool>(query).fetch_one(&mut connection).await.unwrap() {}
}

/// A server, and a standby that has everything that was committed.
async fn with_standby() -> (Cluster, Cluster) {
    let (primary, standby) = (Cluster::new(), Cluster::new());
    run("initdb", &["-D", &primary.data(), "-U", "imks", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]);
    primary.start();
    let (port, data) = (primary.port.to_string(), standby.data());
    run(
        "pg_basebackup",
        &["-h", "127.0.0.1", "-p", &port, "-U", "imks", "-D", &data, "-R", "-X", "stream", "-c", "fast"],
    );
    standby.start();
    until(&primary.url(), "SELECT count(*) > 0 FROM pg_stat_replication WHERE state = 'streaming'").await;
    execute(&primary.url(), "ALTER SYSTEM SET synchronous_standby_names = '*'").await;
    execute(&primary.url(), "SELECT pg_reload_conf()").await;
    until(&primary.url(), "SELECT count(*) > 0 FROM pg_stat_replication WHERE sync_state = 'sync'").await;
    (primary, standby)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_postgresql_fails_over_to_its_standby_nothing_that_was_acknowledged_is_lost() {
    if programs().is_none() {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "skipped: no programs of PostgreSQL in /usr/lib/postgresql");
        return;
    }
    let (primary, standby) = with_standby().await;
    let world = World::start(primary.url()).await;
    let mut alice = world.speaker().await;
    alice.says("before").await;
    drop(primary);
    alice.is_refused_for_now("meanwhile").await;
    world.proxy.lead_to(standby.address());
    alice.is_refused_for_now("while the standby only reads").await;
    standby.pg_ctl(&["promote"]);
    let took = alice.says_again_and_again("meanwhile").await;
    assert!(took < BACK, "{took:?}");
    alice.says_again_and_again("while the standby only reads").await;
    alice.finds_what_was_acknowledged().await;
    world.server.stop().await;
}
