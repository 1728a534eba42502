//! A real gRPC server of the core's contract that answers what it is told to, and fails the way it is told to.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use imks::testing::pb::v1::verify_token_response::Reason;
use imks::testing::pb::{Config, CoreClient, v1};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, broadcast};
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

/// How every unary call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As set.
    Normal,
    /// With the status `unavailable`.
    Unavailable,
    /// Not at all.
    Silent,
    /// With answers that break the contract.
    Wrong,
    /// With answers that are larger than any limit.
    Huge,
    /// As set, but late; still within the deadline of a caller.
    Slow,
    /// As set and with the status `unavailable`, by turns.
    Flapping,
}

impl Mode {
    /// Every way to fail.
    pub const FAILURES: [Self; 4] = [Self::Unavailable, Self::Silent, Self::Wrong, Self::Huge];
}

/// A core for tests. Clones are the same core.
#[derive(Clone)]
pub struct FakeCore(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    state: Mutex<State>,
    revocations: broadcast::Sender<v1::watch_revocations_response::Event>,
    memberships: broadcast::Sender<v1::watch_membership_response::Event>,
    invalidations: broadcast::Sender<v1::watch_invalidations_response::Event>,
    channels: broadcast::Sender<v1::watch_channels_response::Event>,
}

struct State {
    mode: Mode,
    keys: Vec<v1::SigningKey>,
    users: Vec<v1::User>,
    channels: Vec<v1::Channel>,
    bits: HashMap<(Uuid, Uuid), v1::Effective>,
    memberships: HashMap<Uuid, Vec<v1::Membership>>,
    mentioned: Vec<Uuid>,
    calls: HashMap<&'static str, usize>,
    /// Users whose tokens `verify_token` calls revoked.
    revoked: HashSet<Uuid>,
    /// What the streams are refused with, if there are none.
    without_streams: Option<Code>,
    /// Revocations that `watch_revocations` begins with.
    revocations: Vec<v1::Revocation>,
    /// Whether there are incoming webhooks, custom emoji and notifications.
    has_extras: bool,
    /// By their token.
    webhooks: HashMap<String, v1::Webhook>,
    emoji: Vec<v1::Emoji>,
    notified: Vec<v1::Notification>,
    /// Calls of `check` that said how long the caller waits.
    checks_with_timeout: usize,
    /// The `traceparent` of each call of `batch_get_effective`.
    traceparents: Vec<String>,
    /// Held by a test: calls of these methods wait for it.
    gates: HashMap<&'static str, Arc<Semaphore>>,
    /// Its own: dropping it cuts all connections, as the end of a process does.
    runtime: Option<Runtime>,
}

impl FakeCore {
    /// Starts on a free port, without any of the streams.
    pub async fn start_without_streams() -> Self {
        let core = Self::start().await;
        core.refuse_streams(Some(Code::Unimplemented));
        core
    }

    /// Starts on a free port.
    pub async fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let core = Self(Arc::new(Inner {
            address: listener.local_addr().unwrap(),
            state: Mutex::new(State {
                mode: Mode::Normal,
                keys: Vec::new(),
                users: Vec::new(),
                channels: Vec::new(),
                bits: HashMap::new(),
                memberships: HashMap::new(),
                mentioned: Vec::new(),
                calls: HashMap::new(),
                revoked: HashSet::new(),
                without_streams: None,
                revocations: Vec::new(),
                has_extras: true,
                webhooks: HashMap::new(),
                emoji: Vec::new(),
                notified: Vec::new(),
                checks_with_timeout: 0,
                traceparents: Vec::new(),
                gates: HashMap::new(),
                runtime: None,
            }),
            revocations: broadcast::Sender::new(64),
            memberships: broadcast::Sender::new(64),
            invalidations: broadcast::Sender::new(64),
            channels: broadcast::Sender::new(64),
        }));
        core.serve(listener);
        core
    }

    /// From now on, streams are refused with this status, or opened again. Those that are open stay.
    pub fn refuse_streams(&self, code: Option<Code>) {
        self.0.state.lock().without_streams = code;
    }

    /// A client with a short deadline.
    pub fn client(&self) -> CoreClient {
        let config = Config { deadline: Duration::from_millis(500), ..Config::default() };
        CoreClient::connect(&self.url(), config).unwrap()
    }

    pub fn addr(&self) -> SocketAddr {
        self.0.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// From now on, unary calls are answered like this.
    pub fn mode(&self, mode: Mode) {
        self.0.state.lock().mode = mode;
    }

    /// The process is gone: nothing listens, connections are cut.
    pub fn stop(&self) {
        let runtime = self.0.state.lock().runtime.take();
        runtime.unwrap().shutdown_background();
    }

    /// It is back, on the same port.
    pub async fn restart(&self) {
        // The old listener may take a moment to go.
        loop {
            match std::net::TcpListener::bind(self.0.address) {
                Ok(listener) => return self.serve(listener),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    /// Which spans calls of `batch_get_effective` said they are from.
    pub fn traceparents(&self) -> Vec<String> {
        self.0.state.lock().traceparents.clone()
    }

    /// How many calls of `check` said how long the caller waits.
    pub fn checks_with_timeout(&self) -> usize {
        self.0.state.lock().checks_with_timeout
    }

    pub fn set_keys(&self, keys: Vec<v1::SigningKey>) {
        self.0.state.lock().keys = keys;
    }

    pub fn set_users(&self, users: Vec<v1::User>) {
        self.0.state.lock().users = users;
    }

    pub fn set_channels(&self, channels: Vec<v1::Channel>) {
        self.0.state.lock().channels = channels;
    }

    /// What `user` may do in `channel`.
    pub fn set_bits(&self, user: Uuid, channel: Uuid, bits: u64) {
        self.set_effective(
            user,
            v1::Effective { channel_id: channel.to_string(), bits, ..Default::default() },
        );
    }

    pub fn set_effective(&self, user: Uuid, effective: v1::Effective) {
        let channel = effective.channel_id.parse().unwrap();
        self.0.state.lock().bits.insert((user, channel), effective);
    }

    pub fn set_memberships(&self, user: Uuid, memberships: Vec<v1::Membership>) {
        self.0.state.lock().memberships.insert(user, memberships);
    }

    /// Makes `user` a member of a new channel, with what they may do in it.
    pub fn add_member(&self, user: Uuid, bits: u64) -> Uuid {
        let channel = Uuid::now_v7();
        self.join_silently(user, channel, bits);
        channel
    }

    /// Makes `user` a member of a channel, with what they may do in it. Nobody is told.
    pub fn join_silently(&self, user: Uuid, channel: Uuid, bits: u64) {
        let membership = v1::Membership {
            channel_id: channel.to_string(),
            user_id: user.to_string(),
            channel_name: "general".into(),
            ..Default::default()
        };
        self.0.state.lock().memberships.entry(user).or_default().push(membership);
        self.set_bits(user, channel, bits);
    }

    /// From now on there are no incoming webhooks, no custom emoji and no notifications.
    pub fn without_extras(&self) {
        self.0.state.lock().has_extras = false;
    }

    /// A webhook whose address ends with this token.
    pub fn set_webhook(&self, token: &str, webhook: v1::Webhook) {
        self.0.state.lock().webhooks.insert(token.to_owned(), webhook);
    }

    /// The custom emoji of every workspace; their etag is their number.
    pub fn set_emoji(&self, emoji: Vec<v1::Emoji>) {
        self.0.state.lock().emoji = emoji;
    }

    /// What it was told to notify of.
    pub fn notified(&self) -> Vec<v1::Notification> {
        self.0.state.lock().notified.clone()
    }

    fn extras(&self) -> Result<(), Status> {
        if self.0.state.lock().has_extras { Ok(()) } else { Err(Status::unimplemented("no such service")) }
    }

    /// How many calls there were, of any method.
    pub fn all_calls(&self) -> usize {
        self.0.state.lock().calls.values().sum()
    }

    /// From now on, `verify_token` says that the tokens of `user` are revoked. Nobody is told.
    pub fn revoke_silently(&self, user: Uuid) {
        self.0.state.lock().revoked.insert(user);
    }

    /// Calls of `method` take their answer and then wait until the test adds permits.
    pub fn gate(&self, method: &'static str) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        self.0.state.lock().gates.insert(method, gate.clone());
        gate
    }

    /// How often a call was made, by the name of its method.
    pub fn calls(&self, name: &str) -> usize {
        self.0.state.lock().calls.get(name).copied().unwrap_or(0)
    }

    /// What `watch_revocations` begins with. Nobody is told.
    pub fn set_revocations(&self, revocations: Vec<v1::Revocation>) {
        self.0.state.lock().revocations = revocations;
    }

    /// Sends a revocation to all who watch.
    pub fn revoke(&self, revocation: v1::Revocation) {
        let _ = self.0.revocations.send(v1::watch_revocations_response::Event::Revoked(revocation));
    }

    /// Sends an invalidation to all who watch.
    pub fn invalidate(&self, user: Option<Uuid>, channel: Option<Uuid>) {
        let text = |id: Option<Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
        let invalidation = v1::watch_invalidations_response::Invalidation {
            user_id: text(user),
            channel_id: text(channel),
            version: 1,
        };
        let _ = self.0.invalidations.send(v1::watch_invalidations_response::Event::Invalidated(invalidation));
    }

    /// Changes the only channel, and tells all who watch.
    pub fn change_channel(&self, channel: v1::Channel) {
        self.set_channels(vec![channel.clone()]);
        let _ = self.0.channels.send(v1::watch_channels_response::Event::Changed(channel));
    }

    /// Ends the membership of `user` in `channel`. Nobody is told.
    pub fn remove_silently(&self, user: Uuid, channel: Uuid) {
        let mut state = self.0.state.lock();
        state.bits.remove(&(user, channel));
        let memberships = state.memberships.entry(user).or_default();
        memberships.retain(|membership| membership.channel_id != channel.to_string());
    }

    /// The members with a role, whatever role and channel is asked for.
    pub fn set_mentioned(&self, users: Vec<Uuid>) {
        self.0.state.lock().mentioned = users;
    }

    /// Tells all who watch that a membership was made or changed.
    pub fn join(&self, membership: v1::Membership) {
        let _ = self.0.memberships.send(v1::watch_membership_response::Event::Joined(membership));
    }

    /// Tells all who watch that `user` left `channel`.
    pub fn leave(&self, user: Uuid, channel: Uuid) {
        self.remove_silently(user, channel);
        let left = v1::watch_membership_response::Left {
            user_id: user.to_string(),
            channel_id: channel.to_string(),
        };
        let _ = self.0.memberships.send(v1::watch_membership_response::Event::Left(left));
    }

    fn serve(&self, listener: std::net::TcpListener) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let router = tonic::transport::Server::builder()
            .add_service(v1::token_service_server::TokenServiceServer::new(self.clone()))
            .add_service(v1::channel_service_server::ChannelServiceServer::new(self.clone()))
            .add_service(v1::member_service_server::MemberServiceServer::new(self.clone()))
            .add_service(v1::permission_service_server::PermissionServiceServer::new(self.clone()))
            .add_service(v1::webhook_service_server::WebhookServiceServer::new(self.clone()))
            .add_service(v1::emoji_service_server::EmojiServiceServer::new(self.clone()))
            .add_service(v1::push_service_server::PushServiceServer::new(self.clone()));
        runtime.spawn(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
            let _ = router.serve_with_incoming(incoming).await;
        });
        self.0.state.lock().runtime = Some(runtime);
    }

    async fn answer<T>(
        &self,
        name: &'static str,
        normal: T,
        wrong: T,
        huge: T,
    ) -> Result<Response<T>, Status> {
        let (mode, number, gate) = {
            let mut state = self.0.state.lock();
            let calls = state.calls.entry(name).or_default();
            *calls += 1;
            let number = *calls;
            (state.mode, number, state.gates.get(name).cloned())
        };
        if let Some(gate) = gate {
            gate.acquire().await.unwrap().forget();
        }
        match mode {
            Mode::Flapping if number % 2 == 1 => Err(Status::unavailable("by turns")),
            Mode::Slow => {
                tokio::time::sleep(LATE).await;
                Ok(Response::new(normal))
            }
            Mode::Normal | Mode::Flapping => Ok(Response::new(normal)),
            Mode::Unavailable => Err(Status::unavailable("told to")),
            Mode::Wrong => Ok(Response::new(wrong)),
            Mode::Huge => Ok(Response::new(huge)),
            Mode::Silent => std::future::pending().await,
        }
    }

    /// What there is, `caught_up`, and what comes.
    fn watch<E, W>(
        &self,
        events: &broadcast::Sender<E>,
        mut first: Vec<E>,
        caught_up: E,
        wire: fn(String, E) -> W,
    ) -> Watching<W>
    where
        E: Clone + Send + 'static,
        W: Send + 'static,
    {
        if let Some(code) = self.0.state.lock().without_streams {
            return Err(Status::new(code, "no streams"));
        }
        let receiver = events.subscribe();
        let live = futures_util::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.ok().map(|event| (event, receiver))
        });
        first.push(caught_up);
        let events = futures_util::stream::iter(first)
            .chain(live)
            .enumerate()
            .map(move |(number, event)| Ok(wire(number.to_string(), event)))
            .boxed();
        Ok(Response::new(events))
    }
}

/// How late a slow core answers.
const LATE: Duration = Duration::from_millis(200);

type Watching<W> = Result<Response<Events<W>>, Status>;
type Events<W> = BoxStream<'static, Result<W, Status>>;

/// The `sub` of a token, which the fake believes.
fn owner(token: &str) -> String {
    let claims = token.split('.').nth(1).and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok());
    let claims: serde_json::Value = serde_json::from_slice(&claims.unwrap_or_default()).unwrap_or_default();
    claims["sub"].as_str().unwrap_or_default().to_owned()
}

fn filler() -> String {
    "x".repeat(8 << 20)
}

#[tonic::async_trait]
impl v1::token_service_server::TokenService for FakeCore {
    type WatchRevocationsStream = Events<v1::WatchRevocationsResponse>;

    async fn verify_token(
        &self,
        request: Request<v1::VerifyTokenRequest>,
    ) -> Result<Response<v1::VerifyTokenResponse>, Status> {
        let owner = owner(&request.into_inner().token);
        let (user, is_revoked) = {
            let state = self.0.state.lock();
            let user = state.users.iter().find(|user| user.id == owner).cloned().unwrap_or_default();
            (user, state.revoked.iter().any(|user| user.to_string() == owner))
        };
        let reason = if is_revoked { Reason::Revoked } else { Reason::Unspecified };
        let normal = v1::VerifyTokenResponse {
            valid: !user.id.is_empty() && !is_revoked,
            user_id: user.id,
            username: user.username,
            reason: reason.into(),
            ..Default::default()
        };
        let wrong = v1::VerifyTokenResponse { valid: true, user_id: "nobody".into(), ..Default::default() };
        let huge = v1::VerifyTokenResponse { valid: true, username: filler(), ..Default::default() };
        self.answer("verify_token", normal, wrong, huge).await
    }

    async fn get_signing_keys(
        &self,
        _: Request<v1::GetSigningKeysRequest>,
    ) -> Result<Response<v1::GetSigningKeysResponse>, Status> {
        let keys = self.0.state.lock().keys.clone();
        let normal = v1::GetSigningKeysResponse { keys, ..Default::default() };
        let garbage = v1::SigningKey { kid: "a".into(), public_key: vec![1, 2, 3], ..Default::default() };
        let wrong = v1::GetSigningKeysResponse { keys: vec![garbage; 3], ..Default::default() };
        let huge = v1::GetSigningKeysResponse { etag: filler(), ..Default::default() };
        self.answer("get_signing_keys", normal, wrong, huge).await
    }

    async fn watch_revocations(
        &self,
        _: Request<v1::WatchRevocationsRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        let caught_up = v1::watch_revocations_response::Event::CaughtUp(v1::CaughtUp {});
        let wire = |cursor, event| v1::WatchRevocationsResponse { cursor, event: Some(event) };
        let past = self.0.state.lock().revocations.clone();
        let past = past.into_iter().map(v1::watch_revocations_response::Event::Revoked).collect();
        self.watch(&self.0.revocations, past, caught_up, wire)
    }
}

#[tonic::async_trait]
impl v1::channel_service_server::ChannelService for FakeCore {
    type WatchChannelsStream = Events<v1::WatchChannelsResponse>;

    async fn get_channel(
        &self,
        _: Request<v1::GetChannelRequest>,
    ) -> Result<Response<v1::GetChannelResponse>, Status> {
        Err(Status::not_found("channel"))
    }

    async fn batch_get_channels(
        &self,
        request: Request<v1::BatchGetChannelsRequest>,
    ) -> Result<Response<v1::BatchGetChannelsResponse>, Status> {
        let ids = request.into_inner().channel_ids;
        let mut channels = self.0.state.lock().channels.clone();
        channels.retain(|channel| ids.contains(&channel.id));
        let garbage = v1::Channel { name: "no id".into(), ..Default::default() };
        let large = v1::Channel { name: filler(), ..Default::default() };
        let [normal, wrong, huge] =
            [channels, vec![garbage], vec![large]].map(|channels| v1::BatchGetChannelsResponse { channels });
        self.answer("batch_get_channels", normal, wrong, huge).await
    }

    async fn watch_channels(
        &self,
        _: Request<v1::WatchChannelsRequest>,
    ) -> Result<Response<Self::WatchChannelsStream>, Status> {
        let caught_up = v1::watch_channels_response::Event::CaughtUp(v1::CaughtUp {});
        let wire = |cursor, event| v1::WatchChannelsResponse { cursor, event: Some(event) };
        self.watch(&self.0.channels, Vec::new(), caught_up, wire)
    }
}

#[tonic::async_trait]
impl v1::member_service_server::MemberService for FakeCore {
    type WatchMembershipStream = Events<v1::WatchMembershipResponse>;

    async fn list_user_channels(
        &self,
        request: Request<v1::ListUserChannelsRequest>,
    ) -> Result<Response<v1::ListUserChannelsResponse>, Status> {
        let request = request.into_inner();
        let user: Uuid = request.user_id.parse().unwrap();
        let all = self.0.state.lock().memberships.get(&user).cloned().unwrap_or_default();
        // Pages of two, whatever is asked for.
        let from: usize = request.page_token.parse().unwrap_or(0);
        let memberships: Vec<_> = all.iter().skip(from).take(2).cloned().collect();
        let next_page_token = if from + 2 < all.len() { (from + 2).to_string() } else { String::new() };
        let normal = v1::ListUserChannelsResponse { memberships, next_page_token };
        let garbage = v1::Membership { channel_id: "7".into(), ..Default::default() };
        let wrong = v1::ListUserChannelsResponse { memberships: vec![garbage], ..Default::default() };
        let huge = v1::ListUserChannelsResponse { next_page_token: filler(), ..Default::default() };
        self.answer("list_user_channels", normal, wrong, huge).await
    }

    async fn list_channel_members(
        &self,
        _: Request<v1::ListChannelMembersRequest>,
    ) -> Result<Response<v1::ListChannelMembersResponse>, Status> {
        Ok(Response::new(v1::ListChannelMembersResponse::default()))
    }

    async fn check_member(
        &self,
        request: Request<v1::CheckMemberRequest>,
    ) -> Result<Response<v1::CheckMemberResponse>, Status> {
        let request = request.into_inner();
        let user: Uuid = request.user_id.parse().unwrap();
        let all = self.0.state.lock().memberships.get(&user).cloned().unwrap_or_default();
        let membership = all.into_iter().find(|it| it.channel_id == request.channel_id);
        Ok(Response::new(v1::CheckMemberResponse { membership }))
    }

    async fn batch_get_users(
        &self,
        request: Request<v1::BatchGetUsersRequest>,
    ) -> Result<Response<v1::BatchGetUsersResponse>, Status> {
        let ids = request.into_inner().user_ids;
        let mut users = self.0.state.lock().users.clone();
        users.retain(|user| ids.contains(&user.id));
        let wrong = v1::BatchGetUsersResponse { users: vec![v1::User::default()] };
        let huge =
            v1::BatchGetUsersResponse { users: vec![v1::User { username: filler(), ..Default::default() }] };
        self.answer("batch_get_users", v1::BatchGetUsersResponse { users }, wrong, huge).await
    }

    async fn resolve_mentions(
        &self,
        request: Request<v1::ResolveMentionsRequest>,
    ) -> Result<Response<v1::ResolveMentionsResponse>, Status> {
        let from: usize = request.into_inner().page_token.parse().unwrap_or(0);
        let all = self.0.state.lock().mentioned.clone();
        // Every other page is empty, as if nobody in it had the role.
        let user_ids = match from % 2 {
            0 => all.iter().skip(from / 2).take(400).map(Uuid::to_string).collect(),
            _ => Vec::new(),
        };
        let next = if from.is_multiple_of(2) { from + 1 } else { from + 799 };
        let next_page_token = if next / 2 < all.len() { next.to_string() } else { String::new() };
        Ok(Response::new(v1::ResolveMentionsResponse { user_ids, next_page_token }))
    }

    async fn watch_membership(
        &self,
        _: Request<v1::WatchMembershipRequest>,
    ) -> Result<Response<Self::WatchMembershipStream>, Status> {
        let caught_up = v1::watch_membership_response::Event::CaughtUp(v1::CaughtUp {});
        let wire = |cursor, event| v1::WatchMembershipResponse { cursor, event: Some(event) };
        self.watch(&self.0.memberships, Vec::new(), caught_up, wire)
    }
}

#[tonic::async_trait]
impl v1::permission_service_server::PermissionService for FakeCore {
    type WatchInvalidationsStream = Events<v1::WatchInvalidationsResponse>;

    async fn get_effective(
        &self,
        request: Request<v1::GetEffectiveRequest>,
    ) -> Result<Response<v1::GetEffectiveResponse>, Status> {
        let request = request.into_inner();
        let (user, channel) = (request.user_id.parse().unwrap(), request.channel_id.parse().unwrap());
        let none = v1::Effective { channel_id: request.channel_id, ..Default::default() };
        let normal = self.0.state.lock().bits.get(&(user, channel)).cloned().unwrap_or(none);
        let wrong =
            v1::Effective { channel_id: Uuid::nil().to_string(), bits: u64::MAX, ..Default::default() };
        let huge = v1::Effective { channel_id: filler(), ..Default::default() };
        let [normal, wrong, huge] =
            [normal, wrong, huge].map(|it| v1::GetEffectiveResponse { effective: Some(it) });
        self.answer("get_effective", normal, wrong, huge).await
    }

    async fn batch_get_effective(
        &self,
        request: Request<v1::BatchGetEffectiveRequest>,
    ) -> Result<Response<v1::BatchGetEffectiveResponse>, Status> {
        let told = request.metadata().get("traceparent").map(|it| it.to_str().unwrap().to_owned());
        self.0.state.lock().traceparents.extend(told);
        let request = request.into_inner();
        let user: Uuid = request.user_id.parse().unwrap();
        let effective = {
            let state = self.0.state.lock();
            let find = |channel_id: String| {
                let known = state.bits.get(&(user, channel_id.parse().unwrap())).cloned();
                known.unwrap_or(v1::Effective { channel_id, ..Default::default() })
            };
            request.channel_ids.into_iter().map(find).collect()
        };
        let (wrong, huge) =
            (v1::BatchGetEffectiveResponse::default(), v1::BatchGetEffectiveResponse::default());
        self.answer("batch_get_effective", v1::BatchGetEffectiveResponse { effective }, wrong, huge).await
    }

    async fn check(&self, request: Request<v1::CheckRequest>) -> Result<Response<v1::CheckResponse>, Status> {
        self.0.state.lock().checks_with_timeout +=
            usize::from(request.metadata().contains_key("grpc-timeout"));
        let request = request.into_inner();
        let key = (request.user_id.parse().unwrap(), request.channel_id.parse().unwrap());
        let bits = self.0.state.lock().bits.get(&key).map_or(0, |effective| effective.bits);
        let has = |permission: v1::Permission| bits & permission.bit().unwrap() != 0;
        let normal = v1::CheckResponse {
            allowed: has(request.permission()),
            visible: has(v1::Permission::ViewChannel),
        };
        let wrong = v1::CheckResponse::default();
        self.answer("check", normal, wrong, wrong).await
    }

    async fn watch_invalidations(
        &self,
        _: Request<v1::WatchInvalidationsRequest>,
    ) -> Result<Response<Self::WatchInvalidationsStream>, Status> {
        let caught_up = v1::watch_invalidations_response::Event::CaughtUp(v1::CaughtUp {});
        let wire = |cursor, event| v1::WatchInvalidationsResponse { cursor, event: Some(event) };
        self.watch(&self.0.invalidations, Vec::new(), caught_up, wire)
    }
}

#[tonic::async_trait]
impl v1::webhook_service_server::WebhookService for FakeCore {
    async fn resolve(
        &self,
        request: Request<v1::ResolveRequest>,
    ) -> Result<Response<v1::ResolveResponse>, Status> {
        self.extras()?;
        let webhook = self.0.state.lock().webhooks.get(&request.into_inner().token).cloned();
        let wrong = v1::Webhook { id: "nobody".into(), name: "x".into(), ..Default::default() };
        let huge = v1::Webhook { name: filler(), ..Default::default() };
        let answer = |webhook| v1::ResolveResponse { webhook };
        self.answer("resolve", answer(webhook), answer(Some(wrong)), answer(Some(huge))).await
    }
}

#[tonic::async_trait]
impl v1::emoji_service_server::EmojiService for FakeCore {
    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        self.extras()?;
        let id = request.into_inner().emoji_id;
        let emoji = self.0.state.lock().emoji.iter().find(|emoji| emoji.id == id).cloned();
        let wrong = v1::Emoji { name: "a b".into(), ..Default::default() };
        let huge = v1::Emoji { name: filler(), ..Default::default() };
        let answer = |emoji| v1::GetResponse { emoji };
        self.answer("get_emoji", answer(emoji), answer(Some(wrong)), answer(Some(huge))).await
    }

    async fn list_workspace(
        &self,
        request: Request<v1::ListWorkspaceRequest>,
    ) -> Result<Response<v1::ListWorkspaceResponse>, Status> {
        self.extras()?;
        let emoji = self.0.state.lock().emoji.clone();
        let etag = emoji.len().to_string();
        let normal = match request.into_inner().etag == etag {
            true => v1::ListWorkspaceResponse { etag, not_modified: true, ..Default::default() },
            false => v1::ListWorkspaceResponse { emoji, etag, not_modified: false },
        };
        let wrong = v1::ListWorkspaceResponse { emoji: vec![v1::Emoji::default()], ..Default::default() };
        let huge = v1::ListWorkspaceResponse { etag: filler(), ..Default::default() };
        self.answer("list_workspace", normal, wrong, huge).await
    }
}

#[tonic::async_trait]
impl v1::push_service_server::PushService for FakeCore {
    async fn enqueue(
        &self,
        request: Request<v1::EnqueueRequest>,
    ) -> Result<Response<v1::EnqueueResponse>, Status> {
        let counted = self.answer("enqueue", (), (), ()).await;
        self.extras()?;
        counted?;
        self.0.state.lock().notified.extend(request.into_inner().notifications);
        Ok(Response::new(v1::EnqueueResponse {}))
    }
}
