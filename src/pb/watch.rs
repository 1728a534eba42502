//! The core's four streams of changes. An interrupted stream is reopened at the point where it was
//! interrupted.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};
use uuid::Uuid;

use super::parse::{id, optional_id};
use super::types::{ChannelInfo, Membership, Revocation};
use super::v1;
use crate::clock::jittered;
use crate::error::ImksResult;

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
    /// The core does not have this stream, so changes have to be looked for. Repeated as long as that is so.
    Missing,
}

/// A stream of changes that never ends: it reconnects after a jittered pause and resumes at its cursor.
pub struct Watch {
    channel: Channel,
    kind: WatchKind,
    cursor: String,
    open: Option<Events>,
    /// The pause before the next attempt to connect; `None` before the first.
    pause: Option<Duration>,
}

type Event = ImksResult<(String, Option<Change>)>;
type Events = BoxStream<'static, Result<Event, Status>>;

impl Watch {
    pub(super) fn new(channel: Channel, kind: WatchKind) -> Self {
        Self { channel, kind, cursor: String::new(), open: None, pause: None }
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
                if change == Some(Change::Reset) {
                    // The stream restarts at the beginning, so that the core sends its snapshot again if it
                    // has one.
                    (self.cursor, self.open) = (String::new(), None);
                }
                change
            }
            Some(Ok(Err(error))) => {
                tracing::warn!(kind = ?self.kind, %error, "an event of the core cannot be read and counts as lost");
                Some(Change::Reset)
            }
            Some(Err(status)) => self.interrupted(&status),
            None => self.interrupted(&Status::unavailable("the stream ended")),
        }
    }

    async fn reopen(&mut self) -> Option<Change> {
        if let Some(pause) = self.pause {
            tokio::time::sleep(jittered(pause)).await;
        }
        self.pause = Some(self.pause.map_or(PAUSE_MIN, |pause| (pause * 2).min(PAUSE_MAX)));
        match self.connect().await {
            Ok(events) => {
                self.open = Some(events);
                None
            }
            Err(status) => self.interrupted(&status),
        }
    }

    fn interrupted(&mut self, status: &Status) -> Option<Change> {
        self.open = None;
        tracing::debug!(kind = ?self.kind, code = ?status.code(), "a watch stream is interrupted");
        if status.code() != Code::Unimplemented {
            return None;
        }
        self.pause = Some(PAUSE_MAX);
        Some(Change::Missing)
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
/// The longest pause before a stream is reopened.
const PAUSE_MAX: Duration = Duration::from_secs(5);
