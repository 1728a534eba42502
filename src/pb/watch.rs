//! The core's four streams of changes. An interrupted stream is reopened at the point where it was
//! interrupted.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};
use uuid::Uuid;

use super::parse::{id, optional_id};
use super::types::{ChannelInfo, Membership, Revocation};
use super::v1;
use crate::clock::jittered;
use crate::error::{ImksError, ImksResult};

/// One of the core's streams of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchKind {
    /// Revoked tokens.
    Revocations,
    /// Created, changed and removed channels.
    Channels,
    /// Memberships that were created, changed or ended.
    Membership,
    /// Permissions that may differ from cached ones.
    Invalidations,
}

/// A change at the core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Tokens were revoked.
    Revoked(Revocation),
    /// A channel was created or changed.
    Channel(ChannelInfo),
    /// A channel was removed.
    ChannelRemoved(Uuid),
    /// A membership was created or changed.
    Joined(Membership),
    /// A membership ended.
    Left {
        /// The user who left.
        user_id: Uuid,
        /// The channel that the user left.
        channel_id: Uuid,
    },
    /// Permissions changed: those of the user, those in the channel, or all if both are absent.
    Invalidated {
        /// The only user concerned; `None` for all users.
        user_id: Option<Uuid>,
        /// The only channel concerned; `None` for all channels.
        channel_id: Option<Uuid>,
    },
    /// The stream was opened at its beginning. Later changes are live; earlier ones may have been missed.
    CaughtUp,
    /// Events were lost. State that was built from the stream must be rebuilt.
    Reset,
    /// The core does not have this stream, or has not been able to open it for seconds, so changes have to be looked
    /// for. Repeated as long as that is so.
    Missing,
    /// The stream could be opened again where it was interrupted: what follows is all that it would have told.
    Resumed,
}

/// A stream of changes that never ends: it reconnects after a jittered pause and resumes at its cursor.
pub struct Watch {
    channel: Channel,
    kind: WatchKind,
    cursor: String,
    open: Option<Events>,
    opened_at: Option<Instant>,
    /// The pause before the next attempt to connect; `None` before the first.
    pause: Option<Duration>,
    /// Whether the stream could not be opened for seconds.
    is_missing: bool,
    /// Whether the stream is being read from its beginning because of an event that could not be read.
    is_reread: bool,
}

type Event = ImksResult<(String, Option<Change>)>;
type Events = BoxStream<'static, Result<Event, Status>>;

impl Watch {
    pub(super) fn new(channel: Channel, kind: WatchKind) -> Self {
        Self {
            channel,
            kind,
            cursor: String::new(),
            open: None,
            opened_at: None,
            pause: None,
            is_missing: false,
            is_reread: false,
        }
    }

    /// Returns the next change. Cancel safe: dropping the future loses no event.
    pub async fn next(&mut self) -> Change {
        loop {
            if let Some(change) = self.step().await {
                return change;
            }
        }
    }

    async fn step(&mut self) -> Option<Change> {
        let Some(events) = &mut self.open else { return self.reopen().await };
        match events.next().await {
            Some(Ok(Ok((cursor, change)))) => {
                self.pause = Some(PAUSE_MIN);
                self.cursor = cursor;
                match change {
                    // The core sends its snapshot again if it has one.
                    Some(Change::Reset) => self.restart(),
                    Some(Change::CaughtUp) => self.is_reread = false,
                    _ => {}
                }
                change
            }
            Some(Ok(Err(error))) => Some(self.lost(&error)),
            Some(Err(status)) => self.interrupted(&status),
            None => self.interrupted(&Status::unavailable("the stream ended")),
        }
    }

    /// Makes the stream start at its beginning.
    fn restart(&mut self) {
        (self.cursor, self.open) = (String::new(), None);
    }

    /// Gives up an event that cannot be read, and reads the stream from its beginning, which has what it told. Only
    /// once: if the event stands there as well, it is left out for the sake of those behind it.
    fn lost(&mut self, error: &ImksError) -> Change {
        tracing::warn!(kind = ?self.kind, %error, "an event of the core cannot be read and counts as lost");
        if !std::mem::replace(&mut self.is_reread, true) {
            self.restart();
            self.pause = Some(PAUSE_LOST);
        }
        Change::Reset
    }

    async fn reopen(&mut self) -> Option<Change> {
        if let Some(pause) = self.pause {
            tokio::time::sleep(jittered(pause)).await;
        }
        self.pause = Some(self.pause.map_or(PAUSE_MIN, |pause| (pause * 2).min(PAUSE_MAX)));
        match self.connect().await {
            Ok(events) => {
                (self.open, self.opened_at) = (Some(events), Some(Instant::now()));
                std::mem::take(&mut self.is_missing).then_some(Change::Resumed)
            }
            Err(status) => self.interrupted(&status),
        }
    }

    fn interrupted(&mut self, status: &Status) -> Option<Change> {
        self.open = None;
        tracing::debug!(kind = ?self.kind, code = ?status.code(), "a watch stream is interrupted");
        let lasted = self.opened_at.take().is_some_and(|at| at.elapsed() > PAUSE_MAX);
        if status.code() == Code::Unimplemented {
            self.restart();
            self.pause = Some(PAUSE_MAX);
            return Some(Change::Missing);
        }
        if lasted {
            self.pause = Some(PAUSE_MIN);
        }
        // After all the shorter pauses, what the stream would tell has to be looked for.
        self.is_missing = self.pause == Some(PAUSE_MAX);
        self.is_missing.then_some(Change::Missing)
    }

    async fn connect(&mut self) -> Result<Events, Status> {
        let channel = self.channel.clone();
        let cursor = self.cursor.clone();
        match self.kind {
            WatchKind::Revocations => {
                let mut client = v1::token_service_client::TokenServiceClient::new(channel);
                client
                    .watch_revocations(v1::WatchRevocationsRequest { cursor })
                    .await
                    .map(|events| parsed(events, revocation))
            }
            WatchKind::Channels => {
                let mut client = v1::channel_service_client::ChannelServiceClient::new(channel);
                client
                    .watch_channels(v1::WatchChannelsRequest { cursor })
                    .await
                    .map(|events| parsed(events, channel_event))
            }
            WatchKind::Membership => {
                let mut client = v1::member_service_client::MemberServiceClient::new(channel);
                client
                    .watch_membership(v1::WatchMembershipRequest { cursor })
                    .await
                    .map(|events| parsed(events, membership))
            }
            WatchKind::Invalidations => {
                let mut client = v1::permission_service_client::PermissionServiceClient::new(channel);
                client
                    .watch_invalidations(v1::WatchInvalidationsRequest { cursor })
                    .await
                    .map(|events| parsed(events, invalidation))
            }
        }
    }
}

fn parsed<E: Send + 'static>(events: Response<Streaming<E>>, parse: fn(E) -> Event) -> Events {
    events.into_inner().map(move |event| event.map(parse)).boxed()
}

fn revocation(event: v1::WatchRevocationsResponse) -> Event {
    use v1::watch_revocations_response::Event as E;
    let change = match event.event {
        Some(E::Revoked(revocation)) => Some(Change::Revoked(revocation.try_into()?)),
        Some(E::CaughtUp(_)) => Some(Change::CaughtUp),
        Some(E::Reset(_)) => Some(Change::Reset),
        None => None,
    };
    Ok((event.cursor, change))
}

fn channel_event(event: v1::WatchChannelsResponse) -> Event {
    use v1::watch_channels_response::Event as E;
    let change = match event.event {
        Some(E::Changed(channel)) => Some(Change::Channel(channel.try_into()?)),
        Some(E::Removed(channel)) => Some(Change::ChannelRemoved(id(&channel)?)),
        Some(E::CaughtUp(_)) => Some(Change::CaughtUp),
        Some(E::Reset(_)) => Some(Change::Reset),
        None => None,
    };
    Ok((event.cursor, change))
}

fn membership(event: v1::WatchMembershipResponse) -> Event {
    use v1::watch_membership_response::Event as E;
    let change = match event.event {
        Some(E::Joined(membership)) => Some(Change::Joined(membership.try_into()?)),
        Some(E::Left(left)) => {
            Some(Change::Left { user_id: id(&left.user_id)?, channel_id: id(&left.channel_id)? })
        }
        Some(E::CaughtUp(_)) => Some(Change::CaughtUp),
        Some(E::Reset(_)) => Some(Change::Reset),
        None => None,
    };
    Ok((event.cursor, change))
}

fn invalidation(event: v1::WatchInvalidationsResponse) -> Event {
    use v1::watch_invalidations_response::Event as E;
    let change = match event.event {
        Some(E::Invalidated(of)) => Some(Change::Invalidated {
            user_id: optional_id(&of.user_id)?,
            channel_id: optional_id(&of.channel_id)?,
        }),
        Some(E::CaughtUp(_)) => Some(Change::CaughtUp),
        Some(E::Reset(_)) => Some(Change::Reset),
        None => None,
    };
    Ok((event.cursor, change))
}

/// The shortest pause before a stream is reopened; it doubles up to `PAUSE_MAX`.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause before a stream is reopened. It is reached after about six seconds.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The pause before a stream is read from its beginning because of an event that could not be read. A core may have many
/// of these.
const PAUSE_LOST: Duration = Duration::from_secs(1);

/// What the fuzz target of hostile answers reads events with.
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing {
    use prost::Message;

    use super::*;

    /// Reads bytes as an event of each stream.
    pub(in crate::pb) fn read_event(bytes: &[u8]) {
        let _ = (read(bytes, revocation), read(bytes, channel_event));
        let _ = (read(bytes, membership), read(bytes, invalidation));
    }

    fn read<E: Message + Default>(bytes: &[u8], parse: fn(E) -> Event) -> Option<Change> {
        parse(E::decode(bytes).ok()?).ok()?.1
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;
    use tokio::io::DuplexStream;
    use tonic::transport::{Endpoint, Uri};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_cannot_be_opened_for_seconds_counts_as_missing() {
        let down = tower::service_fn(|_: Uri| async {
            Err::<TokioIo<DuplexStream>, _>(std::io::Error::other("nobody is there"))
        });
        let channel = Endpoint::from_static("http://core").connect_with_connector_lazy(down);
        let (mut watch, start) = (Watch::new(channel, WatchKind::Revocations), Instant::now());
        assert_eq!(watch.next().await, Change::Missing);
        let first = start.elapsed();
        assert!((4..9).contains(&first.as_secs()), "{first:?}");
        assert_eq!(watch.next().await, Change::Missing);
        assert!(start.elapsed() - first < 2 * PAUSE_MAX, "and says so again");
    }
}
