//! Socket.IO in front of an application that somebody else serves: as a layer of axum, and of a service on hyper.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use imks::client::{Client, Transports};
use imks::http::{SocketIo, listener};
use imks::socket::{Reply, Server, Socket};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;
use tower::{Layer, service_fn};

use crate::within;

fn io() -> SocketIo {
    let server = Server::builder(Default::default()).namespace("/", |ns| {
        ns.on_typed("peer", |socket: Socket, ()| async move { Reply(socket.handshake().peer.ip()) });
    });
    SocketIo::start(server.build().unwrap(), Default::default()).unwrap()
}

/// The status and the body of a page.
async fn page(addr: SocketAddr, path: &str) -> (u16, String) {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    TaskTracker::new().spawn(connection);
    let request = Request::get(path).header("host", "localhost").body(Full::<Bytes>::default()).unwrap();
    let answer = within(sender.send_request(request)).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Whom the server sees, over each transport.
async fn peers(addr: SocketAddr) -> Vec<String> {
    let mut peers = Vec::new();
    for transports in [Transports::default(), Transports::upgrade()] {
        let client = Client::builder(&format!("http://{addr}")).transports(transports).connect();
        let socket = within(within(client).await.unwrap().namespace("/")).await.unwrap();
        peers.push(within(socket.ask("peer", &())).await.unwrap());
    }
    peers
}

#[tokio::test]
async fn a_layer_of_an_axum_application_answers_clients_and_passes_everything_else_on() {
    let io = io();
    let app = Router::new()
        .route("/", get(async || "mine"))
        .fallback(async || (axum::http::StatusCode::NOT_FOUND, "nowhere"))
        .layer(io.clone())
        .into_make_service_with_connect_info::<SocketAddr>();
    let listener = listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = listener.local_addr().unwrap();
    let tasks = TaskTracker::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });

    assert_eq!(page(addr, "/").await, (200, "mine".into()));
    assert_eq!(page(addr, "/socket.io").await, (404, "nowhere".into()), "the path of the engine ends with /");
    let (status, body) = page(addr, "/socket.io/?EIO=4&transport=nothing").await;
    assert_eq!((status, body.as_str()), (400, r#"{"code":0,"message":"Transport unknown"}"#));
    assert_eq!(peers(addr).await, ["127.0.0.1", "127.0.0.1"]);
    within(io.close()).await;
}

async fn mine(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from(request.uri().path().to_owned())))
}

#[tokio::test]
async fn a_layer_of_a_service_on_hyper_learns_the_address_of_its_clients_from_the_listener() {
    let io = io();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (tasks, layer) = (TaskTracker::new(), io.clone());
    let connections = tasks.clone();
    tasks.spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let app = layer.layer(service_fn(mine));
            let app = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(peer);
                tower::ServiceExt::oneshot(app.clone(), request)
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            connections.spawn(async move {
                let service = TowerToHyperService::new(app);
                let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
                // A client may go without a word.
                drop(served);
            });
        }
    });

    assert_eq!(page(addr, "/mine").await, (200, "/mine".into()));
    assert_eq!(peers(addr).await, ["127.0.0.1", "127.0.0.1"]);
    within(io.close()).await;
}
