//! The subset of HTTP/3 that one WebTransport session needs: settings, a session request and its response, a
//! stream, and the close. See RFC 9114, RFC 9220 and the WebTransport draft that browsers implement.
//!
//! `wtransport::proto` provides the encodings. The task that handles a session owns its QUIC connection from
//! the start, so that a peer that stops at any step is closed, and no other task is needed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use wtransport::VarInt;
use wtransport::proto::bytes::{BufferReader, BufferWriter};
use wtransport::proto::frame::{Frame, FrameKind};
use wtransport::proto::headers::Headers;
use wtransport::proto::session::{SessionRequest as Request, SessionResponse};
use wtransport::proto::settings::Settings;
use wtransport::proto::stream_header::StreamHeader;
use wtransport::quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt as QuicVarInt};

/// A value that is kept for the lifetime of a WebTransport session, for example a permit for a connection.
pub type Guard = Box<dyn Send + Sync>;

/// A request for a WebTransport session that waits for its response. Dropping it closes the connection.
pub struct SessionRequest {
    session: Session,
    request: Request,
}

/// A WebTransport session, which is the only use of its QUIC connection. Dropping it closes both.
pub(crate) struct Session {
    /// The first field, so that dropping the others sends nothing.
    closing: Closing,
    connection: Connection,
    /// The stream of the session request. The session lives as long as the stream is open.
    request: (SendStream, RecvStream),
    /// The server's control stream. Ending it before the connection is an error for the peer.
    _control: SendStream,
    /// The peer's control streams, whose content is ignored: there are no tables, pushes or other requests.
    _ignored: Vec<RecvStream>,
    /// The close code for the peer.
    code: u16,
}

/// A handle that closes the QUIC connection when dropped. Without it, the connection would stay open as long
/// as any stream of the peer is open.
struct Closing {
    connection: Connection,
    _guard: Guard,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.connection.close(NO_ERROR, b"");
    }
}

impl SessionRequest {
    /// Waits for the session request of a new connection. `guard` is kept until the session has ended.
    /// Returns `None` if the peer disconnects or requests anything else.
    pub async fn receive(connection: Connection, guard: Guard) -> Option<Self> {
        let closing = Closing { connection: connection.clone(), _guard: guard };
        let mut control = connection.open_uni().await.ok()?;
        control.write_all(&greeting()?).await.ok()?;
        let mut ignored = Vec::new();
        let mut request = loop {
            tokio::select! {
                stream = connection.accept_uni() => ignored.push(stream.ok()?),
                stream = connection.accept_bi() => break stream.ok()?,
            }
        };
        let parse = |frame: &Frame<'_>| match frame.kind() {
            FrameKind::Headers => {
                Some(Headers::with_frame(frame).ok().and_then(|it| Request::try_from(it).ok()))
            }
            FrameKind::Exercise(_) => None,
            _ => Some(None),
        };
        let (parsed, _) = read_frame(&mut request.1, parse).await?;
        let session =
            Session { closing, connection, request, _control: control, _ignored: ignored, code: 1000 };
        Some(Self { session, request: parsed? })
    }

    /// Returns the address of the other end of the QUIC connection.
    pub fn remote_address(&self) -> SocketAddr {
        self.session.connection.remote_address()
    }

    /// Returns the path and query.
    pub(crate) fn path(&self) -> &str {
        self.request.path()
    }

    /// Returns the host and port that the peer requested.
    pub(crate) fn authority(&self) -> &str {
        self.request.authority()
    }

    /// Returns all headers, including pseudo headers.
    pub(crate) fn headers(&self) -> &HashMap<String, String> {
        self.request.headers().as_ref()
    }

    /// Opens the session.
    pub(crate) async fn accept(mut self) -> Option<Session> {
        let answer = encode(&SessionResponse::ok().headers().generate_frame())?;
        self.session.request.0.write_all(&answer).await.ok()?;
        Some(self.session)
    }

    /// Refuses the session and waits until the peer has received the response.
    pub(crate) async fn refuse(mut self, response: SessionResponse) {
        let sending = &mut self.session.request.0;
        let Some(answer) = encode(&response.headers().generate_frame()) else { return };
        if sending.write_all(&answer).await.is_ok() && sending.finish().is_ok() {
            // Ready when the response is acknowledged, or can no longer be.
            let _ = sending.stopped().await;
        }
    }
}

impl Session {
    /// Waits for the peer's first bidirectional stream. Also returns the bytes already read from it.
    pub(crate) async fn stream(&mut self) -> Option<(SendStream, RecvStream, Vec<u8>)> {
        let (sending, mut receiving) = self.connection.accept_bi().await.ok()?;
        let own = u64::from(QuicVarInt::from(self.request.0.id()));
        let (id, rest) =
            read_frame(&mut receiving, |frame| Some(frame.session_id().map(|id| id.into_u64()))).await?;
        (id == Some(own)).then_some((sending, receiving, rest))
    }

    /// Ready when the peer has ended the session.
    pub(crate) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut capsule = [0; 64];
        // Capsules are ignored: the one that ends the session is followed by the end of the stream.
        while let Poll::Ready(read) = self.request.1.poll_read(cx, &mut capsule) {
            if !matches!(read, Ok(1..)) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Returns the reason why the connection has ended, if it has.
    pub(crate) fn close_reason(&self) -> Option<ConnectionError> {
        self.connection.close_reason()
    }

    /// Sets the close code of the session.
    pub(crate) fn set_code(&mut self, code: u16) {
        self.code = code;
    }

    /// Ends the session with its code, and gives the peer a moment to close the connection itself.
    pub(crate) fn end(&mut self) -> impl Future<Output = ()> + Send + 'static {
        let connection = self.closing.connection.clone();
        // Flow control does not block so few bytes unless the peer does so deliberately.
        let capsule = encode(&Frame::new_data(close_capsule(self.code).into())).unwrap_or_default();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let written = std::pin::Pin::new(&mut self.request.0).poll_write(&mut cx, &capsule);
        let whole = matches!(written, Poll::Ready(Ok(count)) if count == capsule.len());
        let told = whole && self.request.0.finish().is_ok();
        async move {
            if told {
                let _ = tokio::time::timeout(GRACE, connection.closed()).await;
            }
        }
    }
}

/// Returns the start of the server's control stream: its type, and the settings.
fn greeting() -> Option<Vec<u8>> {
    let settings = Settings::builder()
        .qpack_max_table_capacity(VarInt::from_u32(0))
        .qpack_blocked_streams(VarInt::from_u32(0))
        .enable_connect_protocol()
        .enable_webtransport()
        .enable_h3_datagrams()
        .webtransport_max_sessions(VarInt::from_u32(1))
        .build();
    let header = StreamHeader::new_control();
    let mut bytes = vec![0; header.write_size()];
    header.write_to_buffer(&mut BufferWriter::new(&mut bytes)).ok()?;
    bytes.extend_from_slice(&encode(&settings.generate_frame())?);
    Some(bytes)
}

/// Returns a `CLOSE_WEBTRANSPORT_SESSION` capsule: type, length and code, without text.
fn close_capsule(code: u16) -> Vec<u8> {
    let [high, low] = code.to_be_bytes();
    vec![0x68, 0x43, 4, 0, 0, high, low]
}

fn encode(frame: &Frame<'_>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; frame.write_size()];
    frame.write_to_buffer(&mut BufferWriter::new(&mut bytes)).ok()?;
    Some(bytes)
}

/// Reads frames until `parse` returns a value. Also returns the bytes that were read after that frame.
async fn read_frame<T>(
    stream: &mut RecvStream,
    parse: impl Fn(&Frame<'_>) -> Option<T>,
) -> Option<(T, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let mut reader = BufferReader::new(&bytes);
        while let Some(frame) = Frame::read_from_buffer(&mut reader).ok()? {
            if let Some(value) = parse(&frame) {
                return Some((value, reader.buffer_remaining().to_vec()));
            }
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return None;
        }
        let count = stream.read(&mut piece).await.ok()??;
        bytes.extend_from_slice(&piece[..count]);
    }
}

/// The maximum size of a session request, including anything before it.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// The time that a peer has to close the connection after it was sent the close.
const GRACE: Duration = Duration::from_millis(200);
/// `H3_NO_ERROR` (RFC 9114 section 8.1).
const NO_ERROR: QuicVarInt = QuicVarInt::from_u32(0x100);

#[cfg(test)]
mod tests {
    use wtransport::proto::{
        capsule::{Capsule, capsules::CloseWebTransportSession},
        settings::SettingId,
    };

    use super::*;

    #[test]
    fn the_end_of_a_session_has_its_code() {
        let bytes = encode(&Frame::new_data(close_capsule(1001).into())).unwrap();
        let frame = Frame::read_from_buffer(&mut BufferReader::new(&bytes)).unwrap().unwrap();
        let capsule = Capsule::with_frame(&frame).unwrap();
        let close = CloseWebTransportSession::with_capsule(&capsule).unwrap();
        assert_eq!((close.error_code(), close.reason()), (VarInt::from_u32(1001), ""));
    }

    #[test]
    fn the_settings_announce_webtransport() {
        let bytes = greeting().unwrap();
        assert_eq!(bytes[0], 0, "a control stream");
        let frame = Frame::read_from_buffer(&mut BufferReader::new(&bytes[1..])).unwrap().unwrap();
        let settings = Settings::with_frame(&frame).unwrap();
        for id in [SettingId::EnableWebTransport, SettingId::EnableConnectProtocol, SettingId::H3Datagram] {
            assert_eq!(settings.get(id), Some(VarInt::from_u32(1)), "{id:?}");
        }
    }
}
