//! What concerns a user alone: positions, threads that they follow, bookmarks, drafts and scheduled messages.

use imks::testing::clock;
use serde_json::{Value, json};

use crate::model::{Counts, Follower};
use crate::operation::Operation;
use crate::people::{Bookmark, Draft, Scheduled};
use crate::play::Play;

/// Later than the end of any test.
const LATER: i64 = 30 * 86_400 * 1_000_000;

fn counts(data: &Value) -> Counts {
    let number = |name: &str| data[name].as_i64().unwrap();
    Counts { read_seq: number("read_seq"), unread: number("unread_count"), mentions: number("mention_count") }
}

impl Play<'_> {
    pub async fn step_on_own(&mut self, operation: &Operation, users: usize, channels: usize) {
        let near = |last: i64, wanted: usize| wanted as i64 % (last + 3);
        match *operation {
            Operation::Mark { user, channel, seq } => {
                let (user, channel) = (user % users, channel % channels);
                let seq = near(self.channels[channel].last_seq(), seq);
                self.mark(user, channel, seq).await;
            }
            Operation::MarkUnread { user, channel, seq } => {
                let (user, channel) = (user % users, channel % channels);
                let from = near(self.channels[channel].last_seq(), seq) + 1;
                self.mark_unread(user, channel, from).await;
            }
            Operation::MarkAll { user } => self.mark_all(user % users).await,
            Operation::MarkThread { user, channel, message, seq } => {
                let Some(place) = self.pick(user, channel, message) else { return };
                let seq = near(self.channels[place.1].last_seq(), seq);
                self.change_thread(place, None, Some(seq)).await;
            }
            Operation::Follow { user, channel, message, following } => {
                let Some(place) = self.pick(user, channel, message) else { return };
                self.change_thread(place, Some(following), None).await;
            }
            Operation::Bookmark { user, channel, message, note } => {
                let Some(place) = self.pick(user, channel, message) else { return };
                self.bookmark(place, note).await;
            }
            Operation::Unbookmark { user, channel, message } => {
                let Some(place) = self.pick(user, channel, message) else { return };
                self.unbookmark(place).await;
            }
            Operation::Draft { user, channel, thread, body } => {
                let thread = thread.and_then(|thread| Some(self.pick(user, channel, thread)?.2));
                self.draft(user % users, (channel % channels, thread), body).await;
            }
            Operation::Schedule { user, channel, clear_draft } => {
                self.schedule(user % users, channel % channels, clear_draft).await;
            }
            Operation::Reschedule { user, which, body } => {
                self.reschedule(user % users, which, Some(body)).await
            }
            Operation::Cancel { user, which } => self.reschedule(user % users, which, None).await,
            ref other => panic!("nobody carries it out: {other:?}"),
        }
    }

    async fn mark(&mut self, user: usize, channel: usize, seq: i64) {
        let request = json!({ "channel_id": self.channels[channel].id, "seq": seq });
        let expected = self.is_member(user, channel);
        let answer = self.ask(user, "read:mark", request).await;
        if let Err(code) = expected {
            return assert_eq!(answer.unwrap_err(), code);
        }
        if self.channels[channel].mark(user, seq) {
            self.people[user].next_rev();
        }
        assert_eq!(counts(&answer.unwrap()), self.channels[channel].counts(user));
    }

    async fn mark_unread(&mut self, user: usize, channel: usize, from: i64) {
        let request = json!({ "channel_id": self.channels[channel].id, "from_seq": from });
        let expected = self.is_member(user, channel);
        let answer = self.ask(user, "read:mark_unread", request).await;
        if let Err(code) = expected {
            return assert_eq!(answer.unwrap_err(), code);
        }
        self.channels[channel].mark_unread(user, from);
        self.people[user].next_rev();
        assert_eq!(counts(&answer.unwrap()), self.channels[channel].counts(user));
    }

    async fn mark_all(&mut self, user: usize) {
        let answer = self.ask(user, "read:mark_all", json!({})).await.unwrap();
        let mine = self.channels.iter_mut().filter(|channel| channel.members.contains(&user));
        let moved = mine.map(|channel| channel.mark(user, i64::MAX)).filter(|moved| *moved).count();
        if moved > 0 {
            self.people[user].next_rev();
        }
        assert_eq!(answer, json!({ "updated": moved }));
    }

    /// Follows, unfollows or reads a thread.
    async fn change_thread(
        &mut self,
        place: (usize, usize, usize),
        following: Option<bool>,
        seq: Option<i64>,
    ) {
        let (user, channel, root) = place;
        let here = &self.channels[channel];
        let mut request = json!({ "channel_id": here.id, "thread_id": here.messages[root].id });
        let event = match (following, seq) {
            (Some(true), _) => "thread:follow",
            (Some(false), _) => "thread:unfollow",
            (None, seq) => {
                request["seq"] = json!(seq);
                "read:mark"
            }
        };
        let is_there = here.is_root(root) && !here.messages[root].deleted;
        let expected = self.is_member(user, channel).and(is_there.then_some(()).ok_or("not_found"));
        let answer = self.ask(user, event, request).await;
        if let Err(code) = expected {
            return assert_eq!(answer.unwrap_err(), code, "{place:?}");
        }
        let (answer, head) = (answer.unwrap(), self.channels[channel].last_seq());
        let known = self.channels[channel].followers.get(&(root, user)).copied();
        let before =
            known.map_or((false, if seq.is_some() { 0 } else { head }), |it| (it.following, it.read));
        let after = (following.unwrap_or(before.0), seq.map_or(before.1, |seq| seq.min(head).max(before.1)));
        if known.is_none() || before != after {
            let user_rev = self.people[user].next_rev();
            let follower = Follower { following: after.0, decided: head, read: after.1, user_rev };
            self.channels[channel].followers.insert((root, user), follower);
        }
        assert_eq!(counts(&answer), self.channels[channel].thread_counts(root, user), "{place:?}");
        if following.is_some() {
            assert_eq!(
                (&answer["following"], &answer["user_rev"]),
                (&json!(after.0), &json!(self.channels[channel].followers[&(root, user)].user_rev))
            );
        }
    }

    async fn bookmark(&mut self, place: (usize, usize, usize), note: Option<usize>) {
        let (user, channel, message) = place;
        let here = &self.channels[channel];
        let it = &here.messages[message];
        let note = note.map(|note| format!("note {note}"));
        let mut request = json!({ "channel_id": here.id, "message_id": it.id });
        if let Some(note) = &note {
            request["note"] = json!(note);
        }
        let expected =
            self.is_member(user, channel).and(if it.deleted { Err("message_deleted") } else { Ok(()) });
        let answer = self.ask(user, "bookmark:add", request).await;
        if let Err(code) = expected {
            return assert_eq!(answer.unwrap_err(), code, "{place:?}");
        }
        let person = &mut self.people[user];
        let known = person.bookmarks.get(&(channel, message)).filter(|known| !known.removed).cloned();
        let note = note.or_else(|| known.as_ref()?.note.clone());
        if known.is_none_or(|known| known.note != note) {
            let user_rev = person.next_rev();
            person.bookmarks.insert((channel, message), Bookmark { removed: false, note, user_rev });
        }
        let known = &person.bookmarks[&(channel, message)];
        let shown = &answer.unwrap()["bookmark"];
        assert_eq!((&shown["note"], &shown["user_rev"]), (&json!(known.note), &json!(known.user_rev)));
    }

    async fn unbookmark(&mut self, place: (usize, usize, usize)) {
        let (user, channel, message) = place;
        let request = json!({ "message_id": self.channels[channel].messages[message].id });
        self.ask(user, "bookmark:remove", request).await.unwrap();
        let person = &mut self.people[user];
        let next = person.rev + 1;
        if let Some(known) = person.bookmarks.get_mut(&(channel, message)).filter(|known| !known.removed) {
            *known = Bookmark { removed: true, note: None, user_rev: next };
            person.rev = next;
        }
    }

    async fn draft(&mut self, user: usize, place: (usize, Option<usize>), body: usize) {
        let here = &self.channels[place.0];
        let body = if body == 0 { String::new() } else { format!("draft {body}") };
        let thread = place.1.map(|thread| &here.messages[thread].id);
        let request = json!({ "channel_id": here.id, "thread_id": thread, "body": body });
        let expected = self.is_member(user, place.0);
        let answer = self.ask(user, "draft:set", request).await;
        if let Err(code) = expected {
            return assert_eq!(answer.unwrap_err(), code, "{place:?}");
        }
        let person = &mut self.people[user];
        let known = person.drafts.get(&place).cloned().unwrap_or_default();
        let body = Some(body).filter(|body| !body.is_empty());
        if known.body != body {
            let user_rev = person.next_rev();
            person.drafts.insert(place, Draft { version: known.version + 1, body, user_rev });
        }
        let (known, answer) = (person.drafts.get(&place).cloned().unwrap_or_default(), answer.unwrap());
        assert_eq!(
            (&answer["version"], &answer["user_rev"]),
            (&json!(known.version), &json!(known.user_rev))
        );
    }

    async fn schedule(&mut self, user: usize, channel: usize, clear_draft: bool) {
        let id = self.channels[channel].id.clone();
        let request = json!({ "channel_id": id, "body": "later", "send_at": clock::rfc3339(clock::now_micros() + LATER), "clear_draft": clear_draft });
        let expected = self.is_member(user, channel);
        let answer = self.ask(user, "schedule:create", request).await;
        if let Err(code) = expected {
            return assert_eq!(answer.unwrap_err(), code);
        }
        let (answer, person) = (answer.unwrap(), &mut self.people[user]);
        let user_rev = person.next_rev();
        if clear_draft {
            person.clear_draft((channel, None), user_rev);
        }
        let id = answer["scheduled"]["id"].as_str().unwrap().to_owned();
        assert_eq!(answer["scheduled"]["user_rev"], user_rev);
        person.scheduled.push(Scheduled {
            id,
            channel,
            body: "later".into(),
            version: 1,
            cancelled: false,
            user_rev,
        });
    }

    /// Changes the text of a scheduled message, or cancels it.
    async fn reschedule(&mut self, user: usize, which: usize, body: Option<usize>) {
        let count = self.people[user].scheduled.len();
        if count == 0 {
            return;
        }
        let which = which % count;
        let known = self.people[user].scheduled[which].clone();
        let body = body.map(|body| format!("later {body}"));
        let expected = match &body {
            // Who has left the channel learns nothing else.
            Some(_) => {
                let state = if known.cancelled { Err("failed_precondition") } else { Ok(()) };
                self.is_member(user, known.channel).and(state)
            }
            None => Ok(()),
        };
        let answer = match &body {
            Some(body) => self.ask(user, "schedule:update", json!({ "id": known.id, "body": body })).await,
            None => self.ask(user, "schedule:cancel", json!({ "id": known.id })).await,
        };
        if let Err(code) = expected {
            return assert_eq!(answer.unwrap_err(), code, "{known:?}");
        }
        let is_changed = body.as_ref().map_or(!known.cancelled, |body| *body != known.body);
        let person = &mut self.people[user];
        if is_changed {
            let user_rev = person.next_rev();
            let it = &mut person.scheduled[which];
            (it.version, it.user_rev, it.cancelled) = (it.version + 1, user_rev, body.is_none());
            it.body = body.unwrap_or(known.body);
        }
        let (answer, it) = (answer.unwrap(), &person.scheduled[which]);
        assert_eq!(
            (&answer["scheduled"]["version"], &answer["scheduled"]["user_rev"]),
            (&json!(it.version), &json!(it.user_rev))
        );
    }
}
