//! The task of a directory: it notices the changes of other processes, removes what has ended, and replaces the
//! signing key when it is old.

use std::sync::{Arc, Weak};

use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::change::head;
use super::{Directory, Inner, ban, session, token_service};
use crate::background;
use crate::clock::now_micros;
use crate::error::ImksResult;
use crate::models::db::on;

impl Directory {
    /// Reads the number of the last change, and starts to follow later ones.
    pub(super) async fn follow_changes(&self) -> ImksResult<()> {
        self.0.head.send_replace(head(self.db()).await?);
        let (inner, changed, pause) = (Arc::downgrade(&self.0), self.0.changed.clone(), self.0.config.poll);
        let polling = move |stop: CancellationToken| {
            stop.run_until_cancelled_owned(poll(inner.clone(), changed.clone(), pause))
        };
        self.0.tasks.spawn(background::keep("directory", self.0.stop.clone(), polling));
        Ok(())
    }
}

async fn poll(inner: Weak<Inner>, changed: Arc<Notify>, pause: std::time::Duration) {
    let mut rounds: u32 = 0;
    loop {
        // A notification and a timeout have the same effect: check for changes now.
        let _ = timeout(pause, changed.notified()).await;
        let Some(inner) = inner.upgrade() else { return };
        match head(&inner.db).await {
            Ok(seq) => {
                inner.head.send_if_modified(|known| std::mem::replace(known, seq) != seq);
            }
            Err(error) => tracing::debug!(%error, "cannot look for changes of the directory"),
        }
        rounds = rounds.wrapping_add(1);
        if rounds % TRIM_EVERY == 1 {
            trim(inner).await;
        }
    }
}

/// Removes what has ended, and replaces the signing key when it is old.
async fn trim(inner: Arc<Inner>) {
    let horizon = i64::try_from(inner.config.change_horizon.as_micros()).unwrap_or(i64::MAX);
    let before = now_micros().saturating_sub(horizon);
    let outcome = on!(&inner.db, pool => sqlx::query(TRIM).bind(before).execute(pool).await.map(drop));
    if let Err(error) = outcome {
        tracing::debug!(%error, "old changes of the directory stay for now");
    }
    let now = now_micros();
    let outcomes = [
        session::trim(&inner.db, now).await,
        token_service::trim(&inner.db, now).await,
        ban::trim(&inner.db, now).await,
    ];
    for error in outcomes.into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "old sessions, revocations or bans stay for now");
    }
    if let Err(error) = Directory(inner).rotate_by_age().await {
        tracing::warn!(%error, "the age of the signing key was not checked");
    }
}

const TRIM: &str = "DELETE FROM directory_change WHERE changed_at < $1";
/// The number of polls between two removals of old changes: about ten minutes.
const TRIM_EVERY: u32 = 2_400;
