//! The lines of the log about sessions: who came, from where and with what, who was not let in, and why each one ended.

use std::num::NonZeroU16;

use tokio::time::Instant;

use super::session::Session;
use crate::ImksError;
use crate::clock;
use crate::rate_limit::{LineLimit, Rate};
use crate::shown::shown;
use crate::socket::{DisconnectReason, Socket};

/// The log of those who were not let in. They need no token for it, so it is bounded.
#[derive(Debug)]
pub(super) struct Refusals(LineLimit);

impl Refusals {
    pub(super) fn new() -> Self {
        Self(LineLimit::new(LOGGED))
    }

    /// Logs who was not let in, and why.
    pub(super) fn log(&self, socket: &Socket, error: &ImksError) {
        let Some(unlogged) = self.0.next(Instant::now()) else {
            tracing::debug!(socket_sid = socket.id(), %error, "sign-in refused");
            return;
        };
        let handshake = socket.handshake();
        tracing::info!(
            socket_sid = socket.id(),
            engine_sid = %handshake.sid,
            peer = %handshake.peer,
            transport = socket.transport().name(),
            %error,
            unlogged,
            "sign-in refused"
        );
    }
}

/// Logs who has signed in, from where and with what.
pub(super) fn signed_in(socket: &Socket, session: &Session) {
    let (handshake, identity) = (socket.handshake(), session.identity());
    tracing::info!(
        socket_sid = socket.id(),
        engine_sid = %handshake.sid,
        connection = %session.connection_id(),
        user = %identity.user_id,
        username = &*shown(&identity.username),
        peer = %handshake.peer,
        transport = socket.transport().name(),
        client = session.client().map(ToString::to_string),
        // This one becomes one of them as soon as its connect is answered.
        clients = socket.namespace().len() + 1,
        "signed in"
    );
}

/// Logs why a session has ended.
pub(super) fn left(socket: &Socket, reason: DisconnectReason) {
    let Some(session) = socket.data::<Session>() else { return };
    let seconds = (clock::now_micros() - socket.handshake().issued) / 1_000_000;
    tracing::info!(
        socket_sid = socket.id(),
        engine_sid = %socket.handshake().sid,
        connection = %session.connection_id(),
        user = %session.identity().user_id,
        transport = socket.transport().name(),
        reason = reason.as_str(),
        code = socket.close_code().map(NonZeroU16::get),
        seconds,
        "left"
    );
}

/// The most lines about refusals that are logged for operators.
const LOGGED: Rate = Rate::new(10, 100);
