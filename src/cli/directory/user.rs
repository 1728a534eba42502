//! `imks directory user`.

use super::shown::Shown;
use crate::ImksResult;
use crate::directory::Directory;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the users with their ids
    List,
    /// Create a user
    Add {
        /// The name: letters, digits, hyphens, underscores and dots
        name: String,
        /// Mark the user as a bot
        #[arg(long)]
        bot: bool,
        /// The login that the user stands for: `sub` in the tokens of your own application
        #[arg(long, value_name = "SUB")]
        login: Option<String>,
        /// The issuer of the login, `iss` in its tokens: with IMKS_TOKEN_JWKS_URL, and for each one in
        /// IMKS_TOKEN_ISSUERS after the first
        #[arg(long, value_name = "ISS", requires = "login")]
        issuer: Option<String>,
    },
    /// Rename a user
    Set {
        /// The user, by name or id
        user: String,
        /// The new name
        #[arg(long)]
        name: String,
    },
    /// Close the account of a user, and end their tokens and memberships
    Remove {
        /// The user, by name or id
        user: String,
    },
    /// Revoke all current tokens of a user, and end their sessions
    Revoke {
        /// The user, by name or id
        user: String,
    },
}

impl Command {
    pub(super) fn only_reads(&self) -> bool {
        matches!(self, Self::List)
    }

    pub(super) async fn run(self, directory: &Directory) -> ImksResult<Shown> {
        match self {
            Self::List => {
                let users = directory.users().await?;
                Shown::list(&users, |user| format!("{}\t{}", user.username, user.id))
            }
            Self::Add { name, bot, login, issuer } => {
                let issuer = issuer.unwrap_or_default();
                let user = match login {
                    Some(login) => directory.create_user_of_login(&name, bot, &issuer, &login).await?,
                    None => directory.create_user(&name, bot).await?,
                };
                Shown::one(&user, user.id.to_string())
            }
            Self::Set { user, name } => {
                let user = directory.rename_user(&user, &name).await?;
                Shown::one(&user, user.id.to_string())
            }
            Self::Remove { user } => {
                directory.remove_user(&user).await?;
                Shown::nothing()
            }
            Self::Revoke { user } => {
                directory.revoke_user(&user).await?;
                Shown::nothing()
            }
        }
    }
}
