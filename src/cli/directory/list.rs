//! `imks directory list`.

use serde_json::json;

use super::shown::Shown;
use crate::ImksResult;
use crate::directory::{Directory, kind_name};

/// Lists everything that has a name.
pub(super) async fn run(directory: &Directory) -> ImksResult<Shown> {
    let (workspaces, users) = (directory.workspaces().await?, directory.users().await?);
    let (mut lines, mut channels) = (Vec::new(), Vec::new());
    for workspace in &workspaces {
        lines.push(format!("workspace\t{}/\t{}", workspace.name, workspace.id));
        let inside = directory.channels(&workspace.id.to_string()).await?;
        lines.extend(inside.iter().map(|channel| {
            let kind = kind_name(channel.kind);
            format!("channel\t{}/{}\t{}\t{kind}", workspace.name, channel.name, channel.id)
        }));
        channels.extend(inside);
    }
    lines.extend(users.iter().map(|user| format!("user\t{}\t{}", user.username, user.id)));
    let everything = json!({ "workspaces": workspaces, "channels": channels, "users": users });
    Shown::one(&everything, lines.join("\n"))
}
