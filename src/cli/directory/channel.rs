//! `imks directory channel`.

use super::shown::Shown;
use crate::ImksResult;
use crate::directory::{ChannelChange, Directory, FIRST_WORKSPACE, NewChannel, RoomKind, kind_name};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the channels of a workspace with their ids, states and kinds
    List {
        /// The workspace, by name or id; without it the first one
        #[arg(default_value = FIRST_WORKSPACE, hide_default_value = true)]
        workspace: String,
    },
    /// Create a channel
    Add {
        /// The name: letters, digits, hyphens, underscores and dots; in another workspace acme/NAME
        name: String,
        /// Hide the channel from everybody but its members
        #[arg(long, conflicts_with = "announcement")]
        private: bool,
        /// Let those who manage the channel write, and all members of the workspace read
        #[arg(long)]
        announcement: bool,
        /// Let only those who manage the channel write
        #[arg(long)]
        read_only: bool,
        /// The least number of seconds between two messages of one user
        #[arg(long, default_value_t = 0, value_name = "SECONDS")]
        slow_mode: u32,
    },
    /// Return the direct conversation of two or more users, and create it if it is missing
    Direct {
        /// The users, by name or id
        #[arg(required = true, num_args = 2..)]
        users: Vec<String>,
    },
    /// Change a channel
    Set(Set),
    /// Archive a channel, so that nothing can change in it
    Archive {
        /// The channel
        channel: String,
        /// Unarchive the channel instead
        #[arg(long)]
        undo: bool,
    },
    /// Remove a channel; its messages stay in the database, but nobody can reach them
    Remove {
        /// The channel
        channel: String,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Set {
    /// The channel
    channel: String,
    /// The new name, without a workspace
    #[arg(long)]
    name: Option<String>,
    /// Who sees the channel, and who writes in it
    #[arg(long)]
    kind: Option<RoomKind>,
    /// Whether the channel is archived
    #[arg(long, value_name = "BOOL")]
    archived: Option<bool>,
    /// Whether only those who manage the channel may write
    #[arg(long, value_name = "BOOL")]
    read_only: Option<bool>,
    /// The least number of seconds between two messages of one user
    #[arg(long, value_name = "SECONDS")]
    slow_mode: Option<u32>,
    /// The number of days that messages are kept; 0 for ever
    #[arg(long, value_name = "DAYS")]
    retention: Option<u32>,
}

impl Command {
    pub(super) fn only_reads(&self) -> bool {
        matches!(self, Self::List { .. })
    }

    pub(super) async fn run(self, directory: &Directory) -> ImksResult<Shown> {
        match self {
            Self::List { workspace } => {
                let state = |archived: bool| if archived { "archived" } else { "open" };
                let channels = directory.channels(&workspace).await?;
                Shown::list(&channels, |channel| {
                    let kind = kind_name(channel.kind);
                    format!("{}\t{}\t{}\t{kind}", channel.name, channel.id, state(channel.archived))
                })
            }
            Self::Add { name, private, announcement, read_only, slow_mode } => {
                let kind = match (private, announcement) {
                    (true, _) => RoomKind::Private,
                    (_, true) => RoomKind::Announcement,
                    _ => RoomKind::Public,
                };
                let new = NewChannel { name, kind, read_only, slow_mode_s: slow_mode };
                let channel = directory.create_channel(new).await?;
                Shown::one(&channel, channel.id.to_string())
            }
            Self::Direct { users } => {
                let channel = directory.direct(&users).await?;
                Shown::one(&channel, channel.id.to_string())
            }
            Self::Set(set) => set.run(directory).await,
            Self::Archive { channel, undo } => {
                directory.set_channel_state(&channel, Some(!undo), None).await?;
                Shown::nothing()
            }
            Self::Remove { channel } => {
                directory.remove_channel(&channel).await?;
                Shown::nothing()
            }
        }
    }
}

impl Set {
    async fn run(self, directory: &Directory) -> ImksResult<Shown> {
        let change = ChannelChange {
            name: self.name,
            kind: self.kind,
            archived: self.archived,
            read_only: self.read_only,
            slow_mode_s: self.slow_mode,
            retention_days: self.retention,
        };
        let channel = directory.set_channel(&self.channel, change).await?;
        Shown::one(&channel, channel.id.to_string())
    }
}
