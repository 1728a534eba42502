//! When what is in the outbox is sent again.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::socket::packet::Args;

/// How often and when an event of the outbox is sent again.
///
/// The times count while the namespace is joined. However long the server is away, nothing is given up for that.
/// After the last attempt, its answer is the result, or [`ClientError::Timeout`](crate::client::ClientError::Timeout).
#[derive(Clone)]
pub struct Retry {
    pub(crate) times: Option<u32>,
    pub(crate) pause: Duration,
    pub(crate) answer_timeout: Duration,
    refused: Refused,
}

/// A function that says when an event whose answer is this may be sent again, or `None` if the answer is final.
type Refused = Arc<dyn Fn(&Args) -> Option<Duration> + Send + Sync>;

impl Retry {
    /// Sends an event again up to `times` times, `pause` after each answer that did not come or that told to try
    /// again.
    pub fn times(times: u32, pause: Duration) -> Self {
        Self { times: Some(times), pause, ..Self::default() }
    }

    /// Sends an event again until it is answered.
    pub fn forever(pause: Duration) -> Self {
        Self { times: None, pause, ..Self::default() }
    }

    /// Sets how long an answer may take. The default is ten seconds.
    #[must_use]
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }

    /// Sets which answers mean that the event should be sent again, and after what time. The default knows the
    /// answers of imks: `{"ok":false,"error":{"retryable":true,"retry_after_ms":1200}}`.
    #[must_use]
    pub fn when(mut self, refused: impl Fn(&Args) -> Option<Duration> + Send + Sync + 'static) -> Self {
        self.refused = Arc::new(refused);
        self
    }

    /// Returns after what time an event with this answer is sent again, or `None` if the answer is final. One that
    /// the application's function cannot judge is final: the same panic would follow every attempt.
    pub(crate) fn refusal(&self, args: &Args) -> Option<Duration> {
        catch_unwind(AssertUnwindSafe(|| (self.refused)(args))).unwrap_or_else(|_| {
            tracing::error!("the function that judges the answers to the outbox panicked");
            None
        })
    }
}

/// Ten times, a second apart.
impl Default for Retry {
    fn default() -> Self {
        let (pause, answer_timeout) = (Duration::from_secs(1), Duration::from_secs(10));
        Self { times: Some(10), pause, answer_timeout, refused: Arc::new(refused_by_imks) }
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { times, pause, answer_timeout, .. } = self;
        write!(formatter, "Retry({times:?} times, {pause:?} apart, {answer_timeout:?} for an answer)")
    }
}

/// Returns when an event may be sent again that imks refused for a cause that passes.
fn refused_by_imks(args: &Args) -> Option<Duration> {
    let answer: Value = args.first().ok()?;
    let error = answer.get("error").filter(|_| answer["ok"] == Value::Bool(false))?;
    let after = error["retry_after_ms"].as_u64().unwrap_or_default();
    (error["retryable"] == Value::Bool(true)).then(|| Duration::from_millis(after))
}
