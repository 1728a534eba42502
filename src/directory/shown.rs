//! How values of the directory look in JSON, for the command line and the HTTP API.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::permission::{ALL_BITS, permission_names};
use crate::clock::{Micros, Timestamp};
use crate::pb::v1::channel::Kind as ChannelKind;
use crate::pb::v1::membership::NotifyLevel;

/// Writes a time as text.
pub(super) fn time<S: Serializer>(time: &Micros, serializer: S) -> Result<S::Ok, S::Error> {
    Timestamp(*time).serialize(serializer)
}

/// Writes a time as text, and `null` if there is none.
pub(super) fn optional_time<S: Serializer>(time: &Option<Micros>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(Timestamp).serialize(serializer)
}

/// Writes a time as text, and `null` for 0.
pub(super) fn time_or_none<S: Serializer>(time: &Micros, serializer: S) -> Result<S::Ok, S::Error> {
    (*time != 0).then_some(Timestamp(*time)).serialize(serializer)
}

/// Writes a set of permissions as a list of their names.
pub(super) fn permissions<S: Serializer>(bits: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    permission_names(bits.cast_unsigned()).serialize(serializer)
}

/// Describes a list of names of permissions.
pub(super) fn permission_list(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string", "enum": permission_names(ALL_BITS) } })
}

/// Writes the kind of a channel as its name: `public`, `private`, `dm`, `group_dm` or `announcement`.
pub(super) fn channel_kind<S: Serializer>(kind: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    kind_name(*kind).serialize(serializer)
}

/// Describes the name of the kind of a channel.
pub(super) fn channel_kinds(_: &mut SchemaGenerator) -> Schema {
    one_of(
        (1..)
            .map_while(|kind| ChannelKind::try_from(kind).ok())
            .map(|kind| kind_name(i32::from(kind).into())),
    )
}

/// Writes a level of notifications as its name: `all`, `mentions` or `none`.
pub(super) fn notify_level<S: Serializer>(level: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    let level = i32::try_from(*level).ok().and_then(|level| NotifyLevel::try_from(level).ok());
    level_name(level.unwrap_or_default()).serialize(serializer)
}

/// Describes the name of a level of notifications.
pub(super) fn notify_levels(_: &mut SchemaGenerator) -> Schema {
    one_of((1..).map_while(|level| NotifyLevel::try_from(level).ok()).map(level_name))
}

fn level_name(level: NotifyLevel) -> String {
    level.as_str_name().trim_start_matches("NOTIFY_LEVEL_").to_ascii_lowercase()
}

fn one_of(names: impl Iterator<Item = String>) -> Schema {
    json_schema!({ "type": "string", "enum": names.collect::<Vec<_>>() })
}

/// Returns the name of the kind of a channel.
pub fn kind_name(kind: i64) -> String {
    let kind = i32::try_from(kind).ok().and_then(|kind| ChannelKind::try_from(kind).ok());
    kind.unwrap_or_default().as_str_name().trim_start_matches("KIND_").to_ascii_lowercase()
}
