//! A small object store that verifies signatures as Amazon S3 does (Signature Version 4, in the query), and an HTTP
//! client that says what it got.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::crypto::sign;
use jsonwebtoken::{Algorithm, EncodingKey};
use parking_lot::Mutex;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

pub const KEY_ID: &str = "AKTEST";
pub const SECRET: &str = "a secret of the test";

type Objects = Arc<Mutex<HashMap<String, Vec<u8>>>>;

pub struct FakeS3 {
    addr: SocketAddr,
    objects: Objects,
}

impl FakeS3 {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, objects) = (listener.local_addr().unwrap(), Objects::default());
        let router = Router::new().fallback(answer).with_state(objects.clone());
        TaskTracker::new().spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { addr, objects }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn is_empty(&self) -> bool {
        self.objects.lock().is_empty()
    }
}

async fn answer(State(objects): State<Objects>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let headers: BTreeMap<String, String> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap().to_owned()))
        .collect();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    if !is_signed(parts.method.as_str(), parts.uri.path(), parts.uri.query().unwrap_or_default(), &headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let key = parts.uri.path().to_owned();
    let mut objects = objects.lock();
    match parts.method.as_str() {
        "PUT" => {
            let checksum = headers.get("x-amz-checksum-sha256");
            if checksum.is_some_and(|checksum| *checksum != STANDARD.encode(sha256(&body))) {
                return StatusCode::BAD_REQUEST.into_response();
            }
            // "Conditional writes": the only value is the asterisk.
            if headers.contains_key("if-none-match") && objects.contains_key(&key) {
                return StatusCode::PRECONDITION_FAILED.into_response();
            }
            objects.insert(key, body.to_vec());
            StatusCode::OK.into_response()
        }
        "DELETE" => {
            objects.remove(&key);
            StatusCode::NO_CONTENT.into_response()
        }
        "HEAD" | "GET" => match objects.get(&key) {
            Some(bytes) => Body::from(bytes.clone()).into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

/// "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)".
fn is_signed(method: &str, path: &str, query: &str, headers: &BTreeMap<String, String>) -> bool {
    let pairs: Vec<(&str, &str)> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let value = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let decoded = |name: &str| value(name).map(|value| value.replace("%2F", "/").replace("%3B", ";"));
    let (Some(credential), Some(date), Some(signed), Some(signature)) = (
        decoded("X-Amz-Credential"),
        value("X-Amz-Date"),
        decoded("X-Amz-SignedHeaders"),
        value("X-Amz-Signature"),
    ) else {
        return false;
    };
    let Some((key_id, scope)) = credential.split_once('/') else { return false };
    let mut sorted: Vec<String> = pairs
        .iter()
        .filter(|(name, _)| *name != "X-Amz-Signature")
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    sorted.sort();
    let mut canonical = String::new();
    for name in signed.split(';') {
        let Some(value) = headers.get(name) else { return false };
        canonical.push_str(&format!("{name}:{value}\n"));
    }
    let request = format!("{method}\n{path}\n{}\n{canonical}\n{signed}\nUNSIGNED-PAYLOAD", sorted.join("&"));
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&sha256(request.as_bytes())));
    let mut key = format!("AWS4{SECRET}").into_bytes();
    for part in scope.split('/') {
        key = hmac(&key, part);
    }
    key_id == KEY_ID && hex(&hmac(&key, &text)) == signature
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let signed = sign(text.as_bytes(), &EncodingKey::from_secret(key), Algorithm::HS256).unwrap();
    URL_SAFE_NO_PAD.decode(signed).unwrap()
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    TLS13_AES_128_GCM_SHA256.tls13().unwrap().common.hash_provider.hash(bytes).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a server answered.
pub struct Answer {
    pub status: u16,
    /// In lower case.
    pub head: String,
    pub body: Vec<u8>,
}

/// Sends one request on a connection of its own. `url` is a path, or an address of the same server.
pub async fn http(
    addr: SocketAddr,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let path = url.strip_prefix(&format!("http://{addr}")).unwrap_or(url);
    let headers = headers.iter().filter(|(name, _)| *name != "content-length");
    let headers: String = headers.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // A refusal may come before all of the body is read.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("an answer");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase();
    let chunked = head.contains("transfer-encoding: chunked");
    assert!(!chunked, "a file has a length");
    Answer { status: head[9..12].parse().unwrap(), head: head + "\r\n", body: answer[end + 4..].to_vec() }
}
