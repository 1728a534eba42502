//! Notifications for those whom a new message mentions while they are not connected: the core knows their phones.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::metrics::{self, Notified};
use super::parts::Messaging;
use super::push::user_room;
use crate::auth::{Enqueued, Notification};
use crate::models::message::AuthorInfo;
use crate::socket::{Namespace, NamespaceBuilder, ServerEvent};
use crate::{ImksResult, clock};

/// The mentions that the core has not been told of yet.
#[derive(Debug, Default)]
pub(super) struct Absent {
    waiting: Mutex<VecDeque<Mention>>,
    added: Notify,
    /// Whether the core does not want to know.
    unwanted: AtomicBool,
}

/// A message that mentions people.
#[derive(Debug)]
pub(super) struct Mention {
    pub channel_id: Uuid,
    pub message_id: Uuid,
    pub seq: i64,
    pub thread_id: Option<Uuid>,
    pub author: AuthorInfo,
    pub users: Vec<Uuid>,
}

impl Absent {
    /// Adds a mention. Beyond [`WAITING_MAX`], nobody is notified.
    pub(super) fn add(&self, mention: Mention) {
        if mention.users.is_empty() || self.unwanted.load(Ordering::Relaxed) {
            return;
        }
        let mut waiting = self.waiting.lock();
        if waiting.len() >= WAITING_MAX {
            metrics::NOTIFICATIONS.of(Notified::Dropped).add(mention.users.len() as u64);
            return;
        }
        waiting.push_back(mention);
        drop(waiting);
        self.added.notify_one();
    }

    /// Forgets what waits, and takes nothing from now on.
    fn stop(&self) {
        self.unwanted.store(true, Ordering::Relaxed);
        self.waiting.lock().clear();
    }

    /// Returns what waits, at most for [`BATCH_MAX`] people or one message, once there is something.
    async fn next(&self) -> Vec<Mention> {
        loop {
            let batch = self.take();
            if !batch.is_empty() {
                return batch;
            }
            self.added.notified().await;
        }
    }

    fn take(&self) -> Vec<Mention> {
        let (mut waiting, mut batch, mut people) = (self.waiting.lock(), Vec::new(), 0);
        while let Some(mention) = waiting.pop_front_if(|mention| {
            people += mention.users.len();
            batch.is_empty() || people <= BATCH_MAX
        }) {
            batch.push(mention);
        }
        batch
    }
}

/// Registers what other nodes ask.
pub(super) fn listen(builder: &mut NamespaceBuilder) {
    builder.on_server_event(CONNECTED, move |mut event: ServerEvent| {
        let answered = event.parse::<(Asked,)>().and_then(|(asked,)| {
            let here = connected_here(event.namespace(), &asked.users);
            event.answer(&here)
        });
        if let Err(error) = answered {
            tracing::debug!(%error, "who is connected was not answered");
        }
        std::future::ready(())
    });
}

/// The question of another node.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    users: BTreeSet<Uuid>,
}

/// Tells the core of mentions until `stop`, or until it turns out that it does not want to know.
pub(super) async fn run(messaging: Messaging, namespace: Namespace, stop: CancellationToken) {
    loop {
        let next = stop.run_until_cancelled(messaging.absent().next());
        let Some(batch) = next.await else { return };
        let told = stop.run_until_cancelled(tell(&messaging, &namespace, batch)).await;
        if told == Some(Enqueued::Unwanted) {
            tracing::info!("the core takes no notifications for users who are not connected");
            messaging.absent().stop();
            return;
        }
    }
}

/// Tells the core about a batch, and tries again while it is away, up to [`ATTEMPTS_MAX`] times.
async fn tell(messaging: &Messaging, namespace: &Namespace, batch: Vec<Mention>) -> Enqueued {
    let users: BTreeSet<Uuid> = batch.iter().flat_map(|mention| mention.users.iter().copied()).collect();
    let connected = connected(namespace, users).await;
    let absent = batch.iter().flat_map(|mention| {
        let users = mention.users.iter().filter(|user| !connected.contains(user));
        users.map(|user| mention.notification(*user))
    });
    let notifications: Vec<Notification> = absent.collect();
    for chunk in notifications.chunks(BATCH_MAX) {
        if enqueue(messaging, chunk).await == Enqueued::Unwanted {
            return Enqueued::Unwanted;
        }
    }
    Enqueued::Taken
}

async fn enqueue(messaging: &Messaging, notifications: &[Notification]) -> Enqueued {
    let mut pause = FIRST_PAUSE;
    for _ in 0..ATTEMPTS_MAX {
        match messaging.core().enqueue(notifications).await {
            Ok(Enqueued::Taken) => {
                metrics::NOTIFICATIONS.of(Notified::Taken).add(notifications.len() as u64);
                return Enqueued::Taken;
            }
            Ok(Enqueued::Unwanted) => return Enqueued::Unwanted,
            Err(error) if error.is_retryable() => {
                tokio::time::sleep(clock::jittered(pause)).await;
                pause *= 2;
            }
            Err(error) => {
                tracing::warn!(%error, "the core refused notifications");
                break;
            }
        }
    }
    metrics::NOTIFICATIONS.of(Notified::Dropped).add(notifications.len() as u64);
    Enqueued::Taken
}

impl Mention {
    fn notification(&self, user: Uuid) -> Notification {
        Notification {
            id: Uuid::new_v5(&self.message_id, user.as_bytes()),
            user_id: user,
            channel_id: self.channel_id,
            message_id: self.message_id,
            seq: self.seq,
            thread_id: self.thread_id,
            author_id: self.author.id,
            author_username: self.author.username.clone(),
        }
    }
}

/// Returns which of the users have a connection, on this node or another one that answers in time. Who is on a node that
/// does not answer is notified: a notification too many is better than none.
async fn connected(namespace: &Namespace, users: BTreeSet<Uuid>) -> BTreeSet<Uuid> {
    let mut connected = connected_here(namespace, &users);
    if let Err(error) = ask_others(namespace, Asked { users }, &mut connected).await {
        tracing::debug!(%error, "who is connected elsewhere is not known");
    }
    connected
}

async fn ask_others(namespace: &Namespace, asked: Asked, connected: &mut BTreeSet<Uuid>) -> ImksResult<()> {
    let others = namespace.server_side_emit_with_ack(CONNECTED, &(asked,), ASK_TIMEOUT).await?;
    for (_, answer) in &others.answers {
        connected.extend(answer.parse::<(BTreeSet<Uuid>,)>()?.0);
    }
    Ok(())
}

fn connected_here(namespace: &Namespace, users: &BTreeSet<Uuid>) -> BTreeSet<Uuid> {
    let is_here = |user: &&Uuid| !namespace.sockets_in(&user_room(**user)).is_empty();
    users.iter().filter(is_here).copied().collect()
}

/// The server event that asks another node who of some users is connected there.
const CONNECTED: &str = "absent:connected";
/// How long other nodes may take to say who is connected.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// The most messages whose mentions wait for the core.
const WAITING_MAX: usize = 1_024;
/// The most people in one call.
const BATCH_MAX: usize = 500;
/// The most attempts for one call; its notifications are dropped after the last one.
const ATTEMPTS_MAX: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn mention(number: u128, people: usize) -> Mention {
        Mention {
            channel_id: Uuid::nil(),
            message_id: Uuid::from_u128(number),
            seq: 1,
            thread_id: None,
            author: AuthorInfo { id: Uuid::nil(), username: "ann".into() },
            users: vec![Uuid::nil(); people],
        }
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_leaves_in_batches_in_its_order() {
        let absent = Absent::default();
        (0..2_000).for_each(|number| absent.add(mention(number, 300)));
        assert_eq!(absent.waiting.lock().len(), WAITING_MAX);
        let first = absent.next().await;
        assert_eq!(first.iter().map(|mention| mention.message_id).collect::<Vec<_>>(), [Uuid::from_u128(0)]);
        absent.waiting.lock().clear();
        absent.add(mention(1, 900));
        absent.add(mention(2, 1));
        assert_eq!(absent.next().await[0].users.len(), 900, "one message is never divided here");
        (3..6).for_each(|number| absent.add(mention(number, 100)));
        assert_eq!(absent.next().await.len(), 4);
    }

    #[test]
    fn a_notification_has_the_same_id_each_time() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(mention(1, 0).notification(one).id, mention(1, 0).notification(one).id);
        assert_ne!(mention(1, 0).notification(one).id, mention(1, 0).notification(other).id);
        assert_ne!(mention(1, 0).notification(one).id, mention(2, 0).notification(one).id);
    }
}
