//! Work that a node repeats by the clock.

use tokio::time::{Duration, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Calls `work` every `period` until `stop`, and again at once while it returns that there is more to do.
pub(super) async fn repeat<F: Future<Output = bool>>(
    period: Duration,
    stop: &CancellationToken,
    mut work: impl FnMut() -> F,
) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        while !stop.is_cancelled() && work().await {}
    }
}
