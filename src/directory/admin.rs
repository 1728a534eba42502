//! The directory as an API for back ends: what `imks directory` does, with JSON in and JSON out. It knows neither
//! HTTP nor keys; docs/directory.md lists the requests.
//!
//! `Put` stores: it may be repeated, and changes only what it names. What has an `id` is found by it and may get
//! another name; everything else is found by its name.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{
    ChannelChange, Directory, FIRST_WORKSPACE, NewChannel, NotifyLevel, RoleChange, RoomKind, Subject,
    permission_bits,
};
use crate::clock::{Micros, parse_rfc3339};
use crate::error::{ImksError, ImksResult};

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Lists.
    Get,
    /// Creates or changes.
    Put,
    /// Begins a session.
    Post,
    /// Removes.
    Delete,
}

/// A request about the directory.
#[derive(Debug, Clone)]
pub struct Request {
    /// What it does.
    pub verb: Verb,
    /// The fields of the query or the body.
    pub fields: Map<String, Value>,
    /// The key under which a repeated `Post` begins the same session.
    pub key: Option<String>,
}

/// The kinds of things that requests are about: their name in the path, and what can be done with them.
pub const NOUNS: [(&str, &[Verb]); 9] = [
    ("workspaces", &[Verb::Get, Verb::Put, Verb::Delete]),
    ("users", &[Verb::Get, Verb::Put, Verb::Delete]),
    ("channels", &[Verb::Get, Verb::Put, Verb::Delete]),
    ("members", &[Verb::Get, Verb::Put, Verb::Delete]),
    ("roles", &[Verb::Get, Verb::Put, Verb::Delete]),
    ("overrides", &[Verb::Get, Verb::Put, Verb::Delete]),
    ("bans", &[Verb::Get, Verb::Put, Verb::Delete]),
    ("tokens", &[Verb::Get, Verb::Post, Verb::Delete]),
    ("tokens/refresh", &[Verb::Post]),
];

impl Directory {
    /// Carries out a request about one of the [`NOUNS`], and returns the data of the answer.
    ///
    /// # Errors
    /// `InvalidPayload` if a field is missing, unknown or of a wrong type; the errors of the operation.
    pub async fn administer(&self, noun: &str, request: Request) -> ImksResult<Value> {
        match noun {
            "workspaces" => Box::pin(self.workspace_request(request)).await,
            "users" => Box::pin(self.user_request(request)).await,
            "channels" => Box::pin(self.channel_request(request)).await,
            "members" => Box::pin(self.member_request(request)).await,
            "roles" => Box::pin(self.role_request(request)).await,
            "overrides" => Box::pin(self.override_request(request)).await,
            "bans" => Box::pin(self.ban_request(request)).await,
            "tokens" => Box::pin(self.token_request(request)).await,
            "tokens/refresh" => {
                let fields: Refreshing = read(request.fields)?;
                Ok(serde_json::to_value(self.refresh(&fields.refresh_token).await?)?)
            }
            _ => Err(ImksError::NotFound("page")),
        }
    }

    async fn workspace_request(&self, request: Request) -> ImksResult<Value> {
        match request.verb {
            Verb::Get => {
                let Nothing {} = read(request.fields)?;
                Ok(json!({ "workspaces": self.workspaces().await? }))
            }
            Verb::Put | Verb::Post => {
                let fields: Named = read(request.fields)?;
                let workspace = match (&fields.id, self.workspace_if_any(&fields.name).await?) {
                    (Some(id), _) => self.rename_workspace(id, &fields.name).await?,
                    (None, Some(workspace)) => workspace,
                    (None, None) => self.create_workspace(&fields.name).await?,
                };
                Ok(serde_json::to_value(workspace)?)
            }
            Verb::Delete => {
                let fields: OfWorkspace = read(request.fields)?;
                self.remove_workspace(&fields.workspace).await?;
                Ok(json!({}))
            }
        }
    }

    async fn user_request(&self, request: Request) -> ImksResult<Value> {
        match request.verb {
            Verb::Get => {
                let Nothing {} = read(request.fields)?;
                Ok(json!({ "users": self.users().await? }))
            }
            Verb::Put | Verb::Post => {
                let fields: Named = read(request.fields)?;
                let user = match (&fields.id, self.user(&fields.name).await?) {
                    (Some(id), _) => self.rename_user(id, &fields.name).await?,
                    (None, Some(user)) => user,
                    (None, None) => self.create_user(&fields.name, fields.bot).await?,
                };
                Ok(serde_json::to_value(user)?)
            }
            Verb::Delete => {
                let fields: OfUser = read(request.fields)?;
                self.remove_user(&fields.user).await?;
                Ok(json!({}))
            }
        }
    }

    async fn channel_request(&self, request: Request) -> ImksResult<Value> {
        match request.verb {
            Verb::Get => {
                let fields: InWorkspace = read(request.fields)?;
                Ok(json!({ "channels": self.channels(&fields.workspace).await? }))
            }
            Verb::Put | Verb::Post => self.put_channel(read(request.fields)?).await,
            Verb::Delete => {
                let fields: OfChannel = read(request.fields)?;
                self.remove_channel(&fields.channel).await?;
                Ok(json!({}))
            }
        }
    }

    async fn put_channel(&self, fields: ChannelFields) -> ImksResult<Value> {
        if let Some(users) = &fields.users {
            return Ok(serde_json::to_value(self.direct(users).await?)?);
        }
        let missing =
            || ImksError::InvalidPayload("name: is missing, or users for a direct conversation".into());
        let name = fields.id.as_ref().or(fields.name.as_ref()).ok_or_else(missing)?;
        if fields.id.is_none() {
            let kind = fields.kind.unwrap_or_default();
            self.ensure_channel(NewChannel { name: name.clone(), kind, ..NewChannel::default() }).await?;
        }
        let change = ChannelChange {
            name: fields.id.as_ref().and_then(|_| fields.name.clone()),
            kind: fields.kind,
            archived: fields.archived,
            read_only: fields.read_only,
            slow_mode_s: fields.slow_mode_s,
            retention_days: fields.retention_days,
        };
        Ok(serde_json::to_value(self.set_channel(name, change).await?)?)
    }

    async fn member_request(&self, request: Request) -> ImksResult<Value> {
        match request.verb {
            Verb::Get => {
                let OfPlace { place } = read(request.fields)?;
                let members = match self.place(&place).await?.channel {
                    Some(channel) => serde_json::to_value(self.members(&channel.to_string()).await?)?,
                    None => serde_json::to_value(self.workspace_members(place.trim_end_matches('/')).await?)?,
                };
                Ok(json!({ "members": members }))
            }
            Verb::Put | Verb::Post => {
                let fields: MemberFields = read(request.fields)?;
                let muted_until =
                    fields.muted_until.as_deref().map(|text| time("muted_until", text)).transpose()?;
                match fields.as_user {
                    true => self.join(&fields.place, &fields.user).await?,
                    false => self.set_member(&fields.place, &fields.user, &fields.roles).await?,
                };
                if fields.notify_level.is_some() || muted_until.is_some() {
                    let notify = fields.notify_level;
                    self.set_notifications(&fields.place, &fields.user, notify, muted_until).await?;
                }
                Ok(json!({}))
            }
            Verb::Delete => {
                let fields: UserInPlace = read(request.fields)?;
                self.remove_member(&fields.place, &fields.user).await?;
                Ok(json!({}))
            }
        }
    }

    async fn role_request(&self, request: Request) -> ImksResult<Value> {
        match request.verb {
            Verb::Get => {
                let fields: InWorkspace = read(request.fields)?;
                Ok(json!({ "roles": self.roles(&fields.workspace).await? }))
            }
            Verb::Put | Verb::Post => {
                let fields: RoleFields = read(request.fields)?;
                let bits = fields.permissions.as_deref().map(permission_bits).transpose()?;
                let known = fields.id.as_ref().unwrap_or(&fields.name);
                let change = RoleChange { name: Some(fields.name.clone()), bits };
                let role = match self.set_role(&fields.workspace, known, change).await {
                    Err(ImksError::UnknownName { what: "role", .. }) if fields.id.is_none() => {
                        self.create_role(&fields.workspace, &fields.name, bits.unwrap_or_default()).await?
                    }
                    outcome => outcome?,
                };
                Ok(serde_json::to_value(role)?)
            }
            Verb::Delete => {
                let fields: OfRole = read(request.fields)?;
                self.remove_role(&fields.workspace, &fields.role).await?;
                Ok(json!({}))
            }
        }
    }

    async fn override_request(&self, request: Request) -> ImksResult<Value> {
        if request.verb == Verb::Get {
            let fields: OfChannel = read(request.fields)?;
            return Ok(json!({ "overrides": self.overrides(&fields.channel).await? }));
        }
        let fields: OverrideFields = read(request.fields)?;
        let subject = match (&fields.role, &fields.user) {
            (Some(role), None) => Subject::Role(role),
            (None, Some(user)) => Subject::User(user),
            _ => return Err(ImksError::InvalidPayload("role or user: one of them is needed".into())),
        };
        match request.verb {
            Verb::Delete => self.remove_override(&fields.channel, subject).await?,
            _ => {
                let (allow, deny) = (permission_bits(&fields.allow)?, permission_bits(&fields.deny)?);
                self.set_override(&fields.channel, subject, allow, deny).await?;
            }
        }
        Ok(json!({}))
    }

    async fn ban_request(&self, request: Request) -> ImksResult<Value> {
        match request.verb {
            Verb::Get => {
                let fields: OfPlace = read(request.fields)?;
                Ok(json!({ "bans": self.bans(&fields.place).await? }))
            }
            Verb::Put | Verb::Post => {
                let fields: BanFields = read(request.fields)?;
                let ends_at = fields.ends_at.as_deref().map(|text| time("ends_at", text)).transpose()?;
                self.ban(&fields.place, &fields.user, &fields.reason, ends_at).await?;
                Ok(json!({}))
            }
            Verb::Delete => {
                let fields: UserInPlace = read(request.fields)?;
                self.lift_ban(&fields.place, &fields.user).await?;
                Ok(json!({}))
            }
        }
    }

    async fn token_request(&self, request: Request) -> ImksResult<Value> {
        match request.verb {
            Verb::Get => {
                let fields: OfUser = read(request.fields)?;
                Ok(json!({ "sessions": self.sessions(&fields.user).await? }))
            }
            Verb::Put | Verb::Post => {
                let fields: OfUser = read(request.fields)?;
                let user = self.user_by_name(&fields.user).await?;
                Ok(serde_json::to_value(self.begin_session(&user, request.key.as_deref()).await?)?)
            }
            Verb::Delete => {
                let fields: Ending = read(request.fields)?;
                match (&fields.session, &fields.user) {
                    (Some(session), None) => self.revoke_session(session).await?,
                    (None, Some(user)) => self.revoke_user(user).await?,
                    _ => {
                        return Err(ImksError::InvalidPayload(
                            "session or user: one of them is needed".into(),
                        ));
                    }
                }
                Ok(json!({}))
            }
        }
    }
}

fn read<T: DeserializeOwned>(fields: Map<String, Value>) -> ImksResult<T> {
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let (path, reason) = (error.path().to_string(), error.inner().to_string());
        let text = if path == "." { reason } else { format!("{path}: {reason}") };
        ImksError::InvalidPayload(text)
    })
}

fn time(field: &'static str, text: &str) -> ImksResult<Micros> {
    parse_rfc3339(text)
        .ok_or_else(|| ImksError::invalid(field, format!("{text:?} is not a time like 2030-01-31T12:00:00Z")))
}

fn first_workspace() -> String {
    FIRST_WORKSPACE.into()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    id: Option<String>,
    name: String,
    #[serde(default)]
    bot: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfWorkspace {
    workspace: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InWorkspace {
    #[serde(default = "first_workspace")]
    workspace: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfUser {
    user: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfChannel {
    channel: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfPlace {
    place: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserInPlace {
    place: String,
    user: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfRole {
    #[serde(default = "first_workspace")]
    workspace: String,
    role: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChannelFields {
    id: Option<String>,
    name: Option<String>,
    /// The people of a direct conversation.
    users: Option<Vec<String>>,
    kind: Option<RoomKind>,
    archived: Option<bool>,
    read_only: Option<bool>,
    slow_mode_s: Option<u32>,
    retention_days: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberFields {
    place: String,
    user: String,
    #[serde(default)]
    roles: Vec<String>,
    /// Whether the user joins by themselves, which only channels that are open to them allow.
    #[serde(default)]
    as_user: bool,
    notify_level: Option<NotifyLevel>,
    muted_until: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleFields {
    id: Option<String>,
    #[serde(default = "first_workspace")]
    workspace: String,
    name: String,
    permissions: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OverrideFields {
    channel: String,
    role: Option<String>,
    user: Option<String>,
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BanFields {
    place: String,
    user: String,
    #[serde(default)]
    reason: String,
    ends_at: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ending {
    session: Option<String>,
    user: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refreshing {
    refresh_token: String,
}
