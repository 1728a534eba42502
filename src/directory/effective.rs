//! Effective permissions: the rule, which is pure and stands in docs/directory.md in words, and the three queries
//! that bring what it needs, however many channels are asked for.

use std::collections::{BTreeSet, HashMap};

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::Directory;
use super::channel::is_open;
use super::permission::{VIEW_CHANNEL, permission_names};
use crate::clock::now_micros;
use crate::error::ImksResult;
use crate::models::db::on;
use crate::pb::v1;
use crate::pb::v1::channel::Kind as ChannelKind;

/// What decides about the permissions of a user in a channel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether the user is banned from the channel or its workspace.
    pub banned: bool,
    /// Whether the user is a member of the channel.
    pub in_channel: bool,
    /// Whether the user is a member of the workspace.
    pub in_workspace: bool,
    /// Whether the channel is open to all members of the workspace.
    pub is_open: bool,
    /// The permissions of each role that the user has in the channel or in the workspace.
    pub roles: Vec<u64>,
    /// The overrides of the channel for those roles.
    pub role_overrides: Vec<Override>,
    /// The override of the channel for the user.
    pub user_override: Override,
}

/// The permissions that an override gives and takes, as bit sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Override {
    /// The permissions that it gives.
    pub allow: u64,
    /// The permissions that it takes.
    pub deny: u64,
}

impl Standing {
    /// Returns the permissions of the user in the channel, as a bit set.
    pub fn bits(&self) -> u64 {
        let may_look = self.in_workspace && self.is_open;
        if self.banned || !(self.in_channel || may_look) {
            return 0;
        }
        let base = match self.roles.is_empty() {
            true => GUEST,
            false => self.roles.iter().fold(0, |all, bits| all | bits),
        };
        let of_roles = self.role_overrides.iter().fold(Override::default(), |all, one| Override {
            allow: all.allow | one.allow,
            deny: all.deny | one.deny,
        });
        let bits = self.user_override.apply(of_roles.apply(base));
        let bits = if self.in_channel { bits } else { bits & GUEST };
        if bits & VIEW_CHANNEL == 0 { 0 } else { bits }
    }
}

impl Override {
    /// Returns `bits` without what is denied, and then with what is allowed.
    fn apply(self, bits: u64) -> u64 {
        (bits & !self.deny) | self.allow
    }
}

/// A channel as a user finds it.
#[derive(Debug, FromRow)]
struct ChannelRow {
    id: Uuid,
    kind: i64,
    workspace_id: Option<Uuid>,
    archived: bool,
    read_only: bool,
    slow_mode_s: i64,
    version: i64,
    member_id: Option<Uuid>,
    workspace_member_id: Option<Uuid>,
    banned: bool,
}

#[derive(Debug, FromRow)]
struct RoleRow {
    place_id: Uuid,
    role_id: Uuid,
    bits: i64,
}

#[derive(Debug, FromRow)]
struct OverrideRow {
    channel_id: Uuid,
    subject_id: Uuid,
    allow_bits: i64,
    deny_bits: i64,
}

impl Directory {
    /// Returns the permissions of a user in each of `channels`, in their order. An unknown channel has none.
    pub(super) async fn effective(&self, user: Uuid, channels: &[Uuid]) -> ImksResult<Vec<v1::Effective>> {
        let found = self.channels_of(user, channels).await?;
        let places: BTreeSet<Uuid> =
            found.iter().flat_map(|channel| [Some(channel.id), channel.workspace_id]).flatten().collect();
        let roles = self.roles_in(user, &places).await?;
        let overrides = self.overrides_for(user, &found, &roles).await?;
        let by_id: HashMap<Uuid, v1::Effective> =
            found.iter().map(|row| (row.id, answer(row, user, &roles, &overrides))).collect();
        let none = |id: &Uuid| v1::Effective { channel_id: id.to_string(), ..Default::default() };
        Ok(channels.iter().map(|id| by_id.get(id).cloned().unwrap_or_else(|| none(id))).collect())
    }

    /// Returns the names of the permissions that a user has in a channel.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn permissions_of(&self, channel: &str, username: &str) -> ImksResult<Vec<&'static str>> {
        let (user, channel) =
            (self.user_by_name(username).await?.id, self.channel_by_name(channel).await?.id);
        let effective = self.effective(user, &[channel]).await?.pop();
        Ok(permission_names(effective.map_or(0, |effective| effective.bits)))
    }

    async fn channels_of(&self, user: Uuid, channels: &[Uuid]) -> ImksResult<Vec<ChannelRow>> {
        if channels.is_empty() {
            return Ok(Vec::new());
        }
        let now = now_micros();
        Ok(on!(read self.db(), pool => {
            let mut query = QueryBuilder::new(CHANNELS);
            query.push_bind(user).push(AND_NOT_ENDED).push_bind(now).push(JOIN_MEMBER).push_bind(user);
            query.push(JOIN_WORKSPACE).push_bind(user).push(" WHERE c.id IN (");
            let mut list = query.separated(", ");
            channels.iter().for_each(|id| { list.push_bind(*id); });
            query.push(")");
            query.build_query_as().fetch_all(pool).await?
        }))
    }

    async fn roles_in(&self, user: Uuid, places: &BTreeSet<Uuid>) -> ImksResult<Vec<RoleRow>> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        Ok(on!(read self.db(), pool => {
            let mut query = QueryBuilder::new(ROLES);
            query.push_bind(user).push(" AND m.place_id IN (");
            let mut list = query.separated(", ");
            places.iter().for_each(|id| { list.push_bind(*id); });
            query.push(")");
            query.build_query_as().fetch_all(pool).await?
        }))
    }

    async fn overrides_for(
        &self,
        user: Uuid,
        channels: &[ChannelRow],
        roles: &[RoleRow],
    ) -> ImksResult<Vec<OverrideRow>> {
        if channels.is_empty() {
            return Ok(Vec::new());
        }
        let subjects: BTreeSet<Uuid> = roles.iter().map(|role| role.role_id).chain([user]).collect();
        Ok(on!(read self.db(), pool => {
            let mut query = QueryBuilder::new(OVERRIDES);
            let mut list = query.separated(", ");
            channels.iter().for_each(|channel| { list.push_bind(channel.id); });
            query.push(") AND subject_id IN (");
            let mut list = query.separated(", ");
            subjects.iter().for_each(|id| { list.push_bind(*id); });
            query.push(")");
            query.build_query_as().fetch_all(pool).await?
        }))
    }
}

fn answer(row: &ChannelRow, user: Uuid, roles: &[RoleRow], overrides: &[OverrideRow]) -> v1::Effective {
    let own: Vec<&RoleRow> = roles
        .iter()
        .filter(|role| role.place_id == row.id || Some(role.place_id) == row.workspace_id)
        .collect();
    let is_own = |subject: Uuid| own.iter().any(|role| role.role_id == subject);
    let here = || overrides.iter().filter(|one| one.channel_id == row.id);
    let standing = Standing {
        banned: row.banned,
        in_channel: row.member_id.is_some(),
        in_workspace: row.workspace_member_id.is_some(),
        is_open: is_open(row.kind),
        roles: own.iter().map(|role| role.bits.cast_unsigned()).collect(),
        role_overrides: here().filter(|one| is_own(one.subject_id)).map(Override::from).collect(),
        user_override: here().find(|one| one.subject_id == user).map(Override::from).unwrap_or_default(),
    };
    v1::Effective {
        channel_id: row.id.to_string(),
        bits: standing.bits(),
        version: row.version,
        expires_in_ms: 0,
        archived: row.archived,
        read_only: row.read_only || row.kind == i64::from(i32::from(ChannelKind::Announcement)),
        slow_mode_s: u32::try_from(row.slow_mode_s).unwrap_or_default(),
    }
}

impl From<&OverrideRow> for Override {
    fn from(row: &OverrideRow) -> Self {
        Self { allow: row.allow_bits.cast_unsigned(), deny: row.deny_bits.cast_unsigned() }
    }
}

/// The permissions of the role `guest`, `VIEW_CHANNEL` and `READ_HISTORY`: of a member without any role, and the most
/// that who only looks into an open channel has.
const GUEST: u64 = 5;
const CHANNELS: &str = "SELECT c.id, c.kind, c.workspace_id, c.archived, c.read_only, c.slow_mode_s, c.version, \
     m.user_id AS member_id, w.user_id AS workspace_member_id, EXISTS (SELECT 1 FROM directory_ban b \
     WHERE b.place_id IN (c.id, c.workspace_id) AND b.user_id = ";
const AND_NOT_ENDED: &str = " AND (b.ends_at IS NULL OR b.ends_at > ";
const JOIN_MEMBER: &str = ")) AS banned FROM directory_channel c \
     LEFT JOIN directory_member m ON m.channel_id = c.id AND m.user_id = ";
const JOIN_WORKSPACE: &str =
    " LEFT JOIN directory_workspace_member w ON w.workspace_id = c.workspace_id AND w.user_id = ";
const ROLES: &str = "SELECT m.place_id, m.role_id, r.bits FROM directory_member_role m \
     JOIN directory_role r ON r.id = m.role_id WHERE m.user_id = ";
const OVERRIDES: &str = "SELECT channel_id, subject_id, allow_bits, deny_bits FROM directory_override \
     WHERE channel_id IN (";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Says about one permission what the rule of docs/directory.md says, sentence by sentence.
    fn has(standing: &Standing, bit: u64) -> bool {
        let held = |bits: u64| bits & bit != 0;
        if standing.banned {
            return false;
        }
        let may_look = standing.in_workspace && standing.is_open;
        if !standing.in_channel && !may_look {
            return false;
        }
        if bit != VIEW_CHANNEL && !has(standing, VIEW_CHANNEL) {
            return false;
        }
        if !standing.in_channel && !held(GUEST) {
            return false;
        }
        if held(standing.user_override.allow) {
            return true;
        }
        if held(standing.user_override.deny) {
            return false;
        }
        if standing.role_overrides.iter().any(|one| held(one.allow)) {
            return true;
        }
        if standing.role_overrides.iter().any(|one| held(one.deny)) {
            return false;
        }
        if standing.roles.is_empty() {
            return held(GUEST);
        }
        standing.roles.iter().any(|role| held(*role))
    }

    prop_compose! {
        fn overriding()(allow in 0_u64..1 << 13, deny in 0_u64..1 << 13, some in any::<bool>()) -> Override {
            if some { Override { allow, deny } } else { Override::default() }
        }
    }

    prop_compose! {
        fn standing()(
            (banned, in_channel, in_workspace, is_open) in any::<(bool, bool, bool, bool)>(),
            roles in prop::collection::vec(0_u64..1 << 13, 0..4),
            role_overrides in prop::collection::vec(overriding(), 0..4),
            user_override in overriding(),
        ) -> Standing {
            let banned = banned && in_workspace;
            Standing { banned, in_channel, in_workspace, is_open, roles, role_overrides, user_override }
        }
    }

    #[tokio::test]
    async fn each_of_the_three_queries_searches_indexes_and_scans_no_table() {
        let config = crate::models::db::Config { url: Some("sqlite::memory:".into()), ..Default::default() };
        let db = crate::models::db::Db::connect(&config).await.unwrap();
        db.migrate().await.unwrap();
        let channels = format!(
            "{CHANNELS}x'01'{AND_NOT_ENDED}1{JOIN_MEMBER}x'01'{JOIN_WORKSPACE}x'01' WHERE c.id IN (x'02', x'03')"
        );
        let roles = format!("{ROLES}x'01' AND m.place_id IN (x'02', x'03')");
        let overrides = format!("{OVERRIDES}x'02', x'03') AND subject_id IN (x'01', x'04')");
        for query in [channels, roles, overrides] {
            let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {query}"));
            let crate::models::db::Db::Sqlite(sqlite) = &db else { panic!("not SQLite") };
            let steps: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(explain).fetch_all(&sqlite.reader).await.unwrap();
            let scans: Vec<&String> =
                steps.iter().map(|step| &step.3).filter(|step| step.starts_with("SCAN")).collect();
            assert!(!steps.is_empty() && scans.is_empty(), "{scans:?} of {query}");
        }
    }

    proptest! {
        #[test]
        fn the_rule_is_what_its_sentences_say_about_each_permission(standing in standing()) {
            let bits = standing.bits();
            for position in 0..13 {
                prop_assert_eq!(bits & (1 << position) != 0, has(&standing, 1 << position), "{}", position);
            }
        }
    }
}
