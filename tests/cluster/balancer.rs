//! A load balancer that is as unkind as it may be: it sends every request to another node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// What stands in front of the nodes of a test.
pub trait Front {
    fn addr(&self) -> SocketAddr;

    fn url(&self) -> String {
        format!("http://{}", self.addr())
    }
}

/// Where requests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Each to the next node that takes a connection.
    RoundRobin,
    /// Sessions begin on the first node, and all that follows goes to the others.
    NeverTheOwner,
}

pub struct Balancer {
    addr: SocketAddr,
    _accepting: AbortOnDropHandle<()>,
    _checking: Option<AbortOnDropHandle<()>>,
}

struct Nodes {
    all: Vec<SocketAddr>,
    /// Whether each of them is ready, as far as anybody asks.
    are_ready: Vec<AtomicBool>,
    rule: Rule,
    next: AtomicUsize,
    tasks: TaskTracker,
}

type Answer = Response<Either<Incoming, Full<Bytes>>>;

impl Balancer {
    pub async fn start(all: Vec<SocketAddr>, rule: Rule) -> Self {
        Self::begin(all, rule, false).await
    }

    /// Like HAProxy with `option httpchk GET /health/ready`: nothing new goes to a node that is not ready.
    pub async fn start_checking(all: Vec<SocketAddr>, rule: Rule) -> Self {
        Self::begin(all, rule, true).await
    }

    async fn begin(all: Vec<SocketAddr>, rule: Rule, checks: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let are_ready = all.iter().map(|_| AtomicBool::new(true)).collect();
        let (next, tasks) = (AtomicUsize::new(0), TaskTracker::new());
        let nodes = Arc::new(Nodes { all, are_ready, rule, next, tasks });
        let checking = checks.then(|| AbortOnDropHandle::new(tokio::spawn(check(nodes.clone()))));
        let accepting = async move {
            while let Ok((client, _)) = listener.accept().await {
                nodes.tasks.spawn(serve(nodes.clone(), client));
            }
        };
        let accepting = AbortOnDropHandle::new(tokio::spawn(accepting));
        Self { addr, _accepting: accepting, _checking: checking }
    }
}

impl Front for Balancer {
    fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// Passes on the requests of one client, until it leaves.
async fn serve(nodes: Arc<Nodes>, client: TcpStream) {
    let service = service_fn(move |request| {
        let nodes = nodes.clone();
        async move { Ok::<_, std::convert::Infallible>(nodes.pass(request).await) }
    });
    let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(client), service);
    drop(serving.with_upgrades().await);
}

impl Nodes {
    async fn pass(&self, mut request: Request<Incoming>) -> Answer {
        let begins = !request.uri().query().unwrap_or_default().contains("sid=");
        let Some(stream) = self.connect(begins).await else { return bad_gateway() };
        let Ok((mut sender, connection)) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await
        else {
            return bad_gateway();
        };
        // Dropped with the request: a node learns that a client has gone.
        let driver =
            AbortOnDropHandle::new(self.tasks.spawn(async move { drop(connection.with_upgrades().await) }));
        let client = hyper::upgrade::on(&mut request);
        let Ok(mut response) = sender.send_request(request).await else { return bad_gateway() };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let node = hyper::upgrade::on(&mut response);
            self.tasks.spawn(async move {
                let (Ok(client), Ok(node)) = tokio::join!(client, node) else { return };
                let _ = copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(node)).await;
                drop(driver);
            });
            return response.map(Either::Left);
        }
        let (head, body) = response.into_parts();
        match http_body_util::BodyExt::collect(body).await {
            Ok(body) => Response::from_parts(head, Either::Right(Full::new(body.to_bytes()))),
            Err(_) => bad_gateway(),
        }
    }

    async fn connect(&self, begins: bool) -> Option<TcpStream> {
        let nodes = match (self.rule, begins) {
            (Rule::RoundRobin, _) => &self.all[..],
            (Rule::NeverTheOwner, true) => &self.all[..1],
            (Rule::NeverTheOwner, false) => &self.all[1..],
        };
        for _ in nodes {
            let node = nodes[self.next.fetch_add(1, Ordering::SeqCst) % nodes.len()];
            if self.is_ready(node)
                && let Ok(stream) = TcpStream::connect(node).await
            {
                return Some(stream);
            }
        }
        None
    }

    fn is_ready(&self, node: SocketAddr) -> bool {
        let place = self.all.iter().position(|it| *it == node);
        place.is_some_and(|place| self.are_ready[place].load(Ordering::SeqCst))
    }
}

/// Asks all nodes again and again whether they are ready.
async fn check(nodes: Arc<Nodes>) {
    loop {
        for (node, is_ready) in nodes.all.iter().zip(&nodes.are_ready) {
            let answer = timeout(CHECK_MAX, ready(*node)).await;
            is_ready.store(matches!(answer, Ok(Ok(true))), Ordering::SeqCst);
        }
        sleep(CHECK_INTERVAL).await;
    }
}

async fn ready(node: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(node).await?;
    let request = format!("GET /health/ready HTTP/1.1\r\nHost: {node}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200 "))
}

/// How often a node is asked whether it is ready.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// How long it may take to answer.
const CHECK_MAX: Duration = Duration::from_secs(2);

fn bad_gateway() -> Answer {
    let mut response = Response::new(Either::Right(Full::default()));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}
