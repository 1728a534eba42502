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
    /// Users
    #[command(subcommand)]
    User(UserCommand),
    /// Channels
    #[command(subcommand)]
    Channel(ChannelCommand),
    /// Who is in which channel
    #[command(subcommand)]
    Member(MemberCommand),
    /// Make what a TOML file names and does not exist yet
    Import {
        /// The file
        file: PathBuf,
    },
    /// Sign with a new key from now on; tokens of the old one stay good until they end
    RotateKey,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Make a user
    Add {
        /// Letters, digits, hyphens, underscores, dots
        name: String,
        /// A program acts here
        #[arg(long)]
        bot: bool,
    },
    /// List the users: name and id
    List,
    /// Close an account: its tokens and memberships end
    Remove {
        /// Name of the user
        name: String,
    },
    /// Withdraw all tokens that a user has now
    Revoke {
        /// Name of the user
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum ChannelCommand {
    /// Make a channel
    Add {
        /// Letters, digits, hyphens, underscores, dots
        name: String,
        /// Known to its members only
        #[arg(long)]
        private: bool,
        /// Only owners write
        #[arg(long)]
        read_only: bool,
        /// Seconds between two messages of one user
        #[arg(long, default_value_t = 0, value_name = "SECONDS")]
        slow_mode: u32,
    },
    /// List the channels: name, id and state
    List,
    /// Nothing changes in the channel any more
    Archive {
        /// Name of the channel
        name: String,
        /// Open it again
        #[arg(long)]
        undo: bool,
    },
}

#[derive(Debug, Subcommand)]
enum MemberCommand {
    /// Make a user a member of a channel, or give a member another role
    Add {
        /// Name of the channel
        channel: String,
        /// Name of the user
        user: String,
        /// What the member may do
        #[arg(long, default_value = "member")]
        role: RoleName,
    },
    /// End a membership, and with it its rights
    Remove {
        /// Name of the channel
        channel: String,
        /// Name of the user
        user: String,
    },
    /// List the members of a channel: name, id and role
    List {
        /// Name of the channel
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
