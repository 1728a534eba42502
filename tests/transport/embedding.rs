//! A server of one's own on the library, which listens over TCP and QUIC: `examples/webtransport.rs`.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use imks::http::SocketIo;
use imks::http::certificate::ServerCertificate;
use imks::http::webtransport::HASHES_PATH;
use imks::socket::Server;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::certificate::{Files, Made};
use super::wt_client::{Session, Stream};
use crate::example;
use crate::support::{Answer, within};

/// The hash of the certificate in the files.
fn hash(files: &Files) -> [u8; 32] {
    let now = imks::testing::clock::now_micros();
    ServerCertificate::read(&files.cert(), &files.key(), now).unwrap().sha256
}

/// What a GET is answered with.
async fn get(addr: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    within(stream.write_all(head.as_bytes())).await.unwrap();
    within(Answer::read(&mut stream)).await.body
}

/// A client of the namespace `/`, over WebTransport.
async fn join(addr: SocketAddr, hash: [u8; 32]) -> Stream {
    let session = Session::dial(addr, "/socket.io/", vec![hash]).await.unwrap();
    let mut stream = session.stream("0").await;
    assert!(stream.text().await.starts_with(r#"0{"sid":""#));
    assert!(stream.says("40").await.starts_with(r#"40{"sid":""#));
    stream
}

#[tokio::test]
async fn an_application_serves_webtransport_with_its_certificate_and_takes_a_new_one_while_clients_stay() {
    let files = Files::new(&Made::good());
    let paths = [files.cert(), files.key()].map(|path| path.to_str().unwrap().to_owned());
    let io = example::builder(&paths).unwrap().build().unwrap();
    let bound = io.bind(([127, 0, 0, 1], 0)).unwrap();
    let (addr, udp) = (bound.addr(), bound.webtransport_addr().unwrap());
    assert_eq!(addr.port(), udp.port(), "clients look for both on one port");
    let tasks = TaskTracker::new();
    let serving = tasks.spawn(bound.serve());
    let old = hash(&files);
    let mut first = join(udp, old).await;
    assert_eq!(first.says(r#"421["transport"]"#).await, r#"431["webtransport"]"#);

    files.write(&Made::good());
    io.reload_certificate().unwrap();
    let new = hash(&files);
    assert_ne!(old, new);
    assert!(Session::dial(udp, "/socket.io/", vec![old]).await.is_err(), "new connections see the new one");
    let mut second = join(udp, new).await;
    assert_eq!(second.says(r#"421["transport"]"#).await, r#"431["webtransport"]"#);
    assert_eq!(first.says(r#"422["transport"]"#).await, r#"432["webtransport"]"#, "open ones go on");

    std::fs::write(files.cert(), "no certificate").unwrap();
    assert!(io.reload_certificate().is_err());
    join(udp, new).await;
    within(io.close()).await;
    within(serving).await.unwrap();
    assert_eq!(first.next().await, None);
}

#[tokio::test]
async fn without_files_a_certificate_for_development_is_known_by_its_hash() {
    let io = example::builder(&[]).unwrap().build().unwrap();
    let bound = io.bind(([127, 0, 0, 1], 0)).unwrap();
    let (addr, udp) = (bound.addr(), bound.webtransport_addr().unwrap());
    let tasks = TaskTracker::new();
    tasks.spawn(bound.serve());
    let hashes: Value = serde_json::from_str(&get(addr, HASHES_PATH).await).unwrap();
    let hash = STANDARD.decode(hashes["hashes"][0]["value"].as_str().unwrap());
    let mut client = join(udp, hash.unwrap().try_into().unwrap()).await;
    assert_eq!(client.says(r#"421["transport"]"#).await, r#"431["webtransport"]"#);
    let opened = get(addr, "/socket.io/?EIO=4&transport=polling").await;
    assert!(opened.contains(r#""upgrades":["websocket","webtransport"]"#), "{opened}");
    within(io.close()).await;
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_told_before_anything_listens() {
    let server = || Server::builder(Default::default()).namespace("/", |_| {}).build().unwrap();
    let nowhere = SocketIo::builder(server()).with_cert_path("/nowhere.pem").with_key_path("/nowhere.key");
    assert!(nowhere.build().unwrap_err().to_string().contains("/nowhere.pem"));
    let half = SocketIo::builder(server()).with_cert_path("/nowhere.pem").build().unwrap_err().to_string();
    assert!(half.contains("private key"), "{half}");
    let plain = SocketIo::builder(server()).build().unwrap();
    assert_eq!(plain.bind(([127, 0, 0, 1], 0)).unwrap().webtransport_addr(), None);
}
