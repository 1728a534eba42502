//! Workspaces and channels, their members, and who is banned from them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Ctx;
use super::fields::{Done, InWorkspace, Name, Nothing, OfChannel, Text, Until, texts, workspace};
use crate::clock::Timestamp;
use crate::directory::{
    Ban, Channel, ChannelChange, Directory, Member, NewChannel, NotifyLevel, RoomKind, Workspace,
    WorkspaceMember,
};
use crate::error::{ImksError, ImksResult};

/// A workspace to store.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutWorkspace {
    /// The workspace that gets another name.
    id: Option<Name>,
    /// The name: up to 64 letters, digits, hyphens, underscores and dots.
    name: Name,
}

/// A workspace.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OfWorkspace {
    /// The workspace, by name or id.
    workspace: Name,
}

/// A channel or a direct conversation to store.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutChannel {
    /// The channel that changes, where it gets another name.
    id: Option<Name>,
    /// The name: `team`, or `acme/team` in another workspace. With an `id` the new name, without the workspace.
    name: Option<Name>,
    /// The people of a direct conversation. It has no other fields.
    users: Option<Vec<Name>>,
    /// Who sees the channel, and who writes in it.
    kind: Option<RoomKind>,
    /// Whether nothing in it can change any more.
    archived: Option<bool>,
    /// Whether only those who manage it may write.
    read_only: Option<bool>,
    /// The minimum number of seconds between two messages of one user.
    slow_mode_s: Option<u32>,
    /// The number of days that messages are kept; 0 for ever.
    retention_days: Option<u32>,
}

/// A place.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OfPlace {
    /// A channel (`team`, `acme/team`), a whole workspace (`acme/`), or the id of one.
    place: Name,
}

/// A user in a place.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserInPlace {
    /// A channel (`team`, `acme/team`), a whole workspace (`acme/`), or the id of one.
    place: Name,
    /// The user, by name or id.
    user: Name,
}

/// A member to store.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutMember {
    /// A channel (`team`, `acme/team`), a whole workspace (`acme/`), or the id of one.
    place: Name,
    /// The user, by name or id.
    user: Name,
    /// All roles that the member has there, by name or id. Without any, a new member is `member`, and those of a member
    /// stay.
    #[serde(default)]
    roles: Vec<Name>,
    /// Whether the user joins by themselves, which only channels that are open to them allow.
    #[serde(default)]
    as_user: bool,
    /// The messages that the member is notified of.
    notify_level: Option<NotifyLevel>,
    /// Until when the channel is muted for the member.
    muted_until: Option<Until>,
}

/// A ban to store.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutBan {
    /// A channel (`team`, `acme/team`), a whole workspace (`acme/`), or the id of one.
    place: Name,
    /// The user, by name or id.
    user: Name,
    /// Why, up to 500 characters.
    reason: Option<Text>,
    /// When it ends by itself.
    ends_at: Option<Timestamp>,
}

/// All workspaces.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Workspaces {
    workspaces: Vec<Workspace>,
}

/// The channels of a workspace.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Channels {
    channels: Vec<Channel>,
}

/// The members of a place.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Members {
    members: MembersOf,
}

/// Members, who are known differently in channels and in workspaces.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum MembersOf {
    Channel(Vec<Member>),
    Workspace(Vec<WorkspaceMember>),
}

/// The bans in a place.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Bans {
    bans: Vec<Ban>,
}

/// `ListWorkspaces`.
pub(super) async fn workspaces(directory: Directory, _: Nothing) -> ImksResult<Workspaces> {
    Ok(Workspaces { workspaces: directory.workspaces().await? })
}

/// `PutWorkspace`.
pub(super) async fn put_workspace(directory: Directory, request: PutWorkspace) -> ImksResult<Workspace> {
    let name = request.name.as_str();
    match (&request.id, directory.workspace_if_any(name).await?) {
        (Some(id), _) => directory.rename_workspace(id.as_str(), name).await,
        (None, Some(workspace)) => Ok(workspace),
        (None, None) => directory.create_workspace(name).await,
    }
}

/// `DeleteWorkspace`.
pub(super) async fn delete_workspace(directory: Directory, request: OfWorkspace) -> ImksResult<Done> {
    directory.remove_workspace(request.workspace.as_str()).await?;
    Ok(Done {})
}

/// `ListChannels`.
pub(super) async fn channels(directory: Directory, request: InWorkspace) -> ImksResult<Channels> {
    Ok(Channels { channels: directory.channels(workspace(request.workspace.as_ref())).await? })
}

/// `PutChannel`.
pub(super) async fn put_channel(directory: Directory, request: PutChannel) -> ImksResult<Channel> {
    let PutChannel { id, name, users, kind, archived, read_only, slow_mode_s, retention_days } = request;
    if let Some(users) = users {
        return directory.direct(&texts(&users)).await;
    }
    let Some(known) = id.as_ref().or(name.as_ref()).map(Name::as_str) else {
        let text = "name: is missing, or users for a direct conversation";
        return Err(ImksError::InvalidPayload(text.into()));
    };
    let new_name = name.as_ref().filter(|_| id.is_some()).map(|name| name.as_str().to_owned());
    let change = ChannelChange { name: new_name, kind, archived, read_only, slow_mode_s, retention_days };
    if id.is_none() {
        // Before there is a channel, so that a refused request leaves none behind.
        change.check()?;
        let kind = kind.unwrap_or_default();
        directory.ensure_channel(NewChannel { name: known.into(), kind, ..NewChannel::default() }).await?;
    }
    directory.set_channel(known, change).await
}

/// `DeleteChannel`.
pub(super) async fn delete_channel(directory: Directory, request: OfChannel) -> ImksResult<Done> {
    directory.remove_channel(request.channel.as_str()).await?;
    Ok(Done {})
}

/// `ListMembers`.
pub(super) async fn members(directory: Directory, request: OfPlace) -> ImksResult<Members> {
    let place = request.place.as_str();
    let members = match directory.place(place).await?.channel {
        Some(channel) => MembersOf::Channel(directory.members(&channel.to_string()).await?),
        None => MembersOf::Workspace(directory.workspace_members(place.trim_end_matches('/')).await?),
    };
    Ok(Members { members })
}

/// `PutMember`.
pub(super) async fn put_member(ctx: Ctx, request: PutMember) -> ImksResult<Done> {
    let (directory, place, user) = (&ctx.directory, request.place.as_str(), request.user.as_str());
    let channel = directory.place(place).await?.channel;
    let muted_until = request.muted_until.map(|until| match until {
        Until::Never => 0,
        Until::Time(time) => time,
    });
    let has_settings = request.notify_level.is_some() || muted_until.is_some();
    if has_settings && channel.is_none() {
        let rule = "is a workspace, and notify_level and muted_until are settings of a channel";
        return Err(ImksError::invalid("place", rule));
    }
    match request.as_user {
        true => directory.join(place, user).await?,
        false => directory.set_member(place, user, &texts(&request.roles)).await?,
    };
    if has_settings {
        directory.set_notifications(place, user, request.notify_level, muted_until).await?;
    }
    if let Some(channel) = channel {
        ctx.let_in(user, channel).await?;
    }
    Ok(Done {})
}

/// `DeleteMember`.
pub(super) async fn delete_member(directory: Directory, request: UserInPlace) -> ImksResult<Done> {
    directory.remove_member(request.place.as_str(), request.user.as_str()).await?;
    Ok(Done {})
}

/// `ListBans`.
pub(super) async fn bans(directory: Directory, request: OfPlace) -> ImksResult<Bans> {
    Ok(Bans { bans: directory.bans(request.place.as_str()).await? })
}

/// `PutBan`.
pub(super) async fn put_ban(directory: Directory, request: PutBan) -> ImksResult<Done> {
    let (place, user) = (request.place.as_str(), request.user.as_str());
    let reason = request.reason.as_ref().map_or("", Text::as_str);
    directory.ban(place, user, reason, request.ends_at.map(|time| time.0)).await?;
    Ok(Done {})
}

/// `DeleteBan`.
pub(super) async fn delete_ban(directory: Directory, request: UserInPlace) -> ImksResult<Done> {
    directory.lift_ban(request.place.as_str(), request.user.as_str()).await?;
    Ok(Done {})
}
