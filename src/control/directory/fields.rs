//! What several requests and answers about the directory have.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::clock::{Micros, parse_rfc3339};
use crate::directory::FIRST_WORKSPACE;
use crate::models::text::{ShortText, described, refusal};

/// The name or the id of something.
pub(super) type Name = ShortText<1, NAME_CHARS_MAX>;

/// A text with rules of its own.
pub(super) type Text = ShortText<0, TEXT_CHARS_MAX>;

/// A request without fields.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// The answer of a call that has nothing to tell.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Done {}

/// A workspace, or without one the first one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InWorkspace {
    /// The workspace, by name or id; without it `main`.
    pub(super) workspace: Option<Name>,
}

/// A channel.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OfChannel {
    /// The channel, by name or id: `team`, or `acme/team` in another workspace.
    pub(super) channel: Name,
}

/// A user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OfUser {
    /// The user, by name or id.
    pub(super) user: Name,
}

/// Until when something lasts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Until {
    /// It does not last.
    Never,
    /// A time.
    Time(Micros),
}

described!([] Until, _ => { "anyOf": [{ "type": "string", "format": "date-time" }, { "const": "never" }] });

impl<'de> Deserialize<'de> for Until {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "never" {
            return Ok(Self::Never);
        }
        let time = parse_rfc3339(&text).map(Self::Time);
        time.ok_or_else(|| refusal("must be a time like 2030-01-31T12:00:00Z, or never"))
    }
}

/// Returns the workspace that a request names, or the first one.
pub(super) fn workspace(named: Option<&Name>) -> &str {
    named.map_or(FIRST_WORKSPACE, Name::as_str)
}

/// Returns the texts of names.
pub(super) fn texts(names: &[Name]) -> Vec<String> {
    names.iter().map(|name| name.as_str().to_owned()).collect()
}

/// The longest name of something in a request, in characters: that of a workspace, a slash, and that of a channel.
const NAME_CHARS_MAX: usize = 129;
/// The longest other text in a request, in characters.
const TEXT_CHARS_MAX: usize = 2_048;
