//! Whose event is being handled.
//!
//! An ack tells a client that what it wanted has happened. Where nodes share a recovery log, it therefore waits until everything
//! that the handler has sent is in the log, whoever gets that. Handlers run on the thread that polls their connection, so a
//! thread-local connects what they send with their client. What a handler leaves to tasks of its own is not connected.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::socket::Socket;
use crate::bus::BoxFuture;
use crate::socket::recovery::session_store::{Link, SessionStore};

thread_local! {
    static CAUSE: Cell<Option<Socket>> = const { Cell::new(None) };
}

/// Calls a handler for an event of this client.
pub(crate) fn by<R>(socket: &Socket, handle: impl FnOnce() -> R) -> R {
    let _before = Before(CAUSE.replace(Some(socket.clone())));
    handle()
}

/// Returns a handler that is always polled for an event of this client.
pub(crate) fn caused(socket: Socket, handling: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
    Box::pin(Caused { socket, handling })
}

/// Calls `act` with the link of the client whose event is being handled, if its sessions are in this store.
pub(super) fn link_in<R>(store: &SessionStore, act: impl FnOnce(Option<&Link>) -> R) -> R {
    let cause = CAUSE.take();
    let _before = Before(cause.clone());
    let is_here = |socket: &&Socket| {
        socket.namespace().delivery().shared().is_some_and(|shared| std::ptr::eq(Arc::as_ptr(shared), store))
    };
    act(cause.as_ref().filter(is_here).and_then(Socket::link))
}

/// What the thread-local was before. It is that again when this is dropped, also by a panic.
struct Before(Option<Socket>);

impl Drop for Before {
    fn drop(&mut self) {
        CAUSE.set(self.0.take());
    }
}

struct Caused {
    socket: Socket,
    handling: BoxFuture<'static, ()>,
}

impl Future for Caused {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { socket, handling } = &mut *self;
        by(socket, || handling.as_mut().poll(cx))
    }
}
