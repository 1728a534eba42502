//! The sessions of this node, and what is to be stored of them.

use std::collections::HashMap;

use parking_lot::Mutex;
use uuid::Uuid;

use super::journal::Mark;
use super::record::{Record, Standing};
use super::{Place, Resume};
use crate::ImksResult;
use crate::models::channel_state::ChannelHead;
use crate::models::resume::StoredSession;
use crate::socket::{DisconnectReason, Socket};

/// The hash of a private id.
pub(super) type Key = [u8; 32];

/// The session of a socket that can continue.
#[derive(Debug)]
pub(in crate::messaging) struct Resumable {
    pub(super) key: Key,
    pub(super) generation: i64,
    /// What is stored when the client is connected; `None` for a session that was continued, which is stored already.
    pub(super) begins: Mutex<Option<StoredSession>>,
}

/// What is to be stored, by session. Bounded by the sockets of this node and their rooms: while nothing can be stored, what
/// begins and ends meanwhile is forgotten.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<Key, Pending>>);

/// What is to be stored of a session.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) generation: i64,
    pub(super) begins: Option<StoredSession>,
    /// Whether the client of a session that was continued is connected.
    pub(super) came_back: bool,
    /// The channels that it follows since, or does not follow any more.
    pub(super) channels: HashMap<Uuid, Standing>,
    pub(super) went_away: bool,
    pub(super) ended: bool,
}

impl Sessions {
    /// Removes and returns everything that is to be stored.
    pub(super) fn take(&self) -> HashMap<Key, Pending> {
        std::mem::take(&mut *self.0.lock())
    }

    /// Takes back what could not be stored, but for sessions whose clients have left since: those begin new ones.
    pub(super) fn put_back(&self, pending: HashMap<Key, Pending>) {
        let mut all = self.0.lock();
        for (key, mut before) in pending {
            match all.remove(&key) {
                Some(later) if later.generation == before.generation => before.follow(later),
                Some(later) => before = later,
                None => {}
            }
            let was_never_stored = before.begins.is_some();
            if !(was_never_stored && (before.went_away || before.ended)) {
                all.insert(key, before);
            }
        }
    }

    fn note(&self, session: &Resumable, note: impl FnOnce(&mut Pending)) {
        let mut all = self.0.lock();
        let pending = all.entry(session.key).or_default();
        if pending.generation != session.generation {
            // What an earlier generation had to say does not matter any more.
            if pending.generation > session.generation {
                return;
            }
            *pending = Pending { generation: session.generation, ..Pending::default() };
        }
        note(pending);
    }
}

impl Pending {
    /// Adds what came later.
    fn follow(&mut self, later: Self) {
        self.begins = self.begins.take().or(later.begins);
        self.channels.extend(later.channels);
        self.came_back |= later.came_back;
        self.went_away |= later.went_away;
        self.ended |= later.ended;
    }
}

impl Resume {
    /// Notes that the client of a socket is connected.
    pub(in crate::messaging) fn connected(&self, socket: &Socket) {
        let (Some(inner), Some(session)) = (&self.0, socket.data::<Resumable>()) else { return };
        let begins = session.begins.lock().take();
        inner.sessions.note(&session, |pending| {
            pending.came_back = begins.is_none();
            pending.begins = begins;
        });
        if !socket.is_connected() {
            inner.sessions.note(&session, |pending| pending.went_away = true);
        }
        inner.news.notify_one();
    }

    /// Notes that a client has left, for which it may come back or not.
    pub(in crate::messaging) fn left(&self, socket: &Socket, reason: DisconnectReason) {
        let (Some(inner), Some(session)) = (&self.0, socket.data::<Resumable>()) else { return };
        inner.sessions.note(&session, |pending| match reason.is_recoverable() {
            true => pending.went_away = true,
            false => pending.ended = true,
        });
    }

    /// Ends the session of a socket: it cannot continue from here on.
    pub(in crate::messaging) fn give_up(&self, socket: &Socket) {
        let (Some(inner), Some(session)) = (&self.0, socket.data::<Resumable>()) else { return };
        inner.sessions.note(&session, |pending| pending.ended = true);
    }

    /// Notes that a client follows channels, and was told where they are.
    pub(in crate::messaging) fn follows<'a>(
        &self,
        socket: &Socket,
        heads: impl Iterator<Item = &'a ChannelHead>,
    ) {
        let (Some(inner), Some(session)) = (&self.0, socket.data::<Resumable>()) else { return };
        inner.sessions.note(&session, |pending| {
            pending.channels.extend(heads.map(|head| {
                let from = Place { seq: head.last_seq, rev: head.last_rev };
                (head.channel_id, Standing::Follows { from, facts: 0 })
            }));
        });
    }

    /// Notes that a client has left a channel, by itself or because it had to.
    pub(in crate::messaging) fn leaves(&self, socket: &Socket, channel: Uuid, by_itself: bool) {
        let (Some(inner), Some(session)) = (&self.0, socket.data::<Resumable>()) else { return };
        inner.sessions.note(&session, |pending| {
            let standing = if by_itself { Standing::Left } else { Standing::Ended };
            pending.channels.insert(channel, standing);
        });
    }

    /// Waits until what a client has changed is stored, so that it is true on any node when the client hears of it.
    pub(in crate::messaging) async fn settled(&self, socket: &Socket) -> ImksResult<()> {
        match &self.0 {
            Some(inner) if socket.data::<Resumable>().is_some() => inner.settled().await,
            _ => Ok(()),
        }
    }
}

/// Returns the channels of a session after changes. `None` if they cannot be read, or are too many.
pub(super) fn changed(stored: &[u8], changes: HashMap<Uuid, Standing>) -> Option<Vec<u8>> {
    let mut record = Record::decode(Mark { epoch: 0, number: 0 }, 0, stored)?;
    for (channel, standing) in changes {
        let known = record.channels.entry(channel).or_insert(standing);
        // What the client was told again of a channel that it follows already, it may not have got.
        if !matches!((*known, standing), (Standing::Follows { .. }, Standing::Follows { .. })) {
            *known = standing;
        }
    }
    (record.channels.len() <= CHANNELS_MAX).then(|| record.encode())
}

/// The most channels of a session that can continue, among them those that its client has left.
const CHANNELS_MAX: usize = 4_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(key: Key, is_stored: bool, went_away: bool) -> Pending {
        let begins = StoredSession {
            key: key.to_vec(),
            user: Uuid::nil(),
            token_session: None,
            generation: 0,
            epoch: 1,
            began: 1,
            user_rev: 0,
            channels: Vec::new(),
            former: None,
        };
        Pending { begins: (!is_stored).then_some(begins), went_away, ..Pending::default() }
    }

    #[test]
    fn sessions_that_begin_and_end_while_nothing_can_be_stored_do_not_pile_up() {
        let sessions = Sessions::default();
        for round in 0..100 {
            let (here, gone, known) = ([0; 32], [round; 32], [200; 32]);
            let mut failed = sessions.take();
            failed.entry(here).or_insert_with(|| pending(here, false, false));
            failed.insert(gone, pending(gone, false, round > 0));
            failed.insert(known, pending(known, true, true));
            sessions.put_back(failed);
        }
        let kept = sessions.take();
        assert_eq!(kept.keys().map(|key| key[0]).collect::<std::collections::BTreeSet<_>>(), [0, 200].into());
        assert!(kept[&[200; 32]].went_away, "what is stored must be told that its client has left");
    }
}
