//! Calls that change something at most once per request id, also when they are repeated at the same time on other
//! nodes. Messages need this not: their request id is the nonce of the append path.

use std::time::Duration;

use prost::Message;
use tokio::time::{Instant, sleep};

use super::Ctx;
use super::input;
use crate::clock;
use crate::models::control_request::{Begun, Claim, Earlier, RequestKey};
use crate::models::db::{Db, detached};
use crate::secret::sha256;
use crate::{ImksError, ImksResult};

/// Runs `call` unless an earlier call with this request id did; then returns the answer of that one. Without a
/// request id it always runs.
///
/// # Errors
/// Those of the call; [`ImksError::NonceConflict`] if the earlier call had another content;
/// [`ImksError::Overloaded`] if it still runs.
pub(super) async fn once<Req: Message, Res: Message + Default + 'static>(
    ctx: Ctx,
    name: &'static str,
    (request_id, request): (&str, &Req),
    call: impl Future<Output = ImksResult<Res>> + Send + 'static,
) -> ImksResult<Res> {
    let Some(request_id) = input::request_id(request_id)? else { return call.await };
    let key = RequestKey { caller: ctx.caller.id, request_id: request_id.as_str().to_owned() };
    let content = [name.as_bytes(), &[0], &request.encode_to_vec()].concat();
    let claim = match begin(&ctx, &key, &sha256(&content)?).await? {
        Known::Answer(answer) => {
            return Res::decode(&*answer).map_err(|_| ImksError::Internal("a stored answer cannot be read"));
        }
        Known::Nothing(claim) => claim,
    };
    // In a task, because a call that began must end even if its caller is gone.
    detached(async move {
        match call.await {
            Ok(answer) => {
                keep(&claim, ctx.db(), &answer.encode_to_vec()).await;
                Ok(answer)
            }
            Err(error) => {
                if let Err(problem) = claim.forget(ctx.db()).await {
                    tracing::warn!(error = %problem, "a failed call can be repeated only later");
                }
                Err(error)
            }
        }
    })
    .await
}

/// Stores an answer, also when the database is away for a while: the call has happened, and a repeat must find it.
/// Whoever called waits, or comes again.
async fn keep(claim: &Claim, db: &Db, answer: &[u8]) {
    let deadline = Instant::now() + KEEP_MAX;
    while let Err(error) = claim.end(db, answer).await {
        if Instant::now() >= deadline {
            tracing::error!(%error, "the answer of a call was not stored: a repeat may carry it out again");
            return;
        }
        tracing::warn!(%error, "the answer of a call is not stored yet");
        sleep(KEEP_AGAIN).await;
    }
}

/// What is known of a call.
enum Known {
    Answer(Vec<u8>),
    Nothing(Claim),
}

/// Returns the answer of an earlier call, or the right to carry this one out.
async fn begin(ctx: &Ctx, key: &RequestKey, hash: &[u8]) -> ImksResult<Known> {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let (owned, db, content) = (key.clone(), ctx.db().clone(), hash.to_vec());
        let begun = detached(async move { owned.begin(&db, &content, clock::now_micros()).await }).await?;
        match begun {
            Begun::First(claim) => return Ok(Known::Nothing(claim)),
            Begun::Repeat(earlier) if earlier.hash != hash => return Err(ImksError::NonceConflict),
            Begun::Repeat(Earlier { answer: Some(answer), .. }) => return Ok(Known::Answer(answer)),
            Begun::Repeat(_) if Instant::now() >= deadline => {
                return Err(ImksError::Overloaded { retry_after: RETRY_AFTER });
            }
            Begun::Repeat(_) => sleep(LOOK_AGAIN).await,
        }
    }
}

/// How long a repeat waits for the answer of the first call.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How long it is tried to store an answer: until another node may take the call for lost.
const KEEP_MAX: Duration = Duration::from_secs(100);
const KEEP_AGAIN: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const RETRY_AFTER: Duration = Duration::from_secs(1);
