//! The events of key packages, for groups that encrypt end to end: `keypackage:publish`, `keypackage:claim`.

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::budget::{AnswerSize, COPIES, Reservation};
use super::ctx::Ctx;
use super::input::BoundedList;
use super::rates::RateLimit;
use super::registry::{Large, Registry, Request};
use super::timed::timed;
use crate::ImksResult;
use crate::clock;
use crate::models::key_package::{
    self, ClaimedPackage, DEVICES_MAX, KeyPackage, PACKAGE_CHARS_MAX, PACKAGES_MAX,
};
use crate::models::text::{ShortText, refusal};
use crate::rate_limit::Rate;

const PUBLISH: Request<Publish, Published> = Request::new("keypackage:publish");
const CLAIM: Request<Claim, Claimed> = Request::new("keypackage:claim");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.advertise("key_packages", PACKAGES_MAX);
    let limit = events.rate_limit("keypackage:user", RATE);
    let limit_of_claim = limit.clone();
    events.on(PUBLISH, move |ctx, request| publish(ctx, request, limit.clone()));
    events.on_read(CLAIM, move |ctx, room, request| claim(ctx, room, request, limit_of_claim.clone()));
}

/// The payload of `keypackage:publish`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Publish {
    device_id: ShortText<1, 64>,
    /// May be empty, to learn how many there are.
    #[serde(deserialize_with = "few")]
    #[schemars(length(max = PUBLISHED_AT_ONCE_MAX))]
    packages: Vec<KeyPackage>,
}

fn few<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<KeyPackage>, D::Error> {
    let packages = Vec::deserialize(deserializer)?;
    match packages.len() {
        0..=PUBLISHED_AT_ONCE_MAX => Ok(packages),
        _ => Err(refusal(format_args!("has more than {PUBLISHED_AT_ONCE_MAX} items"))),
    }
}

/// The answer to `keypackage:publish`.
#[derive(Debug, Serialize, JsonSchema)]
struct Published {
    /// The packages of the device that can be handed out, without that of last resort.
    available: i64,
}

async fn publish(ctx: Ctx, request: Publish, limit: RateLimit<Uuid>) -> ImksResult<Published> {
    limit.take(ctx.user())?;
    let (own, device) = (ctx.own(), request.device_id.as_str().to_owned());
    let stored = key_package::publish(own.db(), own.user(), device, request.packages, clock::now_micros());
    Ok(Published { available: timed("keypackage_publish", stored).await? })
}

/// The payload of `keypackage:claim`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Claim {
    channel_id: Uuid,
    user_ids: BoundedList<Uuid, CLAIMED_USERS_MAX>,
}

impl Large for Claim {
    fn answer_size(&self) -> AnswerSize {
        let devices = self.user_ids.0.len() * usize::try_from(DEVICES_MAX).unwrap_or(1);
        AnswerSize::up_to(devices * PACKAGE_CHARS_MAX * COPIES)
    }
}

/// The answer to `keypackage:claim`.
#[derive(Debug, Serialize, JsonSchema)]
struct Claimed {
    /// One package of each device of these users.
    packages: Vec<ClaimedPackage>,
    /// The users who are no members of the channel, or have no package left.
    missing: Vec<Uuid>,
}

/// Only members of a channel get packages, and only those of its members: whoever could ask for those of anybody could
/// use them up.
async fn claim(ctx: Ctx, _room: Reservation, request: Claim, limit: RateLimit<Uuid>) -> ImksResult<Claimed> {
    limit.take(ctx.user())?;
    let channel = ctx.visible(request.channel_id).await?;
    let wanted: BTreeSet<Uuid> = request.user_ids.0.into_iter().collect();
    let core = ctx.core();
    let memberships = stream::iter(wanted.iter().copied())
        .map(async |user| ImksResult::Ok(core.is_member(user, channel.id()).await?.then_some(user)));
    let members: Vec<Option<Uuid>> = memberships.buffered(QUESTIONS_AT_ONCE).try_collect().await?;
    let members: Vec<Uuid> = members.into_iter().flatten().collect();
    let claimed = key_package::claim(channel.db(), &members, clock::now_micros());
    let mut packages = timed("keypackage_claim", claimed).await?;
    packages
        .sort_unstable_by(|one, other| (one.user_id, &one.device_id).cmp(&(other.user_id, &other.device_id)));
    let served: BTreeSet<Uuid> = packages.iter().map(|package| package.user_id).collect();
    Ok(Claimed { packages, missing: wanted.difference(&served).copied().collect() })
}

/// The most packages in one `keypackage:publish`.
const PUBLISHED_AT_ONCE_MAX: usize = 100;
/// The most users in one `keypackage:claim`.
const CLAIMED_USERS_MAX: usize = 10;
/// The questions to the core that are under way for one claim.
const QUESTIONS_AT_ONCE: usize = 10;
/// The rate of requests about key packages of one user.
const RATE: Rate = Rate::new(1, 10);
