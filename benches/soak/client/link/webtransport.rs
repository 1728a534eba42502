//! A session carried by the one stream of a WebTransport session.

use std::net::{SocketAddr, UdpSocket};

use socket2::SockRef;
use wtransport::{
    ClientConfig, Connection, Endpoint, RecvStream, SendStream, VarInt, endpoint::endpoint_side::Client,
    tls::Sha256Digest,
};

use super::super::{Outcome, packet::Packet};

/// One UDP socket for all sessions.
pub struct Dialer(Endpoint<Client>);

impl Dialer {
    /// For a server whose certificate has one of these hashes.
    pub fn new(hashes: impl IntoIterator<Item = [u8; 32]>) -> Outcome<Self> {
        let socket = UdpSocket::bind(("127.0.0.1", 0))?;
        // What the server says to many clients at once has to fit in.
        SockRef::from(&socket).set_recv_buffer_size(BUFFER_BYTES)?;
        let config = ClientConfig::builder()
            .with_bind_socket(socket)
            .with_server_certificate_hashes(hashes.into_iter().map(Sha256Digest::new))
            .build();
        Ok(Self(Endpoint::client(config)?))
    }

    pub async fn open(&self, address: SocketAddr) -> Outcome<WebTransport> {
        let connection = self.0.connect(format!("https://{address}/socket.io/")).await?;
        let (sending, receiving) = connection.open_bi().await?.await?;
        let mut stream = WebTransport { connection, sending, receiving };
        stream.send(&Packet::Text("0".into())).await?;
        Ok(stream)
    }
}

pub struct WebTransport {
    connection: Connection,
    sending: SendStream,
    receiving: RecvStream,
}

impl WebTransport {
    pub async fn send(&mut self, packet: &Packet) -> Outcome<()> {
        let (flag, payload) = match packet {
            Packet::Text(text) => (0, text.as_bytes()),
            Packet::Binary(data) => (0x80, &data[..]),
        };
        let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126);
        let mut frame = vec![flag | length.ok_or("a client of this program has little to say")?];
        frame.extend_from_slice(payload);
        Ok(self.sending.write_all(&frame).await?)
    }

    /// `None` at the end of the session.
    pub async fn next(&mut self) -> Outcome<Option<Packet>> {
        let Some([first]) = self.take().await else { return Ok(None) };
        let length = match first & 0x7F {
            126 => self.take().await.map(u16::from_be_bytes),
            127 => return Err("a frame of more than 64 KiB".into()),
            short => Some(short.into()),
        };
        let Some(length) = length else { return Ok(None) };
        let mut payload = vec![0; length.into()];
        if self.receiving.read_exact(&mut payload).await.is_err() {
            return Ok(None);
        }
        Ok(Some(match first & 0x80 {
            0 => Packet::Text(String::from_utf8(payload)?),
            _ => Packet::Binary(payload),
        }))
    }

    async fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.receiving.read_exact(&mut bytes).await.ok()?;
        Some(bytes)
    }

    pub async fn close(&mut self) -> Outcome<()> {
        self.connection.close(VarInt::from_u32(0), b"");
        Ok(())
    }
}

const BUFFER_BYTES: usize = 2 << 20;
