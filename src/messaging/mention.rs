//! Mentions: who roles and `here` stand for, the event `mention:new`, and the inbox `mentions:list`.
//!
//! People with a role are known to the core, people who are online to the nodes that they are connected to. Both are looked
//! up before a message is stored, so that a role that somebody gets later brings no old mentions. `mention:new` is told
//! by each node to its own sockets: it knows which devices want to hear of a channel, and until when they do not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::absent::Mention;
use super::budget::{AnswerSize, Reservation};
use super::channel_rooms;
use super::ctx::Ctx;
use super::online::{self, Asked};
use super::page::PageSize;
use super::parts::Messaging;
use super::push::{Push, user_room};
use super::registry::{Large, Registry, Request};
use super::session::Session;
use crate::auth::{Membership, NotifyLevel, Permission};
use crate::clock::{self, Micros};
use crate::models::message::{AuthorInfo, FLAG_NO_MENTION_NOTIFY, FLAG_SILENT, MessageDetail};
use crate::models::message_mention::{MENTIONED_PEOPLE_MAX, MentionKind, Mentioned, Online};
use crate::models::message_mention_inbox::Inbox;
use crate::models::text::Mentions;
use crate::socket::{Namespace, NamespaceBuilder, ServerEvent, Socket};
use crate::{ImksError, ImksResult};

/// Sent to the devices of those whom a new message mentions.
const NEW: Push<New<'_>> = Push::new("mention:new");
/// The server event that tells another node of a message that mentions people.
const NOTICE: &str = "mention:notice";

const LIST: Request<List, Inbox> = Request::new("mentions:list");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.sends(&NEW);
    events.on_read(LIST, list).get("/mentions");
}

/// Registers what other nodes tell.
pub(super) fn listen(builder: &mut NamespaceBuilder, messaging: &Messaging) {
    let told = messaging.clone();
    builder.on_server_event(NOTICE, move |event: ServerEvent| {
        let parsed = event.parse::<(Notice,)>();
        log("a mention was not told", parsed.map(|(notice,)| deliver(&told, event.namespace(), &notice)));
        std::future::ready(())
    });
}

fn log(what: &'static str, outcome: ImksResult<()>) {
    if let Err(error) = outcome {
        tracing::debug!(%error, "{what}");
    }
}

/// Returns the people behind the roles and `here` of a message, as they are now.
///
/// # Errors
/// [`ImksError::LimitReached`] for roles with more than [`MENTIONED_PEOPLE_MAX`] members, [`ImksError::Unavailable`] or
/// [`ImksError::Timeout`] when the core does not answer, [`ImksError::Overloaded`] if too many ask who is online.
pub(super) async fn resolve(
    messaging: &Messaging,
    namespace: &Namespace,
    channel: Uuid,
    mentions: &Mentions,
) -> ImksResult<Mentioned> {
    if mentions.channel {
        // Everybody is meant.
        return Ok(Mentioned::default());
    }
    let with_role = match mentions.roles.is_empty() {
        true => Vec::new(),
        false => {
            let members = messaging.core().resolve_mentions(channel, &mentions.roles, MENTIONED_PEOPLE_MAX);
            members.await?.ok_or(ImksError::LimitReached("mentioned_people"))?
        }
    };
    let online = match mentions.here {
        true => online(messaging, namespace, channel).await?,
        false => Online::Nobody,
    };
    Ok(Mentioned { with_role, online })
}

/// Returns who of a channel is online on any node.
async fn online(messaging: &Messaging, namespace: &Namespace, channel_id: Uuid) -> ImksResult<Online> {
    let asked = Asked { channel_id, after: None, limit: MENTIONED_PEOPLE_MAX + 1 };
    let users = online::users(messaging, namespace, asked).await?;
    match users.len() {
        0..=MENTIONED_PEOPLE_MAX => Ok(Online::Users(users.into_iter().collect())),
        _ => Ok(Online::Many),
    }
}

/// A message that mentions people, as it travels to other nodes.
#[derive(Debug, Serialize, Deserialize)]
struct Notice {
    channel_id: Uuid,
    message_id: Uuid,
    seq: i64,
    thread_id: Option<Uuid>,
    author: AuthorInfo,
    people: Vec<(MentionKind, Uuid)>,
}

/// The payload of `mention:new`.
#[derive(Debug, Serialize, JsonSchema)]
struct New<'a> {
    channel_id: Uuid,
    message_id: Uuid,
    seq: i64,
    thread_id: Option<Uuid>,
    kind: MentionKind,
    author: &'a AuthorInfo,
}

impl Notice {
    /// Returns the people by name, of whom some may not be connected. Who is meant by a mention of all has to look.
    fn for_the_absent(&self) -> Mention {
        let by_name = self.people.iter().filter(|(_, target)| *target != self.channel_id);
        Mention {
            channel_id: self.channel_id,
            message_id: self.message_id,
            seq: self.seq,
            thread_id: self.thread_id,
            author: self.author.clone(),
            users: by_name.map(|(_, user)| *user).collect(),
        }
    }

    fn event(&self, kind: MentionKind) -> New<'_> {
        New {
            channel_id: self.channel_id,
            message_id: self.message_id,
            seq: self.seq,
            thread_id: self.thread_id,
            kind,
            author: &self.author,
        }
    }
}

/// Tells everybody whom a stored message mentions, on all nodes, unless its flags say that nobody is to be notified.
pub(super) fn tell(
    messaging: &Messaging,
    namespace: &Namespace,
    message: &MessageDetail,
    mentioned: &Mentioned,
) {
    let people = mentioned.people(&message.mentions, message.channel_id, message.author.id);
    if people.is_empty() || message.flags & (FLAG_SILENT | FLAG_NO_MENTION_NOTIFY) != 0 {
        return;
    }
    let notice = Notice {
        channel_id: message.channel_id,
        message_id: message.id,
        seq: message.seq,
        thread_id: message.thread_id,
        author: message.author.clone(),
        people,
    };
    deliver(messaging, namespace, &notice);
    messaging.absent().add(notice.for_the_absent());
    log("other nodes were not told of a mention", namespace.server_side_emit(NOTICE, &(notice,)));
}

/// Tells the devices on this node.
fn deliver(messaging: &Messaging, namespace: &Namespace, notice: &Notice) {
    let (channel, now) = (notice.channel_id, clock::now_micros());
    for (kind, user) in notice.people.iter().filter(|(_, target)| *target != channel) {
        let sockets = namespace.sockets_in(&user_room(*user));
        for socket in sockets.iter().filter(|socket| wants(messaging, socket, channel, now)) {
            NEW.to_socket(socket, &notice.event(*kind));
        }
    }
    if let Some((kind, _)) = notice.people.iter().find(|(_, target)| *target == channel) {
        deliver_to_all(namespace, notice, *kind, now);
    }
}

/// Whether a device may see the channel and wants to hear of mentions there.
fn wants(messaging: &Messaging, socket: &Socket, channel: Uuid, now: Micros) -> bool {
    let Some(session) = socket.data::<Session>() else { return false };
    if session.is_quiet(channel, now) {
        return false;
    }
    // A device that has left the room by itself still belongs to a member.
    let user = session.identity().user_id;
    let known = || messaging.permissions().cached(user, channel, Permission::ViewChannel);
    channel_rooms::is_in(socket, channel) || known().is_some_and(|answer| answer.is_ok())
}

/// Tells all devices that follow the channel and want to hear of it, with an event that is encoded once.
fn deliver_to_all(namespace: &Namespace, notice: &Notice, kind: MentionKind, now: Micros) {
    let ([whole, digest], quiet) = (channel_rooms::all(notice.channel_id), quiet_room(notice.channel_id));
    for socket in namespace.sockets_in(&quiet) {
        if !socket.data::<Session>().is_some_and(|session| session.is_quiet(notice.channel_id, now)) {
            socket.leave(&quiet);
        }
    }
    let told_by_name = notice.people.iter().filter(|(_, target)| *target != notice.channel_id);
    let others = told_by_name.map(|(_, user)| *user).chain([notice.author.id]);
    let rooms: Vec<String> = others.map(user_room).chain([quiet]).collect();
    let all = namespace.to(&whole).to(&digest).local();
    let broadcast = rooms.iter().fold(all, |broadcast, room| broadcast.except(room));
    log("a mention of all was not told", broadcast.emit(NEW.name(), &notice.event(kind)));
}

/// Notes whether a device wants to hear of mentions in a channel.
pub(super) fn note_settings(socket: &Socket, session: &Session, membership: &Membership) {
    let until = match membership.notify_level {
        NotifyLevel::None => Some(Micros::MAX),
        NotifyLevel::All | NotifyLevel::Mentions => membership.muted_until,
    };
    let room = quiet_room(membership.channel_id);
    session.set_quiet(membership.channel_id, until);
    match until.is_some_and(|until| until > clock::now_micros()) {
        true => socket.join(&room),
        false => socket.leave(&room),
    }
}

/// Returns the room of the devices that do not want to hear of mentions in a channel. Left when the time is over, at the
/// next mention of everybody.
fn quiet_room(channel: Uuid) -> String {
    format!("quiet:{channel}")
}

/// The payload of `mentions:list`.
#[derive(Debug, Deserialize, JsonSchema)]
struct List {
    /// Only messages that are older than this one.
    #[serde(default)]
    before: Option<Uuid>,
    #[serde(default)]
    limit: PageSize,
}

impl Large for List {
    fn answer_size(&self) -> AnswerSize {
        AnswerSize::of_messages(self.limit.rows())
    }
}

async fn list(ctx: Ctx, room: Reservation, request: List) -> ImksResult<Inbox> {
    let (readable, _) = ctx.readable_among(&ctx.channels().await?).await?;
    readable.mentions(&room, request.before, request.limit.get()).await
}
