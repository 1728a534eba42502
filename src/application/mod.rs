//! The operator's application: it answers the events of clients that imks itself does not know, in this process
//! ([`EventHandler`]) or over HTTP (`hook`; docs/events.md).

mod config;
mod hook;
mod in_flight;
pub mod metrics;
mod refusal;

use std::fmt;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::telemetry::trace::{self, SpanKind};
use crate::{ImksError, ImksResult};
pub use config::Config;
use hook::Hook;
use in_flight::InFlight;
use metrics::Handled;

/// Answers the events of clients that imks itself does not know: those whose name starts with `app:`, or with what
/// `IMKS_EVENTS_PREFIX` says.
pub trait EventHandler: Send + Sync + 'static {
    /// Returns the answer to one event. A client that asked for an ack gets it as `{ok:true,data}`.
    ///
    /// # Errors
    /// What the client gets instead. [`ImksError::UnknownEvent`] for a name that means nothing here.
    fn handle(&self, event: AppEvent) -> impl Future<Output = ImksResult<Answer>> + Send;
}

/// An event of a client, and whose it is. The user was verified by imks; everything else is the client's word.
#[derive(Debug, Clone)]
pub struct AppEvent {
    /// The id of this event, new each time.
    pub id: Uuid,
    /// The name, such as `app:order`.
    pub name: String,
    /// The first argument; `null` if there is none. Binary values are `{"_placeholder":true,"num":N}`.
    pub payload: Box<RawValue>,
    /// The binary values, by the `num` of their placeholders.
    pub attachments: Vec<Bytes>,
    /// The id of the user.
    pub user_id: Uuid,
    /// The name of the user.
    pub username: Arc<str>,
    /// The session of the user, if their token names one.
    pub session_id: Option<Uuid>,
    /// The id of the socket.
    pub socket_id: String,
}

impl AppEvent {
    /// Reads the payload.
    ///
    /// # Errors
    /// [`ImksError::InvalidPayload`], which the client gets.
    pub fn parse<T: DeserializeOwned>(&self) -> ImksResult<T> {
        serde_json::from_str(self.payload.get()).map_err(|error| ImksError::InvalidPayload(error.to_string()))
    }
}

/// The answer to an event.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What the client gets as `data`.
    pub data: Box<RawValue>,
    /// The binary values in it, by the `num` of their placeholders.
    pub attachments: Vec<Bytes>,
}

impl Answer {
    /// Creates an answer without binary values.
    ///
    /// # Errors
    /// [`ImksError::Json`] for a value that is not possible in JSON.
    pub fn new(data: &impl Serialize) -> ImksResult<Self> {
        Ok(Self { data: to_raw_value(data)?, attachments: Vec::new() })
    }

    /// Creates an answer that is one binary value.
    ///
    /// # Errors
    /// [`ImksError::Json`] never.
    pub fn binary(bytes: Bytes) -> ImksResult<Self> {
        let placeholder = serde_json::json!({ "_placeholder": true, "num": 0 });
        Ok(Self { data: to_raw_value(&placeholder)?, attachments: vec![bytes] })
    }
}

/// An [`EventHandler`], whatever its type. Cheap to clone.
#[derive(Clone)]
pub struct Handler(Arc<dyn Erased>);

impl Handler {
    /// Wraps a handler.
    pub fn new(handler: impl EventHandler) -> Self {
        Self(Arc::new(handler))
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Handler")
    }
}

trait Erased: Send + Sync {
    fn handle(&self, event: AppEvent) -> Pin<Box<dyn Future<Output = ImksResult<Answer>> + Send + '_>>;
}

impl<H: EventHandler> Erased for H {
    fn handle(&self, event: AppEvent) -> Pin<Box<dyn Future<Output = ImksResult<Answer>> + Send + '_>> {
        Box::pin(EventHandler::handle(self, event))
    }
}

/// The application as messaging calls it: with a deadline, and a bound on the events in progress. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Application(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    handler: Handler,
    config: Config,
    slots: Semaphore,
    users: InFlight,
}

impl Application {
    /// Creates the application that is configured, if there is one.
    ///
    /// # Errors
    /// `Config` for a secret of another form, or if the system has no certificates to trust.
    pub fn start(config: &Config) -> ImksResult<Option<Self>> {
        let handler = match (&config.handler, &config.url) {
            (Some(handler), _) => handler.clone(),
            (None, Some(url)) => Handler::new(Hook::new(url.clone(), config)?),
            (None, None) if config.echo => Handler::new(Echo),
            (None, None) => return Ok(None),
        };
        let (slots, users) = (Semaphore::new(config.calls_max), InFlight::default());
        Ok(Some(Self(Arc::new(Inner { handler, config: config.clone(), slots, users }))))
    }

    /// Whether events of this name are for the application.
    pub fn answers(&self, name: &str) -> bool {
        let is_own = name.strip_prefix(self.0.config.prefix.as_str()).is_some_and(|rest| !rest.is_empty());
        is_own && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
    }

    /// Has the application answer an event.
    ///
    /// # Errors
    /// Those of the application; `RateLimited` for a user with too many events in progress, `Overloaded` if there
    /// are too many of all users, `Timeout` after the deadline.
    pub async fn ask(&self, event: AppEvent) -> ImksResult<Answer> {
        let outcome = self.answer(event).await;
        let handled = match &outcome {
            Ok(_) => Handled::Answered,
            Err(error) if error.http_status() < 500 => Handled::Refused,
            Err(_) => Handled::Failed,
        };
        metrics::EVENTS.of(handled).increment();
        outcome
    }

    async fn answer(&self, event: AppEvent) -> ImksResult<Answer> {
        let Inner { handler, config, slots, users } = &*self.0;
        let _own = users.begin(event.user_id)?;
        let deadline = Instant::now() + config.deadline;
        let Ok(Ok(_slot)) = timeout_at(deadline, slots.acquire()).await else {
            return Err(ImksError::Overloaded { retry_after: config.deadline });
        };
        let answering = async {
            let answered = timeout_at(deadline, handler.0.handle(event)).await;
            answered.unwrap_or(Err(ImksError::Timeout(APPLICATION)))
        };
        trace::run(trace::child("application", SpanKind::Client), answering).await
    }
}

/// Answers every event with its own payload, for development.
struct Echo;

impl EventHandler for Echo {
    fn handle(&self, event: AppEvent) -> impl Future<Output = ImksResult<Answer>> + Send {
        ready(Ok(Answer { data: event.payload, attachments: event.attachments }))
    }
}

/// The name of the application in errors and in the log.
const APPLICATION: &str = "application";
/// The longest name of an event for the application, in bytes.
const NAME_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(user: Uuid) -> AppEvent {
        AppEvent {
            id: Uuid::nil(),
            name: "app:x".into(),
            payload: to_raw_value(&1).unwrap(),
            attachments: Vec::new(),
            user_id: user,
            username: "alice".into(),
            session_id: None,
            socket_id: "s".into(),
        }
    }

    fn application(handler: impl EventHandler) -> Application {
        let config = Config { handler: Some(Handler::new(handler)), calls_max: 12, ..Config::default() };
        Application::start(&config).unwrap().unwrap()
    }

    /// Never answers.
    struct Silent;

    impl EventHandler for Silent {
        async fn handle(&self, _: AppEvent) -> ImksResult<Answer> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_user_cannot_take_all_the_places_and_nobody_waits_for_ever() {
        let application = application(Silent);
        let (alice, bob) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut asked: Vec<_> =
            (0..in_flight::PER_USER_MAX).map(|_| Box::pin(application.ask(event(alice)))).collect();
        for ask in &mut asked {
            assert!(futures_util::poll!(ask).is_pending());
        }
        let more = application.ask(event(alice)).await;
        assert!(matches!(more, Err(ImksError::RateLimited { .. })), "{more:?}");
        let others = application.ask(event(bob)).await;
        assert!(matches!(others, Err(ImksError::Timeout(_))), "{others:?}");
        for ask in asked {
            assert!(matches!(ask.await, Err(ImksError::Timeout(_))));
        }
        assert!(
            futures_util::poll!(Box::pin(application.ask(event(alice)))).is_pending(),
            "all places are free"
        );
    }

    #[test]
    fn only_names_with_the_prefix_are_for_the_application() {
        let application = application(Echo);
        assert!(application.answers("app:x"));
        for name in ["app:", "app", "other:x", "app:\n", &format!("app:{}", "x".repeat(125))] {
            assert!(!application.answers(name), "{name:?}");
        }
        assert!(Application::start(&Config::default()).unwrap().is_none(), "nothing is answered by default");
    }
}
