//! Background tasks: a panic in one is logged and counted. The task is then begun again ([`keep`]), or the process ends
//! because nothing replaces the task ([`essential`], [`broken`]).

use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::clock::jittered;
use crate::telemetry::metrics::{AfterPanic, TASK_PANICS};

/// Runs a task that can begin again, such as one that looks for work in the database: `begin` returns the task, which
/// ends by itself at `stop`. After a panic it is begun again, after a pause that grows from one second to a minute.
pub async fn keep<F: Future>(
    name: &'static str,
    stop: CancellationToken,
    begin: impl Fn(CancellationToken) -> F,
) {
    let mut pause = PAUSE_MIN;
    loop {
        let began = Instant::now();
        if AssertUnwindSafe(begin(stop.clone())).catch_unwind().await.is_ok() {
            return;
        }
        TASK_PANICS.of(AfterPanic::BegunAgain).increment();
        if began.elapsed() > PAUSE_MAX {
            pause = PAUSE_MIN;
        }
        tracing::error!(task = name, again_in = ?pause, "a background task has panicked and begins again");
        if stop.run_until_cancelled(sleep(jittered(pause))).await.is_none() {
            return;
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Runs a task whose state is lost with it, such as one that owns a queue. After a panic [`broken`] returns.
pub async fn essential(name: &'static str, work: impl Future) {
    if AssertUnwindSafe(work).catch_unwind().await.is_err() {
        TASK_PANICS.of(AfterPanic::ProcessEnds).increment();
        tracing::error!(task = name, "a background task has panicked, and nothing replaces it");
        BROKEN.send_replace(Some(name));
    }
}

/// Waits until an essential task of this process has panicked, and returns its name.
pub async fn broken() -> &'static str {
    let mut broken = BROKEN.subscribe();
    loop {
        if let Some(name) = *broken.borrow_and_update() {
            return name;
        }
        // The sender is a static and never dropped.
        if broken.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The last essential task that has panicked. It is one for the process, because the process is what ends.
static BROKEN: LazyLock<watch::Sender<Option<&'static str>>> = LazyLock::new(|| watch::Sender::new(None));

const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause until a task that has panicked begins again.
const PAUSE_MAX: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_begins_again_until_it_ends_by_itself() {
        let begun = AtomicUsize::new(0);
        let before = TASK_PANICS.total();
        keep("test", CancellationToken::new(), |_| async {
            assert!(begun.fetch_add(1, Ordering::Relaxed) == 3, "not yet");
        })
        .await;
        assert_eq!(begun.into_inner(), 4);
        assert!(TASK_PANICS.total() >= before + 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_always_panics_ends_when_it_is_told_to() {
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let ends = async move {
            sleep(Duration::from_mins(10)).await;
            stopping.cancel();
        };
        let begun = AtomicUsize::new(0);
        let kept = keep("test", stop, |_| async {
            begun.fetch_add(1, Ordering::Relaxed);
            panic!("as always");
        });
        tokio::join!(kept, ends);
        let begun = begun.into_inner();
        assert!((10..25).contains(&begun), "{begun} times in ten minutes");
    }

    #[tokio::test]
    async fn the_process_learns_that_a_task_is_gone_which_nothing_replaces() {
        essential("good", async {}).await;
        essential("bad", async { panic!("gone") }).await;
        assert_eq!(broken().await, "bad");
    }
}
