//! One HTTP request on a connection of its own.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What the server answered.
pub struct Response {
    pub status: u16,
    /// In lower case.
    pub head: String,
    pub body: Value,
}

impl Response {
    /// The status, and the code of an error.
    pub fn code(&self) -> (u16, &str) {
        (self.status, self.body["error"]["code"].as_str().unwrap_or_default())
    }

    /// The data of an answer that must be a success.
    pub fn data(mut self) -> Value {
        assert_eq!(self.body["ok"], true, "{}", self.body);
        self.body["data"].take()
    }

    /// The field that a refusal is about.
    pub fn field(&self) -> &str {
        self.body["error"]["details"]["field"].as_str().unwrap_or_default()
    }
}

/// Sends a request such as `GET /health`.
pub async fn send(addr: SocketAddr, request: &str, headers: &[(&str, &str)], body: &str) -> Response {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let is_named = headers.contains("host: ");
    let host = if is_named { "" } else { "Host: localhost\r\n" };
    let head =
        format!("{request} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // A refusal may come before all of the body is read.
    let _ = stream.write_all(body.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let body = serde_json::from_str(body).unwrap_or_else(|_| panic!("not JSON: {answer}"));
    Response { status: head[9..12].parse().unwrap(), head: head.to_lowercase(), body }
}
