//! `imks directory`: manages users, channels and members of the embedded directory. A running server applies
//! every change within a second.

use std::path::PathBuf;

use clap::Subcommand;

use crate::config::Config;
use crate::directory::{Count, Directory, Imported, NewChannel, RoleName, Seed};
use crate::{ImksError, ImksResult};

/// Options of `imks directory`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Manage users
    #[command(subcommand)]
    User(UserCommand),
    /// Manage channels
    #[command(subcommand)]
    Channel(ChannelCommand),
    /// Manage members of channels
    #[command(subcommand)]
    Member(MemberCommand),
    /// Create the users, channels and members of a TOML file that do not exist yet
    Import {
        /// The TOML file
        file: PathBuf,
    },
    /// Create a new signing key; tokens of the old key stay valid until they expire
    RotateKey,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Create a user
    Add {
        /// The name: letters, digits, hyphens, underscores and dots
        name: String,
        /// Mark the user as a bot
        #[arg(long)]
        bot: bool,
    },
    /// List the users with their ids
    List,
    /// Close the account of a user, and end their tokens and memberships
    Remove {
        /// The name of the user
        name: String,
    },
    /// Revoke all current tokens of a user
    Revoke {
        /// The name of the user
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum ChannelCommand {
    /// Create a channel
    Add {
        /// The name: letters, digits, hyphens, underscores and dots
        name: String,
        /// Hide the channel from everybody but its members
        #[arg(long)]
        private: bool,
        /// Let only owners write
        #[arg(long)]
        read_only: bool,
        /// The least number of seconds between two messages of one user
        #[arg(long, default_value_t = 0, value_name = "SECONDS")]
        slow_mode: u32,
    },
    /// List the channels with their ids and states
    List,
    /// Archive a channel, so that nothing can change in it
    Archive {
        /// The name of the channel
        name: String,
        /// Unarchive the channel instead
        #[arg(long)]
        undo: bool,
    },
}

#[derive(Debug, Subcommand)]
enum MemberCommand {
    /// Add a user to a channel, or change the role of a member
    Add {
        /// The name of the channel
        channel: String,
        /// The name of the user
        user: String,
        /// The role of the member
        #[arg(long, default_value = "member")]
        role: RoleName,
    },
    /// Remove a member from a channel
    Remove {
        /// The name of the channel
        channel: String,
        /// The name of the user
        user: String,
    },
    /// List the members of a channel with their ids and roles
    List {
        /// The name of the channel
        channel: String,
    },
}

impl What {
    fn only_reads(&self) -> bool {
        matches!(
            self,
            Self::User(UserCommand::List)
                | Self::Channel(ChannelCommand::List)
                | Self::Member(MemberCommand::List { .. })
        )
    }
}

/// Runs the command, and prints lists and ids as tab-separated lines.
///
/// # Errors
/// `Config` if an external core is configured, or if there is no database to list from; `InvalidInput`,
/// `UnknownName`, `Conflict`, `Database`.
pub async fn run(args: Args, config: &Config) -> ImksResult<()> {
    let directory = match args.what.only_reads() {
        true => super::token::open_existing(config).await?,
        false => super::token::open(config).await?,
    };
    let lines = match args.what {
        What::User(command) => user(&directory, command).await?,
        What::Channel(command) => channel(&directory, command).await?,
        What::Member(command) => member(&directory, command).await?,
        What::Import { file } => vec![import(&directory, file).await?],
        What::RotateKey => {
            directory.rotate_signing_key().await?;
            Vec::new()
        }
    };
    if !lines.is_empty() {
        super::say(&lines.join("\n"))?;
    }
    directory.close().await;
    Ok(())
}

async fn user(directory: &Directory, command: UserCommand) -> ImksResult<Vec<String>> {
    match command {
        UserCommand::Add { name, bot } => Ok(vec![directory.create_user(&name, bot).await?.id.to_string()]),
        UserCommand::List => {
            let users = directory.users().await?;
            Ok(users.iter().map(|user| format!("{}\t{}", user.username, user.id)).collect())
        }
        UserCommand::Remove { name } => directory.remove_user(&name).await.map(|()| Vec::new()),
        UserCommand::Revoke { name } => directory.revoke_user(&name).await.map(|()| Vec::new()),
    }
}

async fn channel(directory: &Directory, command: ChannelCommand) -> ImksResult<Vec<String>> {
    match command {
        ChannelCommand::Add { name, private, read_only, slow_mode } => {
            let new = NewChannel { name, private, read_only, slow_mode_s: slow_mode };
            Ok(vec![directory.create_channel(new).await?.id.to_string()])
        }
        ChannelCommand::List => {
            let state = |archived: bool| if archived { "archived" } else { "open" };
            let channels = directory.channels().await?;
            Ok(channels.iter().map(|c| format!("{}\t{}\t{}", c.name, c.id, state(c.archived))).collect())
        }
        ChannelCommand::Archive { name, undo } => {
            directory.set_channel_state(&name, Some(!undo), None).await.map(|()| Vec::new())
        }
    }
}

async fn member(directory: &Directory, command: MemberCommand) -> ImksResult<Vec<String>> {
    match command {
        MemberCommand::Add { channel, user, role } => {
            directory.add_member(&channel, &user, role).await.map(|_| Vec::new())
        }
        MemberCommand::Remove { channel, user } => {
            directory.remove_member(&channel, &user).await.map(|()| Vec::new())
        }
        MemberCommand::List { channel } => {
            let members = directory.members(&channel).await?;
            Ok(members.iter().map(|m| format!("{}\t{}\t{}", m.username, m.user_id, m.role)).collect())
        }
    }
}

async fn import(directory: &Directory, file: PathBuf) -> ImksResult<String> {
    let text = tokio::fs::read_to_string(&file)
        .await
        .map_err(ImksError::io(format!("reading {}", file.display())))?;
    let Imported { users, channels, memberships } = directory.import(Seed::parse(&text)?).await?;
    let line =
        |what: &str, count: Count| format!("{what}: {} made, {} there already", count.made, count.there);
    let lines = [line("users", users), line("channels", channels), line("memberships", memberships)];
    Ok(lines.join("\n"))
}
