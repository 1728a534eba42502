//! `imks directory emoji`.

use super::shown::Shown;
use crate::ImksResult;
use crate::directory::{Directory, FIRST_WORKSPACE};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the custom emoji of a workspace
    List {
        /// The workspace
        #[arg(long, default_value = FIRST_WORKSPACE)]
        workspace: String,
    },
    /// Add a custom emoji, which is written `:name:`
    Add {
        /// The name, without colons
        name: String,
        /// The address of its picture
        picture: String,
        /// The workspace
        #[arg(long, default_value = FIRST_WORKSPACE)]
        workspace: String,
    },
    /// Remove a custom emoji; messages and reactions keep its name
    Remove {
        /// The name, without colons
        name: String,
        /// The workspace
        #[arg(long, default_value = FIRST_WORKSPACE)]
        workspace: String,
    },
}

impl Command {
    pub(super) fn only_reads(&self) -> bool {
        matches!(self, Self::List { .. })
    }

    pub(super) async fn run(self, directory: &Directory) -> ImksResult<Shown> {
        match self {
            Self::List { workspace } => Shown::list(&directory.emoji(&workspace).await?, |emoji| {
                format!(":{}:\t{}\t{}", emoji.name, emoji.id, emoji.image_url)
            }),
            Self::Add { name, picture, workspace } => {
                let emoji = directory.create_emoji(&workspace, &name, &picture).await?;
                Shown::one(&emoji, emoji.id.to_string())
            }
            Self::Remove { name, workspace } => {
                directory.remove_emoji(&workspace, &name).await?;
                Shown::nothing()
            }
        }
    }
}
