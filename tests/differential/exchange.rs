//! One HTTP request and what came of it, without a library that would smooth anything over.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::player::patiently;

/// Headers that a client can tell.
const NOTED: &[&str] = &[
    "content-type",
    "cache-control",
    "content-encoding",
    "set-cookie",
    "access-control-allow-origin",
    "sec-websocket-version",
];

/// A request that was sent.
pub(crate) struct Exchange(TcpStream);

/// What came back.
pub(crate) struct Answer {
    /// None for what is no HTTP response.
    pub(crate) status: Option<u16>,
    pub(crate) body: String,
    headers: Vec<(String, String)>,
}

impl Exchange {
    /// `more` are header lines; `no NAME` leaves a usual one out. The body has no length if they say that it comes in
    /// chunks, or if they give one themselves.
    pub(crate) async fn send(
        address: SocketAddr,
        line: &str,
        more: &[String],
        body: Option<&str>,
    ) -> io::Result<Self> {
        let name = |header: &str| {
            header.trim_start_matches("no ").split(':').next().unwrap_or_default().to_ascii_lowercase()
        };
        let has = |wanted: &str| more.iter().any(|it| name(it) == wanted);
        let version = if line.contains(" HTTP/1.") { "" } else { " HTTP/1.1" };
        let mut request = format!("{line}{version}\r\n");
        let usual = ["Host: test", "Connection: close"].iter().filter(|it| !has(&name(it))).copied();
        // What is said last counts.
        let said = more.iter().enumerate().filter(|(at, it)| {
            !it.starts_with("no ") && !more[at + 1..].iter().any(|later| name(later) == name(it))
        });
        let headers = usual.chain(said.map(|(_, it)| it.as_str()));
        headers.for_each(|header| request.push_str(&format!("{header}\r\n")));
        let chunked = more.iter().any(|header| header.ends_with("chunked"));
        let mut request = raw(&request);
        if let Some(body) = body.map(raw) {
            if chunked && !has("content-length") {
                request.extend(format!("\r\n{:x}\r\n", body.len()).into_bytes());
                request.extend(body);
                request.extend(b"\r\n0\r\n");
            } else {
                if !has("content-length") {
                    request.extend(format!("Content-Length: {}\r\n", body.len()).into_bytes());
                }
                request.extend(b"\r\n");
                request.extend(body);
            }
        }
        if body.is_none() || chunked {
            request.extend(b"\r\n");
        }
        let mut stream = TcpStream::connect(address).await?;
        // Who refuses a body may close before it has read all of it.
        let _ = stream.write_all(&request).await;
        Ok(Self(stream))
    }

    pub(crate) async fn answer(mut self) -> Answer {
        let mut bytes = Vec::new();
        // A reset after the answer is an answer.
        let ended = patiently(self.0.read_to_end(&mut bytes)).await;
        let mut answer = Answer::parse(&bytes);
        if ended.is_none() && bytes.is_empty() {
            answer.body = "nothing".into();
        }
        answer
    }
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        // An interim answer says nothing of its own.
        let bytes = bytes.strip_prefix(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(bytes);
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let (head, body) = end.map_or((&[][..], bytes), |end| (&bytes[..end], &bytes[end + 4..]));
        let head = String::from_utf8_lossy(head);
        let headers: Vec<(String, String)> = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let body = if headers.iter().any(|(name, _)| name == "transfer-encoding") {
            unchunked(body)
        } else {
            body.to_vec()
        };
        let compressed = headers.iter().any(|(name, _)| name == "content-encoding");
        let body = if compressed { "compressed".into() } else { String::from_utf8_lossy(&body).into_owned() };
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Self { status, body, headers }
    }

    /// Status, the headers that count, body.
    pub(crate) fn told(&self) -> String {
        let Some(status) = self.status else { return format!("cut off {}", self.body) };
        let headers = self.headers.iter().filter(|(name, _)| NOTED.contains(&name.as_str()));
        let mut headers: Vec<String> = headers.map(|(name, value)| format!("{name}: {value}")).collect();
        // Their order says nothing.
        headers.sort();
        match headers.is_empty() {
            true => format!("{status} {}", self.body),
            false => format!("{status} ({}) {}", headers.join(", "), self.body),
        }
    }
}

/// The bytes of a text, in which `{xFF}` is one byte.
fn raw(text: &str) -> Vec<u8> {
    let mut parts = text.split("{x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.split_once('}').and_then(|(hex, rest)| Some((u8::from_str_radix(hex, 16).ok()?, rest))) {
            Some((byte, rest)) => {
                bytes.push(byte);
                bytes.extend(rest.as_bytes());
            }
            None => bytes.extend([b"{x", part.as_bytes()].concat()),
        }
    }
    bytes
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let length = std::str::from_utf8(&rest[..end]).ok().and_then(|it| usize::from_str_radix(it, 16).ok());
        let Some(chunk) = length.and_then(|length| rest.get(end + 2..end + 2 + length)) else { break };
        body.extend_from_slice(chunk);
        rest = rest.get(end + 4 + chunk.len()..).unwrap_or_default();
    }
    body
}
