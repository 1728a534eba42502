//! What back ends have told that must not be lost: withdrawn tokens, and the policies of channels. Every node reads
//! them from the database when it starts and every few seconds, so that one that missed an order catches up.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::access;
use super::orders::Subject;
use super::parts::Messaging;
use super::timed::timed;
use crate::ImksResult;
use crate::auth::Policy;
use crate::clock::{self, Micros};
use crate::models::channel_policy::{self, ChannelPolicy};
use crate::models::{membership_version, revocation};
use crate::socket::Namespace;

/// What this node has read so far.
#[derive(Debug)]
pub struct Remembered {
    messaging: Messaging,
    namespace: Namespace,
    /// The place of the newest withdrawal that was read.
    read_to: (Micros, Uuid),
}

impl Remembered {
    /// Reads everything. Clients may connect when it returns.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn read(messaging: &Messaging, namespace: &Namespace) -> ImksResult<Self> {
        let (messaging, namespace) = (messaging.clone(), namespace.clone());
        let mut remembered = Self { messaging, namespace, read_to: (0, Uuid::nil()) };
        remembered.look().await?;
        Ok(remembered)
    }

    /// Reads what is new until `stop`, and removes what concerns nobody any more.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut rounds: u32 = 0;
        while stop.run_until_cancelled(sleep(LOOK)).await.is_some() {
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "what back ends have told cannot be read");
            }
            rounds = rounds.wrapping_add(1);
            if rounds % COMPARE_EVERY == 1 {
                self.compare_policies().await;
                self.sweep().await;
            }
        }
    }

    async fn look(&mut self) -> ImksResult<()> {
        self.read_revocations().await?;
        read_policies(&self.messaging, &self.namespace).await
    }

    async fn read_revocations(&mut self) -> ImksResult<()> {
        // Rows of other nodes may become visible late.
        let mut place = (self.read_to.0.saturating_sub(OVERLAP), Uuid::nil());
        loop {
            let rows = timed("revocations", revocation::page(self.messaging.db(), place)).await?;
            for row in &rows {
                let subject = if row.is_session {
                    Subject::Session(row.subject_id)
                } else {
                    Subject::User(row.subject_id)
                };
                self.messaging.tokens().revoke_locally(subject.revocation(row.void_until));
                place = (row.at, row.subject_id);
            }
            self.read_to = self.read_to.max(place);
            if rows.len() < usize::try_from(revocation::PAGE).unwrap_or(usize::MAX) {
                return Ok(());
            }
        }
    }

    /// Ends policies whose channels the core has changed, also where it does not report changes.
    async fn compare_policies(&self) {
        let channels = self.messaging.permissions().with_policy();
        for some in channels.chunks(CHANNELS_AT_ONCE) {
            let Ok(channels) = self.messaging.core().channels(some).await else {
                tracing::debug!("the versions of channels with a policy are not known at the moment");
                return;
            };
            for channel in channels {
                core_has_changed(&self.messaging, &self.namespace, channel.id, channel.version).await;
            }
        }
    }

    async fn sweep(&self) {
        let (db, now) = (self.messaging.db(), clock::now_micros());
        let outcomes = [
            timed("sweep", revocation::sweep(db, kept(&self.messaging), now)).await,
            timed("sweep", membership_version::sweep(db, now.saturating_sub(VERSIONS_KEPT))).await,
        ];
        for error in outcomes.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "what back ends told long ago was not forgotten");
        }
    }
}

/// Returns how long a withdrawal concerns tokens: twice the longest lifetime, because a session may get new ones.
fn kept(messaging: &Messaging) -> Micros {
    clock::micros(messaging.tokens().lifetime_max()).saturating_mul(2)
}

/// Reads the policies of all channels, and tells the rooms of those that changed.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub(super) async fn read_policies(messaging: &Messaging, namespace: &Namespace) -> ImksResult<()> {
    let rows = timed("policies", channel_policy::all(messaging.db())).await?;
    let policies: HashMap<Uuid, Policy> = rows.iter().map(|row| (row.channel_id, policy(row))).collect();
    for channel in messaging.permissions().set_policies(policies) {
        messaging.channels().forget(channel);
        access::tell_of_channel(messaging, namespace, channel).await;
    }
    Ok(())
}

fn policy(row: &ChannelPolicy) -> Policy {
    let number = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
    Policy {
        core_version: row.core_version,
        slow_mode_s: number(row.slow_mode_s),
        read_only: row.read_only,
        archived: row.archived,
        retention_days: number(row.retention_days),
    }
}

/// Ends the policy of a channel that the core has changed since it was set.
pub(super) async fn core_has_changed(
    messaging: &Messaging,
    namespace: &Namespace,
    channel: Uuid,
    version: i64,
) {
    if messaging.permissions().policy(channel).is_none_or(|policy| policy.core_version >= version) {
        return;
    }
    let ended = match timed("policies", channel_policy::forget(messaging.db(), channel, version)).await {
        Ok(()) => read_policies(messaging, namespace).await,
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        tracing::warn!(%error, "a policy stays for another minute");
    }
}

/// The pause between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// The number of looks between two comparisons with the core: one in a minute.
const COMPARE_EVERY: u32 = 12;
/// How much earlier than the newest row that was read others may have been stored that were not: a minute.
const OVERLAP: Micros = 60_000_000;
/// The most channels that the core is asked about at once.
const CHANNELS_AT_ONCE: usize = 500;
/// How long the version of a membership is kept: a week. No call arrives later than that.
const VERSIONS_KEPT: Micros = 7 * 24 * 3_600_000_000;
