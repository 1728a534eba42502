//! A session carried by HTTP requests, one after the other on one connection.

use std::{collections::VecDeque, net::SocketAddr};

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::super::{Outcome, packet::Packet};
use super::Version;

pub struct Polling {
    stream: TcpStream,
    address: SocketAddr,
    version: Version,
    pub sid: String,
    input: Vec<u8>,
    received: VecDeque<Packet>,
}

impl Polling {
    pub async fn open(address: SocketAddr, version: Version) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        let (sid, input, received) = (String::new(), Vec::new(), VecDeque::new());
        let mut polling = Self { stream, address, version, sid, input, received };
        match polling.next().await? {
            Some(Packet::Text(open)) if open.starts_with('0') => {
                let open: serde_json::Value = serde_json::from_str(&open[1..])?;
                polling.sid = open["sid"].as_str().ok_or("no sid")?.to_owned();
                Ok(polling)
            }
            other => Err(format!("no OPEN packet: {other:?}").into()),
        }
    }

    pub async fn send(&mut self, packet: &Packet) -> Outcome<()> {
        let packet = match packet {
            Packet::Text(text) => text.clone(),
            Packet::Binary(data) => format!("b{}", STANDARD.encode(data)),
        };
        let body = match self.version {
            Version::V4 => packet,
            Version::V3 => format!("{}:{packet}", packet.encode_utf16().count()),
        };
        self.request("POST", &body).await?;
        match self.answer().await? {
            (200, _) => Ok(()),
            (status, body) => Err(format!("POST was answered with {status} {body}").into()),
        }
    }

    /// Packets come as they are asked for; `None` once the session is unknown or the connection closed.
    pub async fn next(&mut self) -> Outcome<Option<Packet>> {
        while self.received.is_empty() {
            if self.poll().await.is_err() {
                return Ok(None);
            }
            match self.answer().await {
                Ok((200, body)) => self.take(&body)?,
                _ => return Ok(None),
            }
        }
        Ok(self.received.pop_front())
    }

    /// Asks, and leaves the answer where it is.
    pub async fn poll(&mut self) -> Outcome<()> {
        self.request("GET", "").await
    }

    fn take(&mut self, body: &str) -> Outcome<()> {
        if self.version == Version::V4 {
            for packet in body.split('\x1e') {
                self.received.push_back(match packet.strip_prefix('b') {
                    Some(data) => Packet::Binary(STANDARD.decode(data)?),
                    None => Packet::Text(packet.to_owned()),
                });
            }
            return Ok(());
        }
        let mut rest = body;
        while let Some((length, after)) = rest.split_once(':') {
            // In these conversations a character is a byte.
            let (packet, after) =
                after.split_at_checked(length.parse()?).ok_or("a payload that is cut off")?;
            self.received.push_back(Packet::Text(packet.to_owned()));
            rest = after;
        }
        Ok(())
    }

    async fn request(&mut self, method: &str, body: &str) -> Outcome<()> {
        let Self { sid, address, .. } = self;
        let version = if self.version == Version::V3 { "3&b64=1" } else { "4" };
        let sid = if sid.is_empty() { String::new() } else { format!("&sid={sid}") };
        let request = format!(
            "{method} /socket.io/?EIO={version}&transport=polling{sid} HTTP/1.1\r\nHost: {address}\r\n\
             Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Ok(self.stream.write_all(request.as_bytes()).await?)
    }

    async fn answer(&mut self) -> Outcome<(u16, String)> {
        loop {
            if let Some(answer) = self.parse() {
                return Ok(answer);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err("the server closed the HTTP connection".into());
            }
        }
    }

    fn parse(&mut self) -> Option<(u16, String)> {
        let end = self.input.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.input[..end]).to_lowercase();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let length: usize =
            head.split("content-length:").nth(1)?.split("\r\n").next()?.trim().parse().ok()?;
        let body = String::from_utf8_lossy(self.input.get(end..end + length)?).into_owned();
        self.input.drain(..end + length);
        Some((status, body))
    }
}
