//! The client for every call to the core: a deadline and a slot for each call, retries, and a circuit breaker.
//!
//! All calls in the contract may be repeated: they read, or, like [`CoreClient::sign_in`] and
//! [`CoreClient::enqueue`], count once however often they come.
//! A call that has an effect each time would have to bypass [`CoreClient::call`].

use std::collections::HashSet;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use uuid::Uuid;

use super::breaker::Breaker;
use super::channel;
use super::metrics::{self, Call};
use super::parse::{id, malformed};
use super::traced;
use super::types::{Allowed, ChannelInfo, Effective, Membership, SigningKeys, UserInfo, Verdict};
use super::v1;
use super::v1::channel_service_client::ChannelServiceClient;
use super::v1::login_service_client::LoginServiceClient;
use super::v1::member_service_client::MemberServiceClient;
use super::v1::permission_service_client::PermissionServiceClient;
use super::v1::token_service_client::TokenServiceClient;
use super::watch::{Watch, WatchKind};
use crate::clock::jittered;
use crate::error::{ImksError, ImksResult};
use crate::telemetry::trace;

/// The limits of calls to the core.
#[derive(Debug, Clone)]
pub struct Config {
    /// The deadline of one call, including its retries.
    pub deadline: Duration,
    /// The number of concurrent calls. Further calls wait for a slot within their deadline.
    pub calls_max: usize,
    /// The number of retries if the core is unavailable.
    pub retries_max: u32,
    /// The pause before the first retry; jittered, and doubled for each further retry.
    pub retry_pause: Duration,
    /// The size of the largest accepted answer, in bytes.
    pub answer_bytes_max: usize,
    /// The interval of pings on a connection. One that is not answered within half of it ends the connection: a watch
    /// stream may be silent for hours, and only a ping tells that the other side is gone.
    pub keep_alive: Duration,
    /// A PEM file with the certificates that may vouch for the core; without it, those that the system trusts.
    pub ca: Option<PathBuf>,
    /// A PEM file with the certificate that this server shows to the core, and its chain.
    pub cert: Option<PathBuf>,
    /// A PEM file with the private key of `cert`.
    pub key: Option<PathBuf>,
    /// The name in the core's certificate, if it is not that in the address.
    pub server_name: Option<String>,
}

impl Config {
    /// Returns the problems of the settings for a core at `url`, each as a sentence that says what to change.
    pub fn problems(&self, url: Option<&str>) -> impl Iterator<Item = &'static str> + use<> {
        let has_tls =
            self.ca.is_some() || self.cert.is_some() || self.key.is_some() || self.server_name.is_some();
        let is_tls = url.is_some_and(|url| url.starts_with("https://"));
        let checks = [
            (
                self.cert.is_some() == self.key.is_some(),
                "IMKS_CORE_CERT and IMKS_CORE_KEY belong together: set both, or none",
            ),
            (
                is_tls || !has_tls,
                "IMKS_CORE_CA, IMKS_CORE_CERT, IMKS_CORE_KEY and IMKS_CORE_SERVER_NAME need an IMKS_CORE_URL with https://",
            ),
        ];
        checks.into_iter().filter(|(fine, _)| !fine).map(|(_, sentence)| sentence)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(2),
            calls_max: 256,
            retries_max: 2,
            retry_pause: Duration::from_millis(40),
            answer_bytes_max: 4 << 20,
            keep_alive: Duration::from_secs(10),
            ca: None,
            cert: None,
            key: None,
            server_name: None,
        }
    }
}

/// A client of the core's services. Cheap to clone; all clones share one connection and its limits.
#[derive(Clone)]
pub struct CoreClient(Arc<Inner>);

struct Inner {
    channel: Channel,
    slots: Semaphore,
    breaker: Mutex<Breaker>,
    config: Config,
    /// The deadline of one attempt.
    attempt: Duration,
    /// Where the core is, without credentials.
    address: String,
    /// Why the core did not answer the last call; `None` if it did.
    failure: Mutex<Option<String>>,
}

impl std::fmt::Debug for CoreClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CoreClient").finish_non_exhaustive()
    }
}

/// Runs one call in the contract, on a stub that accepts answers up to the size limit. Evaluates to
/// the answer, or returns the error from the enclosing function.
macro_rules! call {
    ($core:expr, $client:ident::$method:ident($request:expr)) => {{
        let bytes_max = $core.0.config.answer_bytes_max;
        $core
            .call(stringify!($method), $request, |channel, request| async move {
                $client::new(channel).max_decoding_message_size(bytes_max).$method(request).await
            })
            .await?
    }};
}

impl CoreClient {
    /// Creates a client that connects to `url` (`http://host:port`, or `https://host:port,host:port`) on the
    /// first call, and reconnects when a connection is lost. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// `Config` if the address does not parse, or if a file with a certificate cannot be used.
    pub fn connect(url: &str, config: Config) -> ImksResult<Self> {
        let (channel, hosts, address) = channel::connect(url, &config)?;
        // With several hosts, one that is silent must leave time to ask another one.
        let attempt = if hosts > 1 { config.deadline.mul_f64(ATTEMPT_SHARE) } else { config.deadline };
        Ok(Self::new(channel, config, attempt, address))
    }

    /// Creates a client on the channel of an embedded directory.
    pub fn from_channel(channel: Channel, config: Config) -> Self {
        let attempt = config.deadline;
        Self::new(channel, config, attempt, EMBEDDED.to_owned())
    }

    fn new(channel: Channel, config: Config, attempt: Duration, address: String) -> Self {
        let (slots, breaker) = (Semaphore::new(config.calls_max), Mutex::default());
        let failure = Mutex::default();
        Self(Arc::new(Inner { channel, slots, breaker, config, attempt, address, failure }))
    }

    /// Whether the core is the directory in this process, which reports every change.
    pub fn is_embedded(&self) -> bool {
        self.0.address == EMBEDDED
    }

    /// Returns where the core is, and why it did not answer the last call; `None` if it did.
    pub fn failure(&self) -> Option<String> {
        let why = self.0.failure.lock().clone()?;
        Some(format!("{}: {why}", self.0.address))
    }

    /// Returns the core's current verdict on a token (docs/rpc.md, "Local or asked").
    ///
    /// # Errors
    /// `Unavailable` or `Timeout` if the core gives no verdict.
    pub async fn verify_token(&self, token: &str, audience: &str) -> ImksResult<Verdict> {
        let request = v1::VerifyTokenRequest { token: token.to_owned(), audience: audience.to_owned() };
        call!(self, TokenServiceClient::verify_token(request)).try_into()
    }

    /// Returns the keys that tokens are signed with, or `None` if they have not changed since `etag`.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`.
    pub async fn signing_keys(&self, etag: &str) -> ImksResult<Option<SigningKeys>> {
        let request = v1::GetSigningKeysRequest { etag: etag.to_owned() };
        let answer = call!(self, TokenServiceClient::get_signing_keys(request));
        Ok(if answer.not_modified { None } else { Some(answer.into()) })
    }

    /// Returns all channels of a user, at most [`CHANNELS_OF_USER_MAX`].
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`.
    pub async fn list_user_channels(&self, user: Uuid) -> ImksResult<Vec<Membership>> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request =
                v1::ListUserChannelsRequest { user_id: user.to_string(), page_size: PAGE_SIZE, page_token };
            let page = call!(self, MemberServiceClient::list_user_channels(request));
            let ended = page.memberships.is_empty() || page.next_page_token.is_empty();
            all.extend(parse_all::<_, Membership>(page.memberships)?);
            page_token = page.next_page_token;
            if ended || all.len() >= CHANNELS_OF_USER_MAX {
                all.truncate(CHANNELS_OF_USER_MAX);
                return Ok(all);
            }
        }
    }

    /// Whether a user is a member of a channel. Always asks the core.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`.
    pub async fn is_member(&self, user: Uuid, channel: Uuid) -> ImksResult<bool> {
        let request = v1::CheckMemberRequest { user_id: user.to_string(), channel_id: channel.to_string() };
        Ok(call!(self, MemberServiceClient::check_member(request)).membership.is_some())
    }

    /// Returns the membership of a user in a channel, if there is one. Always asks the core.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`.
    pub async fn membership(&self, user: Uuid, channel: Uuid) -> ImksResult<Option<Membership>> {
        let request = v1::CheckMemberRequest { user_id: user.to_string(), channel_id: channel.to_string() };
        let found = call!(self, MemberServiceClient::check_member(request)).membership;
        found.map(Membership::try_from).transpose()
    }

    /// Returns users by id, without those that never existed. Takes at most [`IDS_MAX`] ids.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`.
    pub async fn users(&self, ids: &[Uuid]) -> ImksResult<Vec<UserInfo>> {
        let request = v1::BatchGetUsersRequest { user_ids: texts(ids) };
        parse_all(call!(self, MemberServiceClient::batch_get_users(request)).users)
    }

    /// Returns the members of a channel that have one of the roles, or `None` if there are more than `max`.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`.
    pub async fn resolve_mentions(
        &self,
        channel: Uuid,
        roles: &[Uuid],
        max: usize,
    ) -> ImksResult<Option<Vec<Uuid>>> {
        let (mut all, mut page_token) = (HashSet::new(), String::new());
        for _ in 0..MENTION_PAGES_MAX {
            let (channel_id, role_ids) = (channel.to_string(), texts(roles));
            let request =
                v1::ResolveMentionsRequest { channel_id, role_ids, page_size: PAGE_SIZE, page_token };
            let page = call!(self, MemberServiceClient::resolve_mentions(request));
            for user in &page.user_ids {
                all.insert(id(user)?);
            }
            page_token = page.next_page_token;
            if all.len() > max {
                return Ok(None);
            }
            // A page may be empty and not the last one.
            if page_token.is_empty() {
                return Ok(Some(all.into_iter().collect()));
            }
        }
        Ok(None)
    }

    /// Returns channels by id, without those that do not exist. Takes at most [`IDS_MAX`] ids.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`.
    pub async fn channels(&self, ids: &[Uuid]) -> ImksResult<Vec<ChannelInfo>> {
        let request = v1::BatchGetChannelsRequest { channel_ids: texts(ids) };
        parse_all(call!(self, ChannelServiceClient::batch_get_channels(request)).channels)
    }

    /// Returns the permissions of a user in a channel.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`.
    pub async fn effective(&self, user: Uuid, channel: Uuid) -> ImksResult<Effective> {
        let request = v1::GetEffectiveRequest { user_id: user.to_string(), channel_id: channel.to_string() };
        let answer = call!(self, PermissionServiceClient::get_effective(request)).effective;
        let answer: Effective = answer.ok_or_else(|| malformed("a permission"))?.try_into()?;
        // An answer about another channel must not be taken for one about this channel.
        if answer.channel_id == channel { Ok(answer) } else { Err(malformed("the channel of a permission")) }
    }

    /// Returns the permissions of a user in many channels, at most [`IDS_MAX`].
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`.
    pub async fn effective_many(&self, user: Uuid, channels: &[Uuid]) -> ImksResult<Vec<Effective>> {
        let request =
            v1::BatchGetEffectiveRequest { user_id: user.to_string(), channel_ids: texts(channels) };
        parse_all(call!(self, PermissionServiceClient::batch_get_effective(request)).effective)
    }

    /// Asks the core whether `user` has `permission` in `channel`.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`; the caller must treat both as a refusal.
    pub async fn check(&self, user: Uuid, channel: Uuid, permission: v1::Permission) -> ImksResult<Allowed> {
        let request = v1::CheckRequest {
            user_id: user.to_string(),
            channel_id: channel.to_string(),
            permission: permission.into(),
            context: String::new(),
        };
        Ok(call!(self, PermissionServiceClient::check(request)).into())
    }

    /// Makes what is missing of a user that imks verified by itself, and returns the user; `None` if there is no
    /// such user and none may be made.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`; `InvalidInput` if a name is not allowed.
    pub async fn sign_in(&self, request: v1::SignInRequest) -> ImksResult<Option<UserInfo>> {
        let user = request.user_id.clone();
        let answer: Option<UserInfo> =
            call!(self, LoginServiceClient::sign_in(request)).user.map(TryInto::try_into).transpose()?;
        match answer {
            Some(answer) if answer.id.to_string() != user => Err(malformed("the user of a login")),
            answer => Ok(answer),
        }
    }

    /// Returns a [`Watch`] that follows one of the core's streams.
    pub fn watch(&self, kind: WatchKind) -> Watch {
        Watch::new(self.0.channel.clone(), kind)
    }

    /// Returns the size of the largest accepted answer, in bytes.
    pub(super) fn answer_bytes_max(&self) -> usize {
        self.0.config.answer_bytes_max
    }

    /// Runs one call with a slot, the breaker, a deadline and retries.
    pub(super) fn call<Req, Res, F, Fut>(
        &self,
        method: &'static str,
        request: Req,
        send: F,
    ) -> impl Future<Output = ImksResult<Res>>
    where
        Req: Clone,
        F: Fn(Channel, tonic::Request<Req>) -> Fut,
        Fut: Future<Output = Result<Response<Res>, Status>>,
    {
        trace::run(traced::calling(method), self.call_bounded(request, send))
    }

    async fn call_bounded<Req, Res, F, Fut>(&self, request: Req, send: F) -> ImksResult<Res>
    where
        Req: Clone,
        F: Fn(Channel, tonic::Request<Req>) -> Fut,
        Fut: Future<Output = Result<Response<Res>, Status>>,
    {
        let deadline = Instant::now() + self.0.config.deadline;
        let Ok(Ok(_slot)) = timeout_at(deadline, self.0.slots.acquire()).await else {
            return Err(ImksError::Overloaded { retry_after: self.0.config.deadline });
        };
        if !self.0.breaker.lock().admit(Instant::now()) {
            return Err(ImksError::Unavailable("core"));
        }
        let outcome = timeout_at(deadline, Box::pin(self.attempts(request, deadline, send))).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        self.0.record(outcome.as_ref().err());
        outcome.map_err(refused)
    }

    async fn attempts<Req, Res, F, Fut>(
        &self,
        request: Req,
        deadline: Instant,
        send: F,
    ) -> Result<Res, Status>
    where
        Req: Clone,
        F: Fn(Channel, tonic::Request<Req>) -> Fut,
        Fut: Future<Output = Result<Response<Res>, Status>>,
    {
        let (mut pause, mut retries) = (self.0.config.retry_pause, self.0.config.retries_max);
        loop {
            let mut attempt = tonic::Request::new(request.clone());
            let ends = deadline.min(Instant::now() + self.0.attempt);
            attempt.set_timeout(ends.saturating_duration_since(Instant::now()));
            traced::tell(attempt.metadata_mut());
            let answer = timeout_at(ends, send(self.0.channel.clone(), attempt)).await;
            match answer.unwrap_or_else(|_| Err(silent(ends == deadline))) {
                Err(status) if retries > 0 && was_not_heard(status.code()) => {
                    tokio::time::sleep(jittered(pause)).await;
                    (pause, retries) = (pause * 2, retries - 1);
                }
                outcome => return outcome.map(Response::into_inner),
            }
        }
    }
}

impl Inner {
    fn record(&self, failure: Option<&Status>) {
        match failure.filter(|status| !is_about_request(status.code())) {
            Some(status) => self.failed(status),
            None => self.answered(),
        }
        let mut breaker = self.breaker.lock();
        match failure.map(Status::code) {
            Some(Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled) => {
                metrics::CORE_CALLS.of(Call::Failed).increment();
                breaker.failed(Instant::now());
            }
            _ => {
                metrics::CORE_CALLS.of(Call::Answered).increment();
                breaker.succeeded();
            }
        }
    }

    /// Logs why the core did not answer, unless the call before failed in the same way.
    fn failed(&self, status: &Status) {
        let code = status.code();
        let mut why = channel::told(status.message(), std::error::Error::source(status));
        if why.is_empty() {
            why = code.description().to_owned();
        }
        let mut failure = self.failure.lock();
        if failure.as_ref() != Some(&why) {
            tracing::warn!(address = self.address, ?code, why, "the core did not answer a call");
            *failure = Some(why);
        }
    }

    fn answered(&self) {
        let failed = self.failure.lock().take();
        if failed.is_some() {
            tracing::info!(address = self.address, "the core answers again");
        }
    }
}

/// Converts a status of the core into an error (docs/rpc.md, "Status codes"). A status about the request is
/// passed on. Any other status concerns imks and not its user: if it were passed on, a user would be told to
/// sign in again because the credentials of a service are wrong. This includes `OutOfRange`, which tonic uses
/// for an answer above the size limit.
fn refused(status: Status) -> ImksError {
    match status.code() {
        code if is_about_request(code) => status.into(),
        Code::DeadlineExceeded => ImksError::Timeout("core"),
        _ => ImksError::Unavailable("core"),
    }
}

/// Whether a status is the core's answer to a request, and not a failure of the core.
fn is_about_request(code: Code) -> bool {
    matches!(
        code,
        Code::NotFound
            | Code::InvalidArgument
            | Code::AlreadyExists
            | Code::Aborted
            | Code::FailedPrecondition
    )
}

/// Whether an attempt did not reach the core: it is not there, or it ended the connection just then because of its age.
fn was_not_heard(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Cancelled)
}

/// Returns the status of an attempt without an answer: final, or worth another attempt.
fn silent(is_last: bool) -> Status {
    let text = "no answer in time";
    if is_last { Status::deadline_exceeded(text) } else { Status::unavailable(text) }
}

fn texts(ids: &[Uuid]) -> Vec<String> {
    ids.iter().take(IDS_MAX).map(Uuid::to_string).collect()
}

/// Converts every item, or fails with the first that breaks the contract.
pub(super) fn parse_all<W: TryInto<T, Error = ImksError>, T>(items: Vec<W>) -> ImksResult<Vec<T>> {
    items.into_iter().map(TryInto::try_into).collect()
}

/// The address of a core in this process, for the log.
const EMBEDDED: &str = "the embedded directory";
/// The most pages of members that are read for the roles of one message.
const MENTION_PAGES_MAX: usize = 100;
/// The number of ids in one batch call; further ids are not sent.
pub const IDS_MAX: usize = 500;
/// The largest number of channels listed for one user.
const CHANNELS_OF_USER_MAX: usize = 10_000;
/// The number of memberships in one page of a list.
pub(super) const PAGE_SIZE: u32 = 500;
/// The share of the deadline that one attempt may take where there are several hosts.
const ATTEMPT_SHARE: f64 = 0.6;
