//! Carries operations out on servers and in the model, and compares each answer with what the model expects.

use std::time::Duration;

use imks::testing::directory::RoleName;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::TestClient;
use crate::model::{Channel, Content, MODERATOR, Message, OWNER, Poll, Refused};
use crate::operation::{Expect, Mention, Operation, Send};
use crate::people::{Device, Person};
use crate::replica::Replica;
use crate::server::TestServer;

/// The users of a conversation; the last ones join and leave.
const USERS: usize = 4;
const STAYING: usize = 2;
const CHANNELS: usize = 2;
const DEVICES: usize = 2;
/// The role `moderator` of the directory.
const MODERATORS: &str = "00000000-0000-7000-8000-000000000003";
pub const EMOJI: [&str; 3] = ["👍", "🎉", ":ship:"];

/// One conversation, on servers that others use too.
pub struct Play<'a> {
    pub nodes: &'a [TestServer],
    pub people: Vec<Person>,
    pub channels: Vec<Channel>,
    /// Numbers bodies, and takes devices in turn.
    steps: usize,
}

/// What the server answered: data, or the code of its error.
pub type Answer = Result<Value, String>;

pub fn answer_of(mut whole: Value) -> Answer {
    match whole["ok"] == true {
        true => Ok(whole["data"].take()),
        false => Err(whole["error"]["code"].as_str().unwrap().to_owned()),
    }
}

impl<'a> Play<'a> {
    /// New users and channels, with one device each connected.
    pub async fn begin(nodes: &'a [TestServer]) -> Self {
        let run = Uuid::now_v7().simple().to_string();
        let (directory, mut channels, mut people) = (nodes[0].directory(), Vec::new(), Vec::new());
        for index in 0..CHANNELS {
            let name = format!("c{index}-{run}");
            let id = nodes[0].channel(&name, &[]).await;
            channels.push(Channel { id, name, ..Channel::default() });
        }
        for index in 0..USERS {
            let name = format!("u{index}-{run}");
            let user = directory.ensure_user(&name).await.unwrap();
            let role = match index {
                OWNER => RoleName::Owner,
                MODERATOR => RoleName::Moderator,
                _ => RoleName::Member,
            };
            for channel in &mut channels {
                directory.add_member(&channel.name, &name, role).await.unwrap();
                channel.members.insert(index);
                channel.positions.insert(index, Default::default());
            }
            let token = directory.issue_token(&user, Duration::from_secs(3_600)).await.unwrap();
            let devices =
                (0..DEVICES).map(|_| Device { client: None, replica: Replica::default() }).collect();
            people.push(Person {
                name,
                id: user.id.to_string(),
                token,
                rev: 0,
                drafts: Default::default(),
                bookmarks: Default::default(),
                scheduled: Vec::new(),
                devices,
            });
        }
        let mut play = Self { nodes, people, channels, steps: 0 };
        for user in 0..USERS {
            play.connect(user, 0).await;
        }
        play
    }

    pub async fn connect(&mut self, user: usize, device: usize) {
        let node = &self.nodes[(user + device) % self.nodes.len()];
        let person = &mut self.people[user];
        let device = &mut person.devices[device];
        if device.client.is_none() {
            let client = device.client.insert(TestClient::connect(node.addr(), &person.token).await);
            device.replica.catch_up(client).await;
        }
    }

    /// A connected device of a user, one after the other.
    async fn device(&mut self, user: usize) -> &mut TestClient {
        self.steps += 1;
        if self.people[user].devices.iter().all(|device| device.client.is_none()) {
            self.connect(user, 0).await;
        }
        let first = self.steps % DEVICES;
        let devices = &mut self.people[user].devices;
        let connected =
            (0..DEVICES).map(|index| (first + index) % DEVICES).find(|it| devices[*it].client.is_some());
        devices[connected.unwrap()].client.as_mut().unwrap()
    }

    /// Asks on some device of the user, and again where a rate says so.
    pub async fn ask(&mut self, user: usize, event: &str, payload: Value) -> Answer {
        let device = self.device(user).await;
        loop {
            let answer = device.call(event, payload.clone()).await;
            match answer["error"]["retry_after_ms"].as_u64() {
                Some(wait) => tokio::time::sleep(Duration::from_millis(wait)).await,
                None => return answer_of(answer),
            }
        }
    }

    /// Carries one operation out.
    pub async fn step(&mut self, operation: &Operation) {
        self.steps += 1;
        self.carry_out(operation).await;
        for person in &mut self.people {
            let Some(client) = person.devices.iter_mut().find_map(|device| device.client.as_mut()) else {
                continue;
            };
            let synced = client.ok("sync", json!({ "channels": [] })).await;
            assert_eq!(
                synced["user"]["rev"], person.rev,
                "the number of {}'s changes after {operation:?}",
                person.name
            );
        }
    }

    async fn carry_out(&mut self, operation: &Operation) {
        match *operation {
            Operation::Send(ref send) => self.send(send).await,
            Operation::Burst { channel, ref sends } => self.burst(channel % CHANNELS, sends).await,
            Operation::Crowd { channel, message, ref users, emoji } => {
                self.crowd(channel % CHANNELS, message, users, emoji).await;
            }
            Operation::Disconnect { user, device } => {
                self.people[user % USERS].devices[device % DEVICES].client = None;
            }
            Operation::Connect { user, device } => self.connect(user % USERS, device % DEVICES).await,
            Operation::Join { user, channel } => {
                self.join(STAYING + user % (USERS - STAYING), channel % CHANNELS).await
            }
            Operation::Leave { user, channel } => {
                self.leave(STAYING + user % (USERS - STAYING), channel % CHANNELS).await
            }
            _ => self.step_on_message(operation).await,
        }
    }

    async fn step_on_message(&mut self, operation: &Operation) {
        match *operation {
            Operation::Edit { user, channel, message, body, mention, version } => {
                let Some((user, channel, message)) = self.pick(user, channel, message) else { return };
                self.edit((user, channel, message), body, mention, version).await;
            }
            Operation::Delete { user, channel, message } => {
                let Some(place) = self.pick(user, channel, message) else { return };
                self.delete(place).await;
            }
            Operation::DeleteBulk { channel, ref messages } => {
                self.delete_bulk(channel % CHANNELS, messages).await
            }
            Operation::React { user, channel, message, emoji, add } => {
                let Some(place) = self.pick(user, channel, message) else { return };
                self.react(place, emoji, add).await;
            }
            Operation::Pin { user, channel, message, add } => {
                let Some(place) = self.pick(user, channel, message) else { return };
                self.pin(place, add).await;
            }
            Operation::Vote { user, channel, message, choices } => {
                let Some(place) = self.pick_poll(user, channel, message) else { return };
                self.vote(place, choices).await;
            }
            Operation::ClosePoll { user, channel, message } => {
                let Some(place) = self.pick_poll(user, channel, message) else { return };
                self.close_poll(place).await;
            }
            _ => self.step_on_own(operation, USERS, CHANNELS).await,
        }
    }

    /// The user, channel and message that are meant; nothing while the channel is empty.
    pub fn pick(&self, user: usize, channel: usize, message: usize) -> Option<(usize, usize, usize)> {
        let channel = channel % CHANNELS;
        let count = self.channels[channel].messages.len();
        (count > 0).then(|| (user % USERS, channel, message % count))
    }

    /// Like [`Play::pick`], one of the polls if there is any.
    fn pick_poll(&self, user: usize, channel: usize, message: usize) -> Option<(usize, usize, usize)> {
        let (user, channel, other) = self.pick(user, channel, message)?;
        let messages = self.channels[channel].messages.iter().enumerate();
        let polls: Vec<usize> = messages.filter(|(_, it)| it.content.poll).map(|(index, _)| index).collect();
        let one = polls.get(message % polls.len().max(1)).copied().unwrap_or(other);
        Some((user, channel, one))
    }

    pub fn is_member(&self, user: usize, channel: usize) -> Result<(), Refused> {
        self.channels[channel].members.contains(&user).then_some(()).ok_or("not_found")
    }

    pub fn message(&mut self, channel: usize, message: usize) -> &mut Message {
        &mut self.channels[channel].messages[message]
    }

    fn target(&self, channel: usize, message: usize) -> Value {
        let channel = &self.channels[channel];
        json!({ "channel_id": channel.id, "message_id": channel.messages[message].id })
    }

    /// A mention as it can be foreseen: who is online is known where everybody is.
    fn foreseen(&self, mention: Mention, channel: usize) -> Mention {
        let is_online =
            |user: &usize| self.people[*user].devices.iter().any(|device| device.client.is_some());
        match mention {
            Mention::User(user) => Mention::User(user % USERS),
            Mention::Here if !self.channels[channel].members.iter().all(is_online) => Mention::Channel,
            other => other,
        }
    }

    fn mentions(&self, mention: Mention) -> Value {
        match mention {
            Mention::Nobody => json!({}),
            Mention::User(user) => json!({ "users": [self.people[user].id] }),
            Mention::Moderators => json!({ "roles": [MODERATORS] }),
            Mention::Channel => json!({ "channel": true }),
            Mention::Here => json!({ "here": true }),
        }
    }

    async fn send(&mut self, send: &Send) {
        let (user, channel) = (send.user % USERS, send.channel % CHANNELS);
        let count = self.channels[channel].messages.len();
        let index = |wanted: Option<usize>| wanted.filter(|_| count > 0).map(|it| it % count);
        // One who sits in a device counts as online.
        self.device(user).await;
        let thread = index(send.thread);
        let content = Content {
            body: if send.nonce.is_some() {
                format!("n{}", send.body % 3)
            } else {
                format!("b{}", self.steps)
            },
            thread,
            also: send.also && thread.is_some(),
            reply_to: index(send.reply_to),
            mention: self.foreseen(send.mention, channel),
            poll: send.poll,
        };
        let request = self.request(channel, &content, send);
        let expected = self.expect_send(user, channel, &content, send);
        let answer = self.ask(user, "message:send", request).await;
        match expected {
            Err(code) => assert_eq!(answer.unwrap_err(), code, "{send:?}"),
            Ok(Some(first)) => {
                let answer = answer.unwrap();
                assert_eq!(
                    (&answer["duplicate"], &answer["message"]["id"]),
                    (&json!(true), &json!(self.message(channel, first).id))
                );
            }
            Ok(None) => {
                let answer = answer.unwrap();
                assert_eq!(answer["duplicate"], false, "{send:?}");
                self.sent(user, channel, content, &answer["message"], send);
            }
        }
    }

    fn request(&self, channel: usize, content: &Content, send: &Send) -> Value {
        let here = &self.channels[channel];
        let id = |index: usize| &here.messages[index].id;
        let mut request = json!({
            "channel_id": here.id, "body": content.body, "thread_id": content.thread.map(id),
            "also_send_to_channel": content.also, "reply_to_message_id": content.reply_to.map(id),
            "mentions": self.mentions(content.mention), "clear_draft": send.clear_draft,
        });
        if let Some(nonce) = send.nonce {
            request["nonce"] = json!(format!("nonce-{nonce}"));
        }
        if content.poll {
            request["poll"] = json!({ "question": "?", "options": ["A", "B", "C"], "max_choices": 2 });
        }
        match send.expect {
            Expect::Nothing => {}
            Expect::LastSeq { right } => {
                request["expect"] = json!({ "last_seq": here.last_seq() + if right { 0 } else { 7 } });
            }
            Expect::Key { right } => {
                let version = here.key.0 + if right { 0 } else { 7 };
                request["expect"] = json!({ "key": "k", "version": version, "value": content.body });
            }
        }
        request
    }

    /// What a send will come to: an error, an earlier message, or a new one.
    fn expect_send(
        &self,
        user: usize,
        channel: usize,
        content: &Content,
        send: &Send,
    ) -> Result<Option<usize>, Refused> {
        self.is_member(user, channel)?;
        let here = &self.channels[channel];
        if let Some(first) = send.nonce.and_then(|nonce| here.nonces.get(&(user, nonce))) {
            return if here.messages[*first].content == *content {
                Ok(Some(*first))
            } else {
                Err("nonce_conflict")
            };
        }
        let is_wide = matches!(content.mention, Mention::Channel | Mention::Here);
        if is_wide && user > MODERATOR {
            return Err("forbidden");
        }
        here.expectation(send.expect)?;
        match content.thread {
            Some(root) if !here.is_root(root) => Err("not_found"),
            Some(root) if here.messages[root].deleted => Err("message_deleted"),
            _ => Ok(None),
        }
    }

    fn sent(&mut self, user: usize, channel: usize, content: Content, message: &Value, send: &Send) {
        let here = &mut self.channels[channel];
        assert_eq!(message["seq"], here.last_seq() + 1);
        let (people, wide) = here.people(content.mention, user);
        let thread = content.thread;
        if send.expect == (Expect::Key { right: true }) {
            here.key = (here.key.0 + 1, content.body.clone());
        }
        let message = Message {
            id: message["id"].as_str().unwrap().to_owned(),
            author: user,
            body: content.body.clone(),
            mention: content.mention,
            people,
            wide,
            version: 1,
            rev: 0,
            deleted: false,
            pinned: false,
            reactions: Vec::new(),
            poll: content.poll.then(Poll::default),
            content,
        };
        if let Some(nonce) = send.nonce {
            here.nonces.insert((user, nonce), here.messages.len());
        }
        let followed = here.append(message);
        let (place, next) = ((channel, thread), self.people[user].rev + 1);
        let mut moved = followed.clone();
        if send.clear_draft && self.people[user].clear_draft(place, next) {
            moved.insert(user);
        }
        for user in moved {
            let rev = self.people[user].next_rev();
            let follower = thread.and_then(|root| self.channels[channel].followers.get_mut(&(root, user)));
            if let Some(follower) = follower.filter(|_| followed.contains(&user)) {
                follower.user_rev = rev;
            }
        }
    }

    async fn burst(&mut self, channel: usize, sends: &[(usize, Option<usize>)]) {
        let id = self.channels[channel].id.clone();
        let mut asked = Vec::new();
        for (index, (user, nonce)) in sends.iter().enumerate() {
            let user = user % USERS;
            if self.is_member(user, channel).is_err() {
                continue;
            }
            let body = nonce
                .map_or_else(|| format!("burst {index} {}", self.steps), |nonce| format!("same {nonce}"));
            let mut request = json!({ "channel_id": id, "body": body });
            if let Some(nonce) = nonce {
                request["nonce"] = json!(format!("nonce-{}", 10 + nonce));
            }
            self.device(user).await;
            let device = self.steps % DEVICES;
            let devices = &mut self.people[user].devices;
            let device = if devices[device].client.is_some() { device } else { (device + 1) % DEVICES };
            let asked_as = devices[device].client.as_mut().unwrap().ask("message:send", request).await;
            asked.push((user, device, asked_as, nonce.map(|nonce| 10 + nonce), body));
        }
        let mut new = Vec::new();
        for (user, device, asked_as, nonce, body) in asked {
            let client = self.people[user].devices[device].client.as_mut().unwrap();
            let mut data = answer_of(client.answer(asked_as).await).unwrap();
            let message = data["message"].take();
            if data["duplicate"] == false {
                new.push((message["seq"].as_i64().unwrap(), user, nonce, body, message));
            } else {
                assert!(nonce.is_some(), "only a nonce makes a duplicate");
            }
        }
        new.sort_by_key(|(seq, ..)| *seq);
        for (_, user, nonce, body, message) in new {
            let content = Content {
                body,
                thread: None,
                also: false,
                reply_to: None,
                mention: Mention::Nobody,
                poll: false,
            };
            let is_known = |nonce| self.channels[channel].nonces.contains_key(&(user, nonce));
            assert!(!nonce.is_some_and(is_known), "one nonce made two messages");
            self.sent(user, channel, content, &message, &burst_send(user, channel, nonce));
        }
    }

    async fn crowd(&mut self, channel: usize, message: usize, users: &[usize], emoji: usize) {
        let Some((_, _, message)) = self.pick(0, channel, message) else { return };
        if self.channels[channel].messages[message].deleted {
            return;
        }
        let mut request = self.target(channel, message);
        request["emoji"] = json!(EMOJI[emoji]);
        let mut asked = Vec::new();
        for user in users.iter().map(|user| user % USERS) {
            if self.is_member(user, channel).is_ok() {
                self.device(user).await;
                let device = self.people[user].devices.iter_mut().position(|it| it.client.is_some()).unwrap();
                let client = self.people[user].devices[device].client.as_mut().unwrap();
                asked.push((user, device, client.ask("reaction:add", request.clone()).await));
            }
        }
        let mut done = Vec::new();
        for (user, device, asked_as) in asked {
            let client = self.people[user].devices[device].client.as_mut().unwrap();
            let data = answer_of(client.answer(asked_as).await).unwrap();
            done.push((data["rev"].as_i64().unwrap(), data["count"].as_i64().unwrap(), user));
        }
        done.sort_unstable();
        let here = &mut self.channels[channel];
        let (before, last) = (here.rev, done.last().map_or(0, |(rev, ..)| *rev));
        let it = &mut here.messages[message];
        let known = it.reactions.len();
        for (.., user) in done {
            if !it.reactions.contains(&(emoji, user)) {
                it.reactions.push((emoji, user));
            }
        }
        let new = (it.reactions.len() - known) as i64;
        if new > 0 {
            assert!((before + 1..=before + new).contains(&last), "{before} {new} {last}");
            (here.rev, it.rev) = (last, last);
        }
    }

    async fn edit(
        &mut self,
        place: (usize, usize, usize),
        body: usize,
        mention: Option<Mention>,
        version: Option<bool>,
    ) {
        let (user, channel, message) = place;
        self.device(user).await;
        let mention = mention.map(|mention| self.foreseen(mention, channel));
        let mut request = self.target(channel, message);
        request["body"] = json!(format!("edit {body}"));
        if let Some(mention) = mention {
            request["mentions"] = self.mentions(mention);
        }
        let it = &self.channels[channel].messages[message];
        if let Some(right) = version {
            request["expected_version"] = json!(it.version + if right { 0 } else { 7 });
        }
        let is_wide = matches!(mention, Some(Mention::Channel | Mention::Here));
        let is_same = it.body == request["body"] && mention.is_none_or(|mention| mention == it.mention);
        let expected = self.is_member(user, channel).and_then(|()| match () {
            () if is_wide && user > MODERATOR => Err("forbidden"),
            () if it.author != user => Err("forbidden"),
            () if it.deleted => Err("message_deleted"),
            () if is_same => Ok(false),
            () if version == Some(false) => Err("version_mismatch"),
            () => Ok(true),
        });
        let text = request["body"].as_str().unwrap().to_owned();
        let answer = self.ask(user, "message:edit", request).await;
        let here = &mut self.channels[channel];
        match expected {
            Err(code) => return assert_eq!(answer.unwrap_err(), code, "{place:?}"),
            Ok(false) => {}
            Ok(true) => {
                let people = mention.map(|mention| here.people(mention, user));
                here.change(message, |it| {
                    (it.body, it.version) = (text, it.version + 1);
                    if let Some((mention, (people, wide))) =
                        mention.zip(people).filter(|(new, _)| *new != it.mention)
                    {
                        (it.mention, it.people, it.wide) = (mention, people, wide);
                    }
                });
            }
        }
        let (answer, it) = (answer.unwrap(), &here.messages[message]);
        assert_eq!((&answer["rev"], &answer["message"]["version"]), (&json!(it.rev), &json!(it.version)));
    }

    async fn delete(&mut self, place: (usize, usize, usize)) {
        let (user, channel, message) = place;
        let it = &self.channels[channel].messages[message];
        let may = user <= MODERATOR || it.author == user;
        let (expected, is_new) =
            (self.is_member(user, channel).and(may.then_some(()).ok_or("forbidden")), !it.deleted);
        let answer = self.ask(user, "message:delete", self.target(channel, message)).await;
        if let Err(code) = expected {
            return assert_eq!(answer.unwrap_err(), code, "{place:?}");
        }
        let rev = answer.unwrap()["rev"].clone();
        if is_new {
            assert_eq!(rev, self.channels[channel].rev + 1);
            self.channels[channel].delete(&[message]);
        }
    }

    async fn delete_bulk(&mut self, channel: usize, messages: &[usize]) {
        let mut indices: Vec<usize> = Vec::new();
        for message in messages {
            let Some((.., message)) = self.pick(OWNER, channel, *message) else { return };
            if !indices.contains(&message) {
                indices.push(message);
            }
        }
        let here = &self.channels[channel];
        let ids: Vec<&String> = indices.iter().map(|index| &here.messages[*index].id).collect();
        let request = json!({ "channel_id": here.id, "message_ids": ids });
        let live: Vec<usize> =
            indices.iter().copied().filter(|index| !here.messages[*index].deleted).collect();
        let answer = self.ask(OWNER, "message:delete_bulk", request).await.unwrap();
        let here = &mut self.channels[channel];
        let deleted: Vec<&String> = live.iter().map(|index| &here.messages[*index].id).collect();
        assert_eq!(answer["deleted"], json!(deleted));
        here.delete(&live);
    }

    async fn react(&mut self, place: (usize, usize, usize), emoji: usize, add: bool) {
        let (user, channel, message) = place;
        let mut request = self.target(channel, message);
        request["emoji"] = json!(EMOJI[emoji]);
        let it = &self.channels[channel].messages[message];
        let expected =
            self.is_member(user, channel).and(if it.deleted { Err("message_deleted") } else { Ok(()) });
        let is_there = it.reactions.contains(&(emoji, user));
        let answer = self.ask(user, if add { "reaction:add" } else { "reaction:remove" }, request).await;
        if let Err(code) = expected {
            return assert_eq!(answer.unwrap_err(), code, "{place:?}");
        }
        let here = &mut self.channels[channel];
        if is_there != add {
            here.change(message, |it| match add {
                true => it.reactions.push((emoji, user)),
                false => it.reactions.retain(|one| *one != (emoji, user)),
            });
        }
        let it = &here.messages[message];
        let count = it.reactions.iter().filter(|(one, _)| *one == emoji).count();
        let answer = answer.unwrap();
        assert_eq!((&answer["count"], &answer["rev"]), (&json!(count), &json!(it.rev)));
    }

    async fn pin(&mut self, place: (usize, usize, usize), add: bool) {
        let (user, channel, message) = place;
        let it = &self.channels[channel].messages[message];
        let expected = match self.is_member(user, channel) {
            Err(code) => Err(code),
            Ok(()) if user > MODERATOR => Err("forbidden"),
            Ok(()) if it.deleted && add => Err("message_deleted"),
            Ok(()) => Ok(it.pinned != add && !it.deleted),
        };
        let event = if add { "pin:add" } else { "pin:remove" };
        let answer = self.ask(user, event, self.target(channel, message)).await;
        match expected {
            Err(code) => return assert_eq!(answer.unwrap_err(), code, "{place:?}"),
            Ok(false) => {}
            Ok(true) => {
                self.channels[channel].change(message, |it| it.pinned = add);
            }
        }
        let (answer, here) = (answer.unwrap(), &self.channels[channel]);
        assert_eq!(answer["pinned"], add);
        assert_eq!(
            (&answer["pin_count"], &answer["rev"]),
            (&json!(here.pins()), &json!(here.messages[message].rev))
        );
    }

    async fn vote(&mut self, place: (usize, usize, usize), choices: usize) {
        let (user, channel, message) = place;
        let mut request = self.target(channel, message);
        request["option_ids"] =
            (0..3).filter(|option| choices >> option & 1 == 1).collect::<Vec<usize>>().into();
        let it = &self.channels[channel].messages[message];
        let before = it.poll.as_ref().and_then(|poll| poll.votes.get(&user)).copied().unwrap_or(0);
        let expected = self.is_member(user, channel).and_then(|()| match &it.poll {
            _ if it.deleted => Err("message_deleted"),
            None => Err("not_found"),
            Some(_) if choices.count_ones() > 2 => Err("invalid_input"),
            Some(_) if before == choices => Ok(false),
            Some(poll) if poll.closed => Err("poll_closed"),
            Some(_) => Ok(true),
        });
        let answer = self.ask(user, "poll:vote", request).await;
        match expected {
            Err(code) => return assert_eq!(answer.unwrap_err(), code, "{place:?}"),
            Ok(false) => {}
            Ok(true) => {
                self.channels[channel].change(message, |it| {
                    it.poll.as_mut().unwrap().votes.insert(user, choices);
                });
            }
        }
        assert_eq!(answer.unwrap()["rev"], self.message(channel, message).rev);
    }

    async fn close_poll(&mut self, place: (usize, usize, usize)) {
        let (user, channel, message) = place;
        let it = &self.channels[channel].messages[message];
        let may = user <= MODERATOR || it.author == user;
        let expected = match (self.is_member(user, channel), &it.poll) {
            (Err(code), _) => Err(code),
            _ if !may => Err("forbidden"),
            _ if it.deleted => Err("message_deleted"),
            (Ok(()), None) => Err("not_found"),
            (Ok(()), Some(poll)) => Ok(!poll.closed),
        };
        let answer = self.ask(user, "poll:close", self.target(channel, message)).await;
        match expected {
            Err(code) => return assert_eq!(answer.unwrap_err(), code, "{place:?}"),
            Ok(false) => {}
            Ok(true) => {
                self.channels[channel].change(message, |it| it.poll.as_mut().unwrap().closed = true);
            }
        }
        assert_eq!(answer.unwrap()["rev"], self.message(channel, message).rev);
    }

    /// Connects all devices, so that each node has heard of a membership when its device has.
    async fn connect_all(&mut self, user: usize) {
        for device in 0..DEVICES {
            self.connect(user, device).await;
        }
    }

    async fn hear(&mut self, user: usize, channel: usize, is_in: bool) {
        let id = &self.channels[channel].id;
        for device in &mut self.people[user].devices {
            let client = device.client.as_mut().unwrap();
            while device.replica.channels.contains_key(id) != is_in {
                let (event, payload) = client.event().await;
                if !device.replica.apply(&event, &payload) {
                    device.replica.sync(client).await;
                }
            }
        }
    }

    async fn join(&mut self, user: usize, channel: usize) {
        if self.is_member(user, channel).is_ok() {
            return;
        }
        self.connect_all(user).await;
        let (name, person) = (self.channels[channel].name.clone(), self.people[user].name.clone());
        self.nodes[0].directory().add_member(&name, &person, RoleName::Member).await.unwrap();
        self.hear(user, channel, true).await;
        self.channels[channel].join(user);
    }

    async fn leave(&mut self, user: usize, channel: usize) {
        if self.is_member(user, channel).is_err() {
            return;
        }
        self.connect_all(user).await;
        let (name, person) = (self.channels[channel].name.clone(), self.people[user].name.clone());
        self.nodes[0].directory().remove_member(&name, &person).await.unwrap();
        self.hear(user, channel, false).await;
        self.channels[channel].members.remove(&user);
    }
}

fn burst_send(user: usize, channel: usize, nonce: Option<usize>) -> Send {
    Send {
        user,
        channel,
        body: 0,
        thread: None,
        also: false,
        reply_to: None,
        mention: Mention::Nobody,
        nonce,
        clear_draft: false,
        poll: false,
        expect: Expect::Nothing,
    }
}
