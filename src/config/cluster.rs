//! The settings of the cluster: how its nodes reach each other.

use std::net::IpAddr;
use std::path::PathBuf;

use http::uri::Authority;

use super::setting::words;
use crate::secret::Secret;

/// The connection to the other nodes.
#[derive(Clone)]
pub struct Cluster {
    /// The kind of connection; if absent, it follows from the URLs.
    pub adapter: Option<ClusterAdapter>,
    /// The URL of Redis.
    pub redis_url: Option<Secret>,
    /// The URLs of NATS servers, separated by commas.
    pub nats_url: Option<Secret>,
    /// The file with the credentials of a NATS user.
    pub nats_credentials: Option<PathBuf>,
    /// The start of all names of this cluster in the broker.
    pub prefix: String,
    /// The host and port where the other nodes reach this one; if absent, it follows from the listening address.
    pub address: Option<String>,
}

/// How the nodes of a cluster reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterAdapter {
    /// Not at all: there is one node.
    Local,
    /// Through Redis.
    Redis,
    /// Through NATS.
    Nats,
    /// Through the database.
    Postgres,
}

words!(ClusterAdapter { "local" => Local, "redis" => Redis, "nats" => Nats, "postgres" => Postgres });

impl Default for Cluster {
    fn default() -> Self {
        Self {
            adapter: None,
            redis_url: None,
            nats_url: None,
            nats_credentials: None,
            prefix: PREFIX_DEFAULT.into(),
            address: None,
        }
    }
}

impl Cluster {
    /// Returns the adapter that is used.
    pub fn adapter(&self) -> ClusterAdapter {
        match (self.adapter, &self.redis_url, &self.nats_url) {
            (Some(adapter), ..) => adapter,
            (None, Some(_), _) => ClusterAdapter::Redis,
            (None, None, Some(_)) => ClusterAdapter::Nats,
            (None, None, None) => ClusterAdapter::Local,
        }
    }

    /// Returns the problems of the settings, each as a sentence that says what to change.
    pub(super) fn problems(&self, database: Option<&Secret>) -> Vec<String> {
        let needs_url = |url: &Option<Secret>, name: &str| match url {
            Some(_) => None,
            None => Some(format!("IMKS_ADAPTER={name} needs {}_URL", name.to_ascii_uppercase())),
        };
        let missing = match self.adapter() {
            ClusterAdapter::Local => None,
            ClusterAdapter::Redis => needs_url(&self.redis_url, "redis"),
            ClusterAdapter::Nats => needs_url(&self.nats_url, "nats"),
            ClusterAdapter::Postgres if database.is_some_and(|url| url.expose().starts_with("postgres")) => {
                None
            }
            ClusterAdapter::Postgres => Some("IMKS_ADAPTER=postgres needs DATABASE_URL=postgres://…".into()),
        };
        let ambiguous = self.adapter.is_none() && self.redis_url.is_some() && self.nats_url.is_some();
        let ambiguous =
            ambiguous.then(|| "REDIS_URL and NATS_URL are both set: choose with IMKS_ADAPTER".into());
        let wrong = !self.prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        let wrong = (wrong || self.prefix.is_empty() || self.prefix.len() > PREFIX_BYTES_MAX)
            .then(|| format!("IMKS_CLUSTER_PREFIX must be 1 to {PREFIX_BYTES_MAX} letters, digits, - and _"));
        let misplaced = self.address.as_deref().is_some_and(|address| !is_address(address));
        let misplaced = misplaced.then(|| {
            "IMKS_CLUSTER_ADDRESS must be a host and a port, for example 10.0.0.1:3000 or [fd00::1]:3000"
                .into()
        });
        missing.into_iter().chain(ambiguous).chain(wrong).chain(misplaced).collect()
    }
}

/// Whether a text is the host and the port of one machine, and nothing else.
fn is_address(text: &str) -> bool {
    let authority = text.parse::<Authority>().ok().filter(|_| !text.contains('@'));
    authority.is_some_and(|it| {
        let ip: Option<IpAddr> = it.host().trim_matches(['[', ']']).parse().ok();
        let is_one = !it.host().is_empty() && !ip.is_some_and(|ip| ip.is_unspecified());
        is_one && it.port_u16().is_some_and(|port| port != 0)
    })
}

const PREFIX_DEFAULT: &str = "imks";
/// The maximum length of a prefix. PostgreSQL takes names of channels of up to 63 bytes.
const PREFIX_BYTES_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_enough_to_choose_an_adapter_and_two_urls_are_not() {
        let mut cluster = Cluster::default();
        assert_eq!((cluster.adapter(), cluster.problems(None).len()), (ClusterAdapter::Local, 0));
        cluster.nats_url = Some("nats://host".into());
        assert_eq!((cluster.adapter(), cluster.problems(None).len()), (ClusterAdapter::Nats, 0));
        cluster.redis_url = Some("redis://host".into());
        assert_eq!(cluster.problems(None).len(), 1);
        cluster.adapter = Some(ClusterAdapter::Redis);
        assert_eq!((cluster.adapter(), cluster.problems(None).len()), (ClusterAdapter::Redis, 0));
    }

    #[test]
    fn an_adapter_without_what_it_needs_is_refused() {
        let with = |adapter| Cluster { adapter: Some(adapter), ..Cluster::default() };
        let sqlite = Secret::from("sqlite:file");
        for adapter in [ClusterAdapter::Redis, ClusterAdapter::Nats, ClusterAdapter::Postgres] {
            assert_eq!(with(adapter).problems(Some(&sqlite)).len(), 1, "{adapter:?}");
        }
        let postgres = Secret::from("postgres://host/db");
        assert_eq!(with(ClusterAdapter::Postgres).problems(Some(&postgres)), [""; 0]);
        for address in ["10.0.0.1:3000", "[fd00::1]:3000", "one.chat.svc:3000"] {
            let cluster = Cluster { address: Some(address.into()), ..Cluster::default() };
            assert_eq!(cluster.problems(None), [""; 0], "{address:?}");
        }
        for address in
            ["", "10.0.0.1", ":3000", "a:0", "http://a:1", "a:1/b", "u@a:1", "a b:1", "0.0.0.0:1", "[::]:1"]
        {
            let cluster = Cluster { address: Some(address.into()), ..Cluster::default() };
            assert_eq!(cluster.problems(None).len(), 1, "{address:?}");
        }
        for prefix in ["", "a.b", "a b", "ä", &"x".repeat(41)] {
            let cluster = Cluster { prefix: prefix.into(), ..Cluster::default() };
            assert_eq!(cluster.problems(None).len(), 1, "{prefix:?}");
        }
    }
}
