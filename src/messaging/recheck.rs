//! Sessions of a core that does not report changes: it is asked about each of them from time to time, so that a
//! withdrawn token or a removed member loses its rights within a minute.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::access::{self, check_socket};
use super::acquaintances;
use super::parts::Messaging;
use super::session::Session;
use crate::ImksError;
use crate::socket::{Namespace, Socket};

/// Asks about the sessions of `namespace` until `stop`, all of them once per `recheck`, spread over that time.
pub(super) async fn run(messaging: Messaging, namespace: Namespace, stop: CancellationToken) {
    while stop.run_until_cancelled(round(&messaging, &namespace)).await.is_some() {}
}

async fn round(messaging: &Messaging, namespace: &Namespace) {
    let (window, started) = (messaging.config().recheck, Instant::now());
    if messaging.tokens().is_followed() && messaging.permissions().is_followed() {
        return sleep(LOOK.min(window)).await;
    }
    let sockets = namespace.sockets();
    let steps = u32::try_from(sockets.len().div_ceil(QUESTIONS_AT_ONCE)).unwrap_or(u32::MAX).max(1);
    for (number, some) in (1..=steps).zip(sockets.chunks(QUESTIONS_AT_ONCE)) {
        stream::iter(some).for_each_concurrent(None, |socket| recheck(messaging, socket)).await;
        sleep_until(started + window * number / steps).await;
    }
    sleep_until(started + window).await;
}

/// Ends a session whose token the core does not accept any more, and makes it leave rooms that it may no longer be
/// in. A core that does not answer changes nothing: an outage is not a withdrawal.
async fn recheck(messaging: &Messaging, socket: &Socket) {
    let Some(session) = socket.data::<Session>() else { return };
    if !messaging.tokens().is_followed() {
        let token = session.token();
        let verdict = messaging.tokens().verify_remote(token.presented()).await;
        // An expired token is announced and ended elsewhere.
        if let Err(ImksError::TokenRevoked | ImksError::Auth(_)) = verdict {
            return access::disconnect(std::slice::from_ref(socket), None);
        }
    }
    if !messaging.permissions().is_followed() {
        messaging.permissions().expire(session.identity().user_id, Instant::now());
        check_socket(messaging, socket.clone(), None).await;
        acquaintances::leave_strangers(messaging.core(), socket.clone()).await;
    }
}

/// The pause between two looks at whether the core reports changes.
const LOOK: Duration = Duration::from_secs(1);
/// The number of sessions about which the core is asked at once.
const QUESTIONS_AT_ONCE: usize = 32;
