//! The clients of imks under test.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use imks::client::{Binary, Client, ClientResult, Socket, TransportKind, Transports};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use super::Outcome;

/// The broadcasts that all clients have heard together.
#[derive(Default)]
struct Heard {
    count: AtomicUsize,
    wanted: AtomicUsize,
    all: Notify,
}

/// Does what it is told on standard input until that ends.
pub fn run(url: &str) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (mut sockets, heard) = (Vec::new(), Arc::new(Heard::default()));
    say("started")?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["connect", count] => {
                sockets = runtime.block_on(connect(url, count.parse()?, &heard))?;
                say("ready")?;
            }
            ["echo", bytes, count] => {
                let text: Arc<str> = "x".repeat(bytes.parse()?).into();
                runtime.block_on(each(&sockets, count.parse()?, move |socket, count| {
                    echo(socket, text.clone(), count)
                }))?;
                say("done")?;
            }
            ["back", bytes, count] => {
                let bytes = Binary(vec![7; bytes.parse()?].into());
                runtime.block_on(each(&sockets, count.parse()?, move |socket, count| {
                    back(socket, bytes.clone(), count)
                }))?;
                say("done")?;
            }
            ["hear", count] => {
                heard.count.store(0, Ordering::SeqCst);
                heard.wanted.store(count.parse::<usize>()? * sockets.len(), Ordering::SeqCst);
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

async fn connect(url: &str, count: usize, heard: &Arc<Heard>) -> ClientResult<Vec<Socket>> {
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let client = Client::builder(url).transports(Transports::only(TransportKind::WebSocket)).build()?;
        let socket = client.socket("/")?;
        let heard = heard.clone();
        socket.on("msg", move |_: Binary| {
            if heard.count.fetch_add(1, Ordering::Relaxed) + 1 == heard.wanted.load(Ordering::Relaxed) {
                heard.all.notify_one();
            }
            async {}
        });
        socket.connect().await?;
        socket.emit("join", "all").await?;
        // Its answer says that the room is joined.
        socket.emit_with_ack::<String>("echo", "").await?;
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Lets all clients work at the same time, and waits for them.
async fn each<F, R>(sockets: &[Socket], count: usize, work: F) -> Outcome<()>
where
    F: Fn(Socket, usize) -> R,
    R: Future<Output = ClientResult<()>> + Send + 'static,
{
    let tasks = TaskTracker::new();
    let working: Vec<_> = sockets.iter().map(|socket| tasks.spawn(work(socket.clone(), count))).collect();
    for task in working {
        task.await??;
    }
    Ok(())
}

async fn echo(socket: Socket, text: Arc<str>, count: usize) -> ClientResult<()> {
    for _ in 0..count {
        let answer: String = socket.emit_with_ack("echo", &*text).await?;
        assert_eq!(answer.len(), text.len(), "the answer is the question");
    }
    Ok(())
}

async fn back(socket: Socket, bytes: Binary, count: usize) -> ClientResult<()> {
    let mut back = socket.stream::<Binary>("back");
    for _ in 0..count {
        socket.emit("back", &bytes).await?;
        let answer = back.next().await.transpose()?;
        assert_eq!(answer.map(|it| it.0.len()), Some(bytes.0.len()), "what was sent comes back");
    }
    Ok(())
}
