//! Clients of rust_socketio, in their asynchronous form. benches/clients says what the lines on standard input mean.

use std::error::Error;
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use rust_socketio::asynchronous::{Client, ClientBuilder};
use rust_socketio::{Event, Payload, TransportType};
use serde_json::json;
use tokio::sync::{Mutex, Notify, mpsc};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const PATIENCE: Duration = Duration::from_secs(30);

/// A client, and what comes back to it.
struct Talker {
    client: Client,
    back: Mutex<mpsc::Receiver<usize>>,
}

/// The broadcasts that all clients have heard together.
#[derive(Default)]
struct Heard {
    count: AtomicUsize,
    wanted: AtomicUsize,
    all: Notify,
}

fn main() -> Outcome<()> {
    let url = std::env::args().nth(1).ok_or("the clients need a URL")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (mut talkers, heard) = (Vec::new(), Arc::new(Heard::default()));
    say("started")?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["connect", count] => {
                talkers = runtime.block_on(connect(&url, count.parse()?, &heard))?;
                say("ready")?;
            }
            ["echo", bytes, count] => {
                let (text, count) = ("x".repeat(bytes.parse()?), count.parse()?);
                runtime.block_on(each(&talkers, |talker| echo(talker, text.clone(), count)))?;
                say("done")?;
            }
            ["back", bytes, count] => {
                let (bytes, count) = (vec![7; bytes.parse()?], count.parse()?);
                runtime.block_on(each(&talkers, |talker| back(talker, bytes.clone(), count)))?;
                say("done")?;
            }
            ["hear", count] => {
                heard.count.store(0, Ordering::SeqCst);
                heard.wanted.store(count.parse::<usize>()? * talkers.len(), Ordering::SeqCst);
                say("listening")?;
                runtime.block_on(heard.all.notified());
                say("done")?;
            }
            _ => return Err(format!("what is {line:?}?").into()),
        }
    }
    Ok(())
}

fn say(word: &str) -> Outcome<()> {
    println!("{word}");
    Ok(std::io::stdout().flush()?)
}

async fn connect(url: &str, count: usize, heard: &Arc<Heard>) -> Outcome<Vec<Arc<Talker>>> {
    let mut talkers = Vec::with_capacity(count);
    for _ in 0..count {
        let (heard, connected) = (heard.clone(), Arc::new(Notify::new()));
        let (say, back) = mpsc::channel(4);
        let waiting = connected.clone();
        let client = ClientBuilder::new(url)
            .transport_type(TransportType::Websocket)
            .on(Event::Connect, move |_, _| {
                connected.notify_one();
                async {}.boxed()
            })
            .on("msg", move |_, _| {
                if heard.count.fetch_add(1, Ordering::Relaxed) + 1 == heard.wanted.load(Ordering::Relaxed) {
                    heard.all.notify_one();
                }
                async {}.boxed()
            })
            .on("back", move |payload, _| {
                let say = say.clone();
                async move { say.send(length(&payload)).await.expect("it is waited for") }.boxed()
            })
            .connect()
            .await?;
        waiting.notified().await;
        client.emit("join", json!("all")).await?;
        let talker = Arc::new(Talker { client, back: Mutex::new(back) });
        // Its answer says that the room is joined.
        echo(talker.clone(), String::new(), 1).await?;
        talkers.push(talker);
    }
    Ok(talkers)
}

/// The length of the only argument. It hands over all arguments of an answer as one.
fn length(payload: &Payload) -> usize {
    match payload {
        Payload::Binary(bytes) => bytes.len(),
        Payload::Text(values) => values
            .first()
            .map(|value| value.get(0).unwrap_or(value))
            .and_then(|it| it.as_str())
            .map_or(0, str::len),
        _ => 0,
    }
}

/// Lets all clients work at the same time, and waits for them.
async fn each<R>(talkers: &[Arc<Talker>], work: impl Fn(Arc<Talker>) -> R) -> Outcome<()>
where
    R: Future<Output = Outcome<()>> + Send + 'static,
{
    let working: Vec<_> = talkers.iter().map(|talker| tokio::spawn(work(talker.clone()))).collect();
    for task in working {
        task.await??;
    }
    Ok(())
}

async fn echo(talker: Arc<Talker>, text: String, count: usize) -> Outcome<()> {
    let (say, mut answers) = mpsc::channel(1);
    for _ in 0..count {
        let say = say.clone();
        let answered = move |payload: Payload, _| {
            let say = say.clone();
            async move { say.send(length(&payload)).await.expect("it is waited for") }.boxed()
        };
        talker.client.emit_with_ack("echo", json!(text), PATIENCE, answered).await?;
        assert_eq!(answers.recv().await, Some(text.len()), "the answer is the question");
    }
    Ok(())
}

async fn back(talker: Arc<Talker>, bytes: Vec<u8>, count: usize) -> Outcome<()> {
    let mut back = talker.back.lock().await;
    for _ in 0..count {
        talker.client.emit("back", bytes.clone()).await?;
        assert_eq!(back.recv().await, Some(bytes.len()), "what was sent comes back");
    }
    Ok(())
}
