//! The events of attachments: `attachment:create`, `attachment:complete`, `attachment:get` and `attachment:remove`, and the
//! task that removes files that nobody needs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ctx::Ctx;
use super::parts::Messaging;
use super::rates::RateLimit;
use super::registry::{Registry, Request, Status};
use super::timed::timed;
use crate::auth::Permission;
use crate::clock;
use crate::files::{Download, File, Upload};
use crate::models::message_attachment::{
    self, ATTACHMENTS_MAX, Attachment, Checksum, Filename, Mime, NewAttachment, REMOVED_AT_ONCE,
};
use crate::rate_limit::Rate;
use crate::{ImksError, ImksResult};

const CREATE: Request<Create, Created> = Request::new("attachment:create");
const COMPLETE: Request<Own, Completed> = Request::new("attachment:complete");
const GET: Request<Get, Got> = Request::new("attachment:get");
const REMOVE: Request<Own, Removed> = Request::new("attachment:remove");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    if !events.files().is_on() {
        return;
    }
    events.advertise("attachments", ATTACHMENTS_MAX);
    events.advertise("attachment_bytes", events.files().config().size_max);
    let limit = events.rate_limit("attachment:user", RATE);
    events
        .on(CREATE, move |ctx, request| create(ctx, request, limit.clone()))
        .post("/attachments", Status::Created);
    events.on(COMPLETE, complete).post("/attachments/{attachment_id}/complete", Status::Ok);
    events.on(REMOVE, remove).delete("/attachments/{attachment_id}");
    events.on(GET, get).get("/channels/{channel_id}/attachments/{attachment_id}");
}

/// The payload of `attachment:create`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Create {
    channel_id: Uuid,
    filename: Filename,
    mime: Mime,
    size: u64,
    #[serde(default)]
    sha256: Option<Checksum>,
    #[serde(default)]
    width: Option<u16>,
    #[serde(default)]
    height: Option<u16>,
}

/// The answer to `attachment:create`.
#[derive(Debug, Serialize, JsonSchema)]
struct Created {
    attachment: Attachment,
    upload: Upload,
}

async fn create(ctx: Ctx, request: Create, limit: RateLimit<Uuid>) -> ImksResult<Created> {
    limit.take(ctx.user())?;
    let channel = ctx.writable(request.channel_id, Permission::AttachFiles).await?;
    let (config, now) = (ctx.files().config(), clock::now_micros());
    if !(1..=config.size_max).contains(&request.size) {
        return Err(ImksError::invalid("size", format!("must be between 1 and {} bytes", config.size_max)));
    }
    let new = NewAttachment {
        id: clock::new_id(),
        channel_id: channel.id(),
        uploader_id: ctx.user(),
        filename: request.filename,
        mime: request.mime,
        size: i64::try_from(request.size).unwrap_or(i64::MAX),
        sha256: request.sha256,
        width: request.width.map(i32::from),
        height: request.height.map(i32::from),
    };
    let created = message_attachment::create(channel.db(), new, config.user_bytes_max, now);
    let attachment = timed("attachment_create", created).await?;
    let upload = ctx.files().upload(file_of(&attachment, ctx.user()), now)?;
    Ok(Created { attachment, upload })
}

fn file_of(attachment: &Attachment, user: Uuid) -> File<'_> {
    File {
        id: attachment.id,
        size: attachment.size.unsigned_abs(),
        sha256: attachment.sha256.as_deref(),
        mime: &attachment.mime,
        filename: &attachment.filename,
        user,
    }
}

/// The payload of `attachment:complete` and `attachment:remove`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Own {
    attachment_id: Uuid,
}

/// The answer to `attachment:complete`.
#[derive(Debug, Serialize, JsonSchema)]
struct Completed {
    attachment: Attachment,
}

/// Needs no permission: one's own file is only recorded as uploaded. To send it needs one.
async fn complete(ctx: Ctx, request: Own) -> ImksResult<Completed> {
    let (own, id) = (ctx.own(), request.attachment_id);
    let attachment = timed("attachment", message_attachment::own(own.db(), own.user(), id)).await?;
    match ctx.files().size(id).await? {
        Some(size) if size == attachment.size.unsigned_abs() => {}
        Some(_) => return Err(ImksError::invalid("size", "is not that of the file which was uploaded")),
        None => return Err(ImksError::invalid("attachment_id", "is not uploaded")),
    }
    let completed = message_attachment::complete(own.db(), own.user(), id, clock::now_micros());
    Ok(Completed { attachment: timed("attachment", completed).await? })
}

/// The answer to `attachment:remove`.
#[derive(Debug, Serialize, JsonSchema)]
struct Removed {
    attachment_id: Uuid,
    removed: bool,
}

async fn remove(ctx: Ctx, request: Own) -> ImksResult<Removed> {
    let (own, attachment_id) = (ctx.own(), request.attachment_id);
    let given_up = message_attachment::give_up(own.db(), own.user(), attachment_id, clock::now_micros());
    Ok(Removed { attachment_id, removed: timed("attachment", given_up).await? })
}

/// The payload of `attachment:get`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Get {
    channel_id: Uuid,
    attachment_id: Uuid,
}

/// The answer to `attachment:get`.
#[derive(Debug, Serialize, JsonSchema)]
struct Got {
    attachment: Attachment,
    #[serde(flatten)]
    download: Download,
}

async fn get(ctx: Ctx, request: Get) -> ImksResult<Got> {
    let channel = ctx.readable(request.channel_id).await?;
    let found = message_attachment::in_channel(channel.db(), channel.id(), ctx.user(), request.attachment_id);
    let attachment = timed("attachment", found).await?;
    let download = ctx.files().download(file_of(&attachment, ctx.user()), clock::now_micros())?;
    Ok(Got { attachment, download })
}

/// Removes the files of deleted messages, and those that were never sent, until `stop`.
pub(super) async fn sweep(messaging: Messaging, stop: CancellationToken) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        while !stop.is_cancelled() {
            match sweep_once(&messaging).await {
                Ok(removed) if removed >= REMOVED_AT_ONCE.unsigned_abs() => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "files of deleted messages were not removed");
                    break;
                }
            }
        }
    }
}

/// Removes some files, and returns how many.
async fn sweep_once(messaging: &Messaging) -> ImksResult<u64> {
    let (db, now) = (messaging.db(), clock::now_micros());
    let closed = now - messaging.files().address_closes_after();
    let removable = timed("attachment_sweep", message_attachment::removable(db, now, closed)).await?;
    for file in &removable {
        messaging.files().remove(file.id).await?;
        timed("attachment_sweep", message_attachment::removed(db, *file, now)).await?;
    }
    Ok(removable.len() as u64)
}

/// The rate at which one user may create attachments.
const RATE: Rate = Rate::new(1, 20);
/// How often files are looked for that nobody needs.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
