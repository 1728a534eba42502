//! What a client looks at: the channels of which it gets everything.

use std::collections::HashSet;

use uuid::Uuid;

/// The channels that a client looks at.
#[derive(Debug, Default)]
pub(super) enum View {
    /// Everything that it follows, as a client that has never said anything else.
    #[default]
    Everything,
    /// These, at most [`FOCUSED_MAX`](super::focus::FOCUSED_MAX). Of all others it gets digests.
    Only(HashSet<Uuid>),
}

impl View {
    /// Whether a channel is in view.
    pub(super) fn shows(&self, channel: Uuid) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(channels) => channels.contains(&channel),
        }
    }
}
