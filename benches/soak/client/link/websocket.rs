//! A session carried by a WebSocket, or about to be.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::super::{
    Outcome,
    frame::{self, Incoming},
    packet::Packet,
};
use super::Version;

pub struct WebSocket {
    stream: TcpStream,
    input: Vec<u8>,
}

impl WebSocket {
    pub async fn open(address: SocketAddr, version: Version, sid: Option<&str>) -> Outcome<Self> {
        let mut stream = TcpStream::connect(address).await?;
        let version = if version == Version::V3 { 3 } else { 4 };
        let sid = sid.map(|sid| format!("&sid={sid}")).unwrap_or_default();
        let request = format!(
            "GET /socket.io/?EIO={version}&transport=websocket{sid} HTTP/1.1\r\nHost: {address}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut input = Vec::new();
        let end = loop {
            if let Some(at) = input.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut input).await? == 0 {
                return Err("closed before the WebSocket was open".into());
            }
        };
        if !input.starts_with(b"HTTP/1.1 101") {
            return Err(format!("no WebSocket: {}", String::from_utf8_lossy(&input)).into());
        }
        input.drain(..end);
        Ok(Self { stream, input })
    }

    pub async fn send(&mut self, packet: &Packet) -> Outcome<()> {
        let frame = match packet {
            Packet::Text(text) => frame::text(text),
            Packet::Binary(data) => frame::masked(0x82, data),
        };
        Ok(self.stream.write_all(&frame).await?)
    }

    /// `None` at a close frame and at the end of the connection.
    pub async fn next(&mut self) -> Outcome<Option<Packet>> {
        loop {
            while let Some(frame) = Incoming::parse(&self.input) {
                let (opcode, payload, used) = (frame.opcode, frame.payload.to_vec(), frame.len);
                self.input.drain(..used);
                match opcode {
                    1 => return Ok(Some(Packet::Text(String::from_utf8(payload)?))),
                    2 => return Ok(Some(Packet::Binary(payload))),
                    8 => return Ok(None),
                    _ => {}
                }
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return Ok(None),
                Ok(_) => {}
            }
        }
    }

    /// The closing handshake.
    pub async fn close(&mut self) -> Outcome<()> {
        self.stream.write_all(&frame::masked(0x88, &1000_u16.to_be_bytes())).await?;
        while self.next().await?.is_some() {}
        Ok(())
    }
}
