//! What the page can do: send events, and make sockets join, leave and go. On all nodes.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Admin;
use crate::error::{ImksError, ImksResult};
use crate::socket::codec::arguments::RawArgs;
use crate::socket::namespace::broadcast::Broadcast;
use crate::socket::namespace::builder::NamespaceBuilder;
use crate::socket::namespace::handlers::Event;

/// What the page is told that it can do.
pub(super) const FEATURES: [&str; 7] =
    ["EMIT", "JOIN", "LEAVE", "DISCONNECT", "MJOIN", "MLEAVE", "MDISCONNECT"];

/// Handles the commands in the namespace of the page.
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
        // Who looks at the log should see what was done, not what was sent.
        match command(self, event) {
            Ok(()) => {
                tracing::info!(%peer, socket_sid = socket.id(), command = event.name(), "Admin UI command")
            }
            Err(error) => {
                tracing::warn!(%error, %peer, command = event.name(), "Admin UI command refused")
            }
        }
    }

    /// Does something to the sockets of a namespace that `filter`, a room or an id, chooses; to all without it.
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

/// `emit(namespace, filter, event, ...arguments)`
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

/// `join(namespace, room, filter?)`
fn join(admin: &Admin, event: &Event) -> ImksResult<()> {
    let (path, room, filter): (String, String, Option<String>) = three(event)?;
    admin.with_sockets(&path, filter.as_deref(), |sockets| sockets.sockets_join(&room))
}

/// `leave(namespace, room, filter?)`
fn leave(admin: &Admin, event: &Event) -> ImksResult<()> {
    let (path, room, filter): (String, String, Option<String>) = three(event)?;
    admin.with_sockets(&path, filter.as_deref(), |sockets| sockets.sockets_leave(&room))
}

/// `_disconnect(namespace, close, filter?)`
fn disconnect(admin: &Admin, event: &Event) -> ImksResult<()> {
    let (path, close, filter): (String, Option<bool>, Option<String>) = three(event)?;
    let close = close.unwrap_or(false);
    admin.with_sockets(&path, filter.as_deref(), |sockets| sockets.disconnect_sockets(close))
}

/// Two arguments, and a third that may be left out.
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
