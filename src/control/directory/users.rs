//! Users, their tokens, and the keys that sign those.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{Done, Name, Nothing, OfUser, Text};
use crate::directory::{Directory, SessionInfo, SigningKeyInfo, Tokens, User};
use crate::error::{ImksError, ImksResult};
use crate::models::text::Nonce;

/// A user to store.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutUser {
    /// The user who gets another name.
    id: Option<Name>,
    /// The name: up to 64 letters, digits, hyphens, underscores and dots.
    name: Name,
    /// Whether a new user is a program.
    #[serde(default)]
    bot: bool,
    /// The `sub` of the tokens of the operator's own application that stand for the user.
    login: Option<Text>,
    /// The `iss` of these tokens, where users of several issuers are told apart.
    issuer: Option<Text>,
}

/// A session, or all of a user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EndSessions {
    /// The id of a session.
    session: Option<Name>,
    /// A user, all of whose tokens and sessions end.
    user: Option<Name>,
}

/// A session to begin.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BeginSession {
    /// The user, by name or id.
    user: Name,
    /// Makes a repeat begin the same session, for as long as that lasts.
    request_id: Option<Nonce>,
}

/// A refresh token.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Refresh {
    /// The token, which is good once.
    refresh_token: Text,
}

/// A signing key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OfSigningKey {
    /// The id of the key.
    kid: Name,
}

/// All users.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Users {
    users: Vec<User>,
}

/// The sessions of a user.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Sessions {
    sessions: Vec<SessionInfo>,
}

/// The keys whose signatures are valid, or were.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SigningKeys {
    keys: Vec<SigningKeyInfo>,
}

/// `ListUsers`.
pub(super) async fn users(directory: Directory, _: Nothing) -> ImksResult<Users> {
    Ok(Users { users: directory.users().await? })
}

/// `PutUser`.
pub(super) async fn put_user(directory: Directory, request: PutUser) -> ImksResult<User> {
    let PutUser { id, name, bot, login, issuer } = request;
    let name = name.as_str();
    if issuer.is_some() && login.is_none() {
        return Err(wrong("issuer", "needs login"));
    }
    if let Some(login) = &login {
        let known = (issuer.as_ref().map_or("", Text::as_str), login.as_str());
        return match id {
            None => put_user_of_login(&directory, known, name, bot).await,
            Some(_) => Err(wrong("id", "cannot be there together with login")),
        };
    }
    match (id, directory.user(name).await?) {
        (Some(id), _) => directory.rename_user(id.as_str(), name).await,
        (None, Some(user)) => Ok(user),
        (None, None) => directory.create_user(name, bot).await,
    }
}

async fn put_user_of_login(
    directory: &Directory,
    (issuer, login): (&str, &str),
    name: &str,
    bot: bool,
) -> ImksResult<User> {
    match directory.user_of_login(issuer, login).await? {
        Some(user) => directory.rename_user(&user.id.to_string(), name).await,
        None => directory.create_user_of_login(name, bot, issuer, login).await,
    }
}

fn wrong(field: &str, reason: &str) -> ImksError {
    ImksError::InvalidField { field: field.into(), reason: reason.into() }
}

/// `DeleteUser`.
pub(super) async fn delete_user(directory: Directory, request: OfUser) -> ImksResult<Done> {
    directory.remove_user(request.user.as_str()).await?;
    Ok(Done {})
}

/// `ListTokens`.
pub(super) async fn sessions(directory: Directory, request: OfUser) -> ImksResult<Sessions> {
    Ok(Sessions { sessions: directory.sessions(request.user.as_str()).await? })
}

/// `CreateTokens`.
pub(super) async fn begin_session(directory: Directory, request: BeginSession) -> ImksResult<Tokens> {
    let user = directory.user_by_name(request.user.as_str()).await?;
    directory.begin_session(&user, request.request_id.as_ref().map(Nonce::as_str)).await
}

/// `RefreshTokens`.
pub(super) async fn refresh(directory: Directory, request: Refresh) -> ImksResult<Tokens> {
    directory.refresh(request.refresh_token.as_str()).await
}

/// `DeleteTokens`.
pub(super) async fn end_sessions(directory: Directory, request: EndSessions) -> ImksResult<Done> {
    match (&request.session, &request.user) {
        (Some(session), None) => directory.remove_session(session.as_str()).await?,
        (None, Some(user)) => directory.revoke_user(user.as_str()).await?,
        _ => return Err(ImksError::InvalidPayload("session or user: one of them is needed".into())),
    }
    Ok(Done {})
}

/// `ListSigningKeys`.
pub(super) async fn signing_keys(directory: Directory, _: Nothing) -> ImksResult<SigningKeys> {
    Ok(SigningKeys { keys: directory.signing_keys().await? })
}

/// `CreateSigningKey`.
pub(super) async fn create_signing_key(directory: Directory, _: Nothing) -> ImksResult<SigningKeyInfo> {
    directory.rotate_signing_key().await
}

/// `DeleteSigningKey`.
pub(super) async fn delete_signing_key(directory: Directory, request: OfSigningKey) -> ImksResult<Done> {
    directory.revoke_signing_key(request.kid.as_str()).await?;
    Ok(Done {})
}
