//! The duration of database queries, by name.

use tokio::time::Instant;

use crate::models::metrics;

/// Records the duration of a database query under the name `query`.
pub(super) async fn timed<T>(query: &'static str, work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let outcome = work.await;
    metrics::DATABASE_SECONDS.child(query).record(started.elapsed());
    outcome
}
