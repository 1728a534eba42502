//! An operator's day, from the package to a restored backup: what is configured, looked at, changed and replaced, while
//! somebody chats.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use imks::client::{Client, Socket, Tls, TransportKind, Transports};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::done;
use super::package::{Root, build};

/// A server of the installed program. Its log is read as programs do.
struct Installed {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    /// Its record `ready`.
    ready: Value,
}

impl Installed {
    fn start(program: &Path, configuration: &Path) -> Self {
        let mut command = Command::new(program);
        command.args(["serve", "--config"]).arg(configuration).env_clear();
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut server = Self { child, log, ready: Value::Null };
        server.ready = server.says("ready");
        server
    }

    /// Reads the log up to the record with this message. Every line is JSON.
    fn says(&mut self, message: &str) -> Value {
        for line in &mut self.log {
            let record: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if record["fields"]["message"] == message {
                return record["fields"].clone();
            }
        }
        panic!("{message} was not said");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Asks the internal listener.
    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.ready["internal"].as_str().unwrap()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Connects somebody who trusts an authority, and returns their first channel too.
    async fn client(&self, token: &str, authority: &Path) -> (Client, Socket, String) {
        let tls = Tls::new().root_pem(std::fs::read(authority).unwrap()).unwrap().only_own_roots();
        let url = format!("https://{}", self.ready["address"].as_str().unwrap());
        let builder = Client::builder(&url).tls(tls).auth_token(token);
        let client = builder.transports(Transports::only(TransportKind::WebSocket)).build().unwrap();
        let socket = client.socket("/").unwrap();
        let mut ready = socket.stream::<Value>("session:ready");
        socket.connect().await.unwrap();
        let ready = ready.next().await.unwrap().unwrap();
        (client, socket, ready["channels"][0]["channel_id"].as_str().unwrap().to_owned())
    }

    /// Drains it, and waits for its end.
    fn drain(mut self) {
        self.signal(Signal::TERM);
        self.says("stopped");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        // It has ended already, unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn ask(socket: &Socket, event: &str, request: Value) -> Value {
    let answer: Value = socket.ask(event, &(request,)).await.unwrap();
    assert_eq!(answer["ok"], true, "{event}: {answer}");
    answer["data"].clone()
}

/// Returns the bodies of all messages of a channel.
async fn history(socket: &Socket, channel: &str) -> Vec<String> {
    let page = ask(socket, "history", json!({ "channel_id": channel })).await;
    let messages = page["messages"].as_array().unwrap();
    messages.iter().map(|message| message["body"].as_str().unwrap().to_owned()).collect()
}

async fn send(socket: &Socket, channel: &str, body: &str) {
    ask(socket, "message:send", json!({ "channel_id": channel, "body": body, "nonce": body })).await;
}

/// What is installed, and where its data is.
struct Machine {
    root: Root,
    data: PathBuf,
}

impl Machine {
    fn program(&self) -> PathBuf {
        self.root.path().join("usr/bin/imks")
    }

    fn configuration(&self) -> PathBuf {
        self.root.path().join("etc/imks/imks.toml")
    }

    /// Writes the configuration as an operator does: what is asked for, and nothing else.
    fn configure(&self, certificates: &Path, more: &str) {
        let (data, certs) = (self.data.display(), certificates.display());
        let text = format!(
            "listen = \"127.0.0.1:0\"\ninternal_listen = \"127.0.0.1:0\"\ndata_dir = \"{data}\"\n\
             [tls]\ncert = \"{certs}/cert.pem\"\nkey = \"{certs}/key.pem\"\n[webtransport]\nmode = \"off\"\n\
             [log]\nformat = \"json\"\n{more}"
        );
        std::fs::write(self.configuration(), text).unwrap();
    }

    /// Runs a subcommand of the installed program.
    fn imks(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(self.program());
        done(command.args(arguments).arg("--config").arg(self.configuration()).env_clear())
    }

    fn start(&self) -> Installed {
        Installed::start(&self.program(), &self.configuration())
    }
}

/// Makes a certificate with an authority of its own, in a new directory.
fn certificate(program: &Path, directory: &Path) -> PathBuf {
    done(Command::new(program).args(["certificate", "--dir"]).arg(directory).env_clear());
    directory.join("ca.pem")
}

/// Puts a new certificate in the place of the old one, and returns its authority.
fn rotate(machine: &Machine, certificates: &Path, newer: &Path) -> PathBuf {
    let authority = certificate(&machine.program(), newer);
    for name in ["cert.pem", "key.pem"] {
        std::fs::copy(newer.join(name), certificates.join(name)).unwrap();
    }
    authority
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_installs_configures_watches_changes_upgrades_and_restores_while_somebody_chats() {
    let directory = tempfile::tempdir().unwrap();
    let package = build(Path::new(env!("CARGO_BIN_EXE_imks")), directory.path());
    let machine =
        Machine { root: Root::new(directory.path().join("root")), data: directory.path().join("data") };
    machine.root.dpkg("--install", &package);

    // Configure: what is written is checked before the start.
    let certificates = directory.path().join("certificates");
    let authority = certificate(&machine.program(), &certificates);
    machine.configure(&certificates, "");
    assert!(machine.imks(&["check-config"]).contains("IMKS_TLS_CERT"));
    let token = machine.imks(&["token", "ann"]);
    let token = token.trim();

    // Start, connect, look.
    let mut server = machine.start();
    let (client, socket, channel) = server.client(token, &authority).await;
    send(&socket, &channel, "before").await;
    let who = server.says("signed in");
    assert_eq!((&who["username"], &who["transport"]), (&json!("ann"), &json!("websocket")));
    assert!(server.get("/health/ready").starts_with("HTTP/1.1 200"));
    assert!(server.get("/metrics").contains("\nimks_messages_stored_total 1\n"));

    // Rotate the certificate, and change a limit: nobody loses the connection.
    let new_authority = rotate(&machine, &certificates, &directory.path().join("newer"));
    machine.configure(&certificates, "[limits]\nsessions_per_user = 7\n");
    server.signal(Signal::HUP);
    assert_eq!(server.says("configuration reloaded")["in_use"], "limits.sessions_per_user");
    let (second, other, _) = server.client(token, &new_authority).await;
    send(&other, &channel, "with the new certificate").await;
    send(&socket, &channel, "on the old connection").await;
    second.close().await;

    // Back up while it runs; drain; upgrade, which keeps the configuration.
    let backup = directory.path().join("backup.db");
    machine.imks(&["backup", backup.to_str().unwrap()]);
    send(&socket, &channel, "after the backup").await;
    server.drain();
    client.close().await;
    machine.root.dpkg("--install", &package);
    let server = machine.start();
    let (client, socket, _) = server.client(token, &new_authority).await;
    let all = ["before", "with the new certificate", "on the old connection", "after the backup"];
    assert_eq!(history(&socket, &channel).await, all);
    client.close().await;
    server.drain();

    // The disk is lost: the backup has what was acknowledged before it.
    std::fs::remove_dir_all(&machine.data).unwrap();
    std::fs::create_dir(&machine.data).unwrap();
    std::fs::copy(&backup, machine.data.join("imks.db")).unwrap();
    let server = machine.start();
    let (client, socket, _) = server.client(token, &new_authority).await;
    assert_eq!(history(&socket, &channel).await, all[..3]);
    send(&socket, &channel, "restored").await;
    client.close().await;
    server.drain();
}
