//! The clients of a run: they connect, a bounded number at a time, and what becomes of their connections is counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::failure::{advice, failed};
use super::histogram::Histogram;
use super::plan::Transport;
use super::summary::Connections;
use crate::cli::terminal::without_secrets;
use crate::client::{
    Client, ClientBuilder, ClientError, ClientEvent, DisconnectReason, Overflow, Reconnect, Socket, Tls,
    TransportKind,
};
use crate::{ImksError, ImksResult};

/// How the clients of a run reach the server.
#[derive(Debug)]
pub(in crate::cli) struct Crowd {
    pub(in crate::cli) url: String,
    pub(in crate::cli) transport: Transport,
    /// The UDP port of QUIC without HTTP/3, if it is not that of the URL.
    pub(in crate::cli) quic_port: Option<u16>,
    pub(in crate::cli) tls: Tls,
    pub(in crate::cli) namespace: String,
    /// The tokens, which the clients take in turn; empty if the server wants none.
    pub(in crate::cli) tokens: Vec<String>,
    pub(in crate::cli) links: Arc<Links>,
}

/// A client that has joined its namespace.
#[derive(Debug)]
pub(in crate::cli) struct Member {
    pub(in crate::cli) client: Client,
    pub(in crate::cli) socket: Socket,
    fate: Arc<Fate>,
}

/// What became of the connection of a client.
#[derive(Debug, Default)]
pub(in crate::cli) struct Fate {
    /// How often it was lost.
    losses: AtomicU64,
    /// How often it came back with a new session.
    renewals: AtomicU64,
    /// Whether it was lost, and the namespace was not joined again yet.
    is_away: AtomicBool,
    /// The namespace was joined.
    joined: Notify,
}

/// The counts of all connections of a run.
#[derive(Debug, Default)]
pub(in crate::cli) struct Links(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    joined: u64,
    disconnects: u64,
    recovered: u64,
    renewed: u64,
    failed: u64,
    connecting: Histogram,
    away: Histogram,
    /// The connections that were carried by each transport in the end.
    carried: BTreeMap<TransportKind, u64>,
    last_error: Option<ClientError>,
}

impl Crowd {
    /// Returns the settings of a client, whose losses are counted.
    pub(in crate::cli) fn builder(&self, index: usize) -> (ClientBuilder, Arc<Fate>) {
        let fate = Arc::new(Fate::default());
        let (links, counted) = (self.links.clone(), fate.clone());
        let lost_at = Mutex::new(None);
        let builder = Client::builder(&self.url)
            .transports(self.transport.transports())
            .tls(self.tls.clone())
            .send_queue(ROOM_EVENTS, ROOM_BYTES, Overflow::Wait)
            .message_bytes_max(ROOM_BYTES)
            .reconnect(Reconnect::decorrelated_jitter(RECONNECT_BASE, RECONNECT_CAP))
            .on_event(move |event| links.note(event, &mut lost_at.lock(), &counted));
        let builder = self.quic_port.into_iter().fold(builder, |builder, port| builder.quic_port(port));
        let token = self.tokens.get(index.checked_rem(self.tokens.len()).unwrap_or_default());
        (token.into_iter().fold(builder, |builder, token| builder.auth_token(token)), fate)
    }

    /// Returns the URL without what may be secret in it.
    pub(in crate::cli) fn place(&self) -> String {
        without_secrets(&self.url)
    }

    /// Returns the error for a run in which not one client could connect. `what` stands before the place.
    pub(in crate::cli) fn not_one(&self, what: &str, error: ClientError) -> ImksError {
        let advice = advice(&error).filter(|_| self.tokens.is_empty());
        let advice = advice.map(|text| format!(" ({text})")).unwrap_or_default();
        failed(format!("{what} {}{advice}", self.place()), error)
    }

    /// Connects one client, and calls `prepare` with its socket before it joins.
    ///
    /// # Errors
    /// Those of the client library. They are counted as well.
    pub(in crate::cli) async fn join(
        &self,
        index: usize,
        prepare: impl Fn(usize, &Socket),
    ) -> Result<Member, ClientError> {
        let begun = Instant::now();
        let joined = Box::pin(self.try_join(index, prepare)).await;
        match &joined {
            Ok(_) => self.links.connected(begun.elapsed()),
            Err(error) => self.links.fail(error.clone()),
        }
        joined
    }

    async fn try_join(&self, index: usize, prepare: impl Fn(usize, &Socket)) -> Result<Member, ClientError> {
        let (builder, fate) = self.builder(index);
        let client = builder.build()?;
        let socket = client.socket(&self.namespace)?;
        prepare(index, &socket);
        socket.connect().await?;
        Ok(Member { client, socket, fate })
    }

    /// Connects `count` clients, or those that can be connected before `stop`.
    ///
    /// # Errors
    /// The failure of the last client if not one could connect.
    pub(in crate::cli) async fn join_all(
        &self,
        count: usize,
        stop: &CancellationToken,
        prepare: impl Fn(usize, &Socket) + Copy,
    ) -> ImksResult<Vec<Member>> {
        let one = |index| async move { (index, self.join(index, prepare).await) };
        #[allow(clippy::disallowed_methods, reason = "one that takes long holds up no other")]
        let joining = stream::iter(0..count).map(one).buffer_unordered(CONNECTING_MAX);
        let mut joined: Vec<_> = joining.take_until(stop.cancelled()).collect().await;
        joined.sort_by_key(|(index, _)| *index);
        let members: Vec<Member> = joined.into_iter().filter_map(|(_, member)| member.ok()).collect();
        match self.links.last_error() {
            Some(error) if members.is_empty() => {
                Err(self.not_one(&format!("joining {} at", self.namespace), error))
            }
            _ => Ok(members),
        }
    }
}

impl Member {
    /// Returns how often its connection was lost.
    pub(in crate::cli) fn losses(&self) -> u64 {
        self.fate.losses.load(Ordering::SeqCst)
    }

    /// Whether its connection was cut since it was lost `losses` times, or was not there all the time since.
    pub(in crate::cli) fn was_cut(&self, losses: u64) -> bool {
        self.fate.was_cut(losses)
    }

    /// Returns how often it came back with a new session.
    pub(in crate::cli) fn renewals(&self) -> u64 {
        self.fate.renewals.load(Ordering::SeqCst)
    }

    /// Closes the connection. One that was lost may come back before `end`: what became of it belongs into the report.
    pub(in crate::cli) async fn leave(&self, end: Instant) {
        self.fate.returned(end).await;
        self.client.close().await;
    }
}

impl Fate {
    fn was_cut(&self, losses: u64) -> bool {
        self.losses.load(Ordering::SeqCst) != losses || self.is_away.load(Ordering::SeqCst)
    }

    /// Waits until the client is not away, at the longest until `end`.
    pub(in crate::cli) async fn returned(&self, end: Instant) {
        let returned = async {
            loop {
                let joined = self.joined.notified();
                if !self.is_away.load(Ordering::SeqCst) {
                    return;
                }
                joined.await;
            }
        };
        // Whoever does not come back is counted as lost only.
        let _ = timeout_at(end, returned).await;
    }
}

impl Links {
    /// Counts how long a client took to connect and join.
    pub(in crate::cli) fn connected(&self, took: Duration) {
        self.0.lock().connecting.record(took);
    }

    /// Returns how many clients are away: their connection was lost, and they have not joined again yet.
    pub(in crate::cli) fn away(&self) -> u64 {
        let counts = self.0.lock();
        counts.disconnects.saturating_sub(counts.recovered + counts.renewed)
    }

    /// Counts a client that could not connect.
    pub(in crate::cli) fn fail(&self, error: ClientError) {
        let mut counts = self.0.lock();
        counts.failed += 1;
        counts.last_error = Some(error);
    }

    /// Returns the number of clients that could not connect.
    pub(in crate::cli) fn failed(&self) -> u64 {
        self.0.lock().failed
    }

    /// Returns the last failure to connect.
    pub(in crate::cli) fn last_error(&self) -> Option<ClientError> {
        self.0.lock().last_error.clone()
    }

    /// Returns what became of the connections, with the number of those that were cut on purpose.
    pub(in crate::cli) fn connections(&self, cuts: u64) -> Connections {
        let counts = self.0.lock();
        let back = counts.recovered + counts.renewed;
        Connections {
            joined: counts.joined,
            disconnects: counts.disconnects,
            recovered: counts.recovered,
            renewed: counts.renewed,
            recovered_share: (back > 0).then(|| counts.recovered as f64 / back as f64),
            cuts,
            by_transport: counts.carried.iter().map(|(kind, count)| (kind.name(), *count)).collect(),
            connect_ms: counts.connecting.percentiles(),
            away_ms: counts.away.percentiles(),
        }
    }

    fn note(&self, event: &ClientEvent, lost_at: &mut Option<Instant>, fate: &Fate) {
        match event {
            ClientEvent::Connected { transport } | ClientEvent::Reconnected { transport } => {
                *self.0.lock().carried.entry(*transport).or_default() += 1;
            }
            ClientEvent::TransportSwitched { transport } => {
                let mut counts = self.0.lock();
                let before = counts.carried.entry(TransportKind::Polling).or_default();
                *before = before.saturating_sub(1);
                *counts.carried.entry(*transport).or_default() += 1;
                counts.carried.retain(|_, count| *count > 0);
            }
            ClientEvent::Disconnected { reason } if !matches!(reason, DisconnectReason::ByClient) => {
                fate.losses.fetch_add(1, Ordering::SeqCst);
                fate.is_away.store(true, Ordering::SeqCst);
                // A connection that is lost before the namespace is joined again prolongs the absence.
                if lost_at.is_none() {
                    *lost_at = Some(Instant::now());
                    self.0.lock().disconnects += 1;
                }
            }
            ClientEvent::Joined { recovered, .. } => {
                self.0.lock().joined += 1;
                if let Some(lost_at) = lost_at.take() {
                    self.came_back(lost_at, *recovered, fate);
                }
                fate.is_away.store(false, Ordering::SeqCst);
                fate.joined.notify_waiters();
            }
            _ => {}
        }
    }

    fn came_back(&self, lost_at: Instant, recovered: bool, fate: &Fate) {
        let mut counts = self.0.lock();
        counts.away.record(lost_at.elapsed());
        if recovered {
            counts.recovered += 1;
        } else {
            counts.renewed += 1;
            fate.renewals.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// The maximum number of clients that connect at the same time.
const CONNECTING_MAX: usize = 100;

/// The room of a client for events that wait to be sent: as many as it may have under way, and the largest one with what
/// is around its text. An answer is as large.
const ROOM_EVENTS: usize = 1_024;
const ROOM_BYTES: usize = 32 * 1024 * 1024;

/// The pause before a client comes back is between this and [`RECONNECT_CAP`], by chance.
const RECONNECT_BASE: Duration = Duration::from_millis(100);
const RECONNECT_CAP: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(recovered: bool) -> ClientEvent {
        ClientEvent::Joined { namespace: "/".into(), sid: "x".into(), recovered }
    }

    #[test]
    fn the_first_join_is_no_return_and_every_later_one_is() {
        let (links, mut lost_at, fate) = (Links::default(), None, Fate::default());
        let mut note = |event: &ClientEvent| links.note(event, &mut lost_at, &fate);
        let lost = ClientEvent::Disconnected { reason: DisconnectReason::TransportClosed };
        note(&joined(false));
        for recovered in [true, true, true, false] {
            note(&lost);
            note(&joined(recovered));
        }
        note(&ClientEvent::Disconnected { reason: DisconnectReason::ByClient });
        let connections = links.connections(2);
        assert_eq!((connections.joined, connections.disconnects, connections.cuts), (5, 4, 2));
        assert_eq!((connections.recovered, connections.renewed), (3, 1));
        assert_eq!((fate.losses.into_inner(), fate.renewals.into_inner()), (4, 1));
        assert_eq!(connections.recovered_share, Some(0.75));
        assert!(connections.away_ms.is_some());
        assert_eq!(Links::default().connections(0).recovered_share, None, "nobody was away");
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_who_is_away_but_not_for_ever() {
        let (links, mut lost_at, fate) = (Links::default(), None, Fate::default());
        let start = Instant::now();
        fate.returned(start + Duration::from_secs(10)).await;
        assert_eq!(start.elapsed(), Duration::ZERO, "it is there");
        links.note(
            &ClientEvent::Disconnected { reason: DisconnectReason::TransportClosed },
            &mut lost_at,
            &fate,
        );
        fate.returned(start + Duration::from_secs(10)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(10), "it does not come back");
        let back = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            links.note(&joined(true), &mut lost_at, &fate);
        };
        tokio::join!(fate.returned(start + Duration::from_secs(20)), back);
        assert_eq!((start.elapsed(), links.away()), (Duration::from_secs(11), 0), "it has come back");
    }

    #[test]
    fn what_fails_while_a_connection_is_away_was_not_there_to_be_answered() {
        let (links, mut lost_at, fate) = (Links::default(), None, Fate::default());
        let mut note = |event: &ClientEvent| links.note(event, &mut lost_at, &fate);
        note(&joined(false));
        assert!(!fate.was_cut(0));
        note(&ClientEvent::Disconnected { reason: DisconnectReason::TransportClosed });
        assert!(fate.was_cut(0), "cut since");
        assert!(fate.was_cut(1), "sent while it was away");
        note(&joined(true));
        assert!(fate.was_cut(0) && !fate.was_cut(1), "what is sent while it is away leaves when it is back");
    }

    #[test]
    fn a_connection_counts_for_the_transport_that_carries_it_in_the_end() {
        let links = Links::default();
        let note = |event| links.note(&event, &mut None, &Fate::default());
        for _ in 0..3 {
            note(ClientEvent::Connected { transport: TransportKind::Polling });
        }
        note(ClientEvent::Connected { transport: TransportKind::WebTransport });
        for _ in 0..3 {
            note(ClientEvent::TransportSwitched { transport: TransportKind::WebSocket });
        }
        let by_transport = links.connections(0).by_transport;
        assert_eq!(by_transport, [("websocket", 3), ("webtransport", 1)].into());
    }
}
