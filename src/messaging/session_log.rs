//! The lines of the log about sessions: who came, from where and with what, who was not let in, and why each one ended.

use super::session::Session;
use crate::ImksError;
use crate::clock;
use crate::socket::{DisconnectReason, Socket};

/// Logs who was not let in, and why.
pub(super) fn refused(socket: &Socket, error: &ImksError) {
    let handshake = socket.handshake();
    tracing::info!(
        socket_sid = socket.id(),
        engine_sid = %handshake.sid,
        peer = %handshake.peer,
        transport = socket.transport().name(),
        %error,
        "sign-in refused"
    );
}

/// Logs who has signed in, from where and with what.
pub(super) fn signed_in(socket: &Socket, session: &Session) {
    let (handshake, identity) = (socket.handshake(), session.identity());
    tracing::info!(
        socket_sid = socket.id(),
        engine_sid = %handshake.sid,
        user = %identity.user_id,
        username = &*identity.username,
        peer = %handshake.peer,
        transport = socket.transport().name(),
        client = session.client().map(tracing::field::display),
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
        user = %session.identity().user_id,
        transport = socket.transport().name(),
        reason = reason.as_str(),
        seconds,
        "left"
    );
}
