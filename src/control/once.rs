//! Calls that change something at most once per request id, also when they are repeated at the same time on other
//! nodes. Messages need this not: their request id is the nonce of the append path.

use std::time::Duration;

use prost::Message;
use tokio::time::{Instant, sleep};

use super::Ctx;
use super::input;
use crate::clock;
use crate::models::control_request::{Earlier, RequestKey};
use crate::models::db::detached;
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
    if let Some(answer) = begin(&ctx, &key, &sha256(&content)?).await? {
        return Res::decode(&*answer).map_err(|_| ImksError::Internal("a stored answer cannot be read"));
    }
    // In a task, because a call that began must end even if its caller is gone.
    detached(async move {
        match call.await {
            Ok(answer) => {
                key.end(ctx.db(), &answer.encode_to_vec()).await?;
                Ok(answer)
            }
            Err(error) => {
                if let Err(problem) = key.forget(ctx.db()).await {
                    tracing::warn!(error = %problem, "a failed call can be repeated only later");
                }
                Err(error)
            }
        }
    })
    .await
}

/// Returns the answer of an earlier call, or `None` if this one is the first.
async fn begin(ctx: &Ctx, key: &RequestKey, hash: &[u8]) -> ImksResult<Option<Vec<u8>>> {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let (owned, db, content) = (key.clone(), ctx.db().clone(), hash.to_vec());
        let earlier = detached(async move { owned.begin(&db, &content, clock::now_micros()).await }).await?;
        match earlier {
            None => return Ok(None),
            Some(earlier) if earlier.hash != hash => return Err(ImksError::NonceConflict),
            Some(Earlier { answer: Some(answer), .. }) => return Ok(Some(answer)),
            Some(_) if Instant::now() >= deadline => {
                return Err(ImksError::Overloaded { retry_after: RETRY_AFTER });
            }
            Some(_) => sleep(LOOK_AGAIN).await,
        }
    }
}

/// How long a repeat waits for the answer of the first call.
const WAIT_MAX: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const RETRY_AFTER: Duration = Duration::from_secs(1);
