//! `imks directory webhook`.

use super::shown::Shown;
use crate::ImksResult;
use crate::directory::Directory;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the incoming webhooks of a channel
    List {
        /// The channel
        channel: String,
    },
    /// Make an incoming webhook, and print its id and its path with the secret, which is shown only now
    Add {
        /// The channel that it posts into
        channel: String,
        /// The name that its messages show, unless they name another one
        name: String,
        /// The address of a picture
        #[arg(long, default_value = "")]
        avatar: String,
    },
    /// Remove an incoming webhook; its address stands for nothing from then on
    Remove {
        /// The id
        id: String,
    },
}

impl Command {
    pub(super) fn only_reads(&self) -> bool {
        matches!(self, Self::List { .. })
    }

    pub(super) async fn run(self, directory: &Directory) -> ImksResult<Shown> {
        match self {
            Self::List { channel } => Shown::list(&directory.webhooks(&channel).await?, |webhook| {
                format!("{}\t{}\t{}", webhook.id, webhook.name, webhook.avatar)
            }),
            Self::Add { channel, name, avatar } => {
                let made = directory.create_webhook(&channel, &name, &avatar).await?;
                Shown::one(&made, format!("{}\t{}", made.webhook.id, made.path))
            }
            Self::Remove { id } => {
                directory.remove_webhook(&id).await?;
                Shown::nothing()
            }
        }
    }
}
