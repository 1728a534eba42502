//! Webhooks out: every event of the feed, as a signed POST to the operator's back ends (docs/webhooks.md). At least
//! once, and in the order of each channel.
//!
//! Each receiver has a cursor in the database and one sender in the cluster, which holds a lease. A sender that ends
//! without a word is replaced when its lease has expired, and the events since the cursor are sent again.

mod backlog;
mod config;
mod delivery;
pub mod metrics;
mod sender;
pub(crate) mod signature;
mod window;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ImksResult;
use crate::background;
use crate::http_client::HttpClient;
use crate::models::feed::Feed;
use crate::node::NodeId;
use crate::telemetry::trace::Tracer;
pub use backlog::Backlog;
pub use config::Config;
use delivery::Receiver;
use sender::Sender;
use signature::Keys;

/// Starts a sender for each receiver, until `stop`. Attempts that the tracer samples are traced.
///
/// # Errors
/// [`ImksError::Config`](crate::ImksError::Config).
pub fn start(
    config: &Config,
    feed: &Feed,
    (node, tracer): (NodeId, Option<&Tracer>),
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> ImksResult<()> {
    if config.url.is_empty() {
        return Ok(());
    }
    let (client, keys) = (HttpClient::new()?, Arc::new(Keys::parse(&config.secret, config::SECRET)?));
    for url in &config.url {
        let receiver = Receiver::new(url, config, client.clone(), keys.clone(), tracer.cloned());
        let sender = Sender::new(url, receiver, config, feed.clone(), (node, tasks));
        tasks.spawn(background::essential("webhooks", sender.run(stop.clone())));
    }
    Ok(())
}
