//! What the faults mean that `imks doctor` finds, and what to do about them.

use std::io;

use rustls::CertificateError;

use super::report::Fault;

/// Returns the fault of a name that does not resolve.
pub(super) fn dns(host: &str, error: &io::Error) -> Fault {
    Fault::new(
        format!("{host} does not resolve: {error}"),
        "no address is known for this name here: it is misspelt, has no DNS record yet, or the resolver is away",
        format!("check the spelling, and ask `getent hosts {host}` here and on another machine"),
    )
}

/// Returns the fault of addresses none of which, or not all of which, can be connected to.
pub(super) fn tcp(failures: &[(String, io::Error)]) -> Fault {
    let listed: Vec<String> =
        failures.iter().map(|(address, error)| format!("{address}: {}", plain(error))).collect();
    let (means, todo) = match failures.first().map(|(_, error)| error.kind()) {
        Some(io::ErrorKind::ConnectionRefused) => (
            "the machine is there, and nothing listens on this port",
            "start the server, and compare the port with IMKS_LISTEN; a server that listens on 127.0.0.1 is reached from its own machine only",
        ),
        Some(io::ErrorKind::TimedOut) => (
            "nothing comes back: a firewall drops the packets, or the machine is away",
            "open the port in the firewall or security group, and check the route",
        ),
        Some(io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) => (
            "this machine has no route there",
            "check the network of this machine; for IPv6 addresses, whether it has IPv6 at all",
        ),
        _ => ("the connection cannot be opened", "check address, port and network"),
    };
    Fault::new(listed.join("; "), means, todo)
}

fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused".into(),
        io::ErrorKind::TimedOut => "no answer".into(),
        _ => error.to_string(),
    }
}

/// Returns the fault of a TLS handshake. `certificate` describes the certificate that the server shows, if it could
/// be read.
pub(super) fn tls(host: &str, error: &io::Error, certificate: Option<&str>) -> Fault {
    let inner = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    let shown = certificate.map(|text| format!(" ({text})")).unwrap_or_default();
    let found = format!("{}{shown}", inner.map_or_else(|| error.to_string(), rustls::Error::to_string));
    let (means, todo) = match inner {
        Some(rustls::Error::InvalidCertificate(problem)) => certificate_problem(host, problem),
        Some(rustls::Error::InvalidMessage(_)) => (
            "what answers on this port speaks no TLS".into(),
            "use http:// if there is no TLS, or the port of the proxy that has the certificate".into(),
        ),
        Some(rustls::Error::AlertReceived(alert)) => (
            format!("the server refuses the handshake: {alert:?}"),
            "the server may have no certificate for this name, speak only versions before TLS 1.2, or ask for a certificate of the client".into(),
        ),
        Some(_) => ("the handshake failed".into(), "check the TLS settings of the server or its proxy".into()),
        None => (
            "the connection was cut during the handshake".into(),
            "check whether this port speaks TLS, and what lies between".into(),
        ),
    };
    Fault::new(found, means, todo)
}

fn certificate_problem(host: &str, problem: &CertificateError) -> (String, String) {
    use CertificateError as E;
    match problem {
        E::Expired | E::ExpiredContext { .. } => (
            "the certificate has expired: browsers refuse the server".into(),
            "renew it; imks reads the new files by itself, a proxy may need a reload".into(),
        ),
        E::NotValidYet | E::NotValidYetContext { .. } => (
            "the certificate is of the future".into(),
            "check the clocks of this machine and of the server".into(),
        ),
        E::NotValidForName | E::NotValidForNameContext { .. } => (
            format!("the certificate is for other names than {host}"),
            format!("connect by a name that it has, or get one for {host}; a proxy may show its default one"),
        ),
        E::UnknownIssuer => (
            "nobody whom this machine trusts has signed it: it is self-signed, of an authority of your own, or the intermediate certificates are missing".into(),
            "give the server the full chain (fullchain.pem), or name the authority with --ca FILE".into(),
        ),
        E::BadSignature => (
            "an authority of that name is trusted, and it has another key than the one that has signed this certificate".into(),
            "use the ca.pem that belongs to this certificate: one that was made before has the same name and another key".into(),
        ),
        E::Revoked => ("the certificate was revoked".into(), "get a new one".into()),
        other => (format!("the certificate cannot be trusted: {other:?}"), "get another certificate".into()),
    }
}

/// Returns the fault of an answer to the first polling request that is not a handshake of Engine.IO.
pub(super) fn handshake(status: u16, location: Option<&str>, body: &str) -> Fault {
    let found = format!("HTTP {status}: {}", excerpt(body));
    let (means, todo) = match status {
        400 if wants_tls(body) => (
            "this port speaks TLS, and the address says that it does not",
            "use https:// or wss:// in place of http:// or ws://",
        ),
        301..=308 => {
            let to = location.unwrap_or("another address");
            return Fault::new(
                format!("HTTP {status} to {to}"),
                "the address is redirected; clients of Socket.IO do not follow that",
                format!("use the address it leads to: {to}"),
            );
        }
        400 if engine_code(body) == Some(0) => {
            ("the server has switched off polling", "allow it, or let clients use WebSockets only")
        }
        400 => (
            "the server speaks another version of the protocol, or a proxy changes the query",
            "check that the query (EIO=4) reaches the server as it is",
        ),
        401 | 407 => (
            "something in front of the server wants a login",
            "let the path of Socket.IO pass without one: it has its own",
        ),
        403 => (
            "the server or a firewall for web applications refuses the request",
            "look into its log; for pages, check IMKS_CORS_ORIGINS",
        ),
        404 => (
            "this path is not that of Socket.IO",
            "check the path (by default /socket.io/), and that the proxy passes it on unchanged",
        ),
        502..=504 => (
            "the proxy does not reach the server, or the server is starting, full or stopping",
            "check the address of the server in the proxy, and `imks healthcheck --ready` there",
        ),
        200 => ("another program answers here, or a page of the proxy", "check address and path"),
        _ => ("this is no answer of a Socket.IO server", "check address and path"),
    };
    Fault::new(found, means, todo)
}

/// Returns why every other request to this address is in vain, if an answer to the first polling request says so.
pub(super) fn misplaced(status: u16, body: &str) -> Option<&'static str> {
    match status {
        404 => Some("nothing of Socket.IO is at this path"),
        301..=308 => Some("there is another address to use, see the line `http`"),
        400 if wants_tls(body) => Some("the address needs https:// or wss://, see the line `http`"),
        _ => None,
    }
}

/// Whether a server says that it got plain HTTP where it speaks TLS: imks, nginx, Go or Apache.
fn wants_tls(body: &str) -> bool {
    ["speaks TLS", "HTTPS port", "HTTPS server", "SSL-enabled server"]
        .iter()
        .any(|words| body.contains(words))
}

/// Returns the fault of an answer to a WebSocket request that is not 101.
pub(super) fn websocket(status: u16, body: &str) -> Fault {
    let found = format!("HTTP {status} instead of 101: {}", excerpt(body));
    let is_dropped = status == 426 || (status == 400 && engine_code(body) == Some(3)) || status == 200;
    let (means, todo) = match status {
        _ if is_dropped => (
            "the request reached the server without its headers Upgrade and Connection: a proxy drops them",
            "let the proxy pass them on; nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";",
        ),
        400 if engine_code(body) == Some(0) => (
            "the server has switched off WebSockets",
            "clients fall back to polling; allow WebSockets to be faster",
        ),
        403 => (
            "a firewall or the server refuses WebSockets",
            "look into its log; for pages, check IMKS_CORS_ORIGINS",
        ),
        502..=504 => (
            "the proxy does not reach the server, or knows no WebSockets",
            "check its settings for WebSockets, and its log",
        ),
        _ => (
            "something between here and the server does not let WebSockets pass",
            "clients fall back to polling; look for a proxy that has to be told of WebSockets",
        ),
    };
    Fault::new(found, means, todo)
}

/// Returns the fault of something that should have come long ago. `what` names it.
pub(super) fn held_back(what: &str, seconds: u64) -> Fault {
    Fault::new(
        format!("{what} did not come within {seconds} s"),
        "the connection stands, and something between here and the server holds the data back until it has more of it: a proxy or virus scanner that buffers",
        "switch buffering off for this path; nginx: proxy_buffering off; proxy_request_buffering off; and pass WebSockets through",
    )
}

/// Returns the fault of a later request of a polling session that is refused.
pub(super) fn polling(status: u16, body: &str) -> Fault {
    let found = format!("HTTP {status}: {}", excerpt(body));
    match engine_code(body) {
        Some(1) => Fault::new(
            found,
            "the requests of one session reach different servers, and this one does not know it",
            "make the load balancer sticky (by cookie or address), or let clients use WebSockets only",
        ),
        _ => Fault::new(
            found,
            "the session was opened, and its next request is refused",
            "check that the proxy passes query, body and POST requests of this path on unchanged",
        ),
    }
}

/// Returns the fault of a page that may not connect. `allowed` is what the server allows, if it says so.
pub(super) fn cors(origin: &str, status: u16, allowed: Option<&str>) -> Fault {
    let found = match allowed {
        Some(allowed) => format!("HTTP {status}, and only {allowed} is allowed"),
        None => format!("HTTP {status}, without Access-Control-Allow-Origin"),
    };
    Fault::new(
        found,
        format!("browsers do not let pages of {origin} connect to this server"),
        format!(
            "add {origin}, exactly so, to IMKS_CORS_ORIGINS (in a library server: Config::cors), or serve the page from the same origin"
        ),
    )
}

/// Returns the fault of a refused sign-in.
pub(super) fn refusal(code: Option<&str>, message: &str) -> Fault {
    let found = format!("refused with {}: {message}", code.unwrap_or("no code"));
    let (means, todo) = match code {
        Some("token_expired") => {
            ("the token has expired", "get a new one; clients should fetch one before each attempt")
        }
        Some("token_revoked") => ("the token was withdrawn", "sign in again"),
        Some("unauthenticated") => (
            "the server does not accept the token: its key is not known there, its issuer or audience is another one, or it is no token at all",
            "compare key id, issuer and audience (the line `token`) with the settings IMKS_TOKEN_…; tokens of `imks token` are good only for the server with the same database",
        ),
        Some("rate_limited" | "limit_reached") => {
            ("too many connections of this user", "close others, or wait")
        }
        Some("unavailable" | "timeout" | "overloaded") => (
            "the server cannot decide now: its core, database or keys are away",
            "look at /health/ready of the server",
        ),
        _ => ("the server does not let this client in", "look into the log of the server"),
    };
    Fault::new(found, means, todo)
}

/// Returns the fault of a UDP port from which no QUIC answer comes.
pub(super) fn quic(error: &str) -> Fault {
    let is_certificate = error.contains("ertificate");
    let (means, todo) = match is_certificate {
        true => (
            "QUIC answers, and its certificate is not trusted",
            "WebTransport needs the same good certificate as TLS; look at the line `tls`",
        ),
        false => (
            "the server offers WebTransport, and UDP does not get through: a firewall, or a proxy that passes TCP only",
            "open the port for UDP too, or switch WebTransport off (IMKS_WEBTRANSPORT); clients fall back by themselves, after a delay",
        ),
    };
    Fault::new(error, means, todo)
}

/// Returns the fault of a UDP port from which no session comes on QUIC without HTTP/3.
pub(super) fn raw_quic(error: &str) -> Fault {
    let (means, todo) = if error.contains("no_application_protocol") {
        (
            "QUIC answers, and speaks none of the protocols that the client knows: it is the port of WebTransport, or has other names",
            "give the port of IMKS_QUIC_LISTEN; clients must know a name of IMKS_QUIC_ALPN (imks/1)",
        )
    } else if error.contains("ertificate") {
        (
            "QUIC answers, and its certificate is not trusted",
            "QUIC needs the same good certificate as TLS; name its authority with --ca FILE",
        )
    } else {
        (
            "nothing answers there: the server does not listen on this UDP port, or a firewall lets no UDP through",
            "compare the port with IMKS_QUIC_LISTEN, and open it for UDP",
        )
    };
    Fault::new(error, means, todo)
}

/// Returns the number of an error of Engine.IO.
fn engine_code(body: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(body).ok()?.get("code")?.as_u64()
}

/// Returns the beginning of a text in one line, without control characters.
pub(super) fn excerpt(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(EXCERPT_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if line.is_empty() => "(no body)".into(),
        None => line,
    }
}

/// How much of an answer is shown.
const EXCERPT_CHARS: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_upgrade_header_is_told_from_a_server_without_websockets() {
        let dropped = websocket(400, r#"{"code":3,"message":"Bad request"}"#);
        assert!(dropped.means.contains("drops them") && dropped.todo.contains("proxy_set_header Upgrade"));
        assert!(websocket(426, "").means.contains("drops them"));
        assert!(websocket(400, r#"{"code":0,"message":"Transport unknown"}"#).means.contains("switched off"));
        assert!(websocket(502, "<html>").means.contains("proxy"));
    }

    #[test]
    fn a_certificate_problem_is_told_by_its_kind() {
        let told = |problem| {
            let error = io::Error::other(rustls::Error::InvalidCertificate(problem));
            tls("chat.example", &error, Some("for localhost"))
        };
        assert!(told(CertificateError::Expired).means.contains("expired"));
        assert!(told(CertificateError::NotValidForName).means.contains("other names than chat.example"));
        assert!(told(CertificateError::UnknownIssuer).todo.contains("--ca"));
        assert!(told(CertificateError::BadSignature).todo.contains("ca.pem that belongs to"));
        assert!(told(CertificateError::Expired).found.contains("for localhost"));
    }

    #[test]
    fn an_answer_that_is_no_handshake_is_explained() {
        assert!(handshake(301, Some("https://x/"), "").todo.contains("https://x/"));
        assert!(handshake(404, None, "").means.contains("path"));
        assert!(handshake(502, None, "bad gateway").means.contains("proxy"));
        for told in [
            "This port speaks TLS: use https:// or wss:// in place of http:// or ws://",
            "<center>The plain HTTP request was sent to HTTPS port</center>",
            "Client sent an HTTP request to an HTTPS server.",
        ] {
            assert!(
                handshake(400, None, told).todo.contains("https://") && misplaced(400, told).is_some(),
                "{told}"
            );
        }
        assert!(misplaced(404, "").unwrap().contains("this path"));
        assert_eq!((misplaced(400, ""), misplaced(502, "")), (None, None));
        assert!(polling(400, r#"{"code":1,"message":"Session ID unknown"}"#).todo.contains("sticky"));
    }

    #[test]
    fn the_wrong_port_for_quic_is_told_from_a_silent_one() {
        assert!(raw_quic("no_application_protocol: none").todo.contains("IMKS_QUIC_ALPN"));
        assert!(raw_quic("no answer").todo.contains("IMKS_QUIC_LISTEN"));
    }

    #[test]
    fn what_others_send_is_shown_in_one_short_line_without_control_characters() {
        assert_eq!(excerpt("a\u{1b}[2J\r\nb"), "a [2J b");
        assert_eq!(excerpt(""), "(no body)");
        assert_eq!(excerpt(&"ü".repeat(100)).chars().count(), 81);
    }
}
