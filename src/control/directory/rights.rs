//! Roles, the overrides of channels, and what follows from both.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{Done, InWorkspace, Name, OfChannel, texts, workspace};
use crate::directory::{ChannelOverride, Directory, Role, RoleChange, Subject, permission_bits};
use crate::error::{ImksError, ImksResult};

/// A role to store.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutRole {
    /// The role that gets another name.
    id: Option<Name>,
    /// The workspace, by name or id; without it `main`.
    workspace: Option<Name>,
    /// The name: up to 64 letters, digits, hyphens, underscores and dots.
    name: Name,
    /// All permissions that it gives.
    permissions: Option<Vec<Name>>,
}

/// A role of a workspace.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OfRole {
    /// The workspace, by name or id; without it `main`.
    workspace: Option<Name>,
    /// The role, by name or id.
    role: Name,
}

/// An override to store, of a role or of a user. It replaces an earlier one.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutOverride {
    /// The channel, by name or id: `team`, or `acme/team` in another workspace.
    channel: Name,
    /// The role, by name or id.
    role: Option<Name>,
    /// The user, by name or id.
    user: Option<Name>,
    /// The permissions that it gives.
    #[serde(default)]
    allow: Vec<Name>,
    /// The permissions that it takes.
    #[serde(default)]
    deny: Vec<Name>,
}

/// The override of a role or of a user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OfOverride {
    /// The channel, by name or id: `team`, or `acme/team` in another workspace.
    channel: Name,
    /// The role, by name or id.
    role: Option<Name>,
    /// The user, by name or id.
    user: Option<Name>,
}

/// A user in a channel.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserInChannel {
    /// The channel, by name or id: `team`, or `acme/team` in another workspace.
    channel: Name,
    /// The user, by name or id.
    user: Name,
}

/// The roles of a workspace, and those that every workspace has.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Roles {
    roles: Vec<Role>,
}

/// The overrides of a channel.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Overrides {
    overrides: Vec<ChannelOverride>,
}

/// What a user may do in a channel.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Permissions {
    permissions: Vec<&'static str>,
}

/// `ListRoles`.
pub(super) async fn roles(directory: Directory, request: InWorkspace) -> ImksResult<Roles> {
    Ok(Roles { roles: directory.roles(workspace(request.workspace.as_ref())).await? })
}

/// `PutRole`.
pub(super) async fn put_role(directory: Directory, request: PutRole) -> ImksResult<Role> {
    let (name, workspace) = (request.name.as_str(), workspace(request.workspace.as_ref()));
    let bits = request.permissions.map(|names| permission_bits(&texts(&names))).transpose()?;
    let known = request.id.as_ref().map_or(name, Name::as_str);
    let change = RoleChange { name: Some(name.to_owned()), bits };
    match directory.set_role(workspace, known, change).await {
        Err(ImksError::UnknownName { what: "role", .. }) if request.id.is_none() => {
            directory.create_role(workspace, name, bits.unwrap_or_default()).await
        }
        outcome => outcome,
    }
}

/// `DeleteRole`.
pub(super) async fn delete_role(directory: Directory, request: OfRole) -> ImksResult<Done> {
    directory.remove_role(workspace(request.workspace.as_ref()), request.role.as_str()).await?;
    Ok(Done {})
}

/// `ListOverrides`.
pub(super) async fn overrides(directory: Directory, request: OfChannel) -> ImksResult<Overrides> {
    Ok(Overrides { overrides: directory.overrides(request.channel.as_str()).await? })
}

/// `PutOverride`.
pub(super) async fn put_override(directory: Directory, request: PutOverride) -> ImksResult<Done> {
    let PutOverride { channel, role, user, allow, deny } = &request;
    let subject = subject(role.as_ref(), user.as_ref())?;
    let (allow, deny) = (permission_bits(&texts(allow))?, permission_bits(&texts(deny))?);
    directory.set_override(channel.as_str(), subject, allow, deny).await?;
    Ok(Done {})
}

/// `DeleteOverride`.
pub(super) async fn delete_override(directory: Directory, request: OfOverride) -> ImksResult<Done> {
    let OfOverride { channel, role, user } = &request;
    directory.remove_override(channel.as_str(), subject(role.as_ref(), user.as_ref())?).await?;
    Ok(Done {})
}

fn subject<'a>(role: Option<&'a Name>, user: Option<&'a Name>) -> ImksResult<Subject<'a>> {
    match (role, user) {
        (Some(role), None) => Ok(Subject::Role(role.as_str())),
        (None, Some(user)) => Ok(Subject::User(user.as_str())),
        _ => Err(ImksError::InvalidPayload("role or user: one of them is needed".into())),
    }
}

/// `GetPermissions`.
pub(super) async fn permissions(directory: Directory, request: UserInChannel) -> ImksResult<Permissions> {
    let permissions = directory.permissions_of(request.channel.as_str(), request.user.as_str()).await?;
    Ok(Permissions { permissions })
}
