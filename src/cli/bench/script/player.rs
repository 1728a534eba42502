//! The clients of a scenario from a file: each goes through the phases with all others, a round after the other.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use serde::de::IgnoredAny;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::ramp::Ramp;
use super::scene::Scene;
use super::step::{Arg, Expecting, Joining, Sending, Step};
use super::{Phase, Script};
use crate::cli::bench::crowd::Member;
use crate::cli::bench::plan::due;
use crate::cli::bench::run::{Outcome, Run};
use crate::cli::bench::summary::Faults;
use crate::cli::terminal::text::counted;
use crate::client::{ClientError, ClientResult, RawArgs, Socket};
use crate::error::Cause;
use crate::{ImksError, ImksResult};

/// A client that plays.
struct Player {
    number: usize,
    member: Member,
    ear: Arc<Ear>,
    state: Mutex<State>,
}

/// What a client remembers from round to round.
struct State {
    dice: Dice,
    rounds: u64,
    /// The rooms that it has entered, by the event with which it asked, the last one at the end.
    rooms: Vec<(String, String)>,
    /// How many of its sessions were new when it last entered its rooms.
    renewals: u64,
    found: Found,
}

/// What has gone wrong for a client.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    lost: u64,
    unsure: u64,
}

/// The events that a client waits for.
#[derive(Default)]
struct Ear {
    heard: Mutex<Heard>,
    changed: Notify,
}

#[derive(Default)]
struct Heard {
    /// When the events came that nobody has waited for yet, since something was sent last, by name.
    events: HashMap<String, VecDeque<Instant>>,
    /// The text that the client has sent last.
    token: Option<String>,
    /// When an event came that has this text in it, by the name of the event.
    own: HashMap<String, Instant>,
}

/// Plays a scenario.
///
/// # Errors
/// The failure of the last client if not one could connect.
pub(in crate::cli::bench) async fn run(run: &Arc<Run>, script: &Arc<Script>) -> ImksResult<Outcome> {
    let ramp = Ramp::new(script.ramp);
    let players = gather(run, script, &ramp).await?;
    run.progress.line(&counted(players.len() as u64, "client has joined", "clients have joined"));
    run.begin();
    let mut phases = Vec::new();
    for phase in &script.phases {
        if run.stop.is_cancelled() {
            break;
        }
        run.progress.line(&format!("phase {}", phase.name));
        let scene = Arc::new(Scene::begin());
        let playing = players.iter().enumerate().map(|(index, player)| {
            let (run, player, phase, scene) = (run.clone(), player.clone(), phase.clone(), scene.clone());
            let place = (index, players.len());
            async move { Box::pin(player.play(&run, &phase, &scene, place)).await }
        });
        let playing: Vec<_> = playing.map(|playing| run.tasks.spawn(playing)).collect();
        for task in playing {
            task.await.map_err(|error| ImksError::Task(Cause::new(error)))?;
        }
        phases.push(scene.end(&phase.name));
    }
    let mut sum = Found::default();
    // Nothing more is sent, and nobody is cut off any more.
    run.stop.cancel();
    let end = Instant::now() + run.plan.patience;
    for player in &players {
        let found = player.state.lock().found;
        (sum.lost, sum.unsure) = (sum.lost + found.lost, sum.unsure + found.unsure);
        player.member.leave(end).await;
    }
    let faults = Faults { lost: Some(sum.lost), unsure: Some(sum.unsure), ..Faults::default() };
    let mut notes = vec![UNSEEN.into()];
    notes.extend(ramp.note(run.plan.clients));
    Ok(Outcome { faults, notes, phases, ..Outcome::default() })
}

/// Connects the clients, as many per second as the scenario says.
async fn gather(run: &Arc<Run>, script: &Script, ramp: &Ramp) -> ImksResult<Vec<Arc<Player>>> {
    let expected = script.expected();
    let one = |number: usize| {
        let expected = &expected;
        async move {
            let ear = Arc::new(Ear::default());
            let hearing = ear.clone();
            let listen = move |_: usize, socket: &Socket| {
                expected.iter().for_each(|event| hearing.listen(socket, event));
            };
            let member = run.crowd.join(number, listen).await.ok()?;
            let dice = Dice(number as u64);
            let state = State { dice, rounds: 0, rooms: Vec::new(), renewals: 0, found: Found::default() };
            Some(Arc::new(Player { number, member, ear, state: Mutex::new(state) }))
        }
    };
    let joining = ramp.begin(run.plan.clients, one).take_until(run.stop.cancelled());
    let joined: Vec<_> = joining.collect().await;
    let mut players: Vec<_> = joined.into_iter().flatten().collect();
    players.sort_by_key(|player| player.number);
    match run.crowd.links.last_error() {
        Some(error) if players.is_empty() => {
            Err(run.crowd.not_one(&format!("joining {} at", run.crowd.namespace), error))
        }
        _ => Ok(players),
    }
}

impl Player {
    /// Plays the rounds of a phase, as one of so many clients. Its place is its own: numbers have gaps where others could
    /// not connect.
    async fn play(&self, run: &Run, phase: &Phase, scene: &Scene, place: (usize, usize)) {
        let end = phase.duration.map(|duration| scene.start + duration);
        let mut rounds = 0;
        while phase.rounds.is_none_or(|all| rounds < all) {
            let due = phase.rate.map(|rate| due(scene.start, rate, place, rounds));
            let is_over = |at: Instant| end.is_some_and(|end| at >= end);
            if is_over(due.unwrap_or_else(Instant::now)) || !pause(run, due).await || is_over(Instant::now())
            {
                return;
            }
            rounds += 1;
            let is_complete = self.round(run, phase, scene, due).await;
            scene.round(is_complete);
            if !is_complete {
                // A round that fails at once takes no turn from other clients.
                tokio::task::yield_now().await;
            }
            let think = phase.think.map(|think| think.at(self.state.lock().dice.roll()));
            if let Some(think) = think {
                let until = Instant::now() + think;
                if !pause(run, Some(end.map_or(until, |end| until.min(end)))).await {
                    return;
                }
            }
        }
    }

    /// Plays a round, and returns whether every step of it succeeded. After one that fails the others are left out.
    async fn round(&self, run: &Run, phase: &Phase, scene: &Scene, due: Option<Instant>) -> bool {
        self.enter_again(run).await;
        let chance = {
            let mut state = self.state.lock();
            state.rounds += 1;
            state.dice.roll()
        };
        let Some(flow) = phase.choose(chance) else { return true };
        // A latency begins when something was to be sent: the first time in a round, when the round was due.
        let (mut due, mut sent) = (due, Instant::now());
        let losses = self.member.losses();
        for (at, step) in flow.steps.iter().enumerate() {
            let begun = Instant::now();
            let result = match step {
                Step::Emit(sending) => {
                    sent = due.take().unwrap_or(begun);
                    self.emit(run, sending, at).await
                }
                Step::Ack(sending) => {
                    sent = due.take().unwrap_or(begun);
                    self.ask(run, sending, at).await.map(|()| self.record(run, scene, Instant::now(), sent))
                }
                Step::Join(joining) => self.join(run, joining).await,
                Step::Expect(expecting) => {
                    let heard = self.ear.expect(expecting, run.plan.patience).await;
                    heard.map(|at| self.record(run, scene, at, sent))
                }
                Step::Wait(rest) => {
                    let rest = rest.at(self.state.lock().dice.roll());
                    pause(run, Some(begun + rest)).await;
                    Ok(())
                }
            };
            if result.is_err() {
                self.fail(losses);
                return false;
            }
        }
        true
    }

    /// Counts a step that failed. Where the connection was cut in its round or was not there, or came back without the
    /// rooms of the client, nobody knows what became of it.
    fn fail(&self, losses: u64) {
        let mut state = self.state.lock();
        let was_cut = self.member.was_cut(losses) || self.member.renewals() != state.renewals;
        if was_cut { state.found.unsure += 1 } else { state.found.lost += 1 }
    }

    fn record(&self, run: &Run, scene: &Scene, at: Instant, sent: Instant) {
        let took = at.saturating_duration_since(sent);
        run.meter.record(at, took);
        scene.record(at, took);
    }

    async fn emit(&self, run: &Run, sending: &Sending, at: usize) -> ClientResult<()> {
        let (json, attachments) = self.compose(sending, at);
        run.meter.sent();
        let args = RawArgs { json: &json, attachments: &attachments };
        let emitting = self.member.socket.emit_args(&sending.event, &args);
        timeout(run.plan.patience, emitting).await.unwrap_or(Err(ClientError::Full))
    }

    async fn ask(&self, run: &Run, sending: &Sending, at: usize) -> ClientResult<()> {
        let (json, attachments) = self.compose(sending, at);
        run.meter.sent();
        let args = RawArgs { json: &json, attachments: &attachments };
        let question = self.member.socket.ask::<IgnoredAny>(&sending.event, &args);
        acknowledged(question.timeout(sending.within.unwrap_or(run.plan.patience)).await)
    }

    async fn join(&self, run: &Run, joining: &Joining) -> ClientResult<()> {
        let room = match joining.rooms {
            Some(rooms) => format!("{}-{}", joining.room, self.number as u64 % rooms),
            None => joining.room.clone(),
        };
        self.enter(&joining.event, &room, joining.within.unwrap_or(run.plan.patience)).await?;
        let mut state = self.state.lock();
        let entered = (joining.event.clone(), room);
        state.rooms.retain(|it| *it != entered);
        state.rooms.push(entered);
        if state.rooms.len() > ROOMS_OF_CLIENT_MAX {
            state.rooms.remove(0);
        }
        Ok(())
    }

    async fn enter(&self, event: &str, room: &str, patience: Duration) -> ClientResult<()> {
        acknowledged(self.member.socket.ask(event, &(room,)).timeout(patience).await)
    }

    /// Enters its rooms again where its session is a new one. If that fails, it is tried again in the next round.
    async fn enter_again(&self, run: &Run) {
        let renewals = self.member.renewals();
        let rooms = {
            let state = self.state.lock();
            if state.renewals == renewals { Vec::new() } else { state.rooms.clone() }
        };
        for (event, room) in rooms {
            if self.enter(&event, &room, run.plan.patience).await.is_err() {
                return;
            }
        }
        self.state.lock().renewals = renewals;
    }

    /// Returns the arguments of an event as JSON, with their attachments. From now on the ear hears what comes after it.
    fn compose(&self, sending: &Sending, at: usize) -> (String, Vec<bytes::Bytes>) {
        let state = self.state.lock();
        let token = format!("#{}.{}.{at}#", self.number, state.rounds);
        let mut attachments = Vec::new();
        let args: Vec<String> = sending
            .args
            .iter()
            .map(|arg| match arg {
                Arg::Json(json) => json.clone(),
                Arg::Text => format!("\"{}\"", text(sending, &token)),
                Arg::Bytes => {
                    attachments.push(vec![0; sending.bytes].into());
                    format!(r#"{{"_placeholder":true,"num":{}}}"#, attachments.len() - 1)
                }
                Arg::Room => {
                    let room = state.rooms.last().map_or("", |(_, room)| room);
                    serde_json::Value::from(room).to_string()
                }
                Arg::Client => self.number.to_string(),
            })
            .collect();
        self.ear.forget(sending.is_recognisable().then_some(token));
        (args.join(","), attachments)
    }
}

/// Whether an event was acknowledged: an ack without arguments is one too.
fn acknowledged(answer: ClientResult<IgnoredAny>) -> ClientResult<()> {
    match answer {
        Ok(_) | Err(ClientError::InvalidMessage(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The text of an event: the token by which it is known, if there is room for it, filled up to its size.
fn text(sending: &Sending, token: &str) -> String {
    let mut text = if sending.is_recognisable() { token.to_owned() } else { String::new() };
    let missing = sending.bytes.saturating_sub(text.len());
    text.push_str(&"x".repeat(missing));
    text
}

impl Ear {
    fn listen(self: &Arc<Self>, socket: &Socket, event: &str) {
        let (ear, name) = (self.clone(), event.to_owned());
        socket.on_event(event, move |event| {
            ear.hear(&name, event.args().json(), Instant::now());
            async {}
        });
    }

    fn hear(&self, name: &str, json: &str, now: Instant) {
        let mut heard = self.heard.lock();
        if heard.token.as_deref().is_some_and(|token| json.contains(token)) {
            heard.own.entry(name.to_owned()).or_insert(now);
        }
        let events = heard.events.entry(name.to_owned()).or_default();
        if events.len() < HEARD_MAX {
            events.push_back(now);
        }
        drop(heard);
        self.changed.notify_one();
    }

    /// Forgets what has come so far, because something is sent now.
    fn forget(&self, token: Option<String>) {
        let mut heard = self.heard.lock();
        heard.events.values_mut().for_each(VecDeque::clear);
        heard.own.clear();
        heard.token = token;
    }

    /// Waits for an event, and returns when it came.
    async fn expect(&self, expecting: &Expecting, patience: Duration) -> ClientResult<Instant> {
        let waiting = async {
            loop {
                if let Some(at) = self.take(expecting) {
                    return at;
                }
                self.changed.notified().await;
            }
        };
        let patience = expecting.within.unwrap_or(patience);
        timeout(patience, waiting).await.map_err(|_| ClientError::Timeout("an event"))
    }

    fn take(&self, expecting: &Expecting) -> Option<Instant> {
        let mut heard = self.heard.lock();
        if expecting.own {
            return heard.own.remove(&expecting.event);
        }
        heard.events.get_mut(&expecting.event)?.pop_front()
    }
}

/// Waits until a moment, and returns `false` if the run is to end before it.
async fn pause(run: &Run, until: Option<Instant>) -> bool {
    let Some(until) = until else { return !run.stop.is_cancelled() };
    tokio::select! {
        () = run.stop.cancelled() => false,
        () = run.pacer.until(until) => true,
    }
}

/// Numbers by chance that are the same in every run: SplitMix64.
struct Dice(u64);

impl Dice {
    /// Returns a number from 0 to 1.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

const UNSEEN: &str = "duplicates, order and wrong answers: a scenario from a file does not look for them";

/// The maximum number of events of one name that wait for an `expect`. Further ones are not counted.
const HEARD_MAX: usize = 1_024;

/// The maximum number of rooms that a client enters again after its session was lost. The oldest are left out.
const ROOMS_OF_CLIENT_MAX: usize = 64;
