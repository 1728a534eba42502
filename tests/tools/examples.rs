//! The programs in `examples/` that talk to a person, run as a person runs them: what they promise to show is what they show.

use std::path::Path;
use std::process::Stdio;

use imks::client::{Client, ClientError, EventStream, Socket};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

use crate::database::{Database, Kind};
use crate::process::{self, Server, free_port};
use crate::program::within;

/// An example that runs. It is killed when dropped.
struct Example {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    said: String,
    directory: TempDir,
}

impl Example {
    fn start(name: &str, arguments: &[&str]) -> Self {
        Self::start_in(TempDir::new().unwrap(), name, arguments, &[])
    }

    /// Starts it in a directory, with variables of its environment, which is empty otherwise.
    fn start_in(directory: TempDir, name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_imks")).with_file_name("examples").join(name);
        assert!(program.exists(), "cargo build --example {name}");
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(variables.iter().copied()).current_dir(directory.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, stdout, said: String::new(), directory }
    }

    /// Waits until it prints a line with these words, and returns the line.
    async fn says(&mut self, words: &str) -> String {
        within(async {
            loop {
                let line = self.stdout.next_line().await.unwrap();
                let line = line.unwrap_or_else(|| panic!("it did not say {words:?}: {}", self.said));
                if line.contains(words) {
                    return line;
                }
                self.said.push_str(&line);
            }
        })
        .await
    }

    async fn types(&mut self, line: &str) {
        self.child.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// Presses Ctrl-C, and waits until it has ended well.
    async fn ends_by_ctrl_c(mut self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.ends().await;
    }

    /// Waits until it has ended well, and returns its directory.
    async fn ends(&mut self) {
        drop(self.child.stdin.take());
        assert!(within(self.child.wait()).await.unwrap().success(), "{}", self.said);
    }
}

/// A namespace of a server, and the events of one name in it.
async fn listen(
    url: &str,
    path: &str,
    event: &str,
    name: &str,
) -> Result<(Socket, EventStream<String>), ClientError> {
    let client = Client::builder(url).auth(&json!({ "name": name })).build()?;
    let socket = client.socket(path)?;
    let events = socket.stream(event);
    within(socket.connect()).await?;
    Ok((socket, events))
}

/// The body of the answer to a request.
async fn ask(url: &str, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    let head = format!("{head}Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_axum_application_counts_its_clients_and_tells_them_what_comes_over_http() {
    let mut example = Example::start("axum_embedding", &["127.0.0.1:0"]);
    let url = example.says("http://").await;
    let (_socket, mut notices) = listen(&url, "/", "notice", "anna").await.unwrap();
    assert_eq!(ask(&url, "GET", "/", "").await, "1 clients\n");
    assert_eq!(ask(&url, "POST", "/notify", "deployed").await, "told\n");
    assert_eq!(within(notices.next()).await.unwrap().unwrap(), "deployed");
    example.ends_by_ctrl_c().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_greet_whom_they_let_in_and_all_workspaces_get_the_notices() {
    let mut example = Example::start("custom_namespace", &["127.0.0.1:0"]);
    let url = example.says("http://").await;
    for path in ["/news", "/workspace-7", "/private/anna"] {
        let (_socket, mut welcome) = listen(&url, path, "welcome", "anna").await.unwrap();
        assert_eq!(within(welcome.next()).await.unwrap().unwrap(), path);
    }
    for (path, name) in [("/nowhere", "anna"), ("/private/anna", "otto")] {
        let refused = listen(&url, path, "welcome", name).await.map(|_| ()).unwrap_err();
        assert!(matches!(refused, ClientError::Refused(_)), "{path}: {refused:?}");
    }
    for path in ["/workspace-7", "/workspace-8"] {
        let (_socket, mut notices) = listen(&url, path, "notice", "anna").await.unwrap();
        assert_eq!(within(notices.next()).await.unwrap().unwrap(), "still here");
    }
    example.ends_by_ctrl_c().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_talk_in_text_commands_and_come_back_without_their_rooms() {
    let address = free_port().to_string();
    let url = format!("http://{address}");
    let mut server = Example::start("commands", &[&address]);
    server.says("listening").await;
    let (mut anna, mut otto) = (
        Example::start("commands_client", &["anna", &url]),
        Example::start("commands_client", &["otto", &url]),
    );
    for person in [&mut anna, &mut otto] {
        person.says("JOIN room").await;
    }
    anna.types("SEND lobby hello").await;
    anna.says("not_in_room").await;
    anna.types("JOIN lobby").await;
    otto.types("BROADCAST hello").await;
    anna.says("otto: hello").await;
    otto.types("JOIN lobby").await;
    assert_eq!(anna.says("is here").await, "[lobby] otto is here");
    otto.types("SEND lobby hello").await;
    assert_eq!(anna.says("[lobby]").await, "[lobby] otto: hello");
    server.ends_by_ctrl_c().await;
    anna.says("away: ").await;
    let mut server = Example::start("commands", &[&address]);
    server.says("listening").await;
    anna.says("here, in no room").await;
    anna.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_the_outbox_survives_the_end_of_the_server_and_of_the_program() {
    let database = Database::create(Kind::Sqlite);
    let mut server = Server::start(&database);
    let token = process::token(&database, "alice", &[]);
    let start = |directory, arguments: &[&str], url: &str| {
        let arguments = [&[token.as_str()], arguments].concat();
        Example::start_in(directory, "client_outbox", &arguments, &[("URL", url)])
    };
    let mut listing = start(TempDir::new().unwrap(), &[], &server.url());
    let channel = listing.says("general").await.split_once(' ').unwrap().0.trim_matches('"').to_owned();
    listing.ends().await;
    server.drain();
    let mut waiting = start(TempDir::new().unwrap(), &[&channel, "hello"], &server.url());
    waiting.says("attempt 1 in ").await;
    within(waiting.child.kill()).await.unwrap();
    assert!(waiting.directory.path().join("outbox.imks").exists());
    let server = Server::start(&database);
    let mut later = start(waiting.directory, &[&channel, "and again"], &server.url());
    assert_eq!(later.says("stored").await, "stored as number 2");
    assert_eq!(later.said.matches("has left the outbox").count(), 2, "{}", later.said);
    later.ends().await;
}
