//! `imks directory ban`.

use std::time::Duration;

use super::shown::{Shown, time_or_dash};
use crate::ImksResult;
use crate::clock::{Micros, now_micros};
use crate::config::Setting;
use crate::directory::Directory;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the bans of a channel, or of a workspace (acme/)
    List {
        /// The channel or workspace
        place: String,
    },
    /// Remove a user from a channel or workspace, and keep them out
    Add {
        /// The channel or workspace
        place: String,
        /// The user, by name or id
        user: String,
        /// Why, for other operators
        #[arg(long, default_value = "")]
        reason: String,
        /// How long, for example 24h; without it until the ban is removed
        #[arg(long = "for", value_name = "DURATION", value_parser = Duration::parse)]
        duration: Option<Duration>,
    },
    /// Lift a ban; the user can be added again
    Remove {
        /// The channel or workspace
        place: String,
        /// The user, by name or id
        user: String,
    },
}

impl Command {
    pub(super) fn only_reads(&self) -> bool {
        matches!(self, Self::List { .. })
    }

    pub(super) async fn run(self, directory: &Directory) -> ImksResult<Shown> {
        match self {
            Self::List { place } => Shown::list(&directory.bans(&place).await?, |ban| {
                let since = time_or_dash(Some(ban.banned_at));
                format!(
                    "{}\t{}\t{since}\t{}\t{}",
                    ban.username,
                    ban.user_id,
                    time_or_dash(ban.ends_at),
                    ban.reason
                )
            }),
            Self::Add { place, user, reason, duration } => {
                directory.ban(&place, &user, &reason, duration.map(end)).await?;
                Shown::nothing()
            }
            Self::Remove { place, user } => {
                directory.lift_ban(&place, &user).await?;
                Shown::nothing()
            }
        }
    }
}

fn end(after: Duration) -> Micros {
    now_micros().saturating_add(Micros::try_from(after.as_micros()).unwrap_or(Micros::MAX))
}
