//! The scenario `echo`: every client asks, and the server answers with what it was asked.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;
use tokio::time::Instant;

use super::crowd::Member;
use super::plan::is_text;
use super::run::{Outcome, Run};
use super::summary::Faults;
use crate::cli::terminal::text::counted;
use crate::client::{ClientError, ClientResult};
use crate::error::Cause;
use crate::{ImksError, ImksResult};

/// What became of the questions of one client.
#[derive(Debug, Default, Clone, Copy)]
struct Answers {
    lost: u64,
    unsure: u64,
    wrong: u64,
    /// Those of `wrong` with which imks says that it does not know the event.
    unknown: u64,
    out_of_order: u64,
    latest: u64,
}

/// A question that was answered, or was not.
struct Asked {
    number: u64,
    due: Instant,
    /// How often the connection had been lost when it was asked.
    losses: u64,
    answer: ClientResult<Value>,
}

pub(super) async fn run(run: &Arc<Run>) -> ImksResult<Outcome> {
    let members = run.crowd.join_all(run.plan.clients, &run.stop, |_, _| {}).await?;
    run.progress.line(&counted(members.len() as u64, "client has joined", "clients have joined"));
    let (start, count) = (run.begin(), members.len());
    let asking = members.into_iter().enumerate().map(|(index, member)| {
        let run = run.clone();
        async move { Box::pin(ask_all(&run, &member, (index, count), start)).await }
    });
    let tasks: Vec<_> = asking.map(|task| run.tasks.spawn(task)).collect();
    let mut sum = Answers::default();
    for task in tasks {
        let answers = task.await.map_err(|error| ImksError::Task(Cause::new(error)))?;
        sum.lost += answers.lost;
        sum.unsure += answers.unsure;
        sum.wrong += answers.wrong;
        sum.unknown += answers.unknown;
        sum.out_of_order += answers.out_of_order;
    }
    let faults = Faults {
        lost: Some(sum.lost),
        out_of_order: (run.plan.window > 1).then_some(sum.out_of_order),
        wrong: Some(sum.wrong),
        unsure: Some(sum.unsure),
        ..Faults::default()
    };
    let mut notes = vec!["duplicates: a client takes the first ack and ignores further ones".to_owned()];
    if run.plan.window == 1 {
        notes
            .push("order: with one event under way (--window 1) there is nothing to get out of order".into());
    }
    notes.extend((sum.unknown > 0).then(|| UNKNOWN.to_owned()));
    Ok(Outcome { faults, notes, ..Outcome::default() })
}

/// Asks until everything is asked or the run ends, and waits for the answers.
async fn ask_all(run: &Run, member: &Member, (index, count): (usize, usize), start: Instant) -> Answers {
    let (mut answers, mut under_way, mut sent) = (Answers::default(), FuturesUnordered::new(), 0);
    // It stays the same until the next event is sent: answers that come meanwhile begin no new wait.
    let mut waiting = None;
    loop {
        let may_send = run.plan.has_more((index, count), sent)
            && !run.stop.is_cancelled()
            && under_way.len() < run.plan.window;
        if !may_send && under_way.is_empty() {
            break;
        }
        let due = run.plan.due(start, index, count, sent);
        if waiting.is_none() {
            waiting = Some(Box::pin(until(run, due)));
        }
        tokio::select! {
            biased;
            Some(asked) = under_way.next(), if !under_way.is_empty() => {
                note(run, member, &mut answers, asked);
            }
            () = maybe(waiting.as_mut()), if may_send => {
                waiting = None;
                sent += 1;
                run.meter.sent();
                under_way.push(ask(run, member, sent, due.unwrap_or_else(Instant::now)));
            }
            () = run.stop.cancelled(), if may_send => {}
        }
    }
    member.leave(Instant::now() + run.plan.patience).await;
    answers
}

async fn until(run: &Run, due: Option<Instant>) {
    if let Some(due) = due {
        run.pacer.until(due).await;
    }
}

/// Waits for a future, or for ever if there is none.
async fn maybe<F: Future + Unpin>(future: Option<&mut F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn ask(run: &Run, member: &Member, number: u64, due: Instant) -> Asked {
    let losses = member.losses();
    let question = member.socket.emit_with_ack("echo", &run.plan.text(number)).timeout(run.plan.patience);
    Asked { number, due, losses, answer: question.await }
}

fn note(run: &Run, member: &Member, answers: &mut Answers, asked: Asked) {
    let now = Instant::now();
    let was_cut = member.was_cut(asked.losses);
    match asked.answer {
        Ok(answer) => {
            run.meter.record(now, now.saturating_duration_since(asked.due));
            answers.wrong += u64::from(!is_echo(&answer, asked.number, run.plan.message_bytes));
            answers.unknown += u64::from(answer["error"]["code"] == "unknown_event");
            answers.out_of_order += u64::from(asked.number < answers.latest);
            answers.latest = answers.latest.max(asked.number);
        }
        Err(ClientError::InvalidMessage(_)) => {
            run.meter.record(now, now.saturating_duration_since(asked.due));
            answers.wrong += 1;
        }
        Err(_) if was_cut => answers.unsure += 1,
        Err(_) => answers.lost += 1,
    }
}

/// Whether an answer is the text of an event, alone or as the first of several arguments.
fn is_echo(answer: &Value, number: u64, bytes: usize) -> bool {
    let first = answer.as_array().and_then(|all| all.first()).unwrap_or(answer);
    first.as_str().is_some_and(|text| is_text(text, number, bytes))
}

/// What a server of imks is not: one with a handler of `echo`.
const UNKNOWN: &str = "the server answered `echo` with unknown_event, as imks itself does: measure imks with --scenario chat \
     --development, or give it an application that answers `echo` as --help says";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_that_is_not_the_question_is_wrong() {
        let text = "000000000007xx";
        assert!(is_echo(&json!(text), 7, 14) && is_echo(&json!([text, 1]), 7, 14));
        let others = ["000000000008xx", "000000000007x", "000000000007xxx", "000000000007xy", ""];
        let wrong = [json!(null), json!([]), json!({ "text": text }), json!([[text]])];
        for wrong in others.map(|text| json!(text)).into_iter().chain(wrong) {
            assert!(!is_echo(&wrong, 7, 14), "{wrong}");
        }
    }
}
