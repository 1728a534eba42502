//! The checks of `imks doctor` of a server, from its name to a message there and back.

use std::sync::Arc;

use rustls::ClientConfig;

use super::http::{First, Handshake};
use super::network::Route;
use super::report::{Fault, Outcome};
use super::session::{LATER, Visit};
use super::{Args, Doctor, http, network, page, quic, session, token};
use crate::cli::terminal::Trust;
use crate::client::{Address, Client, ClientBuilder};
use crate::clock::now_micros;
use crate::{ImksError, ImksResult};

/// Examines a server.
pub(super) async fn examine(doctor: &mut Doctor, url: &str, args: &Args) -> ImksResult<()> {
    let address = Address::parse(url).map_err(|error| ImksError::Config(error.to_string()))?;
    let trust = Trust::read(args.ca.as_deref())?;
    let config = address.is_secure.then(|| trust.config()).transpose()?;
    let reached = reach(doctor, &address, config).await?;
    judge_token(doctor, args).await?;
    let Some(route) = reached else {
        doctor.skip(&ABOVE_TLS, "the server is not reached")?;
        return doctor.skip(&LATER, "the server is not reached");
    };
    let (handshake, misplaced) = match doctor.check("http", http::handshake(&route)).await? {
        Some(First::Open(handshake)) => (Some(handshake), None),
        Some(First::Misplaced(why)) => (None, Some(why)),
        None => (None, None),
    };
    let is_polling = polling(doctor, &route, handshake.as_ref()).await?;
    let is_websocket = websocket(doctor, &route, misplaced).await?;
    let builder = || trust.tls().map(|tls| Client::builder(url).tls(tls));
    match is_polling && is_websocket {
        true => drop(doctor.check("upgrade", session::upgrade(builder()?)).await?),
        false => doctor.skip(&["upgrade"], "it needs polling and websocket")?,
    }
    let is_offered = handshake.is_some_and(|it| it.upgrades.iter().any(|name| name == "webtransport"));
    over_udp(doctor, &route, Udp { url, trust: &trust, port: args.quic, is_offered }).await?;
    match &args.origin {
        Some(origin) => drop(doctor.check("cors", page::examine(&route, origin)).await?),
        None => doctor.skip(&["cors"], "give --origin https://… to ask for a web page")?,
    }
    sign_in(doctor, args, is_polling || is_websocket, builder).await
}

/// Makes the checks below HTTP. Returns nothing if one failed.
async fn reach(
    doctor: &mut Doctor,
    address: &Address,
    tls: Option<Arc<ClientConfig>>,
) -> ImksResult<Option<Route>> {
    let Some(addresses) = doctor.check("dns", network::resolve(address)).await? else {
        doctor.skip(&["tcp", "tls"], "there is no address")?;
        return Ok(None);
    };
    let Some(socket) = doctor.check("tcp", network::reach(addresses)).await? else {
        doctor.skip(&["tls"], "there is no connection")?;
        return Ok(None);
    };
    let Some(config) = &tls else {
        doctor.skip(&["tls"], "the address has none: anybody on the way can read and change everything")?;
        return Ok(Some(Route { address: address.clone(), socket, tls }));
    };
    let securing = network::secure(address, socket, config.clone(), now_micros() / 1_000_000);
    let is_secure = doctor.check("tls", securing).await?.is_some();
    Ok(is_secure.then(|| Route { address: address.clone(), socket, tls }))
}

async fn judge_token(doctor: &mut Doctor, args: &Args) -> ImksResult<()> {
    match &args.token {
        Some(text) => {
            let judging = async { (Some(()), token::examine(text.trim(), now_micros() / 1_000_000)) };
            doctor.check("token", judging).await.map(drop)
        }
        None => doctor.skip(&["token"], "give --token or IMKS_TOKEN to sign in"),
    }
}

async fn polling(doctor: &mut Doctor, route: &Route, handshake: Option<&Handshake>) -> ImksResult<bool> {
    let Some(handshake) = handshake else {
        doctor.skip(&["polling", "heartbeat"], "there is no handshake")?;
        return Ok(false);
    };
    let is_polling = doctor.check("polling", http::poll(route, handshake)).await?.is_some();
    doctor.check("heartbeat", async { (Some(()), heartbeat(handshake)) }).await?;
    Ok(is_polling)
}

/// Judges whether the heartbeat keeps a connection open through usual proxies.
fn heartbeat(handshake: &Handshake) -> Outcome {
    let seconds = handshake.ping_interval / 1_000;
    let text = format!("every {seconds} s, silence is noticed {} s later", handshake.ping_timeout / 1_000);
    match seconds < IDLE_SECONDS {
        true => Outcome::Good(text),
        false => Outcome::Warned(Fault::new(
            text,
            "many proxies cut connections on which nothing happens for 60 s",
            "make the heartbeat more frequent (IMKS_ENGINE_PING_INTERVAL), or raise the idle time of every proxy on the way",
        )),
    }
}

async fn websocket(doctor: &mut Doctor, route: &Route, misplaced: Option<&str>) -> ImksResult<bool> {
    if let Some(why) = misplaced {
        doctor.skip(&["websocket"], why)?;
        return Ok(false);
    }
    Ok(doctor.check("websocket", http::websocket(route)).await?.is_some())
}

/// What the checks over UDP need.
struct Udp<'a> {
    url: &'a str,
    trust: &'a Trust,
    /// The port of QUIC without HTTP/3.
    port: Option<u16>,
    /// Whether the server offers WebTransport.
    is_offered: bool,
}

async fn over_udp(doctor: &mut Doctor, route: &Route, udp: Udp<'_>) -> ImksResult<()> {
    let Udp { url, trust, port, is_offered } = udp;
    let is_plain = route.tls.is_none();
    // A server without a certificate makes one for QUIC, and tells its hash.
    let hashes = match is_plain && (is_offered || port.is_some()) {
        true => http::hashes(route).await,
        false => Vec::new(),
    };
    let builder = || {
        let tls = trust.tls()?;
        let tls = hashes.iter().fold(tls, |tls, hash| tls.pin_sha256(*hash));
        Ok::<_, ImksError>(Client::builder(url).tls(tls))
    };
    let without = "this program was built without QUIC";
    match (is_offered, is_plain) {
        (false, _) => doctor.skip(&["webtransport"], "the server does not offer it")?,
        (true, false) => drop(doctor.check("webtransport", quic::examine(route)).await?),
        (true, true) if !HAS_QUIC => doctor.skip(&["webtransport"], without)?,
        (true, true) => drop(doctor.check("webtransport", quic::webtransport(builder()?)).await?),
    }
    match port {
        None => doctor.skip(&["quic"], "give --quic PORT for QUIC without HTTP/3 (IMKS_QUIC_LISTEN)"),
        Some(_) if !HAS_QUIC => doctor.skip(&["quic"], without),
        Some(port) => doctor.check("quic", quic::raw(builder()?.quic_port(port))).await.map(drop),
    }
}

async fn sign_in(
    doctor: &mut Doctor,
    args: &Args,
    is_open: bool,
    builder: impl Fn() -> ImksResult<ClientBuilder>,
) -> ImksResult<()> {
    let why = match (is_open, &args.token) {
        (true, Some(text)) => {
            let auth = serde_json::json!({
                "token": text.trim(),
                "client": { "name": "imks doctor", "version": env!("CARGO_PKG_VERSION") },
            });
            let (builder, second) = (builder()?.auth(&auth), builder()?.auth(&auth));
            let visit = Visit { builder, second, channel: args.channel.as_deref(), watch: args.watch };
            return session::visit(doctor, visit).await;
        }
        (true, None) => "give --token or IMKS_TOKEN to sign in",
        (false, _) => "no transport gets through",
    };
    doctor.skip(&["sign-in"], why)?;
    doctor.skip(&LATER, why)
}

/// The checks between TLS and the session.
const ABOVE_TLS: [&str; 9] =
    ["http", "polling", "heartbeat", "websocket", "upgrade", "webtransport", "quic", "cors", "sign-in"];
/// Whether the client library has QUIC.
const HAS_QUIC: bool = cfg!(feature = "client-quic");
/// After how many silent seconds usual proxies cut a connection, with some to spare.
const IDLE_SECONDS: u64 = 55;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_that_is_rarer_than_the_patience_of_proxies_is_told() {
        let of = |ping_interval| Handshake {
            sid: String::new(),
            upgrades: Vec::new(),
            ping_interval,
            ping_timeout: 20_000,
            cookies: String::new(),
        };
        assert!(matches!(heartbeat(&of(25_000)), Outcome::Good(_)));
        assert!(matches!(heartbeat(&of(60_000)), Outcome::Warned(_)));
    }
}
