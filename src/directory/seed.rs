//! The import of users, channels and members from a TOML file. The import is idempotent.
//!
//! ```toml
//! [[user]]
//! name = "alice"
//!
//! [[channel]]
//! name = "team"
//! private = true
//! owners = ["alice"]
//! members = ["bob"]      # missing users are created
//! ```

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Directory, NewChannel, RoleName, RoomKind};
use crate::error::{ImksError, ImksResult};

/// The content of a seed file.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// The users.
    #[serde(default)]
    user: Vec<SeedUser>,
    /// The channels, with their members.
    #[serde(default)]
    channel: Vec<SeedChannel>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SeedUser {
    /// The name.
    name: String,
    /// Whether the user is a program.
    #[serde(default)]
    bot: bool,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SeedChannel {
    /// The name: `team`, or `acme/team` in another workspace.
    name: String,
    /// Whether only its members see it.
    #[serde(default)]
    private: bool,
    /// Whether only those who manage it may write.
    #[serde(default)]
    read_only: bool,
    /// The minimum number of seconds between two messages of one user.
    #[serde(default)]
    slow_mode_s: u32,
    /// Whether nothing in it can change any more.
    #[serde(default)]
    archived: bool,
    /// Members with the role `owner`. Users who are missing are made.
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
    /// Parses the text of a seed file.
    ///
    /// # Errors
    /// `Config` with the place and the reason.
    pub fn parse(text: &str) -> ImksResult<Self> {
        toml::from_str(text)
            .map_err(|error| ImksError::Config(format!("the seed file is not valid: {error}")))
    }

    /// Refuses names with U+0000, which PostgreSQL cannot look for.
    fn check(&self) -> ImksResult<()> {
        let members = self.channel.iter().flat_map(SeedChannel::members_by_role);
        let names = members.flat_map(|(_, names)| names).chain(self.channel.iter().map(|it| &it.name));
        let mut names = names.chain(self.user.iter().map(|it| &it.name));
        if names.any(|name| name.contains('\0')) {
            return Err(ImksError::invalid("name", "must not contain the character U+0000"));
        }
        Ok(())
    }
}

/// The result of an import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Imported {
    /// The number of users.
    pub users: Count,
    /// The number of channels.
    pub channels: Count,
    /// The number of memberships. One with a changed role counts as created.
    pub memberships: Count,
}

/// The number of created and existing objects of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Count {
    /// The number of objects that the import created.
    pub made: usize,
    /// The number of objects that existed already.
    pub there: usize,
}

impl Count {
    fn add(&mut self, is_new: bool) {
        match is_new {
            true => self.made += 1,
            false => self.there += 1,
        }
    }
}

impl Directory {
    /// Creates the objects in the seed that do not exist yet.
    ///
    /// # Errors
    /// The errors of the single steps. Objects that were created before an error remain.
    pub async fn import(&self, seed: Seed) -> ImksResult<Imported> {
        seed.check()?;
        let (mut done, mut users) = (Imported::default(), HashSet::new());
        for user in &seed.user {
            self.import_user(&user.name, user.bot, &mut users, &mut done.users).await?;
        }
        for channel in &seed.channel {
            let is_new = self.channel_named(&channel.name).await?.is_none();
            self.import_channel(channel).await?;
            done.channels.add(is_new);
            for (role, names) in channel.members_by_role() {
                for name in names {
                    self.import_user(name, false, &mut users, &mut done.users).await?;
                    done.memberships.add(self.add_member(&channel.name, name, role).await?);
                }
            }
        }
        Ok(done)
    }

    /// Creates a user if it is missing. Counts each name in the seed once.
    async fn import_user<'a>(
        &self,
        name: &'a str,
        bot: bool,
        seen: &mut HashSet<&'a str>,
        count: &mut Count,
    ) -> ImksResult<()> {
        if !seen.insert(name) {
            return Ok(());
        }
        let is_new = self.user(name).await?.is_none();
        if is_new {
            self.create_user(name, bot).await?;
        }
        count.add(is_new);
        Ok(())
    }

    async fn import_channel(&self, seed: &SeedChannel) -> ImksResult<()> {
        let new = NewChannel {
            name: seed.name.clone(),
            kind: if seed.private { RoomKind::Private } else { RoomKind::Public },
            read_only: seed.read_only,
            slow_mode_s: seed.slow_mode_s,
        };
        self.ensure_channel(new).await?;
        if seed.archived {
            self.set_channel_state(&seed.name, Some(true), None).await?;
        }
        Ok(())
    }
}

impl SeedChannel {
    fn members_by_role(&self) -> [(RoleName, &[String]); 4] {
        [
            (RoleName::Owner, &self.owners),
            (RoleName::Moderator, &self.moderators),
            (RoleName::Member, &self.members),
            (RoleName::Guest, &self.guests),
        ]
    }
}
