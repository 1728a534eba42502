//! Tests of the screen of `imks chat`, compared as text.

use serde_json::json;

use super::*;

fn conversation() -> Conversation {
    let mut conversation = Conversation::new(None, true);
    let ready = json!({ "user": { "id": "u1", "username": "ann" }, "channels": [
        { "channel_id": "c1", "name": "general", "last_seq": 0, "rev": 0 },
        { "channel_id": "c2", "name": "日本語の部屋とても長い名前", "last_seq": 9, "rev": 0, "unread_count": 12 },
    ] });
    conversation.event("session:ready", &ready, 0);
    conversation.linked(true, "online");
    for (seq, day, body) in [(1, 10, "hello"), (2, 11, "日本語 and 👍\u{1b}[2J")] {
        let message = json!({ "id": format!("m{seq}"), "channel_id": "c1", "seq": seq, "body": body,
            "author": { "id": "u2", "username": "bob" }, "created_at": format!("2026-06-{day}T10:02:00.000Z") });
        conversation.event("message:new", &message, 0);
    }
    conversation
}

fn texts(screen: &Screen) -> Vec<String> {
    screen.rows.iter().map(|row| row.text().trim_end().to_owned()).collect()
}

#[test]
fn the_screen_has_channels_messages_with_days_and_the_line_that_is_typed() {
    let mut conversation = conversation();
    let mut input = Input::default();
    input.paste("日本x");
    let typing = json!({ "channel_id": "c1", "user": { "id": "u2", "username": "bob" }, "typing": true, "expires_in_ms": 6_000 });
    conversation.event("typing", &typing, 0);
    let screen = screen(&mut conversation, &input, (80, 12), &mut 0, 1);
    let expected = [
        " imks chat  ann  #general  online",
        " general            │ ── 2026-06-10 ──",
        " 日本語の部屋と… 12 │ 10:02 bob #1",
        "                    │       hello",
        "                    │ ── 2026-06-11 ──",
        "                    │ 10:02 bob #2",
        "                    │       日本語 and 👍[2J",
        "                    │",
        "                    │",
        "                    │",
        " bob types…",
        "> 日本x",
    ];
    assert_eq!(texts(&screen), expected);
    assert_eq!(screen.cursor, Some((7, 11)));
}

#[test]
fn a_narrow_terminal_has_no_list_of_channels_and_no_row_is_too_wide() {
    for size in [(30, 8), (61, 4), (12, 3), (80, 24)] {
        let mut conversation = conversation();
        let screen = screen(&mut conversation, &Input::default(), size, &mut 0, 0);
        assert_eq!(screen.rows.len(), size.1);
        assert!(screen.rows.iter().all(|row| text::width(&row.text()) <= size.0), "{:#?}", texts(&screen));
        assert!(!screen.rows.iter().any(|row| row.text().chars().any(char::is_control)));
    }
}

#[test]
fn a_notice_stands_between_the_messages_around_it() {
    let mut conversation = conversation();
    conversation.notice("between");
    let message = json!({ "id": "m3", "channel_id": "c1", "seq": 3, "body": "after it",
        "author": { "id": "u2", "username": "bob" }, "created_at": "2026-06-12T10:02:00.000Z" });
    conversation.event("message:new", &message, 0);
    let expected =
        ["      日本語 and 👍[2J", "* between", "── 2026-06-12 ──", "10:02 bob #3", "      after it"];
    for (rows, back) in [(8, 0), (20, 0), (20, 99)] {
        let shown = texts(&screen(&mut conversation, &Input::default(), (40, rows), &mut { back }, 0));
        let at = shown.iter().position(|row| *row == expected[0]).unwrap();
        assert_eq!(shown[at..at + 5], expected, "{shown:#?}");
    }
}

#[test]
fn scrolling_back_ends_at_the_first_message() {
    let mut conversation = conversation();
    let mut back = 1_000;
    let shown = screen(&mut conversation, &Input::default(), (40, 6), &mut back, 0);
    assert_eq!((back, texts(&shown)[1].as_str()), (3, "── 2026-06-10 ──"));
}

#[test]
fn what_is_on_its_way_and_what_was_refused_is_seen() {
    let mut conversation = conversation();
    conversation.enter("first", 0, || "n1".into());
    conversation.enter("second", 0, || "n2".into());
    conversation.sent("c1", "n2", Err("slow_mode".into()));
    let all = texts(&screen(&mut conversation, &Input::default(), (50, 20), &mut 0, 0)).join("\n");
    assert!(all.contains("first (sending)") && all.contains("second (not sent: slow_mode)"), "{all}");
}
