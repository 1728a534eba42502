//! `imks directory workspace`.

use super::shown::Shown;
use crate::ImksResult;
use crate::directory::Directory;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the workspaces with their ids
    List,
    /// Create a workspace
    Add {
        /// The name: letters, digits, hyphens, underscores and dots
        name: String,
    },
    /// Rename a workspace
    Set {
        /// The workspace, by name or id
        workspace: String,
        /// The new name
        #[arg(long)]
        name: String,
    },
    /// Remove a workspace that has no channels, with its members, roles and bans
    Remove {
        /// The workspace, by name or id
        workspace: String,
    },
}

impl Command {
    pub(super) fn only_reads(&self) -> bool {
        matches!(self, Self::List)
    }

    pub(super) async fn run(self, directory: &Directory) -> ImksResult<Shown> {
        match self {
            Self::List => {
                let workspaces = directory.workspaces().await?;
                Shown::list(&workspaces, |workspace| format!("{}\t{}", workspace.name, workspace.id))
            }
            Self::Add { name } => {
                let workspace = directory.create_workspace(&name).await?;
                Shown::one(&workspace, workspace.id.to_string())
            }
            Self::Set { workspace, name } => {
                let workspace = directory.rename_workspace(&workspace, &name).await?;
                Shown::one(&workspace, workspace.id.to_string())
            }
            Self::Remove { workspace } => {
                directory.remove_workspace(&workspace).await?;
                Shown::nothing()
            }
        }
    }
}
