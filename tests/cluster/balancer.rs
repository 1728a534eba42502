//! A load balancer that is as unkind as it may be: it sends every request to another node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// Where requests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Each to the next node that takes a connection.
    RoundRobin,
    /// Sessions begin on the first node, and all that follows goes to the others.
    NeverTheOwner,
}

pub struct Balancer {
    pub addr: SocketAddr,
    _accepting: AbortOnDropHandle<()>,
}

struct Nodes {
    all: Vec<SocketAddr>,
    rule: Rule,
    next: AtomicUsize,
    tasks: TaskTracker,
}

type Answer = Response<Either<Incoming, Full<Bytes>>>;

impl Balancer {
    pub async fn start(all: Vec<SocketAddr>, rule: Rule) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let nodes = Arc::new(Nodes { all, rule, next: AtomicUsize::new(0), tasks: TaskTracker::new() });
        let accepting = async move {
            while let Ok((client, _)) = listener.accept().await {
                nodes.tasks.spawn(serve(nodes.clone(), client));
            }
        };
        Self { addr, _accepting: AbortOnDropHandle::new(tokio::spawn(accepting)) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
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
            let next = self.next.fetch_add(1, Ordering::SeqCst);
            if let Ok(stream) = TcpStream::connect(nodes[next % nodes.len()]).await {
                return Some(stream);
            }
        }
        None
    }
}

fn bad_gateway() -> Answer {
    let mut response = Response::new(Either::Right(Full::default()));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}
