//! `imks directory role`.

use super::shown::Shown;
use crate::ImksResult;
use crate::directory::{Directory, FIRST_WORKSPACE, Role, RoleChange, permission_bits, permission_names};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the roles of a workspace with their ids and permissions
    List {
        /// The workspace, by name or id; without it the first one
        #[arg(default_value = FIRST_WORKSPACE, hide_default_value = true)]
        workspace: String,
    },
    /// Create a role
    Add {
        /// The name: letters, digits, hyphens, underscores and dots
        name: String,
        /// The permissions, for example SEND_MESSAGES,PIN_MESSAGES
        #[arg(long, value_delimiter = ',', required = true)]
        permissions: Vec<String>,
        /// The workspace, by name or id; without it the first one
        #[arg(long, default_value = FIRST_WORKSPACE, hide_default_value = true)]
        workspace: String,
    },
    /// Change the name or the permissions of a role
    Set {
        /// The role, by name or id
        role: String,
        /// The new name
        #[arg(long)]
        name: Option<String>,
        /// The new permissions, all of them
        #[arg(long, value_delimiter = ',')]
        permissions: Option<Vec<String>>,
        /// The workspace, by name or id; without it the first one
        #[arg(long, default_value = FIRST_WORKSPACE, hide_default_value = true)]
        workspace: String,
    },
    /// Remove a role, and take it from all members
    Remove {
        /// The role, by name or id
        role: String,
        /// The workspace, by name or id; without it the first one
        #[arg(long, default_value = FIRST_WORKSPACE, hide_default_value = true)]
        workspace: String,
    },
}

impl Command {
    pub(super) fn only_reads(&self) -> bool {
        matches!(self, Self::List { .. })
    }

    pub(super) async fn run(self, directory: &Directory) -> ImksResult<Shown> {
        match self {
            Self::List { workspace } => Shown::list(&directory.roles(&workspace).await?, line),
            Self::Add { name, permissions, workspace } => {
                let role = directory.create_role(&workspace, &name, permission_bits(&permissions)?).await?;
                Shown::one(&role, role.id.to_string())
            }
            Self::Set { role, name, permissions, workspace } => {
                let bits = permissions.map(|permissions| permission_bits(&permissions)).transpose()?;
                let role = directory.set_role(&workspace, &role, RoleChange { name, bits }).await?;
                Shown::one(&role, role.id.to_string())
            }
            Self::Remove { role, workspace } => {
                directory.remove_role(&workspace, &role).await?;
                Shown::nothing()
            }
        }
    }
}

fn line(role: &Role) -> String {
    format!("{}\t{}\t{}", role.name, role.id, permission_names(role.bits.cast_unsigned()).join(","))
}
