//! Tests of the conversation of `imks chat`, without a server.

use serde_json::{Value, json};

use super::super::pipe::{KEPT_MAX, left_over};
use super::*;

fn message(seq: i64, body: &str) -> Value {
    json!({ "id": format!("m{seq}"), "channel_id": "c1", "seq": seq, "body": body,
        "author": { "id": "u2", "username": "bob" }, "created_at": "2026-06-11T10:00:00.000Z" })
}

fn ready(last_seq: i64, rev: i64) -> Value {
    json!({ "user": { "id": "u1", "username": "ann" }, "channels": [
        { "channel_id": "c1", "name": "general", "last_seq": last_seq, "rev": rev, "unread_count": 2 },
        { "channel_id": "c2", "name": "other", "last_seq": 0, "rev": 0, "unread_count": 0 },
    ] })
}

/// A conversation that is online, and has asked for what it needs.
fn online() -> Conversation {
    let mut conversation = Conversation::new(None, true);
    conversation.event("session:ready", &ready(5, 1), 0);
    conversation.take_effects();
    conversation
}

fn asked(effects: &[Effect]) -> Vec<&'static str> {
    let event = |effect: &Effect| match effect {
        Effect::Ask { event, .. } => Some(*event),
        _ => None,
    };
    effects.iter().filter_map(event).collect()
}

fn bodies(conversation: &Conversation) -> Vec<&str> {
    conversation.shown().unwrap().messages().iter().map(|message| &*message.body).collect()
}

fn sync(seqs: &[i64], seq: i64) -> Value {
    let messages: Vec<Value> = seqs.iter().map(|seq| message(*seq, "x")).collect();
    json!({ "channels": [{ "channel_id": "c1", "messages": messages, "changes": [], "seq": seq, "rev": 1 }] })
}

#[test]
fn the_first_channel_is_shown_with_its_history() {
    let mut conversation = Conversation::new(None, true);
    conversation.event("session:ready", &ready(5, 1), 0);
    let effects = conversation.take_effects();
    assert_eq!(asked(&effects), ["history", "presence:list"]);
    assert_eq!(conversation.shown().unwrap().name, "general");
    let named = Conversation::new(Some("other".into()), true);
    let mut named = named;
    named.event("session:ready", &ready(5, 1), 0);
    assert_eq!(named.shown().unwrap().name, "other");
}

#[test]
fn what_was_missed_while_away_is_fetched_and_nothing_comes_twice() {
    let mut conversation = online();
    conversation.event("message:new", &message(6, "six"), 0);
    conversation.linked(false, "disconnected");
    assert!(asked(&conversation.take_effects()).is_empty());
    conversation.event("session:ready", &ready(9, 1), 0);
    let effects = conversation.take_effects();
    let Some(Effect::Ask { payload, purpose, .. }) =
        effects.iter().find(|effect| matches!(effect, Effect::Ask { event: "sync", .. })).cloned()
    else {
        panic!("nothing is asked for: {effects:?}")
    };
    assert_eq!(payload["channels"], json!([{ "channel_id": "c1", "seq": 6, "rev": 1 }]));
    // An event overtakes the answer.
    conversation.event("message:new", &message(10, "ten"), 0);
    assert!(!asked(&conversation.take_effects()).contains(&"sync"));
    conversation.answer(purpose, Ok(sync(&[7, 8, 9], 9)));
    let seqs: Vec<i64> = conversation.shown().unwrap().messages().iter().map(|message| message.seq).collect();
    assert_eq!((seqs, conversation.shown().unwrap().seq), (vec![6, 7, 8, 9, 10], 10));
    assert!(!asked(&conversation.take_effects()).contains(&"sync"));
}

#[test]
fn a_hole_between_events_is_fetched_and_a_failure_is_tried_again_after_a_pause() {
    let mut conversation = online();
    conversation.event("message:new", &message(8, "eight"), 0);
    assert_eq!(asked(&conversation.take_effects()), ["sync"]);
    let purpose = Purpose::Sync { channels: vec!["c1".into()] };
    conversation.answer(purpose.clone(), Err("overloaded".into()));
    assert!(asked(&conversation.take_effects()).is_empty());
    conversation.tick();
    assert_eq!(asked(&conversation.take_effects()), ["sync"]);
    conversation.answer(purpose, Ok(sync(&[6, 7], 7)));
    assert_eq!(conversation.shown().unwrap().seq, 8);
}

#[test]
fn channels_that_did_not_fit_into_an_answer_are_asked_for_again() {
    let mut conversation = online();
    for channel in ["c1", "c2"] {
        conversation.channel(channel).unwrap().miss();
    }
    conversation.take_effects();
    let purpose = Purpose::Sync { channels: vec!["c1".into(), "c2".into()] };
    conversation.answer(purpose, Ok(sync(&[6], 6)));
    let effects = conversation.take_effects();
    let again = effects.iter().find_map(|effect| match effect {
        Effect::Ask { event: "sync", payload, .. } => Some(payload["channels"].clone()),
        _ => None,
    });
    assert_eq!(again, Some(json!([{ "channel_id": "c2", "seq": 0, "rev": 0 }])));
}

#[test]
fn a_cut_answer_leaves_no_hole_behind() {
    let mut conversation = online();
    conversation.event("message:new", &message(6, "old"), 0);
    let mut cut = sync(&[100, 101], 101);
    cut["channels"][0]["truncated"] = json!(true);
    conversation.answer(Purpose::Sync { channels: vec!["c1".into()] }, Ok(cut));
    assert_eq!(bodies(&conversation), ["x", "x"]);
    assert!(conversation.notices.back().unwrap().text.contains("/history"));
}

fn seqs(conversation: &Conversation) -> Vec<i64> {
    conversation.shown().unwrap().messages().iter().map(|message| message.seq).collect()
}

#[test]
fn a_message_that_has_overtaken_a_cut_answer_stays() {
    let mut conversation = online();
    conversation.event("message:new", &message(8, "eight"), 0);
    assert_eq!(asked(&conversation.take_effects()), ["sync"]);
    conversation.event("message:new", &message(10, "ten"), 0);
    let mut cut = sync(&[8, 9], 9);
    cut["channels"][0]["truncated"] = json!(true);
    conversation.answer(Purpose::Sync { channels: vec!["c1".into()] }, Ok(cut));
    assert_eq!((seqs(&conversation), conversation.shown().unwrap().seq), (vec![8, 9, 10], 10));
    assert!(asked(&conversation.take_effects()).is_empty());
}

#[test]
fn a_message_that_came_after_the_question_and_behind_a_hole_is_asked_for_again() {
    let mut conversation = online();
    conversation.event("message:new", &message(7, "seven"), 0);
    assert_eq!(asked(&conversation.take_effects()), ["sync"]);
    conversation.event("message:new", &message(10, "ten"), 0);
    conversation.answer(Purpose::Sync { channels: vec!["c1".into()] }, Ok(sync(&[6], 8)));
    assert_eq!(asked(&conversation.take_effects()), ["sync"]);
}

#[test]
fn a_change_that_has_overtaken_an_answer_is_asked_for_again() {
    let mut conversation = online();
    conversation.event("message:new", &message(6, "first"), 0);
    conversation.event("pin:updated", &json!({ "channel_id": "c1", "rev": 3 }), 0);
    assert_eq!(asked(&conversation.take_effects()), ["sync"]);
    let mut newer = message(6, "newer");
    newer["rev"] = json!(4);
    conversation.event("message:updated", &newer, 0);
    let of = |rev: i64, body: &str| {
        let changes = json!([{ "rev": rev, "message": message(6, body) }]);
        json!({ "channels": [{ "channel_id": "c1", "messages": [], "changes": changes, "seq": 6, "rev": rev }] })
    };
    let purpose = Purpose::Sync { channels: vec!["c1".into()] };
    conversation.answer(purpose.clone(), Ok(of(3, "older")));
    assert_eq!(asked(&conversation.take_effects()), ["sync"]);
    conversation.answer(purpose, Ok(of(4, "newer")));
    assert_eq!((bodies(&conversation), conversation.shown().unwrap().rev), (vec!["newer"], 4));
    assert!(asked(&conversation.take_effects()).is_empty());
}

#[test]
fn a_change_that_has_overtaken_the_history_is_asked_for() {
    let mut conversation = online();
    let mut changed = message(5, "newer");
    changed["rev"] = json!(2);
    conversation.event("message:updated", &changed, 0);
    let page = json!({ "messages": [message(5, "older")] });
    conversation.answer(Purpose::History { channel: "c1".into(), rev: 1 }, Ok(page));
    let effects = conversation.take_effects();
    let Some(Effect::Ask { payload, .. }) =
        effects.iter().find(|effect| matches!(effect, Effect::Ask { event: "sync", .. }))
    else {
        panic!("nothing is asked for: {effects:?}")
    };
    assert_eq!(payload["channels"], json!([{ "channel_id": "c1", "seq": 5, "rev": 1 }]));
}

#[test]
fn a_server_with_another_history_is_started_over_with() {
    let mut conversation = online();
    conversation.event("message:new", &message(6, "of the old history"), 0);
    conversation.event("session:ready", &ready(3, 0), 0);
    assert_eq!(asked(&conversation.take_effects()), ["sync"]);
    let mut reset = sync(&[2, 3], 3);
    (reset["channels"][0]["rev"], reset["channels"][0]["reset"]) = (json!(0), json!(true));
    conversation.answer(Purpose::Sync { channels: vec!["c1".into()] }, Ok(reset));
    assert_eq!((seqs(&conversation), conversation.shown().unwrap().seq), (vec![2, 3], 3));
    let printed = conversation.take_effects();
    assert_eq!(printed.iter().filter(|effect| is_message(effect)).count(), 2);
    conversation.event("message:new", &message(4, "four"), 0);
    assert_eq!(conversation.shown().unwrap().seq, 4);
    assert!(asked(&conversation.take_effects()).is_empty());
}

#[test]
fn after_a_reset_only_what_is_new_is_printed() {
    let mut conversation = online();
    conversation.event("message:new", &message(6, "x"), 0);
    conversation.event("message:new", &message(8, "x"), 0);
    conversation.take_effects();
    let mut reset = sync(&[4, 5, 6, 7, 8], 8);
    reset["channels"][0]["reset"] = json!(true);
    conversation.answer(Purpose::Sync { channels: vec!["c1".into()] }, Ok(reset));
    let effects = conversation.take_effects();
    let printed: Vec<i64> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Print(Printed::Message { message, .. }) => Some(message.seq),
            _ => None,
        })
        .collect();
    assert_eq!(printed, [7]);
    assert_eq!(seqs(&conversation), [4, 5, 6, 7, 8]);
}

fn is_message(effect: &Effect) -> bool {
    matches!(effect, Effect::Print(Printed::Message { .. }))
}

#[test]
fn a_server_that_answers_with_nothing_is_asked_again_after_a_pause() {
    let mut conversation = online();
    conversation.event("message:new", &message(8, "eight"), 0);
    assert_eq!(asked(&conversation.take_effects()), ["sync"]);
    conversation.answer(Purpose::Sync { channels: vec!["c1".into()] }, Ok(json!({ "channels": [] })));
    assert!(asked(&conversation.take_effects()).is_empty());
    conversation.tick();
    assert_eq!(asked(&conversation.take_effects()), ["sync"]);
}

#[test]
fn a_message_is_on_its_way_until_the_server_has_it_and_one_that_is_refused_stays_visible() {
    let mut conversation = online();
    conversation.enter("hello", 0, || "n1".into());
    conversation.enter("again", 0, || "n2".into());
    assert_eq!(conversation.on_their_way(), 2);
    let effects = conversation.take_effects();
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Send { .. })).count(), 2);
    let mut stored = message(6, "hello");
    stored["nonce"] = json!("n1");
    conversation.sent("c1", "n1", Ok(json!({ "message": stored.clone() })));
    conversation.event("message:new", &stored, 0);
    assert_eq!((bodies(&conversation), conversation.on_their_way()), (vec!["hello"], 1));
    conversation.sent("c1", "n2", Err("slow_mode: wait".into()));
    let pending = &conversation.shown().unwrap().pending;
    assert_eq!((pending.len(), pending[0].failure.as_deref()), (1, Some("slow_mode: wait")));
    assert!(conversation.take_effects().contains(&Effect::Failed));
    conversation.enter("to another server", 0, || "n3".into());
    conversation.sent("c1", "n3", Ok(json!({})));
    assert_eq!(conversation.on_their_way(), 0);
}

#[test]
fn what_the_other_side_says_about_the_connection_cannot_act_on_the_terminal() {
    let mut conversation = online();
    conversation.linked(false, "disconnected: a\u{1b}[2Jb");
    assert_eq!(conversation.link, "disconnected: a[2Jb");
}

#[test]
fn what_is_not_sent_is_told_before_the_end() {
    let mut conversation = online();
    conversation.enter("hello", 0, || "n".into());
    conversation.enter("/quit", 0, || "n".into());
    assert!(!conversation.take_effects().contains(&Effect::Quit));
    conversation.enter("/quit", 0, || "n".into());
    assert!(conversation.take_effects().contains(&Effect::Quit));
}

#[test]
fn unread_messages_are_counted_in_channels_that_are_not_shown() {
    let mut conversation = online();
    let elsewhere = json!({ "id": "x", "channel_id": "c2", "seq": 1, "body": "hi",
        "author": { "id": "u2", "username": "bob" }, "created_at": "" });
    conversation.event("message:new", &elsewhere, 0);
    conversation.event("message:new", &elsewhere, 0);
    assert_eq!((conversation.channels[0].unread, conversation.channels[1].unread), (0, 1));
    conversation.turn(true);
    assert_eq!((conversation.shown().unwrap().name.as_str(), conversation.channels[1].unread), ("other", 0));
    conversation.tick();
    let told = conversation.take_effects();
    let read = Effect::Tell { event: "read:mark", payload: json!({ "channel_id": "c2", "seq": 1 }) };
    assert!(told.contains(&read), "{told:?}");
}

#[test]
fn changes_of_messages_are_shown() {
    let mut conversation = online();
    conversation.event("message:new", &message(6, "six"), 0);
    let mut edited = message(6, "SIX");
    (edited["rev"], edited["edited_at"]) = (json!(2), json!("2026"));
    conversation.event("message:updated", &edited, 0);
    let reacted =
        json!({ "channel_id": "c1", "message_id": "m6", "rev": 3, "reactions": { "👍": { "count": 1 } } });
    conversation.event("reaction:updated", &reacted, 0);
    let shown = &conversation.shown().unwrap().messages()[0];
    assert_eq!((shown.shown(), shown.addition()), ("SIX (edited)".into(), Some("👍 1".into())));
    let deleted = json!({ "channel_id": "c1", "id": "m6", "rev": 4, "deleted_at": "2026" });
    conversation.event("message:deleted", &deleted, 0);
    let channel = conversation.shown().unwrap();
    assert_eq!((channel.messages()[0].shown(), channel.rev), ("(deleted)".into(), 4));
    conversation.event("pin:updated", &json!({ "channel_id": "c1", "rev": 6 }), 0);
    assert_eq!(asked(&conversation.take_effects()), ["sync"]);
}

#[test]
fn commands_ask_the_server() {
    let mut conversation = online();
    let mut own = message(6, "mine");
    own["author"] = json!({ "id": "u1", "username": "ann" });
    conversation.event("message:new", &own, 0);
    conversation.event("message:new", &message(7, "theirs"), 0);
    conversation.take_effects();
    for (line, event, field, value) in [
        ("/react 👍", "reaction:add", "message_id", "m7"),
        ("/react #6 👍", "reaction:add", "message_id", "m6"),
        ("/edit better", "message:edit", "message_id", "m6"),
        ("/thread #6", "history", "thread_id", "m6"),
        ("/history 10", "history", "before", "m6"),
        ("/who", "presence:list", "channel_id", "c1"),
        ("/ping", "ping", "", ""),
        ("/leave", "channel:unsubscribe", "", ""),
    ] {
        conversation.enter(line, 0, || "n".into());
        let effects = conversation.take_effects();
        let found = effects.iter().any(|effect| {
            matches!(effect, Effect::Ask { event: asked, payload, .. }
                if *asked == event && (field.is_empty() || payload[field] == value))
        });
        assert!(found, "{line}: {effects:?}");
    }
    conversation.enter("/broadcast all of you", 0, || "n".into());
    let sends =
        conversation.take_effects().into_iter().filter(|effect| matches!(effect, Effect::Send { .. }));
    assert_eq!(sends.count(), 2);
}

#[test]
fn who_types_is_shown_until_the_lease_ends() {
    let mut conversation = online();
    let typing = json!({ "channel_id": "c1", "user": { "id": "u2", "username": "bob" }, "typing": true, "expires_in_ms": 6_000 });
    conversation.event("typing", &typing, 1_000);
    assert_eq!(conversation.channel("c1").unwrap().typists(6_999), ["bob"]);
    assert!(conversation.channel("c1").unwrap().typists(7_000).is_empty());
    let mut many = |user: usize, now_ms| {
        let user = json!({ "id": format!("u{user}"), "username": "x" });
        let typing = json!({ "channel_id": "c1", "user": user, "typing": true, "expires_in_ms": 6_000 });
        conversation.event("typing", &typing, now_ms);
    };
    (0..30).chain([0]).for_each(|user| many(user, 8_000));
    assert_eq!(conversation.channel("c1").unwrap().typists(8_001).len(), 20);
}

#[test]
fn a_channel_that_was_left_can_be_joined_again() {
    let mut conversation = online();
    conversation.answer(Purpose::Leave { channel: "c1".into() }, Ok(json!({})));
    assert_eq!(conversation.shown().unwrap().name, "other");
    conversation.enter("/join general", 0, || "n".into());
    assert_eq!(asked(&conversation.take_effects()), ["history", "presence:list", "channel:subscribe"]);
    let told = json!({ "channels": [{ "channel_id": "c1", "ok": true, "last_seq": 5, "rev": 1 }] });
    conversation.answer(Purpose::Join { channel: "c1".into() }, Ok(told));
    assert_eq!(conversation.shown().unwrap().name, "general");
}

/// A conversation on a pipe that begins with this channel.
fn piped(channel: &str) -> Conversation {
    let mut conversation = Conversation::new(Some(channel.into()), false);
    conversation.event("session:ready", &ready(5, 1), 0);
    conversation
}

/// Whether a line is sent, and whether one is known to be lost.
fn outcome(conversation: &mut Conversation, line: &str) -> (bool, bool) {
    conversation.enter(line, 0, || "n".into());
    let effects = conversation.take_effects();
    let is_sent = effects.iter().any(|effect| matches!(effect, Effect::Send { .. }));
    (is_sent, effects.contains(&Effect::Failed))
}

#[test]
fn on_a_pipe_nothing_goes_to_another_channel_than_the_one_that_was_named() {
    let mut conversation = piped("ops");
    assert!(conversation.effects.contains(&Effect::Quit) && conversation.shown().is_none());
    assert_eq!(outcome(&mut conversation, "secret deploy"), (false, true));
    let mut on_a_screen = Conversation::new(Some("ops".into()), true);
    on_a_screen.event("session:ready", &ready(5, 1), 0);
    assert_eq!(on_a_screen.shown().unwrap().name, "general");
}

#[test]
fn on_a_pipe_no_channel_takes_the_place_of_one_that_is_gone() {
    let mut conversation = piped("general");
    assert_eq!(outcome(&mut conversation, "hello"), (true, false));
    conversation.event("channel:left", &json!({ "channel_id": "c1", "reason": "removed" }), 0);
    conversation.event("session:ready", &ready(5, 1), 0);
    assert_eq!(outcome(&mut conversation, "are you still there?"), (false, true));
    conversation.sent("c1", "n", Err("forbidden: no".into()));
    assert!(conversation.channels.iter().all(|channel| channel.pending.is_empty()), "it piles up");
    assert_eq!(outcome(&mut conversation, "/join other"), (false, true), "of the message before");
    assert_eq!(outcome(&mut conversation, "hello"), (true, false));
}

#[test]
fn a_channel_that_nobody_knows_is_told_without_asking_the_server() {
    let mut conversation = online();
    conversation.enter("/join nowhere", 0, || "n".into());
    assert!(asked(&conversation.take_effects()).is_empty());
    assert!(conversation.notices.back().unwrap().text.contains("no channel nowhere"));
    let mut conversation = piped("general");
    assert_eq!(outcome(&mut conversation, "/join nowhere"), (false, true));
    assert_eq!(outcome(&mut conversation, "for nowhere"), (false, true));
}

#[test]
fn what_follows_a_join_waits_for_its_answer() {
    let mut conversation = piped("general");
    conversation.enter("/join 0190a8c0-0000-7000-8000-000000000001", 0, || "n".into());
    assert_eq!(outcome(&mut conversation, "for that channel"), (false, false));
    let channel = "0190a8c0-0000-7000-8000-000000000001".to_owned();
    conversation.answer(Purpose::Join { channel }, Err("unavailable: try again".into()));
    assert_eq!(goes_on(&mut conversation), (false, true));
}

/// Obeys what waits. Returns whether a message is sent, and whether something is known to have failed.
fn goes_on(conversation: &mut Conversation) -> (bool, bool) {
    conversation.proceed(0, || "n".into());
    let effects = conversation.take_effects();
    let is_sent = effects.iter().any(|effect| matches!(effect, Effect::Send { .. }));
    (is_sent, effects.contains(&Effect::Failed))
}

#[test]
fn what_follows_a_leave_waits_for_its_answer_and_goes_nowhere() {
    for line in ["/leave", "/leave general"] {
        let mut conversation = piped("general");
        conversation.take_effects();
        assert_eq!(outcome(&mut conversation, line), (false, false));
        assert_eq!(outcome(&mut conversation, "after leave"), (false, false));
        assert!(!conversation.wants_line());
        conversation.answer(Purpose::Leave { channel: "c1".into() }, Ok(json!({})));
        assert_eq!(goes_on(&mut conversation), (false, true));
        assert!(conversation.notices.back().unwrap().text.contains("you are in no channel"));
    }
}

/// A message of this conversation, stored under this number.
fn stored(conversation: &mut Conversation, seq: i64) {
    let mut own = message(seq, "hi");
    (own["author"], own["nonce"]) = (json!({ "id": "u1", "username": "ann" }), json!("n"));
    conversation.sent("c1", "n", Ok(json!({ "message": own })));
}

#[test]
fn on_a_pipe_a_command_waits_for_what_stands_before_it() {
    let mut conversation = piped("general");
    conversation.take_effects();
    assert_eq!(outcome(&mut conversation, "hi"), (true, false));
    conversation.enter("/edit hi edited", 0, || "n".into());
    conversation.enter("next", 0, || "n".into());
    assert_eq!(goes_on(&mut conversation), (false, false));
    stored(&mut conversation, 6);
    conversation.proceed(0, || "n".into());
    let effects = conversation.take_effects();
    assert_eq!(asked(&effects), ["message:edit"], "and the message after it waits");
    assert!(!effects.contains(&Effect::Failed));
    conversation.answer(Purpose::Change, Err("forbidden: no".into()));
    assert_eq!(goes_on(&mut conversation), (true, true), "a command that failed is told in the exit code");
}

/// The search that the conversation has just asked for, and the payload of its question.
fn search(conversation: &mut Conversation) -> (Purpose, Value) {
    let found = conversation.take_effects().into_iter().find_map(|effect| match effect {
        Effect::Ask { purpose: purpose @ Purpose::Find(_), payload, .. } => Some((purpose, payload)),
        _ => None,
    });
    found.expect("nothing is looked for")
}

#[test]
fn a_message_that_is_not_known_is_looked_for_at_the_server_page_by_page() {
    let mut conversation = piped("general");
    conversation.take_effects();
    conversation.enter("/thread #1 a reply", 0, || "n".into());
    let (purpose, payload) = search(&mut conversation);
    assert_eq!((&payload["channel_id"], &payload["before"]), (&json!("c1"), &Value::Null));
    let newest = json!({ "messages": [message(4, "x"), message(5, "x")], "has_more_before": true });
    conversation.answer(purpose, Ok(newest));
    let (purpose, payload) = search(&mut conversation);
    assert_eq!(payload["before"], "m4");
    let first = json!({ "messages": [message(1, "x"), message(2, "x")], "has_more_before": false });
    conversation.answer(purpose, Ok(first));
    let effects = conversation.take_effects();
    let sent = effects.iter().find_map(|effect| match effect {
        Effect::Send { payload, .. } => Some(payload["thread_id"].clone()),
        _ => None,
    });
    assert_eq!(sent, Some(json!("m1")));
    assert!(bodies(&conversation).is_empty(), "what was looked through is not shown");
}

#[test]
fn a_message_that_is_not_there_makes_a_command_of_a_pipe_fail() {
    for line in ["/thread #3 hi", "/edit mine", "/react #3 👍"] {
        let mut conversation = piped("general");
        conversation.take_effects();
        conversation.enter(line, 0, || "n".into());
        let (purpose, _) = search(&mut conversation);
        let page = json!({ "messages": [message(2, "x"), message(4, "x")], "has_more_before": false });
        conversation.answer(purpose, Ok(page));
        let effects = conversation.take_effects();
        assert!(effects.contains(&Effect::Failed), "{line}: {effects:?}");
        assert!(conversation.notices.back().unwrap().text.starts_with("there is no"), "{line}");
    }
}

#[test]
fn a_search_has_an_end() {
    let mut conversation = piped("general");
    conversation.take_effects();
    conversation.enter("/react #1 👍", 0, || "n".into());
    let page = json!({ "messages": [message(7, "x")], "has_more_before": true });
    for _ in 0..50 {
        let (purpose, _) = search(&mut conversation);
        conversation.answer(purpose, Ok(page.clone()));
    }
    assert!(conversation.take_effects().contains(&Effect::Failed));
    assert!(conversation.notices.back().unwrap().text.contains("#1 among the last 5000 of general"));
}

#[test]
fn on_a_pipe_quit_ends_after_what_stands_before_it() {
    let mut conversation = piped("general");
    conversation.take_effects();
    conversation.enter("q1", 0, || "n".into());
    conversation.enter("/quit", 0, || "n".into());
    assert!(!conversation.wants_line() && !conversation.take_effects().contains(&Effect::Quit));
    stored(&mut conversation, 6);
    conversation.proceed(0, || "n".into());
    assert!(conversation.take_effects().contains(&Effect::Quit));
}

/// A conversation on a pipe with an outbox that is not signed in yet.
fn early(channel: Option<&str>) -> Conversation {
    Conversation::new(channel.map(str::to_owned), false).with_outbox(Some(Vec::new()))
}

#[test]
fn before_the_first_sign_in_messages_are_kept_in_the_outbox_and_commands_wait() {
    let mut conversation = early(Some("general"));
    conversation.enter("deployed", 0, || "n1".into());
    let kept = Kept { channel: "general".into(), body: "deployed".into(), thread: None, nonce: "n1".into() };
    assert_eq!(conversation.take_effects(), [Effect::Keep(kept.clone())]);
    assert!(conversation.wants_line() && conversation.not_taken().is_none());
    conversation.enter("/edit released", 0, || "n2".into());
    assert!(!conversation.wants_line() && conversation.not_taken().unwrap().contains("a command"));
    assert!(conversation.take_effects().is_empty());
    let mut next = Conversation::new(None, false).with_outbox(Some(vec![kept]));
    assert!(!next.is_done() && !next.wants_line());
    for conversation in [&mut conversation, &mut next] {
        conversation.event("session:ready", &ready(5, 1), 0);
        let effects = conversation.take_effects();
        let sent = effects.iter().find_map(|effect| match effect {
            Effect::Send { channel, nonce, payload } => Some((&**channel, &**nonce, &payload["body"])),
            _ => None,
        });
        assert_eq!(sent, Some(("c1", "n1", &json!("deployed"))));
    }
}

#[test]
fn without_an_outbox_or_a_channel_no_line_is_taken_before_the_first_sign_in() {
    assert!(!Conversation::new(Some("general".into()), false).wants_line());
    let conversation = early(None);
    assert!(!conversation.wants_line() && conversation.not_taken().unwrap().contains("--channel"));
}

#[test]
fn what_is_kept_is_bounded_and_sent_little_by_little() {
    let mut conversation = early(Some("general"));
    for _ in 0..KEPT_MAX {
        assert!(conversation.wants_line());
        conversation.enter("x", 0, || "n".into());
    }
    assert!(!conversation.wants_line() && conversation.not_taken().unwrap().contains("1000"));
    conversation.event("session:ready", &ready(5, 1), 0);
    conversation.take_effects();
    assert_eq!((conversation.on_their_way(), conversation.waiting()), (64, KEPT_MAX));
    conversation.enter("after them", 0, || "n".into());
    stored(&mut conversation, 6);
    assert!(!conversation.is_done());
}

#[test]
fn a_message_that_was_kept_for_a_channel_that_is_not_there_is_told() {
    let mut conversation = early(Some("opz"));
    conversation.enter("deployed", 0, || "n1".into());
    conversation.event("session:ready", &ready(5, 1), 0);
    let effects = conversation.take_effects();
    for effect in [Effect::Failed, Effect::Quit, Effect::Forget { nonce: "n1".into() }] {
        assert!(effects.contains(&effect), "{effect:?} is not in {effects:?}");
    }
    let told = &conversation.notices.back().unwrap().text;
    assert!(told.contains("no channel opz") && told.contains("deployed"), "{told}");
}

#[test]
fn a_channel_may_come_after_the_first_event_of_the_session() {
    let mut first = ready(5, 1);
    first["channels_complete"] = json!(false);
    let rest = json!({ "channels": [{ "channel_id": "c3", "name": "ops", "last_seq": 0, "rev": 0 }],
        "channels_complete": true });
    for (wanted, is_there) in [("ops", true), ("opz", false)] {
        let mut conversation = early(Some(wanted));
        conversation.enter("deployed", 0, || "n1".into());
        conversation.take_effects();
        conversation.event("session:ready", &first, 0);
        assert!(conversation.take_effects().is_empty() && !conversation.is_done(), "{wanted}");
        conversation.event("session:channels", &rest, 0);
        let effects = conversation.take_effects();
        let is_sent = |effect: &Effect| matches!(effect, Effect::Send { channel, .. } if channel == "c3");
        assert_eq!(effects.iter().any(is_sent), is_there, "{wanted}: {effects:?}");
        assert_eq!(effects.contains(&Effect::Forget { nonce: "n1".into() }), !is_there, "{wanted}");
    }
}

#[test]
fn one_thing_is_not_several() {
    let mut conversation = online();
    conversation.enter("hello", 0, || "n".into());
    conversation.enter("/quit", 0, || "n".into());
    assert!(conversation.notices.back().unwrap().text.starts_with("1 message is not sent yet"));
    let replies = Purpose::Thread { channel: "c1".into(), seq: 5 };
    conversation.answer(replies, Ok(json!({ "messages": [message(6, "a reply")] })));
    assert!(conversation.notices.iter().any(|notice| notice.text == "1 reply to #5 in general"));
    for (waiting, told) in
        [(0, None), (1, Some("1 message was not sent")), (2, Some("2 messages were not sent"))]
    {
        assert_eq!(left_over(waiting, None).as_deref(), told);
    }
    assert!(left_over(1, Some("ob")).unwrap().starts_with("1 message is kept in ob"));
}

#[test]
fn nothing_that_a_server_sends_breaks_the_conversation() {
    let mut conversation = online();
    let names = [
        "session:ready",
        "message:new",
        "message:updated",
        "message:deleted",
        "reaction:updated",
        "typing",
        "read:updated",
        "presence:update",
        "channel:joined",
        "channel:left",
        "channel:horizon",
        "sync:required",
        "thread:updated",
        "error",
        "unknown",
    ];
    for name in names {
        for payload in [
            json!(null),
            json!([]),
            json!({}),
            json!({ "channels": 1, "channel_id": [], "reactions": [1] }),
            json!("x"),
        ] {
            conversation.event(name, &payload, 0);
        }
    }
    conversation.event("session:ready", &ready(i64::MAX, i64::MAX), 0);
    conversation.event("message:new", &message(i64::MAX, "the last"), 0);
    for purpose in
        [Purpose::Sync { channels: vec!["?".into()] }, Purpose::History { channel: "?".into(), rev: 0 }]
    {
        conversation.answer(purpose, Ok(json!([1])));
    }
}
