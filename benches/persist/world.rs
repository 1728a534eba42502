//! Users, channels, tokens and a server, made with the same commands that a person uses.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::Outcome;
use super::database::{Database, Postgres, imks};
use super::server::Server;

pub const SENDERS: usize = 200;
pub const CHANNELS: usize = 1_000;

/// A running server with everybody in it. Fields are dropped in this order: the server leaves before its database.
pub struct World {
    pub server: Server,
    /// Of those who send to channels of their own.
    pub spread: Vec<String>,
    /// Of those who all send to one channel.
    pub hot: Vec<String>,
    environment: Vec<(String, String)>,
    directory: TempDir,
    _postgres: Option<Postgres>,
}

impl World {
    pub fn create(database: Database) -> Outcome<Self> {
        let directory = TempDir::new()?;
        let postgres = (database == Database::Postgres).then(Postgres::create).transpose()?;
        let mut environment = vec![("IMKS_DATA_DIR".to_owned(), directory.path().display().to_string())];
        environment.extend(SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())));
        if let Some(postgres) = &postgres {
            environment.push(("DATABASE_URL".to_owned(), postgres.url()?));
        }
        let seed = directory.path().join("seed.toml");
        std::fs::write(&seed, seed_file()?)?;
        let imks = || program(&environment);
        run(imks().args(["directory", "import"]).arg(&seed))?;
        let token = |user: String| run(imks().args(["token", &user]));
        let spread = (0..SENDERS).map(|n| token(spread_user(n))).collect::<Outcome<_>>()?;
        let hot = (0..SENDERS).map(|n| token(hot_user(n))).collect::<Outcome<_>>()?;
        let server = Server::start(|port| serve(&environment, port))?;
        Ok(Self { server, spread, hot, environment, directory, _postgres: postgres })
    }

    /// Returns the directory of this world, which is gone with it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Kills the server, and starts it again on the same port.
    pub fn restart(&mut self) -> Outcome<()> {
        let port = self.server.address.port();
        self.server.kill()?;
        self.server = Server::start_on(port, |port| serve(&self.environment, port))?;
        Ok(())
    }
}

fn program(environment: &[(String, String)]) -> Command {
    let mut command = Command::new(imks());
    command.envs(environment.iter().cloned()).stdin(Stdio::null());
    command
}

fn serve(environment: &[(String, String)], port: u16) -> Command {
    let mut command = program(environment);
    command.args(["--listen", &format!("127.0.0.1:{port}")]);
    command
}

/// The limits of a chat among people would end this load at once.
const SETTINGS: [(&str, &str); 6] = [
    ("RUST_LOG", "warn"),
    ("IMKS_LIMIT_CONNECTS", "off"),
    ("IMKS_LIMIT_EVENTS", "off"),
    ("IMKS_LIMIT_SENDS", "off"),
    ("IMKS_LIMIT_SENDS_PER_CHANNEL", "off"),
    ("IMKS_LIMIT_SESSIONS_PER_USER", "0"),
];

fn spread_user(number: usize) -> String {
    format!("spread{number}")
}

fn hot_user(number: usize) -> String {
    format!("hot{number}")
}

fn seed_file() -> Outcome<String> {
    let mut text = String::new();
    for channel in 0..CHANNELS {
        let user = spread_user(channel % SENDERS);
        write!(text, "[[channel]]\nname = \"channel{channel}\"\nmembers = [\"{user}\"]\n\n")?;
    }
    let everybody: Vec<String> = (0..SENDERS).map(|number| format!("{:?}", hot_user(number))).collect();
    write!(text, "[[channel]]\nname = \"hot\"\nmembers = [{}]\n", everybody.join(", "))?;
    Ok(text)
}

fn run(command: &mut Command) -> Outcome<String> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
