//! Fetches public web pages that strangers name, and nothing else: no address inside of the operator's network, in any
//! notation, directly, by name or by redirect.
//!
//! A name is resolved once per request, and the connection is made to the addresses that were checked. Every fetch is
//! bounded in time, bytes and redirects, and their number in total and for each host.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tower::Service;

use crate::{ImksError, ImksResult};

/// A fetcher of public pages. Cheap to clone.
#[derive(Clone)]
pub struct PageFetcher(Arc<Inner>);

struct Inner {
    client: Client<HttpsConnector<HttpConnector<PublicResolver>>, Empty<Bytes>>,
    policy: Policy,
    /// Fetches in progress.
    total: Arc<Semaphore>,
    /// Fetches in progress by host; an entry exists while there are some.
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// Which addresses are public.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Only those that anybody on the Internet can reach.
    Public,
    /// Also this machine, for tests.
    #[cfg(feature = "testing")]
    Loopback,
    /// Public addresses at any port, for tests.
    #[cfg(test)]
    AnyPort,
}

impl Policy {
    fn allows(self, address: IpAddr) -> bool {
        #[cfg(feature = "testing")]
        if self == Self::Loopback && address.is_loopback() {
            return true;
        }
        is_public(address)
    }

    /// Whether a service at this port is one of the Web. Whoever names another one wants something else.
    fn allows_port(self, port: Option<u16>) -> bool {
        #[cfg(feature = "testing")]
        if self != Self::Public {
            return true;
        }
        matches!(port, None | Some(80 | 443))
    }
}

/// A page: the beginning of its bytes, and what its server says about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The address after redirects.
    pub address: Uri,
    /// The media type in lower case, without parameters.
    pub media_type: String,
    /// The charset that the server names, in lower case.
    pub charset: Option<String>,
    /// Up to [`PAGE_BYTES_MAX`] bytes; none of other types than HTML.
    pub bytes: Bytes,
}

impl PageFetcher {
    /// Creates a fetcher.
    ///
    /// # Errors
    /// [`ImksError::Config`] if the system has no certificates to trust.
    pub fn new(policy: Policy) -> ImksResult<Self> {
        let mut http = HttpConnector::new_with_resolver(PublicResolver(policy));
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let trusting = HttpsConnectorBuilder::new().with_native_roots().map_err(|error| {
            ImksError::Config(format!("no certificates of the system to trust (SSL_CERT_FILE): {error}"))
        })?;
        let connector = trusting.https_or_http().enable_http1().wrap_connector(http);
        // No pool: a connection that stays open could outlive the check of its address.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(connector);
        let (total, hosts) = (Arc::new(Semaphore::new(FETCHES_AT_ONCE)), Mutex::default());
        Ok(Self(Arc::new(Inner { client, policy, total, hosts })))
    }

    /// Fetches a page. `None` for everything that is not a public page: the reason is of no use to whoever linked to it.
    pub async fn fetch(&self, address: Uri) -> Option<Page> {
        let fetching = async {
            let mut address = address;
            for _ in 0..=REDIRECTS_MAX {
                match self.step(&address).await? {
                    Step::Page(page) => return Some(page),
                    Step::Redirect(next) => address = next,
                }
            }
            None
        };
        timeout(FETCH_TIMEOUT, Box::pin(fetching)).await.ok().flatten()
    }

    async fn step(&self, address: &Uri) -> Option<Step> {
        let host = self.permitted_host(address)?;
        let _of_host = HostPermit::take(&self.0, host).await?;
        // Who waits for a host keeps nobody from others.
        let _total: OwnedSemaphorePermit = Arc::clone(&self.0.total).acquire_owned().await.ok()?;
        let request = Request::get(address.clone())
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT, "text/html, application/xhtml+xml, image/*;q=0.5")
            .header(header::ACCEPT_ENCODING, "identity");
        let response = self.0.client.request(request.body(Empty::new()).ok()?).await.ok()?;
        if response.status().is_redirection() {
            let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
            return Some(Step::Redirect(resolve(address, location)?));
        }
        if !response.status().is_success() || response.headers().contains_key(header::CONTENT_ENCODING) {
            return None;
        }
        let content_type = response.headers().get(header::CONTENT_TYPE)?.to_str().ok()?.to_ascii_lowercase();
        let (media_type, parameters) = content_type.split_once(';').unwrap_or((&content_type, ""));
        let media_type = media_type.trim().to_owned();
        let charset = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("charset="));
        let charset = charset.map(|charset| charset.trim_matches('"').to_owned());
        let is_page = matches!(&*media_type, "text/html" | "application/xhtml+xml");
        let bytes = if is_page { beginning(response.into_body()).await? } else { Bytes::new() };
        Some(Step::Page(Page { address: address.clone(), media_type, charset, bytes }))
    }

    /// Returns the host of an address that may be fetched. A name is judged when it is resolved, an IP address here:
    /// the connector does not resolve it. Odd notations of IP addresses are names, which the system resolves.
    fn permitted_host(&self, address: &Uri) -> Option<String> {
        let of_web = matches!(address.scheme_str(), Some("http" | "https"));
        let authority =
            address.authority().filter(|authority| of_web && !authority.as_str().contains('@'))?;
        if !self.0.policy.allows_port(authority.port_u16()) {
            return None;
        }
        let host = authority.host().to_ascii_lowercase();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(ip) => self.0.policy.allows(ip).then_some(host),
            // A zone or a malformed literal: nothing that a public page has.
            Err(_) if host.starts_with('[') || host.is_empty() => None,
            Err(_) => Some(host),
        }
    }
}

impl fmt::Debug for PageFetcher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PageFetcher").finish_non_exhaustive()
    }
}

enum Step {
    Page(Page),
    Redirect(Uri),
}

/// Reads up to [`PAGE_BYTES_MAX`] bytes. What a page says about itself stands at its beginning.
async fn beginning(mut body: Incoming) -> Option<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        let room = PAGE_BYTES_MAX - bytes.len();
        bytes.extend_from_slice(&data[..data.len().min(room)]);
        if bytes.len() == PAGE_BYTES_MAX {
            break;
        }
    }
    Some(bytes.freeze())
}

/// Returns the address that a `Location` names: absolute, of the same scheme, or of the same host.
pub(crate) fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    let location = location.trim();
    let text = match location {
        _ if location.starts_with("http://") || location.starts_with("https://") => location.to_owned(),
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{authority}{location}"),
        _ if location.split(['/', '?', '#']).next().is_some_and(|first| first.contains(':')) => return None,
        _ => {
            let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
            format!("{scheme}://{authority}{directory}/{location}")
        }
    };
    text.split('#').next()?.parse().ok()
}

/// The right to fetch from one host, until it is dropped.
struct HostPermit<'a> {
    inner: &'a Inner,
    host: String,
    permit: Option<OwnedSemaphorePermit>,
}

impl<'a> HostPermit<'a> {
    /// Waits while as many pages of this host are fetched as there may be.
    async fn take(inner: &'a Inner, host: String) -> Option<Self> {
        let new = || Arc::new(Semaphore::new(FETCHES_PER_HOST));
        let of_host = Arc::clone(inner.hosts.lock().entry(host.clone()).or_insert_with(new));
        // Whoever gives up while waiting removes the entry too, if nobody else needs it.
        let mut place = Self { inner, host, permit: None };
        place.permit = Some(of_host.acquire_owned().await.ok()?);
        Some(place)
    }
}

impl Drop for HostPermit<'_> {
    fn drop(&mut self) {
        drop(self.permit.take());
        let mut hosts = self.inner.hosts.lock();
        // Whoever waits or fetches holds a reference too.
        if hosts.get(&self.host).is_some_and(|of_host| Arc::strong_count(of_host) == 1) {
            hosts.remove(&self.host);
        }
    }
}

/// Resolves names to addresses, all of which are public: a name that has a private address as well is refused.
#[derive(Debug, Clone)]
struct PublicResolver(Policy);

type Resolving = Pin<Box<dyn Future<Output = Result<std::vec::IntoIter<SocketAddr>, std::io::Error>> + Send>>;

impl Service<Name> for PublicResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Resolving;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Resolving {
        let policy = self.0;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            match found.iter().all(|address| policy.allows(address.ip())) {
                true => Ok(found.into_iter()),
                false => Err(std::io::Error::other("not a public address")),
            }
        })
    }
}

/// Whether an address is one that anybody on the Internet can reach: no private, loopback, link-local, multicast,
/// documentation, shared or reserved one, nor one that contains such an IPv4 address (RFC 6890).
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let reserved = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    );
    !reserved
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let [.., high, low] = segments;
    let last = Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match segments {
        // NAT64 and mapped addresses lead to an IPv4 address; 6to4 has it in front.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0xffff, ..] => is_public_v4(last),
        [0x2002, one, two, ..] => is_public_v4(Ipv4Addr::from((u32::from(one) << 16) | u32::from(two))),
        // Teredo, benchmarks, ORCHID, documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Global unicast is 2000::/3; everything else is local, multicast or not assigned.
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

/// The bytes of a page that are read.
pub const PAGE_BYTES_MAX: usize = 512 * 1024;
/// The most redirects of one fetch.
const REDIRECTS_MAX: usize = 3;
/// The largest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// The fetches in progress on this server.
const FETCHES_AT_ONCE: usize = 8;
/// The fetches in progress from one host; more wait.
const FETCHES_PER_HOST: usize = 2;
/// How long a fetch may take, with its redirects and the wait for its turn.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const USER_AGENT: &str = concat!("imks/", env!("CARGO_PKG_VERSION"), " (link preview)");

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::too_many_lines, reason = "a list of addresses")]
    #[test]
    fn addresses_of_the_operator_and_of_nobody_are_not_public_in_any_notation() {
        for private in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.100.100.200",
            "192.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "100::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in [
            "1.1.1.1",
            "100.63.0.1",
            "172.32.0.1",
            "198.20.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[tokio::test]
    async fn no_notation_of_this_machine_is_fetched() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let fetcher = PageFetcher::new(Policy::AnyPort).unwrap();
        for host in [
            "127.0.0.1",
            "localhost",
            "localhost.",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "127.1",
            "0",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::]",
            "user@127.0.0.1",
            "[::1%25lo]",
        ] {
            let Ok(address) = format!("http://{host}:{port}/").parse() else { continue };
            assert_eq!(fetcher.fetch(address).await, None, "{host}");
        }
        let accepted = timeout(Duration::from_millis(1), listener.accept()).await;
        assert!(accepted.is_err(), "somebody connected");
    }

    #[cfg(feature = "testing")]
    #[tokio::test]
    async fn those_who_wait_for_a_slow_host_keep_nobody_from_another() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listen = || tokio::net::TcpListener::bind("127.0.0.1:0");
        let (silent, quick) = (listen().await.unwrap(), listen().await.unwrap());
        let address = |host: &str, listener: &tokio::net::TcpListener| -> Uri {
            format!("http://{host}:{}/", listener.local_addr().unwrap().port()).parse().unwrap()
        };
        let fetcher = PageFetcher::new(Policy::Loopback).unwrap();
        let slow = (0..FETCHES_AT_ONCE).map(|_| fetcher.fetch(address("127.0.0.1", &silent)));
        let answer = async {
            let (mut stream, _) = quick.accept().await.unwrap();
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            let page = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi";
            stream.write_all(page).await.unwrap();
            stream
        };
        let other = async { tokio::join!(fetcher.fetch(address("localhost", &quick)), answer).0 };
        tokio::select! {
            biased;
            _ = futures_util::future::join_all(slow) => panic!("the others were given up first"),
            page = other => assert_eq!(page.unwrap().bytes, "hi"),
        }
    }

    #[test]
    fn only_the_ports_of_the_web_are_fetched_from() {
        let fetcher = PageFetcher::new(Policy::Public).unwrap();
        let permitted = |address: &str| fetcher.permitted_host(&address.parse().unwrap()).is_some();
        for web in ["http://1.1.1.1/", "https://1.1.1.1:443/", "http://a.example:80/", "https://a.example/x"]
        {
            assert!(permitted(web), "{web}");
        }
        for other in
            ["http://1.1.1.1:22/", "https://a.example:8443/", "http://a.example:6379/", "http://a.example:0/"]
        {
            assert!(!permitted(other), "{other}");
        }
    }

    #[test]
    fn a_redirect_names_its_target_in_any_form() {
        let base: Uri = "https://a.example/b/c?d".parse().unwrap();
        let target = |location| resolve(&base, location).map(|uri| uri.to_string());
        for (location, expected) in [
            ("http://x.example/y#z", "http://x.example/y"),
            ("//x.example/y", "https://x.example/y"),
            ("/y?z", "https://a.example/y?z"),
            ("y", "https://a.example/b/y"),
        ] {
            assert_eq!(target(location).as_deref(), Some(expected), "{location}");
        }
        for location in ["file:///etc/passwd", "javascript:alert(1)", "gopher://x"] {
            assert_eq!(target(location), None, "{location}");
        }
    }
}
