//! The PROXY protocol, versions 1 and 2 (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>): with it a proxy
//! tells the address of the client before the first byte of a connection.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Reads the header of a connection. Returns the address of the client; `None` for a connection of the proxy itself, or
/// if the header does not tell one.
///
/// # Errors
/// `InvalidData` if the stream does not begin with a header, and those of reading.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == SIGNATURE {
        return read_binary(stream).await;
    }
    // The rest is read byte by byte, because what follows the line belongs to the client.
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() >= LINE_BYTES_MAX || !line.starts_with(b"PROXY ") {
            return Err(invalid());
        }
        line.push(stream.read_u8().await?);
    }
    parse_line(&line).ok_or_else(invalid)
}

async fn read_binary(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let (command, family) = (stream.read_u8().await?, stream.read_u8().await?);
    let length = usize::from(stream.read_u16().await?);
    if length > BLOCK_BYTES_MAX {
        return Err(invalid());
    }
    let mut block = vec![0; length];
    stream.read_exact(&mut block).await?;
    parse_block(command, family, &block).ok_or_else(invalid)
}

/// Reads `PROXY TCP4 198.51.100.22 203.0.113.7 35646 443` or `PROXY UNKNOWN…`. The outer `None` is a malformed line.
fn parse_line(line: &[u8]) -> Option<Option<SocketAddr>> {
    let line = std::str::from_utf8(line.strip_suffix(b"\r\n")?).ok()?;
    let mut words = line.strip_prefix("PROXY ")?.split(' ');
    let is_v4 = match words.next()? {
        "UNKNOWN" => return Some(None),
        "TCP4" => true,
        "TCP6" => false,
        _ => return None,
    };
    let (source, target): (IpAddr, IpAddr) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let (port, _): (u16, u16) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let fits = source.is_ipv4() == is_v4 && target.is_ipv4() == is_v4 && words.next().is_none();
    fits.then(|| Some(SocketAddr::new(source, port)))
}

/// Reads what follows the signature of version 2. The outer `None` is a malformed header.
fn parse_block(command: u8, family: u8, block: &[u8]) -> Option<Option<SocketAddr>> {
    match command {
        LOCAL => return Some(None),
        PROXY => {}
        _ => return None,
    }
    let port = |at: usize| Some(u16::from_be_bytes(block.get(at..at + 2)?.try_into().ok()?));
    let address = match family {
        TCP_V4 => {
            let ip: [u8; 4] = block.get(..4)?.try_into().ok()?;
            SocketAddr::new(Ipv4Addr::from(ip).into(), port(8)?)
        }
        TCP_V6 => {
            let ip: [u8; 16] = block.get(..16)?.try_into().ok()?;
            SocketAddr::new(Ipv6Addr::from(ip).into(), port(32)?)
        }
        // Others, such as a Unix socket, have no address of this kind.
        _ => return Some(None),
    };
    Some(Some(address))
}

fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no header of the PROXY protocol")
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2 with the command LOCAL.
const LOCAL: u8 = 0x20;
/// Version 2 with the command PROXY.
const PROXY: u8 = 0x21;
const TCP_V4: u8 = 0x11;
const TCP_V6: u8 = 0x21;
/// The longest line of version 1, by its specification.
const LINE_BYTES_MAX: usize = 107;
/// The most bytes of addresses and extensions of version 2; known proxies send some hundred.
const BLOCK_BYTES_MAX: usize = 2_048;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a header, and returns also what is left of the stream.
    fn parsed(bytes: &[u8]) -> (io::Result<Option<SocketAddr>>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut stream = bytes;
        let outcome = runtime.block_on(read(&mut stream));
        (outcome, stream.to_vec())
    }

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&SIGNATURE, &[command, family][..], &length, block, b"GET / "].concat()
    }

    #[test]
    fn the_address_of_the_client_is_read_and_nothing_of_what_follows() {
        let of_haproxy = b"PROXY TCP4 198.51.100.22 203.0.113.7 35646 443\r\nGET / ";
        let (told, rest) = parsed(of_haproxy);
        assert_eq!(
            (told.unwrap().unwrap().to_string(), &rest[..]),
            ("198.51.100.22:35646".into(), &b"GET / "[..])
        );
        let (told, rest) = parsed(b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\nx");
        assert_eq!((told.unwrap().unwrap().to_string(), &rest[..]), ("[2001:db8::1]:1".into(), &b"x"[..]));
        let block = [198, 51, 100, 22, 203, 0, 113, 7, 0x8b, 0x3e, 1, 187];
        let (told, rest) = parsed(&v2(PROXY, TCP_V4, &block));
        assert_eq!(
            (told.unwrap().unwrap().to_string(), &rest[..]),
            ("198.51.100.22:35646".into(), &b"GET / "[..])
        );
        let extended = [&block[..], &[0x04, 0, 1, 0]].concat();
        assert!(parsed(&v2(PROXY, TCP_V4, &extended)).0.unwrap().is_some());
        let block = [&[0x20, 1, 0x0d, 0xb8], &[0; 28][..], &[0, 80, 1, 187]].concat();
        assert_eq!(parsed(&v2(PROXY, TCP_V6, &block)).0.unwrap().unwrap().to_string(), "[2001:db8::]:80");
    }

    #[test]
    fn a_proxy_that_speaks_for_itself_keeps_its_own_address() {
        assert_eq!(parsed(b"PROXY UNKNOWN\r\n").0.unwrap(), None);
        assert_eq!(parsed(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n").0.unwrap(), None);
        assert_eq!(parsed(&v2(LOCAL, 0, &[])).0.unwrap(), None);
        assert_eq!(parsed(&v2(PROXY, 0x31, &[0; 216])).0.unwrap(), None);
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let long = format!("PROXY TCP4 {}\r\n", "1".repeat(200));
        for wrong in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"PROXY TCP4 198.51.100.22 203.0.113.7 35646\r\n",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            b"PROXY TCP4 198.51.100.22 203.0.113.7 35646 443 9\r\n",
            b"PROXY TCP4 198.51.100.22 203.0.113.7 99999 443\r\n",
            b"PROXY UDP4 198.51.100.22 203.0.113.7 1 2\r\n",
            long.as_bytes(),
            b"PROXY",
            &v2(PROXY, TCP_V4, &[1, 2]),
            &v2(0x22, TCP_V4, &[0; 12]),
            &v2(PROXY, TCP_V4, &[0; BLOCK_BYTES_MAX + 1]),
        ] {
            assert!(parsed(wrong).0.is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            start in prop_oneof![Just(SIGNATURE.to_vec()), Just(b"PROXY TCP4 ".to_vec()), Just(vec![])],
            bytes: Vec<u8>,
        ) {
            let whole = [start, bytes].concat();
            let (outcome, rest) = parsed(&whole);
            prop_assert!(outcome.is_err() || rest.len() < whole.len());
        }
    }
}
