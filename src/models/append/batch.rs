//! The decisions of a batch. This code is pure: its input was read under the channels' locks before, and its
//! output is written afterwards (docs/adr/0007).

use std::collections::{HashMap, HashSet};
use std::num::NonZero;

use sqlx::FromRow;
use uuid::Uuid;

use super::channel::LockedChannel;
use super::mutation::Job;
use super::records::{Lookups, Records};
use super::told::Told;
use crate::clock::Micros;
use crate::models::channel_change::{Change, ChangeKind};
use crate::models::feed_batch::Range;
use crate::models::message_row::{Appended, Message};
use crate::models::text::Nonce;
use crate::{ImksError, ImksResult};

/// The counters of a channel, read under its lock.
#[derive(Debug, Clone, Default, FromRow)]
pub(crate) struct ChannelState {
    pub channel_id: Uuid,
    pub last_seq: i64,
    pub last_cseq: i64,
    pub last_rev: i64,
    pub last_ms: i64,
    pub last_message_id: Option<Uuid>,
    pub last_message_at: Option<Micros>,
    pub message_count: i64,
}

/// An earlier message with the same nonce.
#[derive(Debug, Clone, Copy, FromRow)]
pub(super) struct StoredNonce {
    /// The index in [`Wanted::nonces`](super::mutation::Wanted::nonces).
    pub number: i64,
    pub message_id: Uuid,
    pub content_hash: i64,
    pub created_at: Micros,
}

/// The channel, author and nonce that identify a send.
pub(super) type NonceKey = (Uuid, Uuid, Nonce);

/// The input of a batch, read under the locks.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// All channels of the batch, by id.
    pub states: Vec<ChannelState>,
    pub nonces: HashMap<NonceKey, StoredNonce>,
    /// The existing messages among those that the batch refers to, and the messages that they quote.
    pub messages: HashMap<Uuid, Message>,
    pub rows: Lookups,
}

/// The output of a batch: what to write, and which events to send.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub appended: Vec<Appended>,
    /// Old messages whose nonce is reused.
    pub released: Vec<Uuid>,
    pub changed: Vec<Changed>,
    pub changes: Vec<Change>,
    pub records: Records,
    /// The channels whose counters changed.
    pub states: Vec<ChannelState>,
    /// What the feed records about these channels.
    pub ranges: Vec<Range>,
    pub told: Vec<Told>,
}

/// A message whose stored state changes.
#[derive(Debug)]
pub(super) struct Changed {
    pub row: Message,
    /// Whether its row is written. Otherwise the table of a feature keeps what is new in it.
    pub stored: bool,
    /// Whether its text changes.
    pub rewritten: bool,
    /// The index in [`Effects::changes`] of its last change in this batch.
    pub last: Option<usize>,
}

impl Changed {
    /// Returns the new text, if the text changes.
    pub(super) fn new_body(&self) -> Option<&str> {
        self.rewritten.then_some(self.row.body.as_str())
    }
}

/// What became of the mutations of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// A mutation asked for rows that are not loaded. [`Loaded::rows`] lists them, and the batch has to be decided
    /// again once they are.
    Incomplete,
    /// All are decided, and at least one is refused.
    Refused,
    /// All are decided, and none is refused.
    Complete,
}

/// A batch that is being decided.
#[derive(Debug)]
pub(super) struct Batch {
    pub loaded: Loaded,
    pub now: Micros,
    /// One random number for each mutation.
    random: Vec<u64>,
    pub effects: Effects,
    /// All channels by id, and whether their counters changed.
    states: Vec<(ChannelState, bool)>,
    /// Indices into [`Effects::appended`], by nonce.
    pub nonces: HashMap<NonceKey, usize>,
    /// Indices into [`Effects::changed`], by message.
    pub changed: HashMap<Uuid, usize>,
    /// Indices into [`Effects::told`] of the events of changes, by channel and `rev`.
    pub told_changes: HashMap<(Uuid, i64), usize>,
    /// Increases with everything that is written or sent.
    pub steps: usize,
}

impl Batch {
    /// Creates a batch in which nothing is decided. `now` may be earlier than stored times: ids and times
    /// never go back.
    pub(super) fn new(mut loaded: Loaded, now: Micros, random: Vec<u64>) -> Self {
        loaded.states.sort_unstable_by_key(|state| state.channel_id);
        Self {
            loaded,
            now,
            random,
            effects: Effects::default(),
            states: Vec::new(),
            nonces: HashMap::new(),
            changed: HashMap::new(),
            told_changes: HashMap::new(),
            steps: 0,
        }
    }

    /// Decides all mutations in order.
    pub(super) fn decide(&mut self, jobs: &mut [Job]) -> Decision {
        let (mut refused, mut any_refused) = (HashSet::new(), false);
        'again: loop {
            self.restart(jobs.len());
            for (index, job) in jobs.iter_mut().enumerate().filter(|(index, _)| !refused.contains(index)) {
                let (before, told) = (self.steps, self.effects.told.len());
                let was_refused = job.mutation.decide(&mut LockedChannel::new(self, &job.scope));
                any_refused |= was_refused;
                if let Some(trace) = &job.trace {
                    self.effects.told[told..].iter_mut().for_each(|told| told.set_trace(trace.clone()));
                }
                if was_refused && self.steps > before {
                    // The refused mutation had already made changes: the batch is decided again without it.
                    refused.insert(index);
                    continue 'again;
                }
            }
            return match (self.loaded.rows.is_incomplete(), any_refused) {
                (true, _) => Decision::Incomplete,
                (false, true) => Decision::Refused,
                (false, false) => Decision::Complete,
            };
        }
    }

    fn restart(&mut self, jobs: usize) {
        self.effects = Effects { appended: Vec::with_capacity(jobs), ..Effects::default() };
        self.effects.told.reserve(jobs);
        self.states = self.loaded.states.iter().map(|state| (state.clone(), false)).collect();
        self.nonces = HashMap::with_capacity(jobs);
        self.changed.clear();
        self.told_changes.clear();
    }

    /// Returns what was decided.
    pub(super) fn finish(self) -> Effects {
        let moved = self.loaded.states.iter().zip(self.states).filter(|(_, (_, moved))| *moved);
        let (ranges, states) = moved.map(|(before, (state, _))| (range(before, &state), state)).unzip();
        Effects { states, ranges, ..self.effects }
    }

    /// Returns the counters of a channel.
    pub(super) fn state(&self, channel: Uuid) -> ImksResult<&ChannelState> {
        self.state_index(channel).map(|index| &self.states[index].0)
    }

    /// Returns the counters of a channel and marks them as changed.
    pub(super) fn state_mut(&mut self, channel: Uuid) -> ImksResult<&mut ChannelState> {
        let index = self.state_index(channel)?;
        self.steps += 1;
        self.states[index].1 = true;
        Ok(&mut self.states[index].0)
    }

    fn state_index(&self, channel: Uuid) -> ImksResult<usize> {
        let index = self.states.binary_search_by_key(&channel, |(state, _)| state.channel_id);
        index.map_err(|_| ImksError::Internal("channel not locked"))
    }

    /// Returns a message with the changes that the batch has made so far.
    pub(super) fn message(&self, id: Uuid) -> Option<&Message> {
        let changed = self.changed.get(&id).map(|index| &self.effects.changed[*index].row);
        changed.or_else(|| self.loaded.messages.get(&id))
    }

    /// Returns a loaded message in order to change it.
    pub(super) fn changed_mut(&mut self, id: Uuid) -> ImksResult<&mut Changed> {
        let index = match self.changed.get(&id) {
            Some(index) => *index,
            None => {
                let row = self.loaded.messages.get(&id).cloned().ok_or(ImksError::NotFound("message"))?;
                self.effects.changed.push(Changed { row, stored: false, rewritten: false, last: None });
                self.changed.insert(id, self.effects.changed.len() - 1);
                self.effects.changed.len() - 1
            }
        };
        Ok(&mut self.effects.changed[index])
    }

    /// Returns the kind of the last change to a message, if its changes are numbered.
    pub(super) fn last_kind(&self, changed: usize) -> Option<ChangeKind> {
        self.effects.changed[changed].last.map(|last| self.effects.changes[last].kind)
    }

    /// Returns a random number that distinguishes ids of different channels.
    pub(super) fn random(&self) -> u64 {
        let appended = self.effects.appended.len();
        let Some(length) = NonZero::new(self.random.len()) else { return 0 };
        // Several messages of one mutation may share a number; `seq` makes their ids differ.
        self.random[appended % length]
    }
}

/// Returns what a batch added to a channel.
fn range(before: &ChannelState, after: &ChannelState) -> Range {
    Range {
        channel_id: after.channel_id,
        seq: (before.last_seq, after.last_seq),
        rev: (before.last_rev, after.last_rev),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::sync::oneshot::Receiver;

    use super::*;
    use crate::models::append::channel::NONCE_LIFETIME;
    use crate::models::append::{Authority, Mutation, Scope};
    use crate::models::message::{AuthorInfo, ContentType, MessageType, Priority};
    use crate::models::message_id;
    use crate::models::message_mention::Mentioned;
    use crate::models::message_send::{NewMessage, Sent};
    use crate::models::text::{Mentions, MessageBody};

    const CHANNEL: Uuid = Uuid::from_u128(1);
    const ALICE: Uuid = Uuid::from_u128(2);
    const MESSAGE: Uuid = Uuid::from_u128(3);

    fn scope() -> Scope {
        let actor = AuthorInfo { id: ALICE, username: "alice".into() };
        let slow_mode = std::time::Duration::ZERO;
        Scope { channel_id: CHANNEL, actor, slow_mode, authority: Authority::Own }
    }

    fn job<M: Mutation>(mutation: M) -> (Job, Receiver<ImksResult<M::Done>>) {
        Job::new(scope(), mutation)
    }

    fn send(body: &str, nonce: &str) -> NewMessage {
        NewMessage {
            body: MessageBody::new(body).unwrap(),
            kind: MessageType::Default,
            content_type: ContentType::Markdown,
            thread_id: None,
            also_send_to_channel: false,
            reply_to_message_id: None,
            forward_of: None,
            forwards: None,
            expires_at: None,
            mentions: Mentions::default(),
            flags: 0,
            mentioned: Mentioned::default(),
            priority: Priority::Normal,
            ack_requested: false,
            stream: false,
            poll: None,
            attachments: Vec::new(),
            embeds: crate::models::message_embed::Embeds::default(),
            expect: None,
            metadata: None,
            nonce: Some(Nonce::new(nonce).unwrap()),
            scheduled_id: None,
            interactive: true,
        }
    }

    fn loaded(state: ChannelState) -> Loaded {
        let message = Message { id: MESSAGE, channel_id: CHANNEL, author_id: ALICE, ..Message::default() };
        Loaded {
            states: vec![ChannelState { channel_id: CHANNEL, ..state }],
            messages: HashMap::from([(MESSAGE, message)]),
            ..Loaded::default()
        }
    }

    fn decided<D>(
        jobs: Vec<(Job, Receiver<ImksResult<D>>)>,
        loaded: Loaded,
        now: Micros,
    ) -> (Effects, Vec<ImksResult<D>>) {
        let (mut jobs, receipts): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
        let mut batch = Batch::new(loaded, now, vec![7]);
        assert_ne!(batch.decide(&mut jobs), Decision::Incomplete);
        jobs.into_iter().for_each(|job| job.mutation.answer());
        let outcome = |mut receipt: Receiver<ImksResult<D>>| receipt.try_recv().unwrap();
        (batch.finish(), receipts.into_iter().map(outcome).collect())
    }

    proptest! {
        #[test]
        fn ids_and_times_follow_seq_however_the_clock_jumps(
            clocks in prop::collection::vec((0_i64..1 << 50, 1_usize..5), 1..20),
        ) {
            let (mut state, mut all) = (ChannelState::default(), Vec::new());
            for (now, count) in clocks {
                let jobs = (0..count).map(|number| job(send("x", &number.to_string()))).collect();
                let (mut effects, _) = decided(jobs, loaded(state), now);
                all.extend(effects.appended.into_iter().map(|appended| appended.message));
                state = effects.states.remove(0);
            }
            prop_assert!(all.iter().map(|message| message.seq).eq(1..=all.len() as i64));
            prop_assert!(all.is_sorted_by(|a, b| a.id < b.id && a.created_at.0 / 1_000 <= b.created_at.0 / 1_000));
            prop_assert!(all.iter().all(|message| message_id::seq_of(message.id) == message.seq));
        }
    }

    #[test]
    fn a_nonce_is_free_again_after_a_day() {
        let outcome = |age| {
            let key = (CHANNEL, ALICE, Nonce::new("n").unwrap());
            let created_at = NONCE_LIFETIME - age;
            let stored = StoredNonce { number: 0, message_id: MESSAGE, content_hash: 0, created_at };
            let loaded = Loaded { nonces: HashMap::from([(key, stored)]), ..loaded(ChannelState::default()) };
            let (effects, outcomes) = decided(vec![job(send("x", "n"))], loaded, NONCE_LIFETIME);
            (effects.released, outcomes.into_iter().next().unwrap())
        };
        assert!(
            matches!(outcome(NONCE_LIFETIME), (released, Err(ImksError::NonceConflict)) if released.is_empty())
        );
        let (released, sent) = outcome(NONCE_LIFETIME + 1);
        assert_eq!((released, sent.unwrap().duplicate), (vec![MESSAGE], false));
    }

    #[test]
    fn one_nonce_with_two_contents_in_a_batch_is_a_conflict_for_the_second() {
        let jobs = vec![job(send("one", "n")), job(send("two", "n")), job(send("one", "n"))];
        let (effects, outcomes) = decided(jobs, loaded(ChannelState::default()), 0);
        assert_eq!((effects.appended.len(), effects.told.len()), (1, 1));
        let [Ok(Sent { message, duplicate: false }), Err(ImksError::NonceConflict), Ok(repeat)] =
            &outcomes[..]
        else {
            panic!("{outcomes:?}")
        };
        assert!(repeat.duplicate && repeat.message.id == message.id);
    }

    /// Changes a message, optionally together with others, and then fails or succeeds.
    #[derive(Debug)]
    struct Touch {
        together: bool,
        fails: bool,
    }

    impl Mutation for Touch {
        type Done = i64;

        fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<i64> {
            let touch = |row: &mut Message| row.edit_count += 1;
            let row = match self.together {
                true => channel.change_together(MESSAGE, ChangeKind::Edit, touch)?,
                false => channel.change(MESSAGE, ChangeKind::Delete, touch)?,
            };
            let (rev, count) = (row.rev, row.edit_count);
            channel.tell_change("touched", rev, serde_json::json!({ "count": count }))?;
            if self.fails { Err(ImksError::MessageDeleted) } else { Ok(rev) }
        }
    }

    fn touch(together: bool, fails: bool) -> (Job, Receiver<ImksResult<i64>>) {
        job(Touch { together, fails })
    }

    #[test]
    fn what_a_refused_mutation_did_before_it_is_undone() {
        let jobs = vec![touch(false, false), touch(false, true), touch(false, false)];
        let (effects, outcomes) = decided(jobs, loaded(ChannelState::default()), 0);
        assert!(matches!(outcomes[..], [Ok(1), Err(ImksError::MessageDeleted), Ok(2)]));
        assert_eq!((effects.changes.len(), effects.told.len(), effects.states[0].last_rev), (2, 2, 2));
        assert_eq!(effects.changed[0].row.edit_count, 2);
    }

    #[test]
    fn changes_that_go_together_are_one_change_and_one_event_unless_another_comes_between() {
        let jobs = [true, true, false, true, true].map(|together| touch(together, false));
        let (effects, outcomes) = decided(jobs.into(), loaded(ChannelState::default()), 0);
        assert_eq!(outcomes.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [1, 1, 2, 3, 3]);
        assert_eq!(effects.changes.iter().map(|change| change.rev).collect::<Vec<_>>(), [1, 2, 3]);
        let payload = |told: &Told| {
            let mut json = Vec::new();
            told.write_json(&mut json).unwrap();
            serde_json::from_slice::<serde_json::Value>(&json).unwrap()
        };
        let told: Vec<_> = effects.told.iter().map(|told| payload(told)["count"].clone()).collect();
        assert_eq!(told, [2, 3, 5]);
    }
}
