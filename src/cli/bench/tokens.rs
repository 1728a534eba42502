//! The tokens of the clients of a run: given, from a file, or made for development.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file;
use crate::cli::token;
use crate::config::Config;
use crate::{ImksError, ImksResult};

/// Where tokens come from.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The token of a client (`auth.token`); repeated, the clients take them in turn
    #[arg(long, value_name = "TOKEN")]
    token: Vec<String>,
    /// A file with a token on each line; other users of the machine can read a command line
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Makes the users bench1, bench2, … of the configured database, members of the channel `general`, and tokens for
    /// them, as `imks token` does
    #[arg(long, conflicts_with_all = ["token", "token_file"])]
    development: bool,
}

impl Options {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.token.is_empty() && self.token_file.is_none() && !self.development
    }

    /// Returns the tokens for so many clients.
    ///
    /// # Errors
    /// `Config` if the file cannot be read or has no token; `Config` and `Database` as for `imks token`, and if there is no
    /// database yet.
    pub(super) async fn read(&self, clients: usize, config: &Config) -> ImksResult<Vec<String>> {
        let mut tokens = self.token.clone();
        if let Some(path) = &self.token_file {
            tokens.extend(tokens_in(path)?);
        }
        if self.development {
            token::check_issuer(config)?;
            token::check_database(config)?;
            let directory = token::open(config).await?;
            for number in 1..=clients.min(DEVELOPMENT_USERS_MAX) {
                let user = directory.ensure_development(&format!("bench{number}")).await?;
                tokens.push(directory.issue_token(&user, LIFETIME).await?);
            }
            directory.close().await;
        }
        Ok(tokens)
    }
}

fn tokens_in(path: &Path) -> ImksResult<Vec<String>> {
    let text = file::read(path, FILE_BYTES_MAX)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let tokens: Vec<String> = lines.map(str::to_owned).collect();
    match tokens.is_empty() {
        true => Err(ImksError::Config(format!("{}: there is no token in it", path.display()))),
        false => Ok(tokens),
    }
}

/// The size of the largest file with tokens, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The lifetime of tokens that are made for a run.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The maximum number of users that are made for a run. With more clients, several are the same user.
const DEVELOPMENT_USERS_MAX: usize = 1_000;
