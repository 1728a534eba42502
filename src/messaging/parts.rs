//! The shared state of messaging: its parts, and the limits that apply to all requests.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use super::Config;
use super::absent::Absent;
use super::activity::Activity;
use super::budget::AnswerBudget;
use super::channels::Channels;
use super::farewell::Farewells;
use super::online_lookups::Lookups;
use super::presence_board::Board;
use super::preview_queue::Previews;
use super::rates::Rates;
use super::relay::Relay;
use super::resume::Resume;
use super::small_channels::SmallChannels;
use super::standings::Standings;
use super::typists::Typing;
use crate::ImksResult;
use crate::application::Application;
use crate::auth::{CoreClient, Permissions, TokenVerifier};
use crate::files::Files;
use crate::models::Db;
use crate::models::append::{Appender, Authority, Mutation, Receipt, Scope};
use crate::models::message::AuthorInfo;
use crate::page_fetcher::PageFetcher;
use crate::telemetry::trace::Tracer;

/// The parts of messaging.
#[derive(Clone)]
pub struct Parts {
    /// The database for reading messages.
    pub db: Db,
    /// The append path for writing messages.
    pub appender: Appender,
    /// Verifies the tokens of callers.
    pub tokens: TokenVerifier,
    /// Checks what a user may do.
    pub permissions: Permissions,
    /// Knows which channels a user is in.
    pub core: CoreClient,
    /// The files that are attached to messages.
    pub files: Files,
    /// Fetches the pages that messages link to, if they get previews.
    pub fetcher: Option<PageFetcher>,
    /// Sends events to other nodes, if there can be any.
    pub relay: Option<Relay>,
    /// Answers the events that messaging does not know, if there is one.
    pub application: Option<Application>,
    /// Traces requests, if traces are exported.
    pub tracer: Option<Tracer>,
}

/// The shared state of the features. Cheap to clone.
#[derive(Clone)]
pub struct Messaging(Arc<Inner>);

struct Inner {
    config: Config,
    parts: Parts,
    rates: Rates,
    answers: AnswerBudget,
    typing: Typing,
    presence: Board,
    lookups: Lookups,
    channels: Channels,
    farewells: Farewells,
    previews: Previews,
    absent: Absent,
    small: SmallChannels,
    standings: Standings,
    activity: Activity,
    resume: Resume,
    /// Notified when a purge was ordered.
    purges: Notify,
}

impl Messaging {
    /// Combines the parts.
    ///
    /// # Errors
    /// [`ImksError::Randomness`](crate::ImksError::Randomness) if the operating system has no random numbers.
    pub fn new(config: Config, parts: Parts) -> ImksResult<Self> {
        let resume = Resume::new(config.resume.clone(), parts.db.clone())?;
        Ok(Self(Arc::new(Inner {
            rates: Rates::new(&config, parts.relay.is_some()),
            answers: AnswerBudget::new(config.answers.clone()),
            presence: Board::new(parts.relay.as_ref().map(Relay::node)),
            config,
            parts,
            typing: Typing::default(),
            lookups: Lookups::default(),
            channels: Channels::default(),
            farewells: Farewells::default(),
            previews: Previews::default(),
            absent: Absent::default(),
            small: SmallChannels::default(),
            standings: Standings::default(),
            activity: Activity::default(),
            resume,
            purges: Notify::new(),
        })))
    }

    /// Returns the configuration.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    pub(super) fn standings(&self) -> &Standings {
        &self.0.standings
    }

    pub(super) fn tokens(&self) -> &TokenVerifier {
        &self.0.parts.tokens
    }

    /// Returns the permissions, for decisions about rooms. Handlers go through [`Ctx`](super::ctx::Ctx).
    pub(super) fn permissions(&self) -> &Permissions {
        &self.0.parts.permissions
    }

    pub(super) fn core(&self) -> &CoreClient {
        &self.0.parts.core
    }

    /// Returns the database, for background tasks and proofs of permission. Handlers cannot reach it.
    pub(super) fn db(&self) -> &Db {
        &self.0.parts.db
    }

    pub(super) fn fetcher(&self) -> Option<&PageFetcher> {
        self.0.parts.fetcher.as_ref()
    }

    /// Returns the messages that wait for previews, if messages get previews.
    pub(super) fn previews(&self) -> Option<&Previews> {
        self.fetcher().map(|_| &self.0.previews)
    }

    pub(super) fn files(&self) -> &Files {
        &self.0.parts.files
    }

    pub(super) fn appender(&self) -> &Appender {
        &self.0.parts.appender
    }

    /// Queues a mutation that the server makes in the name of a user, because its time has come.
    pub(super) fn submit_as<M: Mutation>(
        &self,
        channel_id: Uuid,
        actor: AuthorInfo,
        mutation: M,
    ) -> ImksResult<Receipt<M::Done>> {
        let scope = Scope { channel_id, actor, slow_mode: Duration::ZERO, authority: Authority::Any };
        self.appender().submit(scope, mutation)
    }

    pub(super) fn relay(&self) -> Option<&Relay> {
        self.0.parts.relay.as_ref()
    }

    pub(super) fn application(&self) -> Option<&Application> {
        self.0.parts.application.as_ref()
    }

    /// Returns what traces requests, if traces are exported.
    pub fn tracer(&self) -> Option<&Tracer> {
        self.0.parts.tracer.as_ref()
    }

    pub(super) fn answers(&self) -> &AnswerBudget {
        &self.0.answers
    }

    pub(super) fn typing(&self) -> &Typing {
        &self.0.typing
    }

    pub(super) fn presence(&self) -> &Board {
        &self.0.presence
    }

    /// Returns what bounds the cost of looking up who of a channel is online.
    pub(super) fn lookups(&self) -> &Lookups {
        &self.0.lookups
    }

    pub(super) fn channels(&self) -> &Channels {
        &self.0.channels
    }

    pub(super) fn farewells(&self) -> &Farewells {
        &self.0.farewells
    }

    pub(super) fn small_channels(&self) -> &SmallChannels {
        &self.0.small
    }

    pub(super) fn activity(&self) -> &Activity {
        &self.0.activity
    }

    /// Returns the sessions that continue where they were.
    pub(super) fn resume(&self) -> &Resume {
        &self.0.resume
    }

    /// Returns the mentions that the core is to be told of.
    pub(super) fn absent(&self) -> &Absent {
        &self.0.absent
    }

    pub(super) fn purges(&self) -> &Notify {
        &self.0.purges
    }

    pub(super) fn rates(&self) -> &Rates {
        &self.0.rates
    }

    /// Takes the limits of a configuration that was read again, and looks at the keys of tokens.
    ///
    /// # Errors
    /// The error of the issuer of the keys; the known ones stay in use.
    pub async fn reload(&self, config: &Config) -> ImksResult<()> {
        self.0.rates.reload(config);
        self.tokens().refresh_now().await
    }

    /// Removes idle rate limits. Called periodically.
    pub fn sweep(&self, now: Instant) {
        self.0.rates.sweep(now);
    }
}

impl fmt::Debug for Messaging {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Messaging").field("config", &self.0.config).finish_non_exhaustive()
    }
}
