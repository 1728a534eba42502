//! A database with many messages and users, and a server on it.

use std::process::{Command, Stdio};

use imks::testing::config::Config;
use imks::testing::directory::Directory;
use imks::testing::models::db::{self, Db};
use sqlx::AssertSqlSafe;
use tempfile::TempDir;

use super::Outcome;
use super::client::TestClient;
use super::database::{Database, Postgres, imks};
use super::fill::{self, Size};
use super::server::Server;

/// The channels of each reader, and how many readers there are.
pub const CHANNELS: u64 = 500;
pub const READERS: u64 = 32;
/// How long a token lives.
const HOUR: std::time::Duration = std::time::Duration::from_secs(3_600);

/// A running server. Fields are dropped in this order: the server leaves before its database.
pub struct World {
    pub server: Server,
    pub database: Database,
    pub size: Size,
    /// Of the users: the first ones read many channels, all are in the first channel.
    pub tokens: Vec<String>,
    _postgres: Option<Postgres>,
    _directory: TempDir,
}

impl World {
    pub async fn create(database: Database, messages: i64, users: u64) -> Outcome<Self> {
        let directory = TempDir::new()?;
        let postgres = (database == Database::Postgres).then(Postgres::create).transpose()?;
        let url = postgres.as_ref().map(Postgres::url).transpose()?;
        let config = db::Config {
            data_dir: directory.path().into(),
            url: url.clone().map(Into::into),
            ..db::Config::default()
        };
        let db = Db::connect(&config).await?;
        db.migrate().await?;
        let size = Size::new(messages);
        fill::fill(&config, size).await;
        let users = users.max(READERS);
        for statement in people(database, users) {
            execute(&db, statement).await?;
        }
        let tokens = tokens(&db, users).await?;
        db.close().await;
        let server = Server::start(|port| {
            let mut command = Command::new(imks());
            command.env("IMKS_DATA_DIR", directory.path()).stdin(Stdio::null());
            command.envs(SETTINGS).envs(url.map(|url| ("DATABASE_URL", url)));
            command.args(["--listen", &format!("127.0.0.1:{port}")]);
            command
        })?;
        Ok(Self { server, database, size, tokens, _postgres: postgres, _directory: directory })
    }

    pub async fn client(&self, user: u64) -> TestClient {
        TestClient::connect(self.server.address, &self.tokens[user as usize]).await
    }
}

/// The users and channels of the directory, with their memberships.
fn people(database: Database, users: u64) -> Vec<String> {
    let ids = |id: fn(u64) -> uuid::Uuid, number: u64| match database {
        Database::Postgres => format!("'{}'::uuid", id(number)),
        Database::Sqlite => format!("x'{}'", id(number).simple()),
    };
    let (user, channel) = (|number| ids(fill::user, number), |number| ids(fill::channel, number));
    let fixed = |text: &str| match database {
        Database::Postgres => format!("'{text}'::uuid"),
        Database::Sqlite => format!("x'{}'", text.replace('-', "")),
    };
    let (member, main) =
        (fixed("00000000-0000-7000-8000-000000000002"), fixed("00000000-0000-7000-8000-000000000010"));
    let memberships: Vec<(u64, u64)> = (0..users)
        .map(|number| (number, 0))
        .chain((0..READERS).flat_map(|number| (1..CHANNELS).map(move |channel| (number, channel))))
        .collect();
    let all = |rows: Vec<String>, into: &str, more: &str| -> Vec<String> {
        rows.chunks(1_000)
            .map(|rows| format!("INSERT INTO {into} VALUES {}{more}", rows.join(", ")))
            .collect()
    };
    let mut statements = all(
        (0..users).map(|number| format!("({}, 'u{number}', 0)", user(number))).collect(),
        "directory_user (id, username, created_at)",
        "",
    );
    statements.extend(all(
        (0..CHANNELS).map(|number| format!("({}, 'c{number}', 1, 0, {main})", channel(number))).collect(),
        "directory_channel (id, name, kind, created_at, workspace_id)",
        "",
    ));
    statements.extend(all(
        memberships.iter().map(|(of, there)| format!("({}, {}, 0)", channel(*there), user(*of))).collect(),
        "directory_member (channel_id, user_id, joined_at)",
        "",
    ));
    statements.extend(all(
        memberships
            .iter()
            .map(|(of, there)| format!("({}, {}, {member})", user(*of), channel(*there)))
            .collect(),
        "directory_member_role (user_id, place_id, role_id)",
        "",
    ));
    statements.extend(all(
        (0..users).map(|number| format!("({}, {}, 0)", user(number), channel(0))).collect(),
        "message_read_state (user_id, channel_id, updated_at)",
        " ON CONFLICT DO NOTHING",
    ));
    statements
}

async fn execute(db: &Db, statement: String) -> Outcome<()> {
    let sql = sqlx::raw_sql(AssertSqlSafe(statement));
    match db {
        Db::Postgres(pool) => sql.execute(pool).await.map(|_| ())?,
        Db::Sqlite(sqlite) => sql.execute(&sqlite.writer).await.map(|_| ())?,
    }
    Ok(())
}

async fn tokens(db: &Db, users: u64) -> Outcome<Vec<String>> {
    let directory = Directory::open(db.clone(), Config::default().directory()).await?;
    let mut tokens = Vec::new();
    for number in 0..users {
        let user = directory.user(&format!("u{number}")).await?.ok_or("a user who was made")?;
        tokens.push(directory.issue_token(&user, HOUR).await?);
    }
    Ok(tokens)
}

/// The limits of a chat among people would end this load at once.
const SETTINGS: [(&str, &str); 5] = [
    ("RUST_LOG", "warn"),
    ("IMKS_LIMIT_EVENTS", "off"),
    ("IMKS_LIMIT_SENDS", "off"),
    ("IMKS_LIMIT_SENDS_PER_CHANNEL", "off"),
    ("IMKS_LIMIT_CONNECTS", "off"),
];
