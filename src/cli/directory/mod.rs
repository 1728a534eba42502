//! `imks directory`: manages the embedded directory. A running server applies every change within a second.

mod ban;
mod channel;
mod emoji;
mod key;
mod list;
mod member;
mod overrides;
mod role;
mod shown;
mod token;
mod user;
mod webhook;
mod workspace;

use std::path::{Path, PathBuf};

use clap::Subcommand;

use self::shown::Shown;
use crate::config::Config;
use crate::directory::{Count, Directory, Imported, Seed};
use crate::{ImksError, ImksResult};

/// Options of `imks directory`. A channel is named `team` (in the first workspace), `acme/team`, or by its id; a
/// whole workspace `acme/`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON instead of lines
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List everything: workspaces, their channels, and users, each with its id
    List,
    /// Manage workspaces
    #[command(subcommand)]
    Workspace(workspace::Command),
    /// Manage users
    #[command(subcommand)]
    User(user::Command),
    /// Manage channels and direct conversations
    #[command(subcommand)]
    Channel(channel::Command),
    /// Manage members of channels and workspaces
    #[command(subcommand)]
    Member(member::Command),
    /// Manage roles
    #[command(subcommand)]
    Role(role::Command),
    /// Manage what a channel gives to, or takes from, a role or a user
    #[command(subcommand)]
    Override(overrides::Command),
    /// Manage bans
    #[command(subcommand)]
    Ban(ban::Command),
    /// Manage incoming webhooks: addresses under which programs post into a channel
    #[command(subcommand)]
    Webhook(webhook::Command),
    /// Manage custom emoji
    #[command(subcommand)]
    Emoji(emoji::Command),
    /// Manage sessions and their tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Manage signing keys
    #[command(subcommand)]
    Key(key::Command),
    /// List the permissions that a user has in a channel
    Permissions {
        /// The channel
        channel: String,
        /// The user
        user: String,
    },
    /// Create the users, channels and members of a TOML file that do not exist yet
    Import {
        /// The TOML file
        file: PathBuf,
    },
}

impl What {
    fn only_reads(&self) -> bool {
        match self {
            Self::Workspace(command) => command.only_reads(),
            Self::User(command) => command.only_reads(),
            Self::Channel(command) => command.only_reads(),
            Self::Member(command) => command.only_reads(),
            Self::Role(command) => command.only_reads(),
            Self::Override(command) => command.only_reads(),
            Self::Ban(command) => command.only_reads(),
            Self::Webhook(command) => command.only_reads(),
            Self::Emoji(command) => command.only_reads(),
            Self::Token(command) => command.only_reads(),
            Self::Key(command) => command.only_reads(),
            Self::List | Self::Permissions { .. } => true,
            Self::Import { .. } => false,
        }
    }

    /// Whether the command only takes something away, and so is of use with an existing database only.
    fn only_removes(&self) -> bool {
        matches!(
            self,
            Self::Workspace(workspace::Command::Remove { .. })
                | Self::User(user::Command::Remove { .. } | user::Command::Revoke { .. })
                | Self::Channel(channel::Command::Remove { .. })
                | Self::Member(member::Command::Remove { .. })
                | Self::Role(role::Command::Remove { .. })
                | Self::Override(overrides::Command::Remove { .. })
                | Self::Ban(ban::Command::Remove { .. })
                | Self::Webhook(webhook::Command::Remove { .. })
                | Self::Emoji(emoji::Command::Remove { .. })
                | Self::Token(token::Command::Remove { .. })
                | Self::Key(key::Command::Revoke { .. })
        )
    }

    fn issues_tokens(&self) -> bool {
        matches!(self, Self::Token(token::Command::Add { .. }))
    }

    async fn run(self, directory: &Directory) -> ImksResult<Shown> {
        match self {
            Self::List => list::run(directory).await,
            Self::Workspace(command) => command.run(directory).await,
            Self::User(command) => command.run(directory).await,
            Self::Channel(command) => command.run(directory).await,
            Self::Member(command) => command.run(directory).await,
            Self::Role(command) => command.run(directory).await,
            Self::Override(command) => command.run(directory).await,
            Self::Ban(command) => command.run(directory).await,
            Self::Webhook(command) => command.run(directory).await,
            Self::Emoji(command) => command.run(directory).await,
            Self::Token(command) => command.run(directory).await,
            Self::Key(command) => command.run(directory).await,
            Self::Permissions { channel, user } => {
                let names = directory.permissions_of(&channel, &user).await?;
                Shown::list(&names, |name| (*name).to_owned())
            }
            Self::Import { file } => import(directory, &file).await,
        }
    }
}

/// Runs the command, and prints lists and ids as tab-separated lines or as JSON.
///
/// # Errors
/// `Config` if an external core is configured, or if there is no directory to read or remove from; `InvalidInput`,
/// `UnknownName`, `Conflict`, `FailedPrecondition`, `Database`.
pub async fn run(args: Args, config: &Config) -> ImksResult<()> {
    if args.what.issues_tokens() {
        super::token::check_issuer(config)?;
    }
    if args.what.only_removes() {
        super::token::check_database(config)?;
    }
    let directory = match args.what.only_reads() {
        true => super::token::open_existing(config).await?,
        false => super::token::open(config).await?,
    };
    let outcome = Box::pin(args.what.run(&directory)).await;
    directory.close().await;
    match outcome?.text(args.json) {
        Some(text) => super::say(&text),
        None => Ok(()),
    }
}

async fn import(directory: &Directory, file: &Path) -> ImksResult<Shown> {
    let text = tokio::fs::read_to_string(file)
        .await
        .map_err(ImksError::io(format!("reading {}", file.display())))?;
    let imported = directory.import(Seed::parse(&text)?).await?;
    let Imported { users, channels, memberships } = imported;
    let line =
        |what: &str, count: Count| format!("{what}: {} made, {} there already", count.made, count.there);
    let lines = [line("users", users), line("channels", channels), line("memberships", memberships)];
    Shown::one(&imported, lines.join("\n"))
}
