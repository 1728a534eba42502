//! The scenarios `broadcast` and `rooms`: one sender for each room, and everybody in it gets what it sends.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::de::IgnoredAny;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::crowd::Member;
use super::failure::failed;
use super::fanout::{Counts, Room};
use super::plan::number;
use super::run::{Outcome, Run};
use super::summary::Faults;
use crate::cli::terminal::text::counted;
use crate::client::{ClientError, ClientEvent, DisconnectReason, Events, nonce};
use crate::error::Cause;
use crate::{ImksError, ImksResult};

/// A room on the server, and its ledger.
struct Place {
    name: String,
    room: Mutex<Room>,
    /// Something about the ledger has changed.
    changed: Notify,
}

/// Runs with rooms of `size` members. Who is left over makes up a smaller room.
pub(super) async fn run(run: &Arc<Run>, size: usize) -> ImksResult<Outcome> {
    let members = run.crowd.join_all(run.plan.clients, &run.stop, |_, _| {}).await?;
    run.progress.line(&counted(members.len() as u64, "client has joined", "clients have joined"));
    let (mut members, prefix) = (members.into_iter().peekable(), nonce());
    let (mut rooms, mut tasks) = (Vec::new(), Vec::new());
    while members.peek().is_some() && !run.stop.is_cancelled() {
        let inside: Vec<Member> = members.by_ref().take(size).collect();
        let name = format!("bench:{prefix}:{}", rooms.len());
        let place = Place { name, room: Mutex::new(Room::new(inside.len())), changed: Notify::new() };
        let place = Arc::new(place);
        let watching: Vec<Events> = inside.iter().map(|member| member.client.events()).collect();
        for (at, member) in inside.iter().enumerate() {
            enter(run, &place, at, member).await?;
        }
        rooms.push((place, inside, watching));
    }
    let (start, senders) = (run.begin(), rooms.len());
    let mut places = Vec::new();
    for (index, (place, inside, watching)) in rooms.into_iter().enumerate() {
        places.push(place.clone());
        let run = run.clone();
        tasks.push(run.clone().tasks.spawn(async move {
            Box::pin(speak(&run, &place, inside, watching, (index, senders), start)).await
        }));
    }
    for task in tasks {
        task.await.map_err(|error| ImksError::Task(Cause::new(error)))?;
    }
    Ok(outcome(run, &places))
}

fn outcome(run: &Run, places: &[Arc<Place>]) -> Outcome {
    let mut sum = Counts::default();
    places.iter().for_each(|place| sum += place.room.lock().counts());
    let faults = Faults {
        lost: Some(sum.lost),
        duplicates: Some(sum.duplicates),
        // With one broadcast under way, only one that was given up can come after a later one.
        out_of_order: (run.plan.window > 1 || sum.out_of_order > 0).then_some(sum.out_of_order),
        missed_away: Some(sum.missed_away),
        unsure: Some(sum.unsure),
        late: Some(sum.late),
        ..Faults::default()
    };
    let mut notes = vec!["wrong: of a broadcast only its number is read".to_owned()];
    if sum.sent > 0 && sum.delivered == 0 {
        notes.push("no broadcast came back: the server must answer `broadcast` as --help says".to_owned());
    }
    if run.plan.window == 1 {
        notes.push(
            "order: with one broadcast under way (--window 1) there is nothing to get out of order".into(),
        );
    }
    Outcome { faults, notes, ..Outcome::default() }
}

/// Joins the room, and counts what comes from it.
async fn enter(run: &Arc<Run>, place: &Arc<Place>, at: usize, member: &Member) -> ImksResult<()> {
    let (measuring, heard) = (run.clone(), place.clone());
    member.socket.on(DELIVERY, move |text: String| {
        let now = Instant::now();
        let took = number(&text).and_then(|number| heard.room.lock().receive(at, number, now));
        if let Some(took) = took {
            measuring.meter.record(now, took);
        }
        heard.changed.notify_one();
        async {}
    });
    let joining = join(run, place, member).await;
    joining.map_err(|error| failed("the ack of `join`, which the server must give as --help says", error))
}

async fn join(run: &Run, place: &Place, member: &Member) -> Result<(), ClientError> {
    let question = member.socket.ask::<IgnoredAny>(JOIN, &(&place.name,));
    match question.timeout(run.plan.patience).await {
        // An ack without arguments is one too.
        Ok(_) | Err(ClientError::InvalidMessage(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Sends the broadcasts of a room until everything is sent or the run ends, and waits until they have arrived.
async fn speak(
    run: &Arc<Run>,
    place: &Arc<Place>,
    inside: Vec<Member>,
    watching: Vec<Events>,
    (index, senders): (usize, usize),
    start: Instant,
) {
    let inside = Arc::new(inside);
    for (at, events) in watching.into_iter().enumerate() {
        let (run, place, inside) = (run.clone(), place.clone(), inside.clone());
        run.clone().tasks.spawn(async move { Box::pin(watch(&run, &place, &inside, at, events)).await });
    }
    let mut sent = 0;
    loop {
        place.room.lock().expire(Instant::now(), run.plan.patience);
        let under_way = place.room.lock().under_way();
        let has_more = run.plan.has_more((index, senders), sent) && !run.stop.is_cancelled();
        if !has_more && under_way == 0 {
            break;
        }
        let may_send = has_more && under_way < run.plan.window;
        let due = run.plan.due(start, index, senders, sent);
        if may_send && due.is_none_or(|due| due <= Instant::now()) {
            sent += 1;
            send(run, place, &inside, due).await;
            continue;
        }
        // Whatever comes first: the next look at what takes too long is never far.
        let look = Instant::now() + TICK;
        match due.filter(|due| may_send && *due < look) {
            Some(due) => run.pacer.until(due).await,
            None => drop(timeout(TICK, place.changed.notified()).await),
        }
    }
    // What comes twice comes soon after: a client that is gone would not see it.
    sleep(SETTLE).await;
    let end = Instant::now() + run.plan.patience;
    for member in inside.iter() {
        member.leave(end).await;
    }
}

async fn send(run: &Run, place: &Place, inside: &[Member], due: Option<Instant>) {
    let Some(sender) = inside.first() else { return };
    let now = Instant::now();
    let number = place.room.lock().send(due.unwrap_or(now), now);
    run.meter.sent();
    let args = (&place.name, run.plan.text(number));
    let sending = sender.socket.emit_args(BROADCAST, &args);
    // A failure leaves the broadcast under way until it has taken too long. Without a connection the queue of the
    // client may be full.
    match timeout(run.plan.patience, sending).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => run.progress.line(&format!("a broadcast was not sent: {error}")),
        Err(_) => run.progress.line("a broadcast was not sent: no room in the queue"),
    }
}

/// Joins the room again whenever a member comes back with a new session, and tells the ledger.
async fn watch(run: &Run, place: &Place, inside: &[Member], at: usize, mut events: Events) {
    let Some(member) = inside.get(at) else { return };
    let mut is_away = false;
    while let Some(event) = events.next().await {
        match event {
            ClientEvent::Disconnected { reason: DisconnectReason::ByClient } => return,
            ClientEvent::Disconnected { .. } => {
                is_away = true;
                place.room.lock().went_away(at);
            }
            ClientEvent::Joined { recovered, .. } if is_away => {
                is_away = false;
                // A join that fails because the connection is lost again is repeated after the next return. If it fails
                // for another cause, what the member misses is lost.
                let is_renewed = !recovered && join(run, place, member).await.is_ok();
                place.room.lock().came_back(at, is_renewed);
                place.changed.notify_one();
            }
            _ => {}
        }
    }
}

/// What the server must understand: `join` with an ack, and `broadcast`, which comes back as `msg`.
const JOIN: &str = "join";
const BROADCAST: &str = "broadcast";
const DELIVERY: &str = "msg";

/// How long clients stay after the last delivery.
const SETTLE: Duration = Duration::from_millis(250);

/// How often a room looks at what takes too long.
const TICK: Duration = Duration::from_millis(100);
