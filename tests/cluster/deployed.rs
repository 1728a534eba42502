//! The balancers that operators run, as deploy/balancers configures them, in front of three nodes.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use imks::engine;
use imks::socket::Config;
use imks::socket::rate_limit::Rate;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio_util::task::AbortOnDropHandle;

use crate::balancer::Front;
use crate::broker::{Kind, free_address};
use crate::process::{http, http_over};
use crate::relay::{Talker, clients_talk_through, the_owner_dies_behind};
use crate::rolling::restart_behind;
use crate::script::Script;
use crate::server::TestServer;

/// How long it may take until a balancer listens.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a balancer waits for a silent side, as the files say it.
const IDLE: &str = "90s";
/// The same where a test waits for it.
const SHORT_IDLE: &str = "2s";
/// The time between pings in such a test: as far below that as it is otherwise.
const PING_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Product {
    HaProxy,
    Nginx,
    Caddy,
}

impl Product {
    fn file(self) -> &'static str {
        match self {
            Self::HaProxy => "haproxy.cfg",
            Self::Nginx => "nginx.conf",
            Self::Caddy => "Caddyfile",
        }
    }

    /// The place where it listens, in its file and here.
    fn place(self, addr: SocketAddr) -> (&'static str, String) {
        match self {
            Self::HaProxy => ("bind :80 ", format!("bind {addr} ")),
            Self::Nginx => ("listen 80;", format!("listen {addr};")),
            Self::Caddy => (":80 {", format!(":{} {{\n\tbind {}", addr.port(), addr.ip())),
        }
    }

    /// What its file becomes part of, in this directory.
    fn around(self, file: &str, directory: &str) -> String {
        match self {
            Self::HaProxy => file.to_owned(),
            Self::Caddy => format!("{{\n\tadmin off\n}}\n{file}"),
            Self::Nginx => {
                let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
                let temporary =
                    temporary.map(|name| format!("{name}_temp_path {directory}/{name};\n")).concat();
                format!(
                    "daemon off; master_process off; pid {directory}/pid; error_log stderr;\nevents {{}}\n\
                     http {{\naccess_log off;\n{temporary}{file}}}\n"
                )
            }
        }
    }

    fn command(self) -> Command {
        let (name, args): (_, &[&str]) = match self {
            Self::HaProxy => ("haproxy", &["-db", "-f"]),
            Self::Nginx => ("nginx", &["-e", "stderr", "-c"]),
            Self::Caddy => ("caddy", &["run", "--adapter", "caddyfile", "--config"]),
        };
        let mut command = Command::new(name);
        command.args(args);
        command
    }
}

/// A file of deploy/balancers.
fn example(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(root.join("deploy/balancers").join(name)).unwrap()
}

/// Replaces a part that has to be there.
fn replace(text: &str, part: &str, by: &str) -> String {
    assert!(text.contains(part), "{part} is not in\n{text}");
    text.replace(part, by)
}

/// A running balancer; killed when dropped.
struct Deployed {
    addr: SocketAddr,
    process: Child,
    _directory: TempDir,
}

impl Deployed {
    async fn start(product: Product, nodes: Vec<SocketAddr>) -> Self {
        Self::start_with(product, nodes, IDLE).await
    }

    /// With another time that a side may be silent.
    async fn start_with(product: Product, nodes: Vec<SocketAddr>, idle: &str) -> Self {
        let (directory, addr) = (tempfile::tempdir().unwrap(), free_address());
        let (place, here) = product.place(addr);
        let mut text = replace(&example(product.file()), place, &here);
        for (number, node) in (1..).zip(&nodes) {
            text = replace(&text, &format!("10.0.0.{number}:3000"), &node.to_string());
        }
        // Caddy has no such bound.
        if product != Product::Caddy {
            text = replace(&text, IDLE, idle);
        }
        let file = directory.path().join(product.file());
        std::fs::write(&file, product.around(&text, directory.path().to_str().unwrap())).unwrap();
        let mut command = product.command();
        command.arg(&file).current_dir(&directory).env("HOME", directory.path());
        let process = command.spawn().expect("the balancer; see `make test`");
        let mut deployed = Self { addr, process, _directory: directory };
        deployed.listens().await;
        deployed
    }

    async fn listens(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.addr).await.is_err() {
            assert!(Instant::now() < deadline, "the balancer does not start");
            assert_eq!(self.process.try_wait().unwrap(), None, "the balancer has ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Front for Deployed {
    fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Deployed {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Three nodes with the events of tests/js/dialect.js, and a balancer in front of them.
fn talkers(product: Product, runtime: &Runtime) -> ([Talker; 3], Deployed) {
    let engine = engine::Config { ping_interval: PING_INTERVAL, ..engine::Config::default() };
    let nodes = Talker::three(&engine, &Config::default());
    let addresses = nodes.iter().map(Talker::addr).collect();
    let balancer = runtime.block_on(Deployed::start_with(product, addresses, SHORT_IDLE));
    (nodes, balancer)
}

/// The packets that a page gets, which polls with script elements.
async fn jsonp(front: &Deployed, path: &str) -> String {
    let (status, script) = http(front.addr(), "GET", path, "").await;
    assert_eq!(status, 200, "{script}");
    let packets = script.strip_prefix("___eio[0](").and_then(|rest| rest.strip_suffix(");")).unwrap();
    serde_json::from_str(packets).unwrap()
}

async fn a_page_polls_with_scripts(front: &Deployed) {
    let path = "/socket.io/?EIO=4&transport=polling&j=0";
    let opened: Value = serde_json::from_str(&jsonp(front, path).await[1..]).unwrap();
    let path = format!("{path}&sid={}", opened["sid"].as_str().unwrap());
    for (sent, got) in [("40", "40{"), (r#"420["message-with-ack","é"]"#, r#"430["é"]"#)] {
        let form = format!("d={}", form_urlencoded::byte_serialize(sent.as_bytes()).collect::<String>());
        assert_eq!(http(front.addr(), "POST", &path, &form).await.0, 200);
        let packets = jsonp(front, &path).await;
        assert!(packets.starts_with(got), "{packets}");
    }
}

/// A server that answers whoever has no session yet, and ends in the middle of the requests of the others, which it counts.
async fn dying(asked: Arc<AtomicUsize>) -> (SocketAddr, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let answer = move |request: Request<Incoming>| {
        let dies = request.uri().query().unwrap_or_default().contains("sid=");
        asked.fetch_add(usize::from(dies), Ordering::SeqCst);
        std::future::ready(match dies {
            true => Err(std::io::Error::other("it dies")),
            false => Ok(Response::new(Empty::<Bytes>::new())),
        })
    };
    let accepting = AbortOnDropHandle::new(tokio::spawn(async move {
        let tasks = tokio_util::task::TaskTracker::new();
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(answer.clone());
            let serving =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tasks.spawn(async move { drop(serving.await) });
        }
    }));
    (addr, accepting)
}

macro_rules! with_each_balancer {
    ($(fn $name:ident($product:ident: Product) $body:block)*) => {$(
        mod $name {
            use super::*;

            fn run($product: Product) $body

            #[test]
            fn haproxy() {
                run(Product::HaProxy);
            }

            #[test]
            fn nginx() {
                run(Product::Nginx);
            }

            #[test]
            fn caddy() {
                run(Product::Caddy);
            }
        }
    )*};
}

with_each_balancer! {
    fn stock_clients_talk_through(product: Product) {
        let balance = async |nodes| Deployed::start(product, nodes).await;
        Runtime::new().unwrap().block_on(Box::pin(clients_talk_through(Kind::Redis, balance)));
    }

    fn clients_of_every_kind_talk_fall_silent_and_talk_again_through(product: Product) {
        let runtime = Runtime::new().unwrap();
        let (_nodes, front) = talkers(product, &runtime);
        Script::run("behind.js", &[("URL", &front.url())]);
    }

    fn pages_that_poll_with_script_elements_talk_through(product: Product) {
        let runtime = Runtime::new().unwrap();
        let (_nodes, front) = talkers(product, &runtime);
        runtime.block_on(a_page_polls_with_scripts(&front));
    }

    fn nothing_acknowledged_is_lost_when_the_owner_of_a_polling_session_is_killed_behind(product: Product) {
        let balance = async |nodes| Deployed::start(product, nodes).await;
        Runtime::new().unwrap().block_on(Box::pin(the_owner_dies_behind(Kind::Redis, "polling", balance)));
    }

    fn nothing_acknowledged_is_lost_when_the_owner_of_a_websocket_is_killed_behind(product: Product) {
        let balance = async |nodes| Deployed::start(product, nodes).await;
        Runtime::new().unwrap().block_on(Box::pin(the_owner_dies_behind(Kind::Redis, "upgrade", balance)));
    }

    fn a_rolling_restart_loses_nothing_and_nobody_is_away_for_long_behind(product: Product) {
        // Longer than a balancer takes to notice that a node is not ready.
        let settings = [("IMKS_DRAIN_DELAY", "4s")];
        restart_behind(Kind::Redis, &settings, async |nodes| Deployed::start(product, nodes).await);
    }

    // What the node that died had got from the owner of the session would be missing, and nobody would know.
    fn a_request_that_a_dying_node_has_got_is_never_sent_again_by(product: Product) {
        Runtime::new().unwrap().block_on(async {
            let asked = Arc::new(AtomicUsize::new(0));
            let nodes = [dying(asked.clone()).await, dying(asked.clone()).await, dying(asked.clone()).await];
            let front = Deployed::start(product, nodes.iter().map(|(addr, _)| *addr).collect()).await;
            for (count, method) in [(1, "GET"), (2, "POST")] {
                // Connections to the nodes that were used before are another case in some balancers.
                for _ in 0..9 {
                    assert_eq!(http(front.addr(), "GET", "/socket.io/", "").await.0, 200);
                }
                assert_eq!(http(front.addr(), method, "/socket.io/?sid=x", "").await.0, 502);
                assert_eq!(asked.load(Ordering::SeqCst), count, "{method}");
            }
        });
    }

    fn limits_of_an_address_are_about_the_client_and_not_about(product: Product) {
        Runtime::new().unwrap().block_on(async {
            let node = TestServer::start_with(crate::server::Kind::Sqlite, |config| {
                config.http.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
                config.http.sessions_per_address = Rate::new(1, 3);
            })
            .await;
            let front = Deployed::start(product, vec![node.addr(); 3]).await;
            let opens = async |from: &str| {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
                let stream = socket.connect(front.addr()).await.unwrap();
                http_over(stream, "GET", "/socket.io/?EIO=4&transport=polling", "").await.0
            };
            let mut crowd = Vec::new();
            for _ in 0..30 {
                crowd.push(opens("127.0.0.2").await);
            }
            assert!(crowd.starts_with(&[200; 3]) && crowd.contains(&429), "{crowd:?}");
            assert_eq!(opens("127.0.0.3").await, 200);
            node.stop().await;
        });
    }
}

#[test]
fn the_document_shows_the_files_that_are_tested() {
    let document =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/scale-out.md")).unwrap();
    for name in ["haproxy.cfg", "nginx.conf", "Caddyfile", "traefik.yml"] {
        assert!(document.contains(&example(name)), "deploy/balancers/{name} is not in docs/scale-out.md");
    }
}
