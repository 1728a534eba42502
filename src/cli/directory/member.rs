//! `imks directory member`.

use super::shown::Shown;
use crate::clock::{Micros, parse_rfc3339};
use crate::directory::{Directory, HeldRole, NotifyLevel};
use crate::{ImksError, ImksResult};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the members of a channel, or of a workspace (acme/), with their ids and roles
    List {
        /// The channel or workspace
        place: String,
    },
    /// Add a user to a channel or workspace, or change the roles of a member there
    Add {
        /// The channel or workspace
        place: String,
        /// The user, by name or id
        user: String,
        /// A role of the member there; may be repeated. Without it, a new member is `member`
        #[arg(long)]
        role: Vec<String>,
    },
    /// Change how a member is notified of a channel
    Set {
        /// The channel
        channel: String,
        /// The user, by name or id
        user: String,
        /// The messages that the member is notified of
        #[arg(long)]
        notify: Option<NotifyLevel>,
        /// The time until which the channel is muted (2030-01-31T12:00:00Z), or `never`
        #[arg(long, value_name = "TIME", value_parser = muted)]
        mute_until: Option<Micros>,
    },
    /// Remove a member from a channel, or from a workspace and all of its channels
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
            Self::List { place } => list(directory, &place).await,
            Self::Add { place, user, role } => {
                directory.set_member(&place, &user, &role).await?;
                Shown::nothing()
            }
            Self::Set { channel, user, notify, mute_until } => {
                directory.set_notifications(&channel, &user, notify, mute_until).await?;
                Shown::nothing()
            }
            Self::Remove { place, user } => {
                directory.remove_member(&place, &user).await?;
                Shown::nothing()
            }
        }
    }
}

async fn list(directory: &Directory, place: &str) -> ImksResult<Shown> {
    match (directory.place(place).await?.channel, place.trim_end_matches('/')) {
        (Some(channel), _) => {
            let members = directory.members(&channel.to_string()).await?;
            Shown::list(&members, |member| line(&member.username, member.user_id, &member.roles))
        }
        (None, workspace) => {
            let members = directory.workspace_members(workspace).await?;
            Shown::list(&members, |member| line(&member.username, member.user_id, &member.roles))
        }
    }
}

fn line(username: &str, id: uuid::Uuid, roles: &[HeldRole]) -> String {
    let roles: Vec<&str> = roles.iter().map(|role| role.name.as_str()).collect();
    format!("{username}\t{id}\t{}", roles.join(","))
}

fn muted(text: &str) -> ImksResult<Micros> {
    match text {
        "never" => Ok(0),
        text => parse_rfc3339(text)
            .ok_or_else(|| ImksError::invalid("mute-until", format!("{text:?} is not a time"))),
    }
}
