//! The work of purges: messages and users that are deleted for good. One node at a time takes the steps, and makes
//! pauses between them, so that no writer waits long.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::parts::Messaging;
use crate::clock::{self, Micros};
use crate::models::lease::Lease;
use crate::models::purge::{Purge, PurgeKind};
use crate::{ImksError, ImksResult};

/// Orders a purge, which somebody asked for with a reason, and waits for a moment until it is done. The purge goes on whatever becomes of the caller.
///
/// # Errors
/// Those of [`Purge::order`].
pub(super) async fn order(
    messaging: &Messaging,
    id: Uuid,
    what: (PurgeKind, Uuid),
    before: Micros,
    asked: (&str, &str),
) -> ImksResult<Purge> {
    let mut purge = Purge::order(messaging.db(), id, what, before, asked).await?;
    messaging.purges().notify_one();
    let deadline = Instant::now() + ANSWER_AFTER;
    while !purge.is_finished() && Instant::now() < deadline {
        sleep(LOOK_AGAIN).await;
        purge = purge.renewed(messaging.db()).await?;
    }
    Ok(purge)
}

/// Takes the steps of all purges until `stop`, while this node holds the lease.
pub(super) async fn run(messaging: Messaging, stop: CancellationToken) {
    let lease = Lease::new("purge", clock::new_id().to_string());
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
            () = messaging.purges().notified() => {}
        }
        if let Err(error) = work(&messaging, &lease, &stop).await {
            tracing::warn!(%error, "purges go on later");
        }
    }
    if let Err(error) = lease.give_back(messaging.db()).await {
        tracing::debug!(%error, "the lease of purges ends by itself");
    }
}

/// Works at one purge after the other. One that fails keeps no other waiting.
async fn work(messaging: &Messaging, lease: &Lease, stop: &CancellationToken) -> ImksResult<()> {
    let mut after = Uuid::nil();
    while let Some(mut purge) = Purge::next(messaging.db(), after).await? {
        after = purge.id();
        if let Err(error) = finish(&mut purge, messaging, lease, stop).await {
            match error {
                ImksError::FailedPrecondition(_) => {
                    tracing::debug!(purge = %after, "a purge waits until a legal hold is released");
                }
                error => tracing::warn!(purge = %after, %error, "a purge goes on later"),
            }
        }
    }
    Ok(())
}

/// Takes the steps of a purge until it is finished, while this node holds the lease.
async fn finish(
    purge: &mut Purge,
    messaging: &Messaging,
    lease: &Lease,
    stop: &CancellationToken,
) -> ImksResult<()> {
    while !purge.is_finished() && !stop.is_cancelled() && lease.take(messaging.db()).await? {
        let started = Instant::now();
        purge.step(messaging.db(), messaging.appender()).await?;
        // At most half of the time, so that a large purge leaves room for everybody else.
        stop.run_until_cancelled(sleep(started.elapsed())).await;
    }
    if purge.is_finished() {
        tracing::info!(purge = %purge.id(), purged = purge.purged, "a purge is finished");
    }
    Ok(())
}

/// How long an order waits for its purge to finish.
const ANSWER_AFTER: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The interval at which a node looks for purges that another one has left.
const TICK: Duration = Duration::from_secs(5);
