//! The directory's implementation of the core's channel, member and permission services.

use std::collections::BTreeSet;

use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::change::Kind;
use super::permission::VIEW_CHANNEL;
use super::status::failed;
use super::watch::{Item, mapped};
use super::{Channel, Directory, Member, User};
use crate::pb::v1;

type Events<E> = BoxStream<'static, Result<E, Status>>;

#[tonic::async_trait]
impl v1::channel_service_server::ChannelService for Directory {
    type WatchChannelsStream = Events<v1::WatchChannelsResponse>;

    async fn get_channel(
        &self,
        request: Request<v1::GetChannelRequest>,
    ) -> Result<Response<v1::GetChannelResponse>, Status> {
        let id = id(&request.into_inner().channel_id)?;
        let channel = self.channels_by_id(&[id]).await.map_err(failed)?.pop();
        let channel = channel.ok_or_else(|| Status::not_found("channel"))?;
        Ok(Response::new(v1::GetChannelResponse { channel: Some(channel.into()) }))
    }

    async fn batch_get_channels(
        &self,
        request: Request<v1::BatchGetChannelsRequest>,
    ) -> Result<Response<v1::BatchGetChannelsResponse>, Status> {
        let ids = ids(&request.into_inner().channel_ids)?;
        let channels = self.channels_by_id(&ids).await.map_err(failed)?;
        let channels = channels.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::BatchGetChannelsResponse { channels }))
    }

    async fn watch_channels(
        &self,
        request: Request<v1::WatchChannelsRequest>,
    ) -> Result<Response<Self::WatchChannelsStream>, Status> {
        let events = self.stream(request.into_inner().cursor, self.head(), channel_event).await?;
        let wire = |(cursor, event)| v1::WatchChannelsResponse { cursor, event: Some(event) };
        Ok(Response::new(mapped(events, wire)))
    }
}

#[tonic::async_trait]
impl v1::member_service_server::MemberService for Directory {
    type WatchMembershipStream = Events<v1::WatchMembershipResponse>;

    async fn list_user_channels(
        &self,
        request: Request<v1::ListUserChannelsRequest>,
    ) -> Result<Response<v1::ListUserChannelsResponse>, Status> {
        let request = request.into_inner();
        let (user, after, size) =
            (id(&request.user_id)?, page_token(&request.page_token)?, page_size(request.page_size));
        let members = self.memberships_page(user, after, size).await.map_err(failed)?;
        let next_page_token = next_page(&members, size, |member| member.channel_id);
        let memberships = members.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListUserChannelsResponse { memberships, next_page_token }))
    }

    async fn list_channel_members(
        &self,
        request: Request<v1::ListChannelMembersRequest>,
    ) -> Result<Response<v1::ListChannelMembersResponse>, Status> {
        let request = request.into_inner();
        let (channel, after, size) =
            (id(&request.channel_id)?, page_token(&request.page_token)?, page_size(request.page_size));
        let members = self.members_page(channel, after, size).await.map_err(failed)?;
        let next_page_token = next_page(&members, size, |member| member.user_id);
        let memberships = members.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListChannelMembersResponse { memberships, next_page_token }))
    }

    async fn check_member(
        &self,
        request: Request<v1::CheckMemberRequest>,
    ) -> Result<Response<v1::CheckMemberResponse>, Status> {
        let request = request.into_inner();
        let member = self.member(id(&request.user_id)?, id(&request.channel_id)?).await.map_err(failed)?;
        Ok(Response::new(v1::CheckMemberResponse { membership: member.map(Into::into) }))
    }

    async fn batch_get_users(
        &self,
        request: Request<v1::BatchGetUsersRequest>,
    ) -> Result<Response<v1::BatchGetUsersResponse>, Status> {
        let ids = ids(&request.into_inner().user_ids)?;
        let users = self.users_by_id(&ids).await.map_err(failed)?.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::BatchGetUsersResponse { users }))
    }

    async fn resolve_mentions(
        &self,
        request: Request<v1::ResolveMentionsRequest>,
    ) -> Result<Response<v1::ResolveMentionsResponse>, Status> {
        let request = request.into_inner();
        let roles = ids(&request.role_ids)?;
        if roles.len() > MENTIONED_ROLES_MAX {
            return Err(Status::invalid_argument("too many roles"));
        }
        let (channel, after, size) =
            (id(&request.channel_id)?, page_token(&request.page_token)?, page_size(request.page_size));
        let users = self.members_with_roles(channel, &roles, after, size).await.map_err(failed)?;
        let next_page_token = next_page(&users, size, |user| *user);
        let user_ids = users.iter().map(Uuid::to_string).collect();
        Ok(Response::new(v1::ResolveMentionsResponse { user_ids, next_page_token }))
    }

    async fn watch_membership(
        &self,
        request: Request<v1::WatchMembershipRequest>,
    ) -> Result<Response<Self::WatchMembershipStream>, Status> {
        let events = self.stream(request.into_inner().cursor, self.head(), membership_event).await?;
        let wire = |(cursor, event)| v1::WatchMembershipResponse { cursor, event: Some(event) };
        Ok(Response::new(mapped(events, wire)))
    }
}

#[tonic::async_trait]
impl v1::permission_service_server::PermissionService for Directory {
    type WatchInvalidationsStream = Events<v1::WatchInvalidationsResponse>;

    async fn get_effective(
        &self,
        request: Request<v1::GetEffectiveRequest>,
    ) -> Result<Response<v1::GetEffectiveResponse>, Status> {
        let request = request.into_inner();
        let (user, channel) = (id(&request.user_id)?, id(&request.channel_id)?);
        let effective = self.effective(user, &[channel]).await.map_err(failed)?.pop();
        Ok(Response::new(v1::GetEffectiveResponse { effective }))
    }

    async fn batch_get_effective(
        &self,
        request: Request<v1::BatchGetEffectiveRequest>,
    ) -> Result<Response<v1::BatchGetEffectiveResponse>, Status> {
        let request = request.into_inner();
        let (user, channels) = (id(&request.user_id)?, ids(&request.channel_ids)?);
        let effective = self.effective(user, &channels).await.map_err(failed)?;
        Ok(Response::new(v1::BatchGetEffectiveResponse { effective }))
    }

    async fn check(&self, request: Request<v1::CheckRequest>) -> Result<Response<v1::CheckResponse>, Status> {
        let request = request.into_inner();
        let (user, channel) = (id(&request.user_id)?, id(&request.channel_id)?);
        let bit = v1::Permission::try_from(request.permission).ok().and_then(v1::Permission::bit);
        let bit = bit.ok_or_else(|| Status::invalid_argument("permission"))?;
        let effective = self.effective(user, &[channel]).await.map_err(failed)?.pop();
        let bits = effective.map_or(0, |effective| effective.bits);
        Ok(Response::new(v1::CheckResponse { allowed: bits & bit != 0, visible: bits & VIEW_CHANNEL != 0 }))
    }

    async fn watch_invalidations(
        &self,
        request: Request<v1::WatchInvalidationsRequest>,
    ) -> Result<Response<Self::WatchInvalidationsStream>, Status> {
        let events = self.stream(request.into_inner().cursor, self.head(), invalidation_event).await?;
        let wire = |(cursor, event)| v1::WatchInvalidationsResponse { cursor, event: Some(event) };
        Ok(Response::new(mapped(events, wire)))
    }
}

async fn channel_event(
    directory: Directory,
    item: Item,
) -> Result<Option<v1::watch_channels_response::Event>, Status> {
    use v1::watch_channels_response::Event;
    Ok(match item {
        Item::Change(change) if change.is(Kind::Channel) => {
            // The channel is read now, so it is at least as new as the change.
            let id = change.channel_id.unwrap_or_default();
            let channel = directory.channels_by_id(&[id]).await.map_err(failed)?.pop();
            Some(match channel {
                Some(channel) => Event::Changed(channel.into()),
                None => Event::Removed(id.to_string()),
            })
        }
        Item::CaughtUp => Some(Event::CaughtUp(v1::CaughtUp {})),
        Item::Reset => Some(Event::Reset(v1::Reset {})),
        Item::Change(_) => None,
    })
}

async fn membership_event(
    directory: Directory,
    item: Item,
) -> Result<Option<v1::watch_membership_response::Event>, Status> {
    use v1::watch_membership_response::{Event, Left};
    Ok(match item {
        Item::Change(change) if change.is(Kind::Joined) || change.is(Kind::Left) => {
            let (user, channel) = (change.user_id.unwrap_or_default(), change.channel_id.unwrap_or_default());
            // The membership is read now, so that a user who joined and left again is reported as having
            // left.
            let member = directory.member(user, channel).await.map_err(failed)?;
            Some(match member {
                Some(member) => Event::Joined(member.into()),
                None => Event::Left(Left { user_id: user.to_string(), channel_id: channel.to_string() }),
            })
        }
        Item::CaughtUp => Some(Event::CaughtUp(v1::CaughtUp {})),
        Item::Reset => Some(Event::Reset(v1::Reset {})),
        Item::Change(_) => None,
    })
}

async fn invalidation_event(
    _: Directory,
    item: Item,
) -> Result<Option<v1::watch_invalidations_response::Event>, Status> {
    use v1::watch_invalidations_response::{Event, Invalidation};
    let text = |id: Option<Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
    Ok(match item {
        // Revocations do not affect permissions.
        Item::Change(change) if !change.is(Kind::Revoked) => Some(Event::Invalidated(Invalidation {
            user_id: text(change.user_id),
            channel_id: text(change.channel_id),
            version: change.seq,
        })),
        Item::CaughtUp => Some(Event::CaughtUp(v1::CaughtUp {})),
        Item::Reset => Some(Event::Reset(v1::Reset {})),
        Item::Change(_) => None,
    })
}

impl From<User> for v1::User {
    fn from(user: User) -> Self {
        Self {
            id: user.id.to_string(),
            username: user.username,
            avatar: String::new(),
            bot: user.bot,
            deleted: user.deleted_at.is_some(),
        }
    }
}

impl From<Channel> for v1::Channel {
    fn from(channel: Channel) -> Self {
        Self {
            id: channel.id.to_string(),
            workspace_id: channel.workspace_id.map(|id| id.to_string()).unwrap_or_default(),
            kind: i32::try_from(channel.kind).unwrap_or_default(),
            name: channel.name,
            archived: channel.archived,
            read_only: channel.read_only,
            slow_mode_s: u32::try_from(channel.slow_mode_s).unwrap_or_default(),
            retention_days: u32::try_from(channel.retention_days).unwrap_or_default(),
            version: channel.version,
        }
    }
}

impl From<Member> for v1::Membership {
    fn from(member: Member) -> Self {
        Self {
            channel_id: member.channel_id.to_string(),
            user_id: member.user_id.to_string(),
            channel_name: member.channel_name,
            joined_at_us: member.joined_at,
            joined_seq: member.joined_seq,
            notify_level: i32::try_from(member.notify_level).unwrap_or_default(),
            muted_until_us: member.muted_until,
            role_ids: distinct(member.roles.iter().map(|role| role.id)),
            workspace_id: member.workspace_id.map(|id| id.to_string()).unwrap_or_default(),
        }
    }
}

/// Reads an id of a request.
pub(super) fn id(text: &str) -> Result<Uuid, Status> {
    Uuid::parse_str(text).map_err(|_| Status::invalid_argument("id"))
}

fn ids(texts: &[String]) -> Result<Vec<Uuid>, Status> {
    if texts.len() > crate::pb::IDS_MAX {
        return Err(Status::invalid_argument("too many ids"));
    }
    texts.iter().map(|text| id(text)).collect()
}

fn page_token(token: &str) -> Result<Uuid, Status> {
    if token.is_empty() { Ok(Uuid::nil()) } else { id(token) }
}

fn page_size(asked: u32) -> i64 {
    if asked == 0 { PAGE_MAX } else { i64::from(asked).min(PAGE_MAX) }
}

fn next_page<T>(rows: &[T], size: i64, key: fn(&T) -> Uuid) -> String {
    let full = i64::try_from(rows.len()).is_ok_and(|len| len >= size);
    rows.last().filter(|_| full).map(|row| key(row).to_string()).unwrap_or_default()
}

fn distinct(ids: impl Iterator<Item = Uuid>) -> Vec<String> {
    let ids: BTreeSet<Uuid> = ids.collect();
    ids.iter().map(Uuid::to_string).collect()
}

/// The largest number of rows in one page.
const PAGE_MAX: i64 = 500;
/// The number of roles that are resolved in one call.
const MENTIONED_ROLES_MAX: usize = 20;
