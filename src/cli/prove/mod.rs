//! `imks prove`: starts a server, loads it, kills it, cuts off its database, and compares what it acknowledged with
//! what it has kept.

mod proof;
mod server;
pub(super) mod world;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::proof::{CUT, Fault, KILL, Proof};
use self::world::World;
use super::bench::chat::history;
use super::bench::chat::ledger::Stored;
use super::bench::chat::people::{Conversation, Measure, Person};
use super::bench::histogram::millis;
use super::bench::plan::{self, Plan};
use super::bench::progress::Progress;
use super::serve::Signals;
use super::terminal::EXIT_INTERRUPTED;
use super::terminal::text::counted;
use crate::client::{Client, Reconnect};
use crate::config::Setting;
use crate::error::Cause;
use crate::models::db::Scratch;
use crate::{ImksError, ImksResult};

/// Options of `imks prove`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// The number of people who write and read
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    clients: u32,
    /// How often the server is killed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=ROUNDS_MAX))]
    rounds: u32,
    /// How long people write before each fault and after the last
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = plan::time)]
    load: Duration,
    /// How long the database is cut off
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = plan::time)]
    cut: Duration,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=BODY_MAX))]
    message_size: u32,
    /// A PostgreSQL server instead of SQLite: postgres://…; a database of its own is made there, and removed
    #[arg(long, value_name = "URL", env = "PROVE_DATABASE_URL", hide_env_values = true)]
    database: Option<String>,
    /// Prints one JSON document
    #[arg(long)]
    json: bool,
}

/// Tries to break the promise of the README, and prints what came of it.
///
/// # Errors
/// `Io` if the server cannot be started or reached, and those of the database.
pub(super) async fn run(args: Args) -> ImksResult<ExitCode> {
    // Not by the parser of the command line, whose error would show the password.
    if let Some(Err(error)) = args.database.as_deref().map(Scratch::check) {
        return super::misused(error);
    }
    let mut signals = Signals::of_tool()?;
    let progress = Progress::new();
    progress.line(&args.first_line());
    let stop = CancellationToken::new();
    let mut ending = Ending { signals: &mut signals, stop: &stop, progress: &progress };
    let creating = Box::pin(World::create(args.clients as usize, args.database.as_deref()));
    let mut world = ending.until(creating, "when the server has started").await?;
    let proving = Box::pin(args.prove(&mut world, &progress, &stop));
    let proof = ending.until(proving, "when the history was read").await;
    progress.clear();
    // A server that does not come back, or a history that cannot be read, is worth a look as well.
    let failed = world.had_faults && !stop.is_cancelled();
    let keep = proof.as_ref().map_or(failed, |proof| !proof.is_kept);
    match Box::pin(world.end(keep)).await {
        Ok(None) => {}
        Ok(Some(place)) => progress.line(&format!("kept for a look: {place}")),
        Err(error) if proof.is_ok() => return Err(error),
        // The first failure is the one to end with.
        Err(error) => progress.line(&format!("not removed: {error}")),
    }
    let proof = proof?;
    super::say(&if args.json { serde_json::to_string(&proof)? } else { proof.text() })?;
    Ok(match (proof.is_kept, proof.is_interrupted) {
        (true, false) => ExitCode::SUCCESS,
        (true, true) => ExitCode::from(EXIT_INTERRUPTED),
        (false, _) => ExitCode::from(EXIT_BROKEN),
    })
}

/// How Ctrl-C ends a proof: what is being done comes to its end, unless it is pressed again.
struct Ending<'a> {
    signals: &'a mut Signals,
    stop: &'a CancellationToken,
    progress: &'a Progress,
}

impl Ending<'_> {
    /// Waits until some work is done. Ctrl-C cancels `stop`, and says that the end comes `then`; a second one ends
    /// everything.
    async fn until<T>(
        &mut self,
        mut work: impl Future<Output = ImksResult<T>> + Unpin,
        then: &str,
    ) -> ImksResult<T> {
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = self.signals.next() => {
                    if self.stop.is_cancelled() {
                        return Err(ImksError::Timeout("ended by a second Ctrl-C, without a result"));
                    }
                    self.progress.line(&format!("ending {then}; Ctrl-C again ends at once"));
                    self.stop.cancel();
                }
            }
        }
    }
}

impl Args {
    fn first_line(&self) -> String {
        let database = if self.database.is_some() { "PostgreSQL" } else { "SQLite" };
        format!(
            "imks prove: a server on {database}, {} and read, {}",
            counted(self.clients.into(), "person who writes", "people who write"),
            counted(self.rounds.into(), "round of kill -9", "rounds of kill -9")
        )
    }

    async fn prove(
        &self,
        world: &mut World,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> ImksResult<Proof> {
        let begun = Instant::now();
        let count = self.clients as usize;
        let conversation = Conversation::new(count, count)?;
        let people = Arc::new(Box::pin(self.enter(world, &conversation)).await?);
        let are_in = counted(count as u64, "person is in", "people are in");
        progress.line(&format!("the server listens at {}, {are_in}", world.server.url()));
        let Some(before) = people.iter().map(|person| person.last_seq).max() else {
            return Ok(Proof::default());
        };
        let (writing, tasks) = (CancellationToken::new(), TaskTracker::new());
        let writers: Vec<_> = (0..count)
            .map(|index| tasks.spawn(self.write(&conversation, &people, index, &writing)))
            .collect();
        let faults = Box::pin(self.faults(world, &conversation, progress, stop)).await;
        writing.cancel();
        let faults = faults?;
        for writer in writers {
            writer.await.map_err(|error| ImksError::Task(Cause::new(error)))??;
        }
        progress.line("reading the history back");
        let history = Box::pin(self.read_back(world, &conversation, before)).await?;
        for person in people.iter() {
            person.client.close().await;
        }
        // Not here, where Ctrl-C is heard: it takes its time where much was written.
        let ledger = conversation.ledger.clone();
        let checking = tasks.spawn_blocking(move || ledger.lock().check(before, &history));
        let verdict = checking.await.map_err(|error| ImksError::Task(Cause::new(error)))?;
        let has_relay = world.relay.is_some();
        let proof = Proof {
            version: env!("CARGO_PKG_VERSION"),
            database: world.database.clone(),
            clients: count,
            seconds: begun.elapsed().as_secs_f64(),
            is_interrupted: stop.is_cancelled(),
            verdict,
            faults,
            not_tried: if has_relay { Vec::new() } else { vec![NOTHING_TO_CUT.into()] },
            is_kept: false,
        };
        Ok(proof.decide())
    }

    async fn enter(&self, world: &World, conversation: &Conversation) -> ImksResult<Vec<Person>> {
        let mut people = Vec::new();
        for index in 0..self.clients as usize {
            people.push(Box::pin(self.person(world, conversation, index)).await?);
        }
        Ok(people)
    }

    /// Lets somebody in. Beyond the readers of the conversation, it is somebody who is not counted.
    async fn person(&self, world: &World, conversation: &Conversation, index: usize) -> ImksResult<Person> {
        let builder = Client::builder(&world.server.url()).reconnect(Reconnect::fixed(RECONNECT_PAUSE));
        let token = world.tokens.get(index).or(world.tokens.first());
        let builder = token.into_iter().fold(builder, |builder, token| builder.auth_token(token));
        let not_measured: Measure = Arc::new(|_, _| {});
        Box::pin(conversation.enter(builder, index, None, not_measured)).await
    }

    /// Reads the history after the number `after`, as somebody who has not written.
    async fn read_back(
        &self,
        world: &mut World,
        conversation: &Conversation,
        after: i64,
    ) -> ImksResult<Vec<Stored>> {
        if conversation.ledger.lock().is_full() {
            return Err(ImksError::invalid("--load", "somebody wrote more messages than are remembered"));
        }
        world.server.check_running()?;
        let reader = Box::pin(self.person(world, conversation, self.clients as usize)).await?;
        let history = Box::pin(history::read(&reader.socket, &reader.channel_id, after)).await?;
        reader.client.close().await;
        Ok(history)
    }

    fn write(
        &self,
        conversation: &Conversation,
        people: &Arc<Vec<Person>>,
        index: usize,
        stop: &CancellationToken,
    ) -> impl Future<Output = ImksResult<()>> + Send + 'static {
        let (conversation, people, stop) = (conversation.clone(), people.clone(), stop.clone());
        let plan = Plan {
            clients: people.len(),
            messages: None,
            message_bytes: self.message_size as usize,
            rate: None,
            time: None,
            window: 1,
            patience: BACK_PATIENCE,
        };
        async move {
            let Some(person) = people.get(index) else { return Ok(()) };
            let not_measured: Measure = Arc::new(|_, _| {});
            Box::pin(conversation.write(person, index, people.len(), &plan, &stop, not_measured)).await
        }
    }

    /// Does one fault after the other while people write, until `stop`.
    async fn faults(
        &self,
        world: &mut World,
        conversation: &Conversation,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> ImksResult<Vec<Fault>> {
        let mut faults = Vec::new();
        for round in 1..=self.rounds {
            if !self.load(stop).await {
                return Ok(faults);
            }
            progress.line(&format!("kill -9, {round} of {}", self.rounds));
            world.had_faults = true;
            let begun = Begun::now(KILL, conversation);
            world.server.kill_and_restart().await?;
            faults.push(begun.until_back(conversation).await);
        }
        if let Some(relay) = &world.relay {
            if !self.load(stop).await {
                return Ok(faults);
            }
            progress.line(&format!("the database is cut off for {}", self.cut.show()));
            let begun = Begun::now(CUT, conversation);
            relay.close();
            // The database comes back at once if Ctrl-C ends the proof.
            let _ = timeout(self.cut, stop.cancelled()).await;
            relay.open();
            faults.push(begun.until_back(conversation).await);
        }
        self.load(stop).await;
        Ok(faults)
    }

    /// Lets people write for a while. Returns `false` if the proof was ended meanwhile.
    async fn load(&self, stop: &CancellationToken) -> bool {
        timeout(self.load, stop.cancelled()).await.is_err()
    }
}

/// A fault that has begun.
struct Begun {
    kind: &'static str,
    at: Instant,
    acknowledged_before: u64,
}

impl Begun {
    fn now(kind: &'static str, conversation: &Conversation) -> Self {
        Self { kind, at: Instant::now(), acknowledged_before: *conversation.acknowledged.borrow() }
    }

    /// Is called when the fault is repaired, and waits until the next message is acknowledged.
    async fn until_back(self, conversation: &Conversation) -> Fault {
        let repaired = self.at.elapsed();
        let mut acknowledged = conversation.acknowledged.subscribe();
        let next = timeout(BACK_PATIENCE, acknowledged.changed()).await;
        let back_ms = matches!(next, Ok(Ok(()))).then(|| millis(self.at.elapsed()));
        let Self { kind, acknowledged_before, .. } = self;
        Fault { kind, acknowledged_before, repaired_ms: millis(repaired), back_ms }
    }
}

const AFTER_HELP: &str = "\
Everything happens in a temporary directory, and on PostgreSQL in a database that is made for it and removed; both \
are kept if the promise was broken, or a fault was not survived. The server is this program.

Exit codes: 0 the promise was kept; 1 could not run; 2 invalid command line; 3 the promise was broken; 78 invalid \
configuration; 130 ended by Ctrl-C before all was tried. Progress goes to standard error. docs/tools.md describes the \
output.";

const NOTHING_TO_CUT: &str = "a database cut: SQLite is a file of the server itself, without a connection (try --database postgres://…)";

/// The exit code for a promise that was broken.
const EXIT_BROKEN: u8 = 3;

/// The maximum number of people in a proof.
const CLIENTS_MAX: i64 = 1_000;

/// The maximum number of times that the server is killed.
const ROUNDS_MAX: i64 = 1_000_000;

/// The maximum number of bytes of a message: imks stores up to 8,000 characters.
const BODY_MAX: i64 = 8_000;

/// How long the next acknowledgement after a fault may take, and the last one of each person.
const BACK_PATIENCE: Duration = Duration::from_secs(60);

/// The pause between attempts to connect again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
