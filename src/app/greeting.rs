//! The message that the server prints when it has started.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::App;
use crate::config::{ClusterAdapter, Config, Setting};
use crate::models::db;
use crate::node::host_name;
use crate::secret::Secret;
use crate::telemetry::logging::LogFormat;

impl App {
    /// Returns a short summary of the configuration and the next steps, for people.
    pub fn greeting(&self) -> String {
        let core = self.config.core_url.as_ref().map_or("embedded directory".into(), Secret::to_string);
        let scheme = if self.config.tls.is_on() { "https" } else { "http" };
        let url = format!("{scheme}://{}", reachable(self.front.addr));
        let mut text = format!(
            "imks {version} is ready.\n\
             \x20 listening  {scheme}://{address}  (Socket.IO at {path}/, polling and WebSocket)\n\
             \x20 database   {database}\n\
             \x20 core       {core}\n\
             \x20 adapter    {adapter}\n\
             \x20 node       {node} on {host}\n",
            version = env!("CARGO_PKG_VERSION"),
            address = self.front.addr,
            path = self.config.engine.path.trim_end_matches('/'),
            database = self.db.describe(),
            adapter = self.adapter(),
            node = self.config.messaging.node.as_deref().unwrap_or_default(),
            host = host_name(),
        );
        if let Some(udp) = self.front.udp_addr {
            text.push_str(&format!("  quic       https://{udp}  (WebTransport over UDP)\n"));
        }
        if let Some(udp) = self.front.quic_addr {
            text.push_str(&format!("  quic       {udp}  (without HTTP/3, over UDP)\n"));
        }
        if self.config.admin.enabled {
            let admin = &self.config.admin;
            let mode = admin.mode.show();
            let page = admin.ui_dir.as_ref().map(|_| format!(", page {url}/admin/")).unwrap_or_default();
            text.push_str(&format!("  admin      namespace {}, {mode} mode{page}\n", admin.namespace));
        }
        if self.config.serves_first_page() {
            text.push_str(&format!(
                "  page       {url}/   (a chat for two in your browser; off: IMKS_FIRST_PAGE=off)\n"
            ));
        }
        text.push_str(&self.way_in());
        text.push_str(&format!(
            "  connect    io(\"{url}\", {{ auth: {{ token }} }})   with socket.io-client\n"
        ));
        text.push_str(&format!("  health     curl {url}/health"));
        if let Some(internal) = self.internal_addr {
            text.push_str(&format!("\n  metrics    curl http://{}/metrics", reachable(internal)));
        }
        warnings(&self.config).for_each(|warning| text.push_str(&format!("\nWarning: {warning}")));
        text
    }

    /// Logs that the server is ready, with what it has chosen.
    pub fn log_ready(&self) {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            node = self.config.messaging.node.as_deref(),
            host = host_name(),
            address = %self.front.addr,
            webtransport = self.front.udp_addr.map(tracing::field::display),
            quic = self.front.quic_addr.map(tracing::field::display),
            internal = self.internal_addr.map(tracing::field::display),
            database = %self.db.describe(),
            core = self.config.core_url.as_ref().map(tracing::field::display),
            adapter = %self.adapter(),
            first_page = self.config.serves_first_page(),
            "ready"
        );
        warnings(&self.config).for_each(|warning| tracing::warn!("{warning}"));
    }

    /// Whether the log is for machines: then standard output has nothing else.
    pub fn logs_json(&self) -> bool {
        self.config.log.format == LogFormat::Json
    }

    /// Returns the line about where tokens come from; empty if an external core issues them.
    fn way_in(&self) -> String {
        if self.config.login.is_in_use(&self.config.hook) {
            return "  logins     tokens of your own application (docs/identity.md)\n".into();
        }
        if self.directory.is_none() {
            return String::new();
        }
        let place = where_data_is(&self.config.database);
        format!("  token      imks token alice{place}   (creates the user, a member of #general)\n")
    }
}

/// Returns what everybody who reaches the server can see, and perhaps should not.
fn warnings(config: &Config) -> impl Iterator<Item = &'static str> {
    let checks = [(!config.tls.is_on(), PLAINTEXT), (config.internal_listen.is_none(), PUBLIC_METRICS)];
    let reachable = config.is_reachable_from_outside();
    checks.into_iter().filter(move |(applies, _)| reachable && *applies).map(|(_, warning)| warning)
}

/// Returns the option with which a command uses the same database from any directory; empty if the environment says
/// it.
pub(crate) fn where_data_is(database: &db::Config) -> String {
    match database.url {
        None => format!(" --data-dir {}", absolute(&database.data_dir)),
        Some(_) => String::new(),
    }
}

/// Returns a path as a shell reads it from any directory.
fn absolute(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
    let is_plain = path.chars().all(|c| c.is_alphanumeric() || "/-_.".contains(c));
    if is_plain { path } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

impl App {
    /// Returns the adapter, with the address of its broker.
    fn adapter(&self) -> String {
        let cluster = &self.config.cluster;
        let of = |name: &str, url: &Option<Secret>| {
            let prefix = &cluster.prefix;
            format!(
                "{name} at {} (cluster {prefix})",
                url.as_ref().map(Secret::to_string).unwrap_or_default()
            )
        };
        match cluster.adapter() {
            ClusterAdapter::Local => "local (one node)".into(),
            ClusterAdapter::Redis => of("redis", &cluster.redis_url),
            ClusterAdapter::Nats => of("nats", &cluster.nats_url),
            ClusterAdapter::Postgres => format!("postgres (the database, cluster {})", cluster.prefix),
        }
    }
}

/// Returns the address at which a local program reaches a listener on `address`. The unspecified address
/// becomes loopback.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

const PLAINTEXT: &str = "this is plain HTTP on an address that other machines can reach. \
     Set IMKS_TLS_CERT and IMKS_TLS_KEY, or put a proxy with TLS in front.";
const PUBLIC_METRICS: &str = "everybody who reaches this server can read /metrics. Set IMKS_INTERNAL_LISTEN to give operators a listener of their own.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_for_other_machines_is_told_what_these_can_read() {
        let mut config = Config::default();
        assert_eq!(warnings(&config).count(), 0);
        config.listen = ([0, 0, 0, 0], 3000).into();
        assert_eq!(warnings(&config).collect::<Vec<_>>(), [PLAINTEXT, PUBLIC_METRICS]);
        config.internal_listen = Some(([127, 0, 0, 1], 9090).into());
        assert_eq!(warnings(&config).collect::<Vec<_>>(), [PLAINTEXT]);
    }
}
