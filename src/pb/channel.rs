//! The connections to the core: TLS, several addresses with calls spread over those that are healthy, names that
//! are resolved again, and certificates that are read again when their files change.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tonic::Code;
use tonic::transport::channel::Change;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::client::Config;
use crate::background;
use crate::clock::jittered;
use crate::error::{ImksError, ImksResult};

/// Returns a channel to the addresses in `url`, how many there are, and `url` without credentials. It connects on the
/// first call, and again whenever a connection is lost.
///
/// # Errors
/// `Config` if the address does not parse, or if a file with a certificate cannot be used.
pub(super) fn connect(url: &str, config: &Config) -> ImksResult<(Channel, usize, String)> {
    let target = Target::parse(url, config.clone())?;
    let tls = target.tls()?;
    let (hosts, shown) = (target.hosts.len(), target.shown());
    let (channel, changes) = Channel::balance_channel(CHANGES_QUEUE);
    let follower = Follower { target, tls, changes, places: BTreeMap::new() };
    TaskTracker::new().spawn(background::essential("core_addresses", follower.run()));
    Ok((channel, hosts, shown))
}

/// Returns a message with the causes of an error, each once.
pub(super) fn told(message: &str, mut cause: Option<&(dyn Error + 'static)>) -> String {
    let mut texts = vec![message.to_owned()];
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    texts.retain(|text| !text.is_empty() && text != TRANSPORT);
    texts.dedup();
    texts.join(": ")
}

/// The hosts that serve the core.
struct Target {
    is_tls: bool,
    hosts: Vec<Host>,
    config: Config,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Host {
    /// A name, or an address, which is in brackets if it is IPv6.
    name: String,
    port: u16,
}

/// One address of a host.
type Place = (usize, SocketAddr);

/// What is known about a place.
struct Known {
    /// For health checks only, so that a place without traffic is checked as well.
    probe: Channel,
    in_use: bool,
}

/// TLS as read from the files, and their state at that time.
#[derive(Clone)]
struct Tls {
    config: Option<ClientTlsConfig>,
    stamp: Vec<Option<SystemTime>>,
}

/// The task that tells a channel its endpoints for as long as the channel lives.
struct Follower {
    target: Target,
    tls: Tls,
    changes: Sender<Change<Place, Endpoint>>,
    places: BTreeMap<Place, Known>,
}

impl Target {
    fn parse(url: &str, config: Config) -> ImksResult<Self> {
        let malformed = || ImksError::Config(ADDRESS_FORM.into());
        let (scheme, rest) = url.split_once("://").ok_or_else(malformed)?;
        let is_tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(malformed()),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let authority = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
        let default_port = if is_tls { 443 } else { 80 };
        let hosts: Option<Vec<Host>> =
            authority.split(',').map(|text| Host::parse(text, default_port)).collect();
        let hosts = hosts.filter(|hosts| hosts.len() <= HOSTS_MAX).ok_or_else(malformed)?;
        Ok(Self { is_tls, hosts, config })
    }

    /// Returns the address without credentials, as the log and people may see it.
    fn shown(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        let host = |host: &Host| format!("{}:{}", host.name, host.port);
        format!("{scheme}://{}", self.hosts.iter().map(host).collect::<Vec<_>>().join(","))
    }

    /// Reads the certificates.
    fn tls(&self) -> ImksResult<Tls> {
        let stamp = self.stamp();
        if !self.is_tls {
            return Ok(Tls { config: None, stamp });
        }
        let mut tls = ClientTlsConfig::new().timeout(self.config.deadline);
        tls = match &self.config.ca {
            Some(path) => tls.ca_certificate(authorities(path)?),
            None => tls.with_native_roots(),
        };
        if let (Some(cert), Some(key)) = (&self.config.cert, &self.config.key) {
            let (cert, key) = (read("IMKS_CORE_CERT", cert)?, read("IMKS_CORE_KEY", key)?);
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        let tls = Tls { config: Some(tls), stamp };
        // Only now it is known whether the files have what they should.
        self.endpoint((0, SocketAddr::from(([127, 0, 0, 1], 1))), &tls)?;
        Ok(tls)
    }

    fn stamp(&self) -> Vec<Option<SystemTime>> {
        let files = [&self.config.ca, &self.config.cert, &self.config.key];
        let modified = |path: &Path| std::fs::metadata(path).ok()?.modified().ok();
        files.into_iter().map(|file| modified(file.as_deref()?)).collect()
    }

    fn endpoint(&self, (host, address): Place, tls: &Tls) -> ImksResult<Endpoint> {
        let host = self.hosts.get(host).ok_or(ImksError::Internal("a place without a host"))?;
        let scheme = if self.is_tls { "https" } else { "http" };
        let malformed = |_| ImksError::Config(ADDRESS_FORM.into());
        let origin = format!("{scheme}://{}:{}", host.name, host.port).parse().map_err(|_| malformed(()))?;
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(|_| malformed(()))?
            .origin(origin)
            .connect_timeout(self.config.deadline)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.config.keep_alive)
            .keep_alive_timeout(self.config.keep_alive / 2)
            .keep_alive_while_idle(true);
        if let Some(tls) = &tls.config {
            let own = host.name.trim_matches(['[', ']']);
            let name = self.config.server_name.as_deref().unwrap_or(own);
            let unusable = |error: tonic::transport::Error| {
                let why = told("", Some(&error));
                ImksError::Config(format!("IMKS_CORE_CERT, IMKS_CORE_KEY or IMKS_CORE_SERVER_NAME: {why}"))
            };
            endpoint = endpoint.tls_config(tls.clone().domain_name(name)).map_err(unusable)?;
        }
        Ok(endpoint)
    }

    /// Returns the addresses of all hosts. Those of a name that cannot be resolved are missing.
    async fn resolve(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for (number, host) in self.hosts.iter().enumerate() {
            let name = (host.name.trim_matches(['[', ']']), host.port);
            match timeout(self.config.deadline, tokio::net::lookup_host(name)).await {
                Ok(Ok(addresses)) => {
                    places.extend(addresses.take(ADDRESSES_MAX).map(|address| (number, address)))
                }
                Ok(Err(error)) => {
                    tracing::warn!(host = host.name, %error, "the core's name cannot be resolved")
                }
                Err(_) => tracing::warn!(host = host.name, "the core's name cannot be resolved in time"),
            }
        }
        places
    }
}

fn read(setting: &str, path: &Path) -> ImksResult<Vec<u8>> {
    let unreadable = |error| ImksError::Config(format!("{setting}: cannot read {}: {error}", path.display()));
    std::fs::read(path).map_err(unreadable)
}

/// Reads certificates that may vouch for the core. The library would leave out those that it cannot use, and then
/// trust nobody.
fn authorities(path: &Path) -> ImksResult<Certificate> {
    let text = read("IMKS_CORE_CA", path)?;
    let unusable = |why: &dyn Display| ImksError::Config(format!("IMKS_CORE_CA: {}: {why}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    if roots.is_empty() {
        return Err(unusable(&"has no certificate in PEM"));
    }
    Ok(Certificate::from_pem(text))
}

impl Host {
    fn parse(text: &str, default_port: u16) -> Option<Self> {
        let end_of_name = text.rfind(']').map_or(0, |bracket| bracket + 1);
        let (name, port) = match text[end_of_name..].rfind(':') {
            Some(colon) => (&text[..end_of_name + colon], text[end_of_name + colon + 1..].parse().ok()?),
            None => (text, default_port),
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
        let is_name = !name.is_empty() && name.chars().all(allowed);
        is_name.then(|| Self { name: name.to_owned(), port })
    }
}

impl Follower {
    async fn run(mut self) {
        let changes = self.changes.clone();
        loop {
            self.update(self.target.resolve().await).await;
            self.check_health().await;
            for _ in 0..ROUNDS {
                tokio::select! {
                    () = changes.closed() => return,
                    () = sleep(jittered(ROUND)) => {}
                }
                self.reload().await;
                self.check_health().await;
            }
        }
    }

    /// Adds new places and removes those that are gone. If no name can be resolved, the known places stay.
    async fn update(&mut self, resolved: Vec<Place>) {
        if resolved.is_empty() {
            return;
        }
        let gone: Vec<Place> =
            self.places.keys().copied().filter(|place| !resolved.contains(place)).collect();
        for place in gone {
            self.places.remove(&place);
            self.tell(Change::Remove(place)).await;
        }
        for place in resolved {
            if !self.places.contains_key(&place) {
                self.insert(place).await;
            }
        }
    }

    async fn insert(&mut self, place: Place) {
        match self.target.endpoint(place, &self.tls) {
            Ok(endpoint) => {
                self.places.insert(place, Known { probe: endpoint.connect_lazy(), in_use: true });
                self.tell(Change::Insert(place, endpoint)).await;
            }
            Err(error) => tracing::error!(%error, "an address of the core cannot be used"),
        }
    }

    /// Reads the certificates again if their files changed. New connections use them; the old ones stay in use
    /// if the new ones cannot be.
    async fn reload(&mut self) {
        let stamp = self.target.stamp();
        if stamp == self.tls.stamp {
            return;
        }
        // Also after a failure: the same files would fail again.
        self.tls.stamp = stamp;
        match self.target.tls() {
            Ok(tls) => self.tls = tls,
            Err(error) => {
                return tracing::error!(%error, "the certificates for the core were not exchanged, the old ones stay in use");
            }
        }
        tracing::info!("new certificates for the core are in use");
        for place in self.places.keys().copied().collect::<Vec<_>>() {
            self.insert(place).await;
        }
    }

    /// Takes places that are not healthy out of use, unless none is healthy. A single place is always in use.
    async fn check_health(&mut self) {
        if self.places.len() < 2 {
            return;
        }
        let checks = self.places.iter().map(|(place, known)| is_healthy(*place, known.probe.clone()));
        let healthy: BTreeMap<Place, bool> =
            futures_util::future::join_all(checks).await.into_iter().collect();
        let none = healthy.values().all(|healthy| !healthy);
        for (place, healthy) in healthy {
            let wanted = healthy || none;
            let Some(known) = self.places.get_mut(&place).filter(|known| known.in_use != wanted) else {
                continue;
            };
            known.in_use = wanted;
            tracing::info!(address = %place.1, in_use = wanted, "an address of the core changed its health");
            match self.target.endpoint(place, &self.tls) {
                Ok(endpoint) if wanted => self.tell(Change::Insert(place, endpoint)).await,
                _ => self.tell(Change::Remove(place)).await,
            }
        }
    }

    /// Fails only when the channel is gone, which ends the task soon.
    async fn tell(&self, change: Change<Place, Endpoint>) {
        let _ = self.changes.send(change).await;
    }
}

/// Whether a place answers `grpc.health.v1` with `SERVING`, or does not have that service.
async fn is_healthy(place: Place, probe: Channel) -> (Place, bool) {
    let mut client = HealthClient::new(probe);
    let healthy = match timeout(ROUND, client.check(HealthCheckRequest::default())).await {
        Ok(Ok(answer)) => answer.into_inner().status() == ServingStatus::Serving,
        Ok(Err(status)) => matches!(status.code(), Code::Unimplemented | Code::NotFound),
        Err(_) => false,
    };
    (place, healthy)
}

const ADDRESS_FORM: &str =
    "IMKS_CORE_URL must look like http://core:9000, or https://core-1:9000,core-2:9000 for several addresses";
/// The text of an error that says nothing but that it has a cause.
const TRANSPORT: &str = "transport error";
/// The number of hosts in the address of the core.
const HOSTS_MAX: usize = 32;
/// The number of addresses of one host that are used.
const ADDRESSES_MAX: usize = 32;
/// The number of changes of endpoints that the channel has not noticed yet; more wait.
const CHANGES_QUEUE: usize = 1_024;
/// The time between two checks of health and of the files.
const ROUND: Duration = Duration::from_secs(2);
/// The number of checks between two resolutions of the names.
const ROUNDS: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(url: &str) -> Option<Vec<(String, u16)>> {
        let target = Target::parse(url, Config::default()).ok()?;
        Some(target.hosts.into_iter().map(|host| (host.name, host.port)).collect())
    }

    #[test]
    fn the_address_is_shown_without_credentials() {
        let target = Target::parse("https://me:hunter2@core,[::1]:2/x", Config::default()).unwrap();
        assert_eq!(target.shown(), "https://core:443,[::1]:2");
    }

    #[test]
    fn every_cause_of_a_failure_is_told_once() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = ImksError::io("connecting")(refused);
        assert_eq!(told("io: connecting", Some(&error)), "io: connecting: connection refused");
        assert_eq!(told("", None), "");
    }

    #[test]
    fn a_file_that_is_missing_is_told_with_its_setting() {
        let config = Config { ca: Some("/nonexistent/ca.pem".into()), ..Config::default() };
        let error = Target::parse("https://core", config).unwrap().tls().err().unwrap().to_string();
        assert!(error.starts_with("IMKS_CORE_CA: cannot read /nonexistent/ca.pem"), "{error}");
    }

    #[test]
    fn one_or_several_addresses_are_read_and_nothing_else() {
        let host = |name: &str, port| (name.to_owned(), port);
        assert_eq!(hosts("http://core:9000"), Some(vec![host("core", 9000)]));
        assert_eq!(hosts("https://me:pw@core/x"), Some(vec![host("core", 443)]));
        assert_eq!(
            hosts("https://a:1,[::1]:2,10.0.0.1"),
            Some(vec![host("a", 1), host("[::1]", 2), host("10.0.0.1", 443)])
        );
        for url in [
            "core:9000",
            "grpc://core",
            "http://",
            "http://a:x",
            "http://a,,b",
            "http://a b",
            "http://a:70000",
        ] {
            assert_eq!(hosts(url), None, "{url}");
        }
    }
}
