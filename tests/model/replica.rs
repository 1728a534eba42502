//! A client's copy of the server's state, made only of what docs/protocol.md tells clients: events and `sync`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::client::TestClient;

/// What one device knows.
#[derive(Debug, Default)]
pub struct Replica {
    pub me: String,
    pub channels: BTreeMap<String, Copied>,
    pub user_rev: i64,
    /// By channel and thread, by message, by id.
    pub drafts: BTreeMap<String, Value>,
    pub bookmarks: BTreeMap<String, Value>,
    pub scheduled: BTreeMap<String, Value>,
    pub threads: BTreeMap<String, Value>,
}

/// What a device knows of a channel.
#[derive(Debug, Default)]
pub struct Copied {
    pub seq: i64,
    pub rev: i64,
    pub messages: BTreeMap<i64, Value>,
    pub read_seq: i64,
}

impl Replica {
    /// Connected (again): the channels that there are now, and then everything that was missed.
    pub async fn catch_up(&mut self, client: &mut TestClient) {
        self.me = client.ready["user"]["id"].as_str().unwrap().to_owned();
        let states = client.ready["channels"].as_array().unwrap().clone();
        let is_there = |id: &String| states.iter().any(|state| state["channel_id"] == json!(id));
        self.channels.retain(|id, _| is_there(id));
        for state in &states {
            let id = state["channel_id"].as_str().unwrap().to_owned();
            self.channels.entry(id).or_default().read_seq = state["read_seq"].as_i64().unwrap();
        }
        self.sync(client).await;
    }

    /// Applies what has arrived until now.
    pub async fn pump(&mut self, client: &mut TestClient) {
        for (event, payload) in client.events_so_far().await {
            if !self.apply(&event, &payload) {
                self.sync(client).await;
            }
        }
    }

    pub async fn sync(&mut self, client: &mut TestClient) {
        loop {
            let cursor =
                |(id, it): (&String, &Copied)| json!({ "channel_id": id, "seq": it.seq, "rev": it.rev });
            let cursors: Vec<Value> = self.channels.iter().map(cursor).collect();
            let request = json!({ "channels": cursors, "user_rev": self.user_rev });
            let answer = client.ok("sync", request).await;
            for channel in answer["channels"].as_array().unwrap() {
                self.take_channel(channel);
            }
            for gone in answer["removed_channels"].as_array().unwrap() {
                self.channels.remove(gone.as_str().unwrap());
            }
            self.take_own(&answer["user"]);
            if answer["more"] == false && answer["user"]["more"] == false {
                return;
            }
        }
    }

    fn take_channel(&mut self, answer: &Value) {
        let copied = self.channels.get_mut(answer["channel_id"].as_str().unwrap()).unwrap();
        if answer["reset"] == true {
            copied.messages.clear();
        }
        assert_eq!(answer["truncated"], false, "conversations are short");
        let changed = answer["changes"].as_array().unwrap().iter().map(|change| &change["message"]);
        for message in answer["messages"].as_array().unwrap().iter().chain(changed) {
            copied.messages.insert(message["seq"].as_i64().unwrap(), message.clone());
        }
        (copied.seq, copied.rev) = (answer["seq"].as_i64().unwrap(), answer["rev"].as_i64().unwrap());
    }

    fn take_own(&mut self, user: &Value) {
        if user["reset"] == true {
            (self.drafts, self.bookmarks, self.scheduled, self.threads) = Default::default();
        }
        for (list, event) in [
            ("drafts", "draft:updated"),
            ("bookmarks", "bookmark:updated"),
            ("scheduled", "schedule:updated"),
            ("threads", "thread:state"),
        ] {
            for item in user[list].as_array().unwrap() {
                assert!(self.apply(event, item));
            }
        }
        for state in user["read_states"].as_array().unwrap() {
            self.read(state);
        }
        self.user_rev = user["rev"].as_i64().unwrap();
    }

    fn read(&mut self, state: &Value) {
        if let Some(copied) = self.channels.get_mut(state["channel_id"].as_str().unwrap()) {
            copied.read_seq = state["read_seq"].as_i64().unwrap();
        }
    }

    /// Applies an event; false if something is missing that `sync` brings.
    pub fn apply(&mut self, event: &str, payload: &Value) -> bool {
        match event {
            "draft:updated" => {
                newest(
                    &mut self.drafts,
                    &format!("{}/{}", payload["channel_id"], payload["thread_id"]),
                    payload,
                );
            }
            "bookmark:updated" => newest(&mut self.bookmarks, &payload["message_id"].to_string(), payload),
            "schedule:updated" => newest(&mut self.scheduled, &payload["id"].to_string(), payload),
            "thread:state" => newest(&mut self.threads, &payload["thread_id"].to_string(), payload),
            "read:updated_many" => {
                payload["read_states"].as_array().unwrap().iter().for_each(|it| self.read(it))
            }
            "read:updated" if payload.get("user_id").is_none() && payload["thread_id"].is_null() => {
                // Another device has sent a message, and a later one may be known already.
                let is_behind = |it: &Copied| {
                    payload["user_rev"] == 0 && payload["read_seq"].as_i64().unwrap() < it.read_seq
                };
                let copied = self.channels.get(payload["channel_id"].as_str().unwrap());
                if !copied.is_some_and(is_behind) {
                    self.read(payload);
                }
            }
            // That a channel was made may be told late, as its state.
            "read:updated" | "mention:new" | "typing" | "presence:update" | "channel:updated" => {}
            "channel:joined" => {
                self.channels.entry(payload["channel_id"].as_str().unwrap().to_owned()).or_default();
                return false;
            }
            "channel:left" => {
                self.channels.remove(payload["channel_id"].as_str().unwrap());
            }
            _ => return self.apply_to_channel(event, payload),
        }
        true
    }

    fn apply_to_channel(&mut self, event: &str, payload: &Value) -> bool {
        // What was on the way when the channel was left.
        let Some(copied) = self.channels.get_mut(payload["channel_id"].as_str().unwrap()) else {
            return true;
        };
        if event == "message:new" {
            let seq = payload["seq"].as_i64().unwrap();
            if seq > copied.seq {
                assert_eq!(seq, copied.seq + 1, "a hole in the numbers of messages: {payload}");
                copied.seq = seq;
                if payload["author"]["id"] == json!(self.me) {
                    copied.read_seq = seq;
                }
                copied.messages.insert(seq, payload.clone());
            }
            return true;
        }
        let rev = payload["rev"]
            .as_i64()
            .unwrap_or_else(|| panic!("an event that nobody expects: {event} {payload}"));
        if rev <= copied.rev {
            return true;
        }
        assert_eq!(rev, copied.rev + 1, "a hole in the numbers of changes: {event} {payload}");
        copied.rev = rev;
        change(copied, event, payload);
        true
    }
}

/// Keeps what has the greater number.
fn newest(items: &mut BTreeMap<String, Value>, key: &str, item: &Value) {
    let known = items.get(key).map_or(0, |known| known["user_rev"].as_i64().unwrap());
    if item["user_rev"].as_i64().unwrap() >= known {
        items.insert(key.to_owned(), item.clone());
    }
}

fn change(copied: &mut Copied, event: &str, payload: &Value) {
    let id = ["message_id", "thread_id", "id"].map(|name| &payload[name]);
    let id = match event {
        "message:updated" | "message:deleted" => id[2],
        "thread:updated" => id[1],
        _ => id[0],
    };
    let message = copied.messages.values_mut().find(|message| message["id"] == *id);
    let message = message.unwrap_or_else(|| panic!("a change of what was never told: {event} {payload}"));
    match event {
        "message:updated" => {
            let mut whole = payload.clone();
            for name in ["rev", "kind", "event_id"] {
                whole.as_object_mut().unwrap().remove(name);
            }
            *message = whole;
        }
        "message:deleted" => bury(message, &payload["deleted_at"]),
        "reaction:updated" => message["reactions"] = payload["reactions"].clone(),
        "pin:updated" => message["pinned"] = payload["pinned"].clone(),
        "poll:updated" => message["poll"] = payload["poll"].clone(),
        "thread:updated" => {
            let of_thread = ["reply_count", "last_reply_at", "last_reply_seq", "participant_ids"];
            message["thread"] =
                of_thread.map(|name| (name.to_owned(), payload[name].clone())).into_iter().collect();
        }
        other => panic!("an event that nobody expects: {other} {payload}"),
    }
}

/// What remains of a message is its place in the order.
fn bury(message: &mut Value, deleted_at: &Value) {
    message["deleted_at"] = deleted_at.clone();
    message["body"] = json!("");
    message["reactions"] = json!({});
    message["mentions"] = json!({ "users": [], "roles": [], "channel": false, "here": false });
    for (name, nothing) in [
        ("attachment_count", json!(0)),
        ("attachments", json!([])),
        ("embeds", json!([])),
        ("poll", json!(null)),
        ("forward_of", json!(null)),
        ("expires_at", json!(null)),
        ("pinned", json!(false)),
    ] {
        message[name] = nothing;
    }
}
