//! The scenario `chat`: people write into a channel of imks and read it, and in the end the history is compared with
//! what was acknowledged.

pub(in crate::cli) mod history;
pub(in crate::cli) mod ledger;
pub(in crate::cli) mod people;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use self::ledger::{Ledger, Verdict};
use self::people::{Conversation, Measure, Person};
use super::crowd::Fate;
use super::histogram::Histogram;
use super::run::{Outcome, Run};
use super::summary::Faults;
use crate::cli::terminal::text::counted;
use crate::error::Cause;
use crate::{ImksError, ImksResult};

pub(super) async fn run(run: &Arc<Run>, channel: Option<&str>) -> ImksResult<Outcome> {
    let count = run.plan.clients;
    let conversation = Conversation::new(count, count)?;
    let deliveries = Arc::new(Deliveries::default());
    let (people, fates): (Vec<_>, Vec<_>) =
        Box::pin(enter(run, &conversation, channel, &deliveries)).await?.into_iter().unzip();
    run.progress.line(&counted(count as u64, "person has joined", "people have joined"));
    let Some(before) = people.iter().map(|person| person.last_seq).max() else {
        return Ok(Outcome::default());
    };
    if !are_one(people.iter().map(|person| &*person.channel_id)) {
        return Err(ImksError::invalid("--channel", "the first channels of the users differ: name one"));
    }
    run.begin();
    let people = Arc::new(people);
    let writing: Vec<_> = (0..count)
        .map(|index| {
            let (run, conversation, people) = (run.clone(), conversation.clone(), people.clone());
            run.clone().tasks.spawn(async move { Box::pin(write(&run, &conversation, &people, index)).await })
        })
        .collect();
    for task in writing {
        task.await.map_err(|error| ImksError::Task(Cause::new(error)))??;
    }
    // Nothing more is sent, and nobody is cut off any more.
    run.stop.cancel();
    let end = Instant::now() + run.plan.patience;
    for fate in &fates {
        fate.returned(end).await;
    }
    run.progress.line("reading the history back");
    let Some(reader) = people.first() else { return Ok(Outcome::default()) };
    let history = Box::pin(history::read(&reader.socket, &reader.channel_id, before)).await?;
    if *conversation.acknowledged.borrow() > 0 {
        // If nothing comes within the time that a delivery may take, the verdict says so.
        let _ = timeout(run.plan.patience, deliveries.heard.notified()).await;
    }
    let ledger = conversation.ledger.lock();
    let verdict = ledger.check(before, &history);
    let delivery_ms = deliveries.took.lock().percentiles();
    Ok(Outcome {
        sent: Some(verdict.sent),
        delivery_ms,
        notes: notes(&verdict, &ledger),
        faults: faults(&verdict),
        ..Outcome::default()
    })
}

/// The deliveries to readers as they happened.
#[derive(Default)]
struct Deliveries {
    took: Mutex<Histogram>,
    /// There was one.
    heard: Notify,
}

impl Deliveries {
    fn note(&self, took: Duration) {
        self.took.lock().record(took);
        self.heard.notify_one();
    }
}

async fn enter(
    run: &Arc<Run>,
    conversation: &Conversation,
    channel: Option<&str>,
    deliveries: &Arc<Deliveries>,
) -> ImksResult<Vec<(Person, Arc<Fate>)>> {
    let one = |index| async move {
        let deliveries = deliveries.clone();
        let on_delivery: Measure = Arc::new(move |_, took| deliveries.note(took));
        let begun = Instant::now();
        let (builder, fate) = run.crowd.builder(index);
        let person = conversation.enter(builder, index, channel, on_delivery).await?;
        run.crowd.links.connected(begun.elapsed());
        Ok((person, fate))
    };
    stream::iter(0..run.plan.clients).map(one).buffered(ENTERING_MAX).try_collect().await
}

async fn write(
    run: &Arc<Run>,
    conversation: &Conversation,
    people: &[Person],
    index: usize,
) -> ImksResult<()> {
    let Some(person) = people.get(index) else { return Ok(()) };
    let measuring = run.clone();
    let on_answer: Measure = Arc::new(move |now, took| measuring.meter.record(now, took));
    let writing = conversation.write(person, index, people.len(), &run.plan, &run.stop, on_answer);
    Box::pin(writing).await
}

/// Whether all channels are the same one: what was written is read back from one.
fn are_one<'a>(mut channels: impl Iterator<Item = &'a str>) -> bool {
    let first = channels.next();
    channels.all(|channel| Some(channel) == first)
}

fn faults(verdict: &Verdict) -> Faults {
    // A conversation that nobody hears has lost all of it.
    let unheard = if verdict.seen_live == 0 { verdict.acknowledged } else { 0 };
    Faults {
        lost: Some(verdict.lost.max(unheard)),
        duplicates: Some(verdict.doubled + verdict.live_doubled),
        out_of_order: Some(verdict.out_of_order + verdict.live_out_of_order),
        wrong: Some(verdict.moved + verdict.holes),
        unsure: Some(verdict.sent - verdict.acknowledged - verdict.refused),
        refused_retryable: Some(verdict.refused_retryable),
        refused: Some(verdict.refused),
        ..Faults::default()
    }
}

fn notes(verdict: &Verdict, ledger: &Ledger) -> Vec<String> {
    let Verdict { acknowledged, in_history, unacknowledged_in_history, seen_live, .. } = verdict;
    let mut notes = vec![format!(
        "{acknowledged} acknowledged, {in_history} in the history ({unacknowledged_in_history} of them without an \
         acknowledgement), {seen_live} deliveries seen live"
    )];
    if *acknowledged > 0 && *seen_live == 0 {
        notes.push("delivery: no reader saw a message as it happened".into());
    }
    notes.extend(note_of_limit(ledger.limited()));
    notes.extend(ledger.last_refusal().map(|code| format!("the last final refusal was {code}")));
    if ledger.is_full() {
        notes.push("somebody wrote as many messages as are remembered, and stopped".into());
    }
    notes.extend(verdict.examples.iter().map(|example| format!("message {example}")));
    notes
}

/// Returns what so many waits for the rate limit do to the numbers, if there were any.
fn note_of_limit(limited: u64) -> Option<String> {
    let times = counted(limited, "time", "times");
    (limited > 0).then(|| {
        format!(
            "{times} refused with rate_limited, and sent again: latencies contain that wait. Give a --rate below the \
             limit, or raise IMKS_LIMIT_SENDS and IMKS_LIMIT_SENDS_PER_CHANNEL"
        )
    })
}

/// The maximum number of people who join at the same time.
const ENTERING_MAX: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_that_no_reader_hears_is_lost_although_it_is_stored() {
        let stored = Verdict { sent: 3, acknowledged: 3, in_history: 3, ..Verdict::default() };
        assert_eq!(faults(&stored).lost, Some(3));
        assert_eq!(faults(&Verdict { seen_live: 1, ..stored }).lost, Some(0));
        assert_eq!(faults(&Verdict::default()).lost, Some(0), "nothing was said");
    }

    #[test]
    fn who_measures_the_rate_limit_is_told() {
        assert_eq!(note_of_limit(0), None);
        let note = note_of_limit(31).unwrap();
        assert!(note.starts_with("31 times refused") && note.contains("--rate"), "{note}");
        assert!(note_of_limit(1).unwrap().starts_with("1 time refused"));
    }

    #[test]
    fn people_in_different_channels_are_no_conversation() {
        assert!(are_one(["a", "a", "a"].into_iter()) && are_one([].into_iter()));
        assert!(!are_one(["a", "a", "b"].into_iter()));
    }
}
