//! The commands of the Admin UI: emit events, and make sockets join, leave and disconnect. They apply to all
//! nodes.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Admin;
use crate::error::{ImksError, ImksResult};
use crate::socket::codec::arguments::RawArgs;
use crate::socket::namespace::broadcast::Broadcast;
use crate::socket::namespace::builder::NamespaceBuilder;
use crate::socket::namespace::handlers::Event;

/// The commands that the page may offer.
pub(super) const FEATURES: [&str; 7] =
    ["EMIT", "JOIN", "LEAVE", "DISCONNECT", "MJOIN", "MLEAVE", "MDISCONNECT"];

/// Registers the handlers of commands in the page's namespace.
pub(super) fn register(admin: &Arc<Admin>, builder: &mut NamespaceBuilder) {
    let commands: [(&str, Command); 4] =
        [("emit", emit), ("join", join), ("leave", leave), ("_disconnect", disconnect)];
    for (name, command) in commands {
        let admin = admin.clone();
        builder.on_sync(name, move |event| admin.execute(command, &event));
    }
}

type Command = fn(&Admin, &Event) -> ImksResult<()>;

impl Admin {
    fn execute(&self, command: Command, event: &Event) {
        let (socket, peer) = (event.socket(), event.socket().handshake().peer);
        // The log shows which command ran, but not the data it sent.
        match command(self, event) {
            Ok(()) => {
                tracing::info!(%peer, socket_sid = socket.id(), command = event.name(), "Admin UI command")
            }
            Err(error) => {
                tracing::warn!(%error, %peer, command = event.name(), "Admin UI command refused")
            }
        }
    }

    /// Runs `act` on the sockets of a namespace. `filter` is a room or an id; without it, all sockets are
    /// meant.
    fn with_sockets(
        &self,
        path: &str,
        filter: Option<&str>,
        act: impl FnOnce(Broadcast<'_>) -> ImksResult<()>,
    ) -> ImksResult<()> {
        let server = self.server().ok_or(ImksError::Unavailable("server"))?;
        let namespace = server.find(path).ok_or(ImksError::NotFound("namespace"))?;
        let everybody = namespace.everybody();
        act(match filter.filter(|filter| !filter.is_empty()) {
            Some(filter) => everybody.to(filter),
            None => everybody,
        })
    }
}

/// Handles `emit(namespace, filter, event, ...arguments)`.
fn emit(admin: &Admin, event: &Event) -> ImksResult<()> {
    let values = event.args().values()?;
    let (path, filter, name): (String, Option<String>, String) = match &values[..] {
        [path, filter, name, ..] => (read(path)?, read(filter)?, read(name)?),
        _ => return Err(ImksError::InvalidPayload("emit needs a namespace, a filter and an event".into())),
    };
    let json = values[3..].iter().map(|value| value.get()).collect::<Vec<_>>().join(",");
    let args = RawArgs { json: &json, attachments: event.args().attachments() };
    admin.with_sockets(&path, filter.as_deref(), |sockets| sockets.emit_args(&name, &args))
}

/// Handles `join(namespace, room, filter?)`.
fn join(admin: &Admin, event: &Event) -> ImksResult<()> {
    let (path, room, filter): (String, String, Option<String>) = three(event)?;
    admin.with_sockets(&path, filter.as_deref(), |sockets| sockets.sockets_join(&room))
}

/// Handles `leave(namespace, room, filter?)`.
fn leave(admin: &Admin, event: &Event) -> ImksResult<()> {
    let (path, room, filter): (String, String, Option<String>) = three(event)?;
    admin.with_sockets(&path, filter.as_deref(), |sockets| sockets.sockets_leave(&room))
}

/// Handles `_disconnect(namespace, close, filter?)`.
fn disconnect(admin: &Admin, event: &Event) -> ImksResult<()> {
    let (path, close, filter): (String, Option<bool>, Option<String>) = three(event)?;
    let close = close.unwrap_or(false);
    admin.with_sockets(&path, filter.as_deref(), |sockets| sockets.disconnect_sockets(close))
}

/// Reads two arguments and an optional third.
fn three<'a, A: Deserialize<'a>, B: Deserialize<'a>>(event: &'a Event) -> ImksResult<(A, B, Option<String>)> {
    match &event.args().values()?[..] {
        [first, second] => Ok((read(first)?, read(second)?, None)),
        [first, second, third, ..] => Ok((read(first)?, read(second)?, read(third)?)),
        _ => Err(ImksError::InvalidPayload("an argument is missing".into())),
    }
}

fn read<'a, T: Deserialize<'a>>(value: &&'a RawValue) -> ImksResult<T> {
    Ok(serde_json::from_str(value.get())?)
}
