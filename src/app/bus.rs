//! The connection to the other nodes, and the watch over nodes that share the database without one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::bus::Pipe;
use crate::bus::metrics::UNHEARD_NODES;
use crate::config::{ClusterAdapter, Config, Setting};
use crate::http::forward::{self, Forwarder};
use crate::http::front::Served;
use crate::http::tls::Certificates;
use crate::models::cluster_node::{ALONE, ClusterNode, Contact};
use crate::models::{Db, cluster_message};
use crate::node::{NodeId, host_name};
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
    bus: Arc<dyn Pipe>,
    reach: Option<Reach>,
    strangers: watch::Sender<Vec<String>>,
}

/// How requests go from node to node.
pub(super) struct Reach {
    forwarder: Forwarder,
    /// The host and port of this node.
    address: String,
    /// The certificate of its listener, if that speaks TLS.
    certificates: Option<Certificates>,
}

impl Reach {
    pub(super) fn new(config: &Config, forwarder: &Forwarder, front: &Served) -> Self {
        let address = config.cluster.address.clone();
        let address = address.unwrap_or_else(|| from_elsewhere(front.addr).to_string());
        let certificates = front.certificates.clone().filter(|_| config.tls.is_on());
        Self { forwarder: forwarder.clone(), address, certificates }
    }

    /// Returns what other nodes have to know.
    fn own(&self) -> Contact {
        Contact {
            address: Some(self.address.clone()),
            secret: Some(self.forwarder.secret().to_vec()),
            certificate: self.certificates.as_ref().map(|it| it.fingerprint().to_vec()),
        }
    }

    fn update(&self, others: &[&ClusterNode]) {
        let contacts =
            others.iter().filter_map(|other| Some((NodeId::parse(&other.node)?, known(&other.contact)?)));
        self.forwarder.update(contacts, Instant::now());
    }
}

/// Returns how a node is reached, or `None` if it takes nothing from others.
fn known(contact: &Contact) -> Option<forward::Contact> {
    let certificate = contact.certificate.as_deref();
    Some(forward::Contact {
        address: contact.address.clone()?,
        secret: contact.secret.as_deref()?.try_into().ok()?,
        certificate: certificate.map(<[u8; 32]>::try_from).transpose().ok()?,
    })
}

/// Returns the address under which other machines reach a listener: for one that listens on all addresses, that of this
/// machine on the way to the outside. A listener on all addresses of IPv6 also takes those of IPv4.
fn from_elsewhere(listening: SocketAddr) -> SocketAddr {
    let ip = listening.ip();
    let (outside, loopback): (&[SocketAddr], IpAddr) = match ip {
        _ if !ip.is_unspecified() => return listening,
        IpAddr::V4(_) => (&[OUTSIDE_V4], Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(_) => (&[OUTSIDE_V6, OUTSIDE_V4], Ipv6Addr::LOCALHOST.into()),
    };
    SocketAddr::new(outside.iter().find_map(on_the_way_to).unwrap_or(loopback), listening.port())
}

/// Returns the address of this machine on the way to another one. Nothing is sent: the system only chooses the way.
fn on_the_way_to(outside: &SocketAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if outside.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(outside).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// An address for documentation (RFC 5737), which no machine has.
const OUTSIDE_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
/// An address for documentation (RFC 3849), which no machine has.
const OUTSIDE_V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9);

impl Neighbours {
    /// Looks for other nodes once.
    pub(super) async fn watch(
        config: &Config,
        db: &Db,
        node: NodeId,
        bus: Arc<dyn Pipe>,
        reach: Option<Reach>,
    ) -> ImksResult<Arc<Self>> {
        let cluster = &config.cluster;
        let adapter = match cluster.adapter() {
            ClusterAdapter::Local => ALONE.to_owned(),
            adapter => format!("{} {}", adapter.show(), cluster.prefix),
        };
        let id = node.to_string();
        let name = config.messaging.node.clone().filter(|name| *name != id).unwrap_or_else(host_name);
        let own = ClusterNode { node: id, name, adapter, contact: Contact::default() };
        let strangers = watch::Sender::default();
        let neighbours = Arc::new(Self { own, db: db.clone(), bus, reach, strangers });
        neighbours.look().await?;
        Ok(neighbours)
    }

    /// Looks for other nodes until `stop`, then tells them that this one has left.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        stop.run_until_cancelled(self.clone().look_again()).await;
        if let Err(error) = self.own.leave(&self.db).await {
            tracing::warn!(%error, "the row of this node was not removed");
        }
    }

    /// Looks for other nodes every few seconds, and when one says that it is new.
    async fn look_again(self: Arc<Self>) {
        let mut news = self.bus.subscribe(NEWS);
        // A broker that is away confirms nothing, and then there are no news either.
        let _ = timeout(LOOK_INTERVAL, news.confirmed()).await;
        self.bus.publish(NEWS, Bytes::new());
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut listens = true;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                heard = news.recv(), if listens => {
                    listens = heard.is_some();
                    // However much is said, the database is asked a few times a second.
                    sleep(LOOK_PAUSE).await;
                }
            }
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "other nodes on this database were not looked for");
            }
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
        let contact = self.reach.as_ref().map(Reach::own).unwrap_or_default();
        let others = ClusterNode { contact, ..self.own.clone() }.renew(&self.db).await?;
        let (heard, strangers): (Vec<_>, Vec<_>) = others.iter().partition(|other| self.own.hears(other));
        if let Some(reach) = &self.reach {
            reach.update(&heard);
        }
        let strangers: Vec<String> =
            strangers.iter().map(|node| format!("{} {} ({})", node.name, node.node, node.adapter)).collect();
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
/// The pause before a node looks because another one has said that it is new.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// The channel on which a node says that it is new.
const NEWS: &str = "nodes";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_reached_at_one_of_this_machine() {
        for listening in ["10.1.2.3:3000", "127.0.0.1:80", "[::1]:3000"] {
            let listening = listening.parse().unwrap();
            assert_eq!(from_elsewhere(listening), listening);
        }
        for listening in ["0.0.0.0:3000", "[::]:3000"] {
            let address = from_elsewhere(listening.parse().unwrap());
            assert!(!address.ip().is_unspecified() && address.port() == 3000, "{address}");
        }
    }

    #[test]
    fn a_node_that_takes_nothing_or_says_nonsense_is_not_known() {
        let good = Contact { address: Some("a:1".into()), secret: Some(vec![1; 32]), certificate: None };
        assert_eq!(known(&good).map(|known| known.address).as_deref(), Some("a:1"));
        let short = Some(vec![1; 31]);
        for bad in [
            Contact::default(),
            Contact { secret: None, ..good.clone() },
            Contact { secret: short.clone(), ..good.clone() },
            Contact { certificate: short, ..good },
        ] {
            assert!(known(&bad).is_none());
        }
    }
}
