//! Users, channels and members from a TOML file. Importing twice is importing once.
//!
//! ```toml
//! [[user]]
//! name = "alice"
//!
//! [[channel]]
//! name = "team"
//! private = true
//! owners = ["alice"]
//! members = ["bob"]      # users are made when missing
//! ```

use serde::Deserialize;

use super::{Directory, NewChannel, RoleName};
use crate::error::{ImksError, ImksResult};

/// What a seed file says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    #[serde(default)]
    user: Vec<SeedUser>,
    #[serde(default)]
    channel: Vec<SeedChannel>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedUser {
    name: String,
    #[serde(default)]
    bot: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedChannel {
    name: String,
    #[serde(default)]
    private: bool,
    #[serde(default)]
    read_only: bool,
    #[serde(default)]
    slow_mode_s: u32,
    #[serde(default)]
    archived: bool,
    #[serde(default)]
    owners: Vec<String>,
    #[serde(default)]
    moderators: Vec<String>,
    #[serde(default)]
    members: Vec<String>,
    #[serde(default)]
    guests: Vec<String>,
}

impl Seed {
    /// Reads a seed file's text.
    ///
    /// # Errors
    /// `Config` with the place and the reason.
    pub fn parse(text: &str) -> ImksResult<Self> {
        toml::from_str(text)
            .map_err(|error| ImksError::Config(format!("the seed file is not valid: {error}")))
    }
}

impl Directory {
    /// Makes what the seed names and does not exist yet: (users, channels, memberships) it names.
    ///
    /// # Errors
    /// As for the single things; what was made before an error stays.
    pub async fn import(&self, seed: Seed) -> ImksResult<(usize, usize, usize)> {
        for user in &seed.user {
            if self.user(&user.name).await?.is_none() {
                self.create_user(&user.name, user.bot).await?;
            }
        }
        let mut memberships = 0;
        for channel in &seed.channel {
            memberships += self.import_channel(channel).await?;
        }
        Ok((seed.user.len(), seed.channel.len(), memberships))
    }

    async fn import_channel(&self, seed: &SeedChannel) -> ImksResult<usize> {
        let new = NewChannel {
            name: seed.name.clone(),
            private: seed.private,
            read_only: seed.read_only,
            slow_mode_s: seed.slow_mode_s,
        };
        self.ensure_channel(new).await?;
        if seed.archived {
            self.set_channel_state(&seed.name, Some(true), None).await?;
        }
        let roles = [
            ("owner", &seed.owners),
            ("moderator", &seed.moderators),
            ("member", &seed.members),
            ("guest", &seed.guests),
        ];
        let mut count = 0;
        for (role, names) in roles {
            for name in names {
                self.ensure_user(name).await?;
                self.add_member(&seed.name, name, RoleName(role.into())).await?;
                count += 1;
            }
        }
        Ok(count)
    }
}
