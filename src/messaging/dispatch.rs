//! The dispatch from commits to sockets: one task per lane, in commit order, each event encoded once.

use std::time::Duration;

use tokio::time::Instant;

use super::audience::{Audience, News};
use super::metrics;
use super::relay::Relay;
use crate::ImksError;
use crate::models::append::{Commits, Told, Transaction};
use crate::models::feed::Feed;
use crate::models::metrics::{STAGE_SECONDS, Stage};
use crate::telemetry::trace::{Context, Span, SpanKind};

/// Broadcasts a lane's commits to their channels until the appender is drained. With a relay, clients of other
/// nodes get them too, in the order of the channel.
pub async fn run(mut commits: Commits, audience: Audience, relay: Option<Relay>, feed: Feed) {
    let mut payload = Vec::new();
    while let Some(Transaction { told, committed }) = commits.recv().await {
        feed.committed();
        match &relay {
            Some(relay) => relay_all(relay, &audience, &told, &mut payload, committed),
            None => told.iter().for_each(|told| {
                let span = delivering(told, committed);
                broadcast(&audience, told, &mut payload);
                delivered(told, span, committed.elapsed());
            }),
        }
        payload.shrink_to(PAYLOAD_KEPT);
        metrics::DISPATCH_SECONDS.record(committed.elapsed());
        // Yields between transactions: otherwise a busy lane would only fill the outboxes of its receivers.
        tokio::task::yield_now().await;
    }
}

/// Hands the events of each channel to the relay, and broadcasts those without a number between them.
fn relay_all(
    relay: &Relay,
    audience: &Audience,
    transaction: &[Told],
    payload: &mut Vec<u8>,
    committed: Instant,
) {
    let mut told: Vec<&Told> = transaction.iter().collect();
    // Stable, so that the order within a channel stays.
    told.sort_by_key(|told| told.channel_id());
    let place = |told: &Told| (told.channel_id(), told.head().is_some());
    for of_channel in told.chunk_by(|one, other| place(one) == place(other)) {
        if of_channel.first().is_some_and(|told| told.head().is_none()) {
            of_channel.iter().for_each(|told| broadcast(audience, told, payload));
        } else if let Err(error) = relay.tell(audience, of_channel, payload) {
            tracing::warn!(%error, "events of a channel were not sent to other nodes");
        }
        let took = committed.elapsed();
        of_channel.iter().for_each(|told| delivered(told, delivering(told, committed), took));
    }
}

/// Begins the span of the delivery of an event at its commit, if it is traced.
fn delivering(told: &Told, committed: Instant) -> Option<Span> {
    let mut span = told.trace()?.child("deliver", SpanKind::Producer)?;
    span.began(committed.elapsed());
    span.note("messaging.system", "imks");
    span.note("messaging.operation.name", "deliver");
    span.note("messaging.destination.name", told.channel_id().to_string());
    Some(span)
}

fn delivered(told: &Told, span: Option<Span>, took: Duration) {
    STAGE_SECONDS.of(Stage::Deliver).record_traced(took, told.trace().map(Context::trace_id));
    if let Some(mut span) = span {
        span.succeeded();
    }
}

/// Tells one event. A failure is only logged: a client that misses an event learns of it by `sync`.
fn broadcast(audience: &Audience, told: &Told, payload: &mut Vec<u8>) {
    payload.clear();
    let text = told.write_json(payload).and_then(|()| {
        std::str::from_utf8(payload).map_err(|_| ImksError::Internal("JSON that is not UTF-8"))
    });
    match text {
        Ok(json) => match News::of(told, json) {
            Some(news) => audience.tell(told.channel_id(), news),
            None => audience.tell_in_passing(told.channel_id(), told.event(), json),
        },
        Err(error) => tracing::debug!(event = told.event(), %error, "event not sent"),
    }
}

/// The most bytes of the payload buffer that are kept between transactions.
const PAYLOAD_KEPT: usize = 64 * 1024;
