//! `imks directory token`.

use super::shown::{Shown, time_or_dash};
use crate::ImksResult;
use crate::directory::Directory;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the sessions of a user with their ids, begins and ends
    List {
        /// The user, by name or id
        user: String,
    },
    /// Begin a session of a user, and print its access token and its refresh token
    Add {
        /// The user, by name or id
        user: String,
    },
    /// End a session and revoke its tokens
    Remove {
        /// The id of the session
        session: String,
    },
}

impl Command {
    pub(super) fn only_reads(&self) -> bool {
        matches!(self, Self::List { .. })
    }

    pub(super) async fn run(self, directory: &Directory) -> ImksResult<Shown> {
        match self {
            Self::List { user } => Shown::list(&directory.sessions(&user).await?, |session| {
                let times = [Some(session.created_at), Some(session.expires_at)].map(time_or_dash);
                format!("{}\t{}", session.id, times.join("\t"))
            }),
            Self::Add { user } => {
                let user = directory.user_by_name(&user).await?;
                let tokens = directory.begin_session(&user, None).await?;
                Shown::one(&tokens, format!("{}\n{}", tokens.access_token, tokens.refresh_token))
            }
            Self::Remove { session } => {
                directory.remove_session(&session).await?;
                Shown::nothing()
            }
        }
    }
}
