//! What readers ask for, and what becomes of it when that fails.

use std::time::Duration;

use serde_json::json;

use super::reader::PAUSE;
use super::*;

const OPTIONS: Options = Options { buffer: 4, skip_gaps: false };

fn channel(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn joined(channels: &[u128]) -> Answer {
    let head = |number: &u128| json!({ "channel_id": channel(*number), "ok": true, "last_seq": 3, "rev": 1 });
    let heads: Vec<_> = channels.iter().map(head).collect();
    Answer::Joined(serde_json::from_value(json!({ "channels": heads })).unwrap())
}

fn refused(code: &str, retryable: bool, after_ms: u64) -> ClientError {
    ClientError::refused(&json!({ "code": code, "retryable": retryable, "retry_after_ms": after_ms }))
}

/// Readers of these channels who are in their rooms and know all.
fn readers(channels: &[u128]) -> (Readers, Vec<u64>, Instant) {
    let (mut readers, now) = (Readers::new(0.5), Instant::now());
    let numbers = channels.iter().map(|it| readers.open(channel(*it), Start::Now, OPTIONS)).collect();
    assert_eq!(readers.next(now).map(|(job, _)| job), None, "there is no connection");
    readers.connected();
    let (job, asked) = readers.next(now).unwrap();
    assert_eq!(job, Job::Join(channels.iter().map(|it| channel(*it)).collect()));
    readers.answered(&asked, joined(channels), now);
    (readers, numbers, now)
}

fn sync(channels: &[u128]) -> Job {
    Job::Sync(channels.iter().map(|it| (channel(*it), 3, 1)).collect())
}

fn synced(channels: &[u128], removed: &[u128]) -> Answer {
    let one = |number: &u128| {
        json!({
            "channel_id": channel(*number), "messages": [], "changes": [], "seq": 3, "rev": 1, "truncated": false,
            "reset": false, "horizon_seq": 0, "horizon_id": null,
        })
    };
    let channels: Vec<_> = channels.iter().map(one).collect();
    let removed: Vec<_> = removed.iter().map(|it| channel(*it)).collect();
    Answer::Synced(
        serde_json::from_value(json!({ "channels": channels, "removed_channels": removed })).unwrap(),
    )
}

fn message(seq: u128) -> serde_json::Value {
    json!({
        "id": channel(100 + seq), "channel_id": channel(1), "seq": seq, "body": "", "created_at": "then",
        "author": { "id": channel(7), "username": "a" },
    })
}

fn say(readers: &mut Readers, seq: u128, now: Instant) {
    let message = serde_json::from_value(message(seq)).unwrap();
    readers.live(channel(1), &Live::Message(message), now);
}

fn code(readers: &mut Readers, number: u64) -> Option<String> {
    match readers.take(number, Waker::noop()) {
        Taken::End(Some(ClientError::Refused(refusal))) => refusal.code().map(str::to_owned),
        Taken::Nothing => None,
        taken => panic!("{taken:?}"),
    }
}

#[test]
fn readers_of_several_channels_are_asked_for_together_and_again_on_each_connection() {
    let (mut readers, _, now) = readers(&[1, 2]);
    let (job, asked) = readers.next(now).unwrap();
    assert_eq!(job, sync(&[1, 2]));
    readers.answered(&asked, synced(&[1, 2], &[]), now);
    assert_eq!((readers.next(now).map(|(job, _)| job), readers.due_at(now)), (None, None));
    readers.lost();
    assert_eq!(readers.due_at(now), None);
    readers.connected();
    let (job, asked) = readers.next(now).unwrap();
    assert_eq!(job, Job::Join(vec![channel(1), channel(2)]));
    // The connection is another one before the answer has come.
    readers.connected();
    readers.answered(&asked, joined(&[1, 2]), now);
    assert!(matches!(readers.next(now), Some((Job::Join(_), _))));
}

#[test]
fn a_refusal_that_passes_is_waited_for() {
    let (mut readers, numbers, now) = readers(&[1]);
    let (_, asked) = readers.next(now).unwrap();
    readers.failed(&asked, &refused("rate_limited", true, 700), now);
    let later = now + Duration::from_millis(700);
    assert_eq!((readers.next(now).map(|(job, _)| job), readers.due_at(now)), (None, Some(later)));
    let (job, asked) = readers.next(later).unwrap();
    assert_eq!(job, sync(&[1]));
    readers.failed(&asked, &ClientError::Timeout("an answer"), later);
    assert_eq!(readers.due_at(later), Some(later + 2 * PAUSE), "the second pause is twice as long");
    assert_eq!(code(&mut readers, numbers[0]), None);
    // Another connection forgets the pauses.
    readers.connected();
    assert_eq!(readers.due_at(later), Some(later));
}

#[test]
fn a_channel_that_cannot_be_read_does_not_stop_the_others() {
    let (mut readers, numbers, now) = readers(&[1, 2]);
    let (_, asked) = readers.next(now).unwrap();
    readers.failed(&asked, &refused("forbidden", false, 0), now);
    let mut alone = Vec::new();
    for _ in 0..2 {
        let (job, asked) = readers.next(now).unwrap();
        match job == sync(&[2]) {
            true => readers.failed(&asked, &refused("forbidden", false, 0), now),
            false => readers.answered(&asked, synced(&[1], &[]), now),
        }
        alone.push(job);
    }
    alone.sort_by_key(|job| *job == sync(&[2]));
    assert_eq!(alone, [sync(&[1]), sync(&[2])]);
    assert_eq!(code(&mut readers, numbers[0]), None);
    assert_eq!(code(&mut readers, numbers[1]).as_deref(), Some("forbidden"));
    assert!(matches!(readers.take(numbers[1], Waker::noop()), Taken::End(None)), "it is told once");
    assert_eq!(readers.due_at(now), None);
}

#[test]
fn who_left_a_channel_or_is_kept_out_reads_what_waits_and_learns_why() {
    let (mut readers, numbers, now) = readers(&[1, 2, 3]);
    let (_, asked) = readers.next(now).unwrap();
    readers.answered(&asked, synced(&[1, 3], &[2]), now);
    assert_eq!(code(&mut readers, numbers[1]).as_deref(), Some("forbidden"));
    readers.left(channel(1), "kicked", "go home");
    assert_eq!(code(&mut readers, numbers[0]).as_deref(), Some("kicked"));
    readers.ended(Some(&refused("token_revoked", false, 0)));
    assert_eq!(code(&mut readers, numbers[2]).as_deref(), Some("token_revoked"));
    let late = readers.open(channel(1), Start::Now, OPTIONS);
    assert_eq!(code(&mut readers, late).as_deref(), Some("token_revoked"));
    readers.connected();
    let again = readers.open(channel(1), Start::Now, OPTIONS);
    assert!(readers.begun(again, Waker::noop()).unwrap().is_none());
}

#[test]
fn a_reader_of_the_newest_messages_begins_with_a_page() {
    let (mut readers, now) = (Readers::new(0.5), Instant::now());
    let number = readers.open(channel(1), Start::Last(2), OPTIONS);
    readers.connected();
    let (_, asked) = readers.next(now).unwrap();
    readers.answered(&asked, joined(&[1]), now);
    let (job, asked) = readers.next(now).unwrap();
    assert_eq!(job, Job::Page { channel: channel(1), after: None, limit: 2 });
    let page =
        json!({ "messages": [message(2), message(3)], "has_more_before": true, "has_more_after": false });
    readers.answered(&asked, Answer::Page(serde_json::from_value(page).unwrap()), now);
    let begun = readers.begun(number, Waker::noop()).unwrap().unwrap();
    assert_eq!((begun.seq, begun.rev), (1, 1));
    for seq in [2, 3] {
        let Taken::Event(ChannelEvent::Message(message), cursor) = readers.take(number, Waker::noop()) else {
            panic!()
        };
        assert_eq!((message.seq, cursor.seq), (seq, seq));
    }
    assert_eq!(readers.next(now).map(|(job, _)| job), Some(sync(&[1])));
}

#[test]
fn a_hole_that_shows_while_the_reader_has_enough_to_do_is_asked_for_when_there_is_room() {
    let (mut readers, numbers, now) = readers(&[1]);
    let (_, asked) = readers.next(now).unwrap();
    readers.answered(&asked, synced(&[1], &[]), now);
    [4, 5, 6, 8].into_iter().for_each(|seq| say(&mut readers, seq, now));
    assert_eq!((readers.is_due(numbers[0]), readers.due_at(now)), (false, None));
    assert!(matches!(readers.take(numbers[0], Waker::noop()), Taken::Event(..)));
    assert!(readers.is_due(numbers[0]), "the task has to learn of the time");
    assert!(readers.due_at(now).is_some_and(|due| due > now));
}

#[test]
fn nothing_follows_the_end_of_a_reader() {
    let (mut readers, numbers, now) = readers(&[1]);
    let (_, asked) = readers.next(now).unwrap();
    say(&mut readers, 4, now);
    readers.left(channel(1), "kicked", "go home");
    // The channel goes on, and an answer was on its way.
    say(&mut readers, 5, now);
    readers.answered(&asked, synced(&[1], &[]), now);
    assert!(matches!(readers.take(numbers[0], Waker::noop()), Taken::Event(_, Cursor { seq: 4, .. })));
    assert_eq!(code(&mut readers, numbers[0]).as_deref(), Some("kicked"));
    say(&mut readers, 5, now);
    assert!(matches!(readers.take(numbers[0], Waker::noop()), Taken::End(None)));
}

#[test]
fn who_asks_where_a_reader_begins_hears_why_it_does_not_also_after_its_end_was_told() {
    let mut readers = Readers::new(0.5);
    let number = readers.open(channel(1), Start::Now, OPTIONS);
    readers.left(channel(1), "kicked", "go home");
    assert_eq!(code(&mut readers, number).as_deref(), Some("kicked"));
    let why = readers.begun(number, Waker::noop()).unwrap_err();
    assert!(matches!(why, Some(ClientError::Refused(_))), "{why:?}");
}
