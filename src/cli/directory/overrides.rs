//! `imks directory override`.

use super::shown::Shown;
use crate::ImksResult;
use crate::directory::{ChannelOverride, Directory, Subject, permission_bits, permission_names};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the overrides of a channel
    List {
        /// The channel
        channel: String,
    },
    /// Set what a channel gives to, and takes from, a role or a user; replaces what was set before
    Set {
        /// The channel
        channel: String,
        #[command(flatten)]
        whom: Whom,
        /// The permissions that the channel gives, for example SEND_MESSAGES,PIN_MESSAGES
        #[arg(long, value_delimiter = ',')]
        allow: Vec<String>,
        /// The permissions that the channel takes
        #[arg(long, value_delimiter = ',')]
        deny: Vec<String>,
    },
    /// Remove the override of a role or a user
    Remove {
        /// The channel
        channel: String,
        #[command(flatten)]
        whom: Whom,
    },
}

/// The role or user that an override is for.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Whom {
    /// The role, by name or id
    #[arg(long)]
    role: Option<String>,
    /// The user, by name or id
    #[arg(long)]
    user: Option<String>,
}

impl Whom {
    fn subject(&self) -> Subject<'_> {
        match (&self.role, &self.user) {
            (Some(role), _) => Subject::Role(role),
            (None, user) => Subject::User(user.as_deref().unwrap_or_default()),
        }
    }
}

impl Command {
    pub(super) fn only_reads(&self) -> bool {
        matches!(self, Self::List { .. })
    }

    pub(super) async fn run(self, directory: &Directory) -> ImksResult<Shown> {
        match self {
            Self::List { channel } => Shown::list(&directory.overrides(&channel).await?, line),
            Self::Set { channel, whom, allow, deny } => {
                let (allow, deny) = (permission_bits(&allow)?, permission_bits(&deny)?);
                directory.set_override(&channel, whom.subject(), allow, deny).await?;
                Shown::nothing()
            }
            Self::Remove { channel, whom } => {
                directory.remove_override(&channel, whom.subject()).await?;
                Shown::nothing()
            }
        }
    }
}

fn line(one: &ChannelOverride) -> String {
    let kind = if one.is_role { "role" } else { "user" };
    let names = |bits: i64| permission_names(bits.cast_unsigned()).join(",");
    format!("{kind}\t{}\t+{}\t-{}", one.name, names(one.allow_bits), names(one.deny_bits))
}
