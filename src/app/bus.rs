//! The connection to the other nodes, and the watch over nodes that share the database without one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::bus::Pipe;
use crate::bus::metrics::UNHEARD_NODES;
use crate::config::{ClusterAdapter, Config, Setting};
use crate::models::cluster_node::{ALONE, ClusterNode};
use crate::models::{Db, cluster_message};
use crate::node::NodeId;
use crate::secret::Secret;
use crate::socket::adapter::local::LocalAdapter;
use crate::socket::adapter::{nats, redis};
use crate::{ImksError, ImksResult};

/// Connects this node to the others. A broker that is away is no error: the node works alone until it is back.
pub(crate) async fn connect_bus(config: &Config, db: &Db, node: NodeId) -> ImksResult<Arc<dyn Pipe>> {
    let cluster = &config.cluster;
    let url = |url: &Option<Secret>| url.as_ref().map(|url| url.expose().to_owned()).unwrap_or_default();
    let pipe: Arc<dyn Pipe> = match cluster.adapter() {
        ClusterAdapter::Local => return Ok(Arc::new(LocalAdapter)),
        ClusterAdapter::Redis => redis::connect(&url(&cluster.redis_url), &cluster.prefix, node)?,
        ClusterAdapter::Nats => {
            let credentials = cluster.nats_credentials.clone();
            nats::connect(&url(&cluster.nats_url), credentials, &cluster.prefix, node)?
        }
        ClusterAdapter::Postgres => cluster_message::connect(db, &cluster.prefix, node)?,
    };
    let mut state = pipe.state();
    let up = state.wait_for(|state| state.up);
    if tokio::time::timeout(START_WAIT, up).await.is_err() {
        tracing::warn!(
            adapter = pipe.name(),
            "started without the broker: other nodes are reached when it is back"
        );
    }
    Ok(pipe)
}

/// How long a start waits for the broker.
const START_WAIT: Duration = Duration::from_secs(3);

/// Watches for other nodes that use the same database and do not hear this one, so that nobody runs such a pair
/// without knowing.
pub(super) struct Neighbours {
    own: ClusterNode,
    db: Db,
    strangers: watch::Sender<Vec<String>>,
}

impl Neighbours {
    /// Looks for other nodes once.
    pub(super) async fn watch(config: &Config, db: &Db, node: NodeId) -> ImksResult<Arc<Self>> {
        let cluster = &config.cluster;
        let adapter = match cluster.adapter() {
            ClusterAdapter::Local => ALONE.to_owned(),
            adapter => format!("{} {}", adapter.show(), cluster.prefix),
        };
        let name = config.messaging.node.clone().unwrap_or_default();
        let own = ClusterNode { node: node.to_string(), name, adapter };
        let neighbours = Arc::new(Self { own, db: db.clone(), strangers: watch::Sender::default() });
        neighbours.look().await?;
        Ok(neighbours)
    }

    /// Looks for other nodes until `stop`, then tells them that this one has left.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "other nodes on this database were not looked for");
            }
        }
        if let Err(error) = self.own.leave(&self.db).await {
            tracing::warn!(%error, "the row of this node was not removed");
        }
    }

    /// Fails while there are nodes that do not hear this one.
    pub(super) fn check(&self) -> ImksResult<()> {
        match self.strangers.borrow().is_empty() {
            true => Ok(()),
            false => Err(ImksError::Config(APART.into())),
        }
    }

    async fn look(&self) -> ImksResult<()> {
        let others = self.own.renew(&self.db).await?;
        let strangers = others.iter().filter(|other| !self.own.hears(other));
        let strangers: Vec<String> =
            strangers.map(|node| format!("{} ({})", node.name, node.adapter)).collect();
        UNHEARD_NODES.set(i64::try_from(strangers.len()).unwrap_or(i64::MAX));
        self.strangers.send_if_modified(|known| {
            let is_new = *known != strangers;
            match (is_new, strangers.is_empty()) {
                (true, false) => tracing::error!(adapter = self.own.adapter, ?strangers, "{APART}"),
                (true, true) => tracing::info!("all nodes on this database hear each other again"),
                (false, _) => {}
            }
            known.clone_from(&strangers);
            is_new
        });
        Ok(())
    }
}

const APART: &str = "other nodes use the same database, and they and this one do not hear each other: clients miss \
    messages. Give all of them the same IMKS_ADAPTER, broker and IMKS_CLUSTER_PREFIX";
/// The interval at which a node looks for others on its database.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);
