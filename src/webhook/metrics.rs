//! The metrics of webhooks.

use crate::telemetry::{instruments, label};

/// The outcome of one attempt to deliver an event.
pub enum Attempt {
    /// The receiver took it.
    Delivered,
    /// The receiver answered with another status than 2xx.
    Refused,
    /// The receiver did not answer.
    Unanswered,
}

label!(Attempt { Delivered = "delivered", Refused = "refused", Unanswered = "unanswered" });

instruments! {
    /// Attempts to deliver an event to a receiver of webhooks, by outcome
    ATTEMPTS: Counter[outcome: Attempt] = "imks_webhook_attempts_total";
    /// Time from the commit of an event until a receiver of webhooks took it
    DELIVERY_SECONDS: Latency = "imks_webhook_delivery_seconds";
    /// Events that receivers of webhooks did not take until the server gave up
    DEAD: Counter = "imks_webhook_given_up_total";
    /// Dead letters of all receivers that wait for an operator
    DEAD_LETTERS: Gauge = "imks_webhook_dead_letters";
    /// Receivers of webhooks that are disabled, because they answered that they are gone
    DISABLED: Gauge = "imks_webhook_disabled";
    /// Age of the oldest event that a receiver of webhooks has not taken yet, in whole seconds
    LAG: Gauge = "imks_webhook_lag_seconds";
}
