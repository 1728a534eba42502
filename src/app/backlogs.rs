//! What waits in the database for others to take it, in the health and the metrics of the server: events for the receivers
//! of webhooks, the feed, and the messages of other programs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::background;
use crate::clock::Micros;
use crate::config::Config;
use crate::http::health::{Finding, Health};
use crate::messaging::outbox;
use crate::models::Db;
use crate::models::feed::Feed;
use crate::{ImksResult, webhook};

/// The backlogs of a server. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Backlogs {
    webhook: Option<Arc<webhook::Config>>,
    feed: Feed,
    /// `None` on SQLite, which has no outbox.
    outbox: Option<Arc<outbox::Backlog>>,
}

impl Backlogs {
    /// Adds what waits to the health, and keeps its metrics up to date in a task of `tasks` until `stop`.
    pub(super) fn watch(
        health: Health,
        config: &Config,
        feed: &Feed,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Health {
        let backlogs = Self::new(config, feed);
        let counting = backlogs.clone();
        tasks.spawn(background::keep("backlogs", stop.clone(), move |stop| counting.clone().run(stop)));
        backlogs.report(health)
    }

    fn new(config: &Config, feed: &Feed) -> Self {
        let has_outbox = matches!(feed.db(), Db::Postgres(_));
        Self {
            webhook: (!config.webhook.url.is_empty()).then(|| Arc::new(config.webhook.clone())),
            feed: feed.clone(),
            outbox: has_outbox.then(|| Arc::new(outbox::Backlog::new(feed.db()))),
        }
    }

    /// Adds a part to the health for each that the server has.
    fn report(self, mut health: Health) -> Health {
        if let Some(config) = self.webhook {
            let feed = self.feed.clone();
            health = health.watches("webhooks", move || of_webhooks(config.clone(), feed.clone()));
        }
        if self.feed.is_on() {
            let feed = self.feed;
            health = health.watches("feed", move || of_feed(feed.clone()));
        }
        match self.outbox {
            Some(outbox) => health.watches("outbox", move || of_outbox(outbox.clone())),
            None => health,
        }
    }

    /// Brings the metrics up to date from time to time, until `stop`.
    async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(sleep(PAUSE)).await.is_some() {
            if let Err(error) = self.measure().await {
                tracing::debug!(%error, "what waits was not counted");
            }
        }
    }

    async fn measure(&self) -> ImksResult<()> {
        if let Some(config) = &self.webhook {
            of_webhooks(config.clone(), self.feed.clone()).await?;
        }
        of_feed(self.feed.clone()).await?;
        if let Some(outbox) = &self.outbox {
            of_outbox(outbox.clone()).await?;
        }
        Ok(())
    }
}

async fn of_webhooks(config: Arc<webhook::Config>, feed: Feed) -> ImksResult<Finding> {
    let webhook::Backlog { dead_letters, disabled, lag } = webhook::Backlog::read(&config, &feed).await?;
    let numbers = [("dead_letters", dead_letters), ("disabled", disabled), ("lag_ms", lag / MICROS_PER_MS)];
    Ok(finding(dead_letters > 0 || disabled > 0 || lag > LAG_MAX, numbers.into()))
}

async fn of_feed(feed: Feed) -> ImksResult<Finding> {
    let lag = feed.held_back().await?;
    Ok(finding(lag > LAG_MAX, [("lag_ms", lag / MICROS_PER_MS)].into()))
}

async fn of_outbox(outbox: Arc<outbox::Backlog>) -> ImksResult<Finding> {
    let (waiting, unmoved) = outbox.look().await?;
    let numbers = [("waiting", waiting.messages), ("failed", waiting.failed)];
    Ok(finding(unmoved > UNMOVED_MAX, numbers.into()))
}

fn finding(is_degraded: bool, numbers: BTreeMap<&'static str, i64>) -> Finding {
    Finding { is_degraded, numbers }
}

/// The time between two updates of the metrics.
const PAUSE: Duration = Duration::from_secs(15);
/// The age of an event, in microseconds, beyond which its receivers are behind.
const LAG_MAX: Micros = 60 * 1_000_000;
/// How long the oldest message of the outbox may wait before it is stuck.
const UNMOVED_MAX: Duration = Duration::from_secs(60);
const MICROS_PER_MS: Micros = 1_000;
