//! `imks directory key`.

use super::shown::{Shown, time_or_dash};
use crate::ImksResult;
use crate::directory::{Directory, SigningKeyInfo};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the signing keys with their ages and states
    List,
    /// Create a new signing key and print its id; tokens of the old key stay valid until they expire
    Rotate,
    /// Declare all tokens of a key void, for a key that leaked
    Revoke {
        /// The id of the key
        kid: String,
    },
}

impl Command {
    pub(super) fn only_reads(&self) -> bool {
        matches!(self, Self::List)
    }

    pub(super) async fn run(self, directory: &Directory) -> ImksResult<Shown> {
        match self {
            Self::List => Shown::list(&directory.signing_keys().await?, line),
            Self::Rotate => {
                let key = directory.rotate_signing_key().await?;
                Shown::one(&key, key.kid.clone())
            }
            Self::Revoke { kid } => {
                directory.revoke_signing_key(&kid).await?;
                Shown::nothing()
            }
        }
    }
}

fn line(key: &SigningKeyInfo) -> String {
    let state = match (key.revoked, key.not_after) {
        (true, _) => "revoked",
        (false, None) => "signs",
        (false, Some(_)) => "retired",
    };
    format!("{}\t{state}\t{}\t{}", key.kid, time_or_dash(Some(key.created_at)), time_or_dash(key.not_after))
}
