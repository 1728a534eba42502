//! The embedded directory over HTTP, for back ends: one table of calls, which `http` mounts (docs/directory.md lists
//! them). Who may call is decided by the same keys and certificates as for all other calls of back ends.
//!
//! `PUT` stores: it may be repeated, and changes only what it names. What has an `id` is found by it and may get
//! another name; everything else is found by its name.

mod additions;
mod fields;
mod places;
mod rights;
mod users;

use std::sync::LazyLock;

use uuid::Uuid;

use super::api::{Head, answer};
use super::caller::Scope::{Tokens, Users};
use super::operation::{Input, KEY_FIELD, Operation, Output, Route, Shared};
use super::{Gate, sync};
use crate::contract::Contract;
use crate::directory::Directory;
use crate::error::Precondition;
use crate::messaging::api::Method::{Delete, Get, Post, Put};
use crate::messaging::api::{Answer, Call, Payload};
use crate::messaging::backend::Backend;
use crate::{ImksError, ImksResult};

/// All calls. Whoever makes keys or tokens can act as anybody, which needs a scope of its own.
static CALLS: LazyLock<Vec<Operation<Ctx>>> = LazyLock::new(|| {
    vec![
        call("ListWorkspaces", (Get, "/workspaces", Users), places::workspaces),
        put("PutWorkspace", "/workspaces", places::put_workspace),
        call("DeleteWorkspace", (Delete, "/workspaces", Users), places::delete_workspace),
        call("ListUsers", (Get, "/users", Users), users::users),
        put("PutUser", "/users", users::put_user),
        call("DeleteUser", (Delete, "/users", Users), users::delete_user),
        call("ListChannels", (Get, "/channels", Users), places::channels),
        put("PutChannel", "/channels", places::put_channel),
        call("DeleteChannel", (Delete, "/channels", Users), places::delete_channel),
        call("ListMembers", (Get, "/members", Users), places::members),
        // The only one that reaches sockets. Nobody can take a membership first, so it needs no repeat.
        Operation::http("PutMember", (Put, "/members", Users), places::put_member),
        call("DeleteMember", (Delete, "/members", Users), places::delete_member),
        call("ListBans", (Get, "/bans", Users), places::bans),
        put("PutBan", "/bans", places::put_ban),
        call("DeleteBan", (Delete, "/bans", Users), places::delete_ban),
        call("ListRoles", (Get, "/roles", Users), rights::roles),
        put("PutRole", "/roles", rights::put_role),
        call("DeleteRole", (Delete, "/roles", Users), rights::delete_role),
        call("ListOverrides", (Get, "/overrides", Users), rights::overrides),
        put("PutOverride", "/overrides", rights::put_override),
        call("DeleteOverride", (Delete, "/overrides", Users), rights::delete_override),
        call("GetPermissions", (Get, "/permissions", Users), rights::permissions),
        call("ListWebhooks", (Get, "/webhooks", Users), additions::webhooks),
        call("CreateWebhook", (Post, "/webhooks", Users), additions::create_webhook),
        call("DeleteWebhook", (Delete, "/webhooks", Users), additions::delete_webhook),
        call("ListEmoji", (Get, "/emoji", Users), additions::emoji),
        call("CreateEmoji", (Post, "/emoji", Users), additions::create_emoji),
        call("DeleteEmoji", (Delete, "/emoji", Users), additions::delete_emoji),
        put("Import", "/import", additions::import),
        call("ListTokens", (Get, "/tokens", Tokens), users::sessions),
        call(CREATE_TOKENS, (Post, "/tokens", Tokens), users::begin_session),
        call("DeleteTokens", (Delete, "/tokens", Tokens), users::end_sessions),
        call("RefreshTokens", (Post, "/tokens/refresh", Tokens), users::refresh),
        call("ListSigningKeys", (Get, "/signing-keys", Tokens), users::signing_keys),
        call("CreateSigningKey", (Post, "/signing-keys", Tokens), users::create_signing_key),
        call("DeleteSigningKey", (Delete, "/signing-keys", Tokens), users::delete_signing_key),
    ]
});

/// Creates a call that needs nothing but the directory.
fn call<Req: Input, Res: Output, Fut>(
    name: &'static str,
    route: Route,
    handler: impl Fn(Directory, Req) -> Fut + Shared,
) -> Operation<Ctx>
where
    Fut: Future<Output = ImksResult<Res>> + Send + 'static,
{
    Operation::http(name, route, move |ctx: Ctx, request: Req| handler(ctx.directory, request))
}

/// Creates a call that stores something. Where somebody else made it at the same time, a repeat finds it.
fn put<Req: Input + Clone, Res: Output, Fut>(
    name: &'static str,
    path: &'static str,
    handler: impl Fn(Directory, Req) -> Fut + Shared,
) -> Operation<Ctx>
where
    Fut: Future<Output = ImksResult<Res>> + Send + 'static,
{
    call(name, (Put, path, Users), move |directory: Directory, request: Req| {
        let (handler, first) = (handler.clone(), handler(directory.clone(), request.clone()));
        async move {
            match first.await {
                Err(ImksError::Conflict { .. }) => handler(directory, request).await,
                outcome => outcome,
            }
        }
    })
}

/// Returns all calls.
pub fn operations() -> &'static [Operation<Ctx>] {
    &CALLS
}

/// Tells programs of all calls.
pub fn describe(contract: &mut Contract) {
    CALLS.iter().for_each(|call| call.tell(contract));
}

/// What a call works on.
#[derive(Debug, Clone)]
pub struct Ctx {
    directory: Directory,
    /// The sockets of users; `None` on a separate core, which has none.
    backend: Option<Backend>,
}

impl Ctx {
    /// Lets the sockets of a member into the room of a channel, so that what is published after the answer reaches
    /// them.
    async fn let_in(&self, user: &str, channel: Uuid) -> ImksResult<()> {
        let Some(backend) = &self.backend else { return Ok(()) };
        let user = self.directory.user_by_name(user).await?.id;
        if let Err(error) = sync::let_in(backend, user, channel).await {
            // The membership is stored, and every node hears of it from the directory too.
            tracing::warn!(%user, %channel, %error, "the sockets of a member join a channel later");
        }
        Ok(())
    }
}

/// The calls about the directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DirectoryApi {
    gate: Gate,
    /// The embedded directory; `None` if an external core is in charge.
    directory: Option<Directory>,
    backend: Option<Backend>,
}

impl DirectoryApi {
    /// Creates the calls of those whom the gate lets in.
    pub fn new(gate: Gate, directory: Option<Directory>) -> Self {
        Self { gate, directory, backend: None }
    }

    /// Has the calls reach the sockets of users, where the directory is that of a server.
    pub fn with_backend(self, backend: &Backend) -> Self {
        Self { backend: Some(backend.clone()), ..self }
    }

    /// Answers a request to the route of a call. It is read, with its body, once it is known that the caller may
    /// make it.
    pub async fn answer(
        &self,
        operation: &Operation<Ctx>,
        head: Head,
        request: impl Future<Output = ImksResult<Call>>,
    ) -> Answer {
        answer(operation, self.admit(operation, head, request)).await
    }

    async fn admit(
        &self,
        operation: &Operation<Ctx>,
        head: Head,
        request: impl Future<Output = ImksResult<Call>>,
    ) -> ImksResult<(Ctx, Payload<'static>)> {
        self.gate.admit(head, operation.scope).await?;
        let mut call = request.await?;
        let directory =
            self.directory.clone().ok_or(ImksError::FailedPrecondition(Precondition::ExternalCore))?;
        if operation.name != CREATE_TOKENS {
            call.idempotency_key = None;
        }
        let ctx = Ctx { directory, backend: self.backend.clone() };
        Ok((ctx, call.payload(operation.method, KEY_FIELD)?))
    }
}

/// The only call whose request has a field for the header `Idempotency-Key`, which means nothing to the others.
const CREATE_TOKENS: &str = "CreateTokens";
