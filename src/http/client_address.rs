//! Which address a client has: that of its connection or, behind proxies that are trusted to tell it, the one that they
//! tell in `X-Forwarded-For`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::HeaderMap;

/// A range of addresses: an address, or a prefix in the notation of RFC 4632 (`10.0.0.0/8`, `fd00::/8`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// The first address; IPv4 is mapped into IPv6.
    first: u128,
    /// The number of leading bits that all addresses have in common.
    prefix: u32,
    is_v4: bool,
}

impl Network {
    fn contains(&self, ip: IpAddr) -> bool {
        (bits(ip) ^ self.first).leading_zeros() >= self.prefix
    }
}

impl FromStr for Network {
    /// What to write instead.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hint = || "write an address or a network, for example 10.0.0.7 or 10.0.0.0/8".to_owned();
        let (address, length) = text.split_once('/').map_or((text, None), |(ip, length)| (ip, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| hint())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length: u32 = length.map_or(Ok(longest), |text| text.parse().map_err(|_| hint()))?;
        if length > longest {
            return Err(hint());
        }
        let prefix = length + 128 - longest;
        let first = bits(address);
        if first.trailing_zeros() + prefix < 128 {
            return Err(format!("{text} has bits after its first {length}"));
        }
        Ok(Self { first, prefix, is_v4: address.is_ipv4() })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = IpAddr::V6(self.first.into());
        let (address, longest) = if self.is_v4 { (address.to_canonical(), 32) } else { (address, 128) };
        write!(formatter, "{address}/{}", self.prefix + longest - 128)
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

/// Whether a proxy has this address.
pub(super) fn is_trusted(proxies: &[Network], ip: IpAddr) -> bool {
    proxies.iter().any(|network| network.contains(ip))
}

/// Returns the address of the client whose request came from `peer`. Proxies append the address that they see, so the
/// list is read from its end, and the first address that is no trusted proxy is the client. What stands before it the
/// client may have written itself.
pub(super) fn client(proxies: &[Network], peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
    if !is_trusted(proxies, peer.ip()) {
        return peer;
    }
    let mut nearest = peer;
    let told = headers.get_all("x-forwarded-for").iter().rev();
    let told = told.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    for hop in told.take(HOPS_MAX) {
        let Some(address) = address(hop) else { return nearest };
        nearest = address;
        if !is_trusted(proxies, address.ip()) {
            break;
        }
    }
    nearest
}

/// Reads an address with or without a port; without it the port is 0.
fn address(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map(|ip: IpAddr| SocketAddr::new(ip, 0)).or_else(|_| text.parse()).ok()
}

/// The most addresses of `X-Forwarded-For` that are looked at: more proxies are not behind each other.
const HOPS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn seen(peer: &str, lines: &[&str]) -> String {
        let proxies = networks(&["10.0.0.0/8", "::1", "fd00::/8"]);
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
        }
        client(&proxies, peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn a_client_behind_trusted_proxies_has_the_address_that_the_first_of_them_saw() {
        assert_eq!(seen("10.0.0.1:5000", &["203.0.113.9"]), "203.0.113.9:0");
        assert_eq!(seen("[::1]:5000", &["203.0.113.9:4711, 10.0.0.2"]), "203.0.113.9:4711");
        assert_eq!(seen("10.0.0.1:5000", &["203.0.113.9", "10.0.0.3,10.0.0.2"]), "203.0.113.9:0");
        assert_eq!(seen("10.0.0.1:5000", &["[2001:db8::1]:443"]), "[2001:db8::1]:443");
        assert_eq!(seen("[::ffff:10.0.0.1]:5000", &["2001:db8::1"]), "[2001:db8::1]:0");
    }

    #[test]
    fn what_a_client_writes_itself_changes_nothing() {
        assert_eq!(seen("203.0.113.9:5000", &["192.0.2.1"]), "203.0.113.9:5000");
        assert_eq!(seen("10.0.0.1:5000", &["192.0.2.1, 10.9.9.9, 203.0.113.9"]), "203.0.113.9:0");
        for nonsense in ["", "unknown", "192.0.2.1,", "192.0.2.1;x", "192.0.2.999"] {
            assert_eq!(seen("10.0.0.1:5000", &[nonsense]), "10.0.0.1:5000", "{nonsense}");
        }
        let long = vec!["10.0.0.2"; 10_000].join(",");
        assert_eq!(seen("10.0.0.1:5000", &["203.0.113.9", &long]), "10.0.0.2:0");
    }

    #[test]
    fn a_network_is_read_as_it_is_written_and_mistakes_are_told() {
        for text in ["10.0.0.0/8", "203.0.113.9/32", "0.0.0.0/0", "2001:db8::/32", "::1/128"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        assert_eq!(networks(&["203.0.113.9"])[0].to_string(), "203.0.113.9/32");
        for wrong in ["", "10.0.0.0/33", "10.0.0.1/8", "host", "10.0.0.0/", "10.0.0.0/-1", "::/129"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_network_has_the_addresses_that_begin_as_it_does(ip: u32, other: u32, length in 0_u32..=32) {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            let first = std::net::Ipv4Addr::from(ip & mask);
            let network: Network = format!("{first}/{length}").parse().unwrap();
            let other_ip = IpAddr::V4(other.into());
            prop_assert_eq!(network.contains(other_ip), (other & mask) == (ip & mask));
            prop_assert!(network.contains(IpAddr::V4(ip.into())));
        }
    }
}
