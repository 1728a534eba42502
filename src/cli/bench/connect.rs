//! The scenario `connect`: every client connects, joins the namespace and closes, again and again.

use std::sync::Arc;

use tokio::time::Instant;

use super::run::{Outcome, Run};
use super::summary::Faults;
use crate::error::Cause;
use crate::{ImksError, ImksResult};

pub(super) async fn run(run: &Arc<Run>) -> ImksResult<Outcome> {
    let start = run.begin();
    let tasks: Vec<_> = (0..run.plan.clients)
        .map(|index| {
            let run = run.clone();
            run.clone().tasks.spawn(async move { Box::pin(connect_all(&run, index, start)).await })
        })
        .collect();
    for task in tasks {
        task.await.map_err(|error| ImksError::Task(Cause::new(error)))?;
    }
    let failures = run.crowd.links.failed();
    let (sent, connected) = run.meter.counts();
    match run.crowd.links.last_error() {
        Some(error) if connected == 0 => {
            return Err(run.crowd.not_one("connecting to", error));
        }
        _ => {}
    }
    let faults = Faults { lost: Some(sent.saturating_sub(connected + failures)), ..Faults::default() };
    Ok(Outcome { faults, notes: vec![NOTE.into()], ..Outcome::default() })
}

async fn connect_all(run: &Run, index: usize, start: Instant) {
    let mut sent = 0;
    while run.plan.has_more((index, run.plan.clients), sent) && !run.stop.is_cancelled() {
        let due = run.plan.due(start, index, run.plan.clients, sent);
        if let Some(due) = due {
            tokio::select! {
                () = run.pacer.until(due) => {}
                () = run.stop.cancelled() => return,
            }
        }
        let begun = due.unwrap_or_else(Instant::now);
        sent += 1;
        run.meter.sent();
        // A failure is counted by the crowd, and the next attempt follows.
        let Ok(member) = run.crowd.join(index, |_, _| {}).await else { continue };
        let now = Instant::now();
        run.meter.record(now, now.saturating_duration_since(begun));
        member.client.close().await;
    }
}

const NOTE: &str = "duplicates, order and wrong answers: nothing is sent but the handshake";
