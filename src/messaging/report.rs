//! The events `message:report` and `report:list`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::budget::{AnswerSize, COPIES, Reservation};
use super::ctx::Ctx;
use super::page::next_page;
use super::rates::RateLimit;
use super::registry::{Large, Registry, Request, Status};
use super::timed::timed;
use crate::ImksResult;
use crate::models::message_report::{self, NOTE_CHARS_MAX, NewReport, Reason, Report, ReportNote};
use crate::models::text::E2EE_BYTES_MAX;
use crate::rate_limit::Rate;

const REPORT: Request<Message, Reported> = Request::new("message:report");
const LIST: Request<List, Page> = Request::new("report:list");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    let limit = events.rate_limit("report:user", RATE);
    events
        .on(REPORT, move |ctx, request| report(ctx, request, limit.clone()))
        .post("/channels/{channel_id}/messages/{message_id}/reports", Status::Created);
    events.on_read(LIST, list).get("/channels/{channel_id}/reports");
}

/// The payload of `message:report`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Message {
    channel_id: Uuid,
    message_id: Uuid,
    reason: Reason,
    #[serde(default)]
    note: Option<ReportNote>,
}

/// The answer to `message:report`.
#[derive(Debug, Serialize, JsonSchema)]
struct Reported {
    report_id: Uuid,
}

async fn report(ctx: Ctx, request: Message, limit: RateLimit<Uuid>) -> ImksResult<Reported> {
    limit.take(ctx.user())?;
    let channel = ctx.readable(request.channel_id).await?;
    let Message { message_id, reason, note, .. } = request;
    let new = NewReport { channel_id: channel.id(), message_id, reporter_id: ctx.user(), reason, note };
    let report_id = timed("report_create", message_report::create(channel.db(), &new)).await?;
    Ok(Reported { report_id })
}

/// The payload of `report:list`.
#[derive(Debug, Deserialize, JsonSchema)]
struct List {
    channel_id: Uuid,
    #[serde(default)]
    before: Option<Uuid>,
}

impl Large for List {
    fn answer_size(&self) -> AnswerSize {
        AnswerSize::up_to(PAGE_LIMIT * REPORT_BYTES * COPIES)
    }
}

/// The answer to `report:list`: reports, the newest first.
#[derive(Debug, Serialize, JsonSchema)]
struct Page {
    reports: Vec<Report>,
    /// The `before` of the next page; null after the last one.
    next: Option<Uuid>,
}

async fn list(ctx: Ctx, _room: Reservation, request: List) -> ImksResult<Page> {
    let channel = ctx.moderated(request.channel_id).await?;
    let limit = i64::try_from(PAGE_LIMIT).unwrap_or(1);
    let listed = message_report::list(channel.db(), channel.id(), request.before, limit);
    let reports = timed("report_list", listed).await?;
    let next = next_page(&reports, PAGE_LIMIT, |report| report.id);
    Ok(Page { reports, next })
}

/// The reports in one page of `report:list`.
const PAGE_LIMIT: usize = 10;
/// The most bytes of a report.
const REPORT_BYTES: usize = E2EE_BYTES_MAX + NOTE_CHARS_MAX * 4 + 1_024;
/// The rate at which one user may report messages.
const RATE: Rate = Rate::new(1, 5);
