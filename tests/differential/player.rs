//! Plays the steps of a row against one server and notes what a client can see.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite};
use tungstenite::error::ProtocolError;
use tungstenite::protocol::CloseFrame;
use tungstenite::{Error, Message};

use super::application::PAYLOAD_MAX;
use super::exchange::{Answer, Exchange};

/// Longer than anything that is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is sent first has arrived by then. Where it has not, the step after it comes a little early, and no
/// note depends on that unless the machine stands still.
const PACE: Duration = Duration::from_millis(100);
/// A server that says nothing for so long has nothing more to say.
const SILENCE: Duration = Duration::from_millis(800);

/// Arrays in arrays: more than imks takes.
const DEEP: usize = 200;

const ALIVE: &str = r#"42["message","alive"]"#;
const BACK: &str = r#"42["message-back","alive"]"#;

/// Waits as long as is decent.
pub(crate) async fn patiently<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(PATIENCE, future).await.ok()
}

/// One client, or several that know the same session.
pub(crate) struct Player {
    address: SocketAddr,
    sid: String,
    /// The WebSocket that the steps are about.
    current: String,
    /// The text of its own last close frame.
    reason: String,
    sockets: BTreeMap<String, Option<WebSocketStream<TcpStream>>>,
    waiting: BTreeMap<String, Exchange>,
    /// One per step that sees something: the step and what it saw.
    pub(crate) notes: Vec<(String, String)>,
}

impl Player {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let (sockets, waiting) = (BTreeMap::new(), BTreeMap::new());
        Self {
            address,
            sid: String::new(),
            current: "ws".into(),
            reason: String::new(),
            sockets,
            waiting,
            notes: Vec::new(),
        }
    }

    /// The words are explained at the top of tests/differential/rows.txt.
    pub(crate) async fn step(&mut self, step: &str) {
        let (word, rest) = step.split_once(' ').unwrap_or((step, ""));
        let told = match word {
            "http" => Some(self.http(rest).await.told()),
            "send" => self.send_later(rest).await,
            "answer" => Some(self.waiting.remove(rest).expect("sent before").answer().await.told()),
            "abort" => self.abort(rest).await,
            "open" => self.open(rest).await,
            "post" => Some(self.post(rest).await.told()),
            "poll" => Some(self.poll(rest).await),
            "polled" => Some(self.polled().await),
            "ws" => Some(self.dial(rest).await),
            "use" => self.turn_to(rest),
            ">" => self.say(Message::text(self.filled(rest))).await,
            ">>" => self.say(Message::binary(bytes(&rest.replace("{empty}", "")))).await,
            "+>" => self.say_with_the_next(self.filled(rest)).await,
            "close" => self.close(rest).await,
            "hang-up" => self.hang_up().await,
            "until" => Some(self.hear(Some(rest), PATIENCE).await),
            "listen" => Some(self.hear(None, SILENCE).await),
            "closes" => Some(self.hear(None, PATIENCE).await),
            "fate" => Some(self.fate(ALIVE, BACK).await),
            "fate-by-connect" => Some(self.fate("40", "40{").await),
            _ => panic!("no such step: {step}"),
        };
        if let Some(told) = told {
            let told = anonymous(&told);
            self.notes.push((step.to_owned(), told));
        }
    }

    async fn request(&self, rest: &str) -> Exchange {
        let mut parts = rest.split(" ;; ");
        let line = self.filled(parts.next().unwrap_or_default()).replacen(" ?", " /socket.io/?", 1);
        let (mut headers, mut body) = (Vec::new(), None);
        for part in parts {
            match part.strip_prefix("body ").or((part == "body").then_some("")) {
                Some(text) => body = Some(self.filled(text)),
                None => headers.push(self.filled(part)),
            }
        }
        Exchange::send(self.address, &line, &headers, body.as_deref()).await.expect("the server listens")
    }

    async fn http(&mut self, rest: &str) -> Answer {
        let answer = self.request(rest).await.answer().await;
        self.learn(&answer.body);
        answer
    }

    async fn send_later(&mut self, rest: &str) -> Option<String> {
        let (name, rest) = rest.split_once(' ').expect("a name and a request");
        let exchange = self.request(rest).await;
        self.waiting.insert(name.to_owned(), exchange);
        tokio::time::sleep(PACE).await;
        None
    }

    async fn abort(&mut self, name: &str) -> Option<String> {
        drop(self.waiting.remove(name));
        tokio::time::sleep(PACE).await;
        None
    }

    async fn open(&mut self, more: &str) -> Option<String> {
        let answer = self.http(&format!("GET ?EIO=4&transport=polling{more}")).await;
        (answer.status != Some(200)).then(|| answer.told())
    }

    async fn post(&mut self, body: &str) -> Answer {
        self.http(&format!("POST ?EIO=4&transport=polling&sid={{sid}} ;; body {body}")).await
    }

    /// Polls until the answer is bad or has `wanted`: which packets come together is left to the server.
    async fn poll(&mut self, wanted: &str) -> String {
        let mut heard = Vec::new();
        loop {
            let answer = self.http("GET ?EIO=4&transport=polling&sid={sid}").await;
            if answer.status != Some(200) {
                heard.push(answer.told());
                return heard.join(" ");
            }
            heard.extend(answer.body.split('\x1e').map(str::to_owned));
            if heard.iter().any(|packet| packet.starts_with(wanted)) {
                return heard.join(" ");
            }
        }
    }

    /// Whether a polling session lives: an event comes back or it does not.
    async fn polled(&mut self) -> String {
        let posted = self.post(ALIVE).await;
        if posted.status == Some(200) { self.poll(BACK).await } else { posted.told() }
    }

    async fn dial(&mut self, target: &str) -> String {
        let target = match target {
            "" => "?EIO=4&transport=websocket".to_owned(),
            target => self.filled(target),
        };
        let url = format!("ws://test/socket.io/{target}");
        let stream = TcpStream::connect(self.address).await.expect("the server listens");
        let (told, socket) = match patiently(Box::pin(client_async(url, stream))).await {
            Some(Ok((socket, _))) => ("101".to_owned(), Some(socket)),
            Some(Err(Error::Http(response))) => {
                let body = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                (format!("{} {body}", response.status().as_u16()), None)
            }
            other => (format!("no HTTP: {:?}", other.map(|it| it.err())), None),
        };
        self.sockets.insert(self.current.clone(), socket);
        told
    }

    fn turn_to(&mut self, name: &str) -> Option<String> {
        name.clone_into(&mut self.current);
        None
    }

    async fn say(&mut self, message: Message) -> Option<String> {
        if let Some(Some(socket)) = self.sockets.get_mut(&self.current) {
            // A connection that is gone is noticed by the next step that listens.
            let _ = socket.send(message).await;
        }
        None
    }

    /// The frame leaves in one write with the next one.
    async fn say_with_the_next(&mut self, text: String) -> Option<String> {
        if let Some(Some(socket)) = self.sockets.get_mut(&self.current) {
            let _ = socket.feed(Message::text(text)).await;
        }
        None
    }

    /// `close`, `close 1000`, `close 1000 why`.
    async fn close(&mut self, rest: &str) -> Option<String> {
        let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        let frame =
            code.parse::<u16>().ok().map(|code| CloseFrame { code: code.into(), reason: reason.into() });
        self.reason = reason.to_owned();
        self.say(Message::Close(frame)).await
    }

    /// Ends the own half of the TCP connection without a close frame.
    async fn hang_up(&mut self) -> Option<String> {
        if let Some(Some(socket)) = self.sockets.get_mut(&self.current) {
            let _ = socket.get_mut().shutdown().await;
        }
        None
    }

    /// Frames until the one that is wanted, the close, or nothing for so long.
    async fn hear(&mut self, wanted: Option<&str>, silence: Duration) -> String {
        let Some(Some(socket)) = self.sockets.get_mut(&self.current) else { return "not open".into() };
        let mut heard = Vec::new();
        loop {
            let Ok(frame) = tokio::time::timeout(silence, socket.next()).await else {
                heard.push(if silence < PATIENCE { "silence" } else { "still open" }.to_owned());
                break;
            };
            match frame {
                Some(Ok(Message::Text(text))) => heard.push(text.to_string()),
                Some(Ok(Message::Binary(data))) => heard.push(hex(&data)),
                Some(Ok(Message::Close(frame))) => {
                    heard.push(closed(frame, &self.reason));
                    break;
                }
                Some(Ok(_)) => {}
                ended => {
                    heard.push(cut_off(ended.and_then(Result::err)).to_owned());
                    break;
                }
            }
            let last = heard.last().map(String::as_str).unwrap_or_default();
            if wanted.is_some_and(|wanted| last.starts_with(wanted)) {
                break;
            }
        }
        heard.join(" ")
    }

    /// Whether the connection of the WebSocket lives: it closes, or what is asked is answered.
    async fn fate(&mut self, question: &str, answer: &str) -> String {
        tokio::time::sleep(PACE).await;
        self.say(Message::text(question)).await;
        self.hear(Some(answer), PATIENCE).await
    }

    fn learn(&mut self, body: &str) {
        // As the argument of a script the packet is quoted once more.
        let plain = body.replace('\\', "");
        let script = plain.split_once(r#"("0{"sid":""#).map(|(_, rest)| rest);
        if let Some(rest) = plain.strip_prefix(r#"0{"sid":""#).or(script) {
            rest.split('"').next().unwrap_or_default().clone_into(&mut self.sid);
        }
    }

    fn filled(&self, text: &str) -> String {
        text.replace("{sid}", &self.sid)
            .replace("{RS}", "\x1e")
            .replace("{empty}", "")
            .replace("{big}", &"x".repeat(PAYLOAD_MAX))
            .replace(
                "{many headers}",
                &(0..101).map(|at| format!("x-{at}: 1")).collect::<Vec<_>>().join("\r\n"),
            )
            .replace("{deep}", &deep(DEEP))
    }
}

/// Without what differs between any two runs.
fn anonymous(told: &str) -> String {
    let told = told.replace(&deep(DEEP), "{deep}");
    let mut clean = String::new();
    let mut rest = &*told;
    while let Some(at) = rest.find(r#"sid":""#).or_else(|| rest.find(r#"sid\":\""#)) {
        let start = at + rest[at..].find(':').unwrap_or_default() + 1;
        let start = start + rest[start..].find('"').unwrap_or_default() + 1;
        clean.push_str(&rest[..start]);
        clean.push('…');
        rest = &rest[start..];
        rest = &rest[rest.find(['"', '\\']).unwrap_or_default()..];
    }
    clean.push_str(rest);
    clean.trim().to_owned()
}

fn deep(levels: usize) -> String {
    ["[", "]"].map(|it| it.repeat(levels)).concat()
}

/// A close frame. Its text is for people, and told only if it repeats the player's `own`.
fn closed(frame: Option<CloseFrame>, own: &str) -> String {
    let Some(frame) = frame else { return "closed".into() };
    let text = if *frame.reason == *own { own } else { "" };
    format!("closed {} {text}", u16::from(frame.code)).trim_end().to_owned()
}

fn cut_off(error: Option<Error>) -> &'static str {
    match error {
        None | Some(Error::ConnectionClosed) => "closed before",
        Some(Error::Io(_) | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => "cut off",
        Some(_) => "cut off after bytes that are no frame",
    }
}

fn hex(data: &[u8]) -> String {
    data.iter().fold("bytes".to_owned(), |text, byte| format!("{text} {byte:02x}"))
}

fn bytes(hex: &str) -> Vec<u8> {
    if hex.contains("{big}") {
        return vec![0; PAYLOAD_MAX + 1];
    }
    hex.split_whitespace().map(|it| u8::from_str_radix(it, 16).expect("two digits")).collect()
}
