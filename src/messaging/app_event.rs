//! The events that the operator's application answers (docs/events.md).

use serde_json::value::RawValue;

use super::ctx::Caller;
use super::outcome;
use crate::application::{AppEvent, Application};
use crate::envelope::{RequestId, Success};
use crate::socket::Event;
use crate::socket::parser::RawArgs;
use crate::telemetry::trace::Span;
use crate::{ImksResult, application, clock};

/// Has the application answer an event, and passes its answer on. Other events of the client go on meanwhile.
pub(super) async fn answer(
    application: Application,
    caller: Caller,
    mut event: Event,
    mut span: Option<Span>,
) {
    let asked = match read(&caller, &event) {
        Ok(asked) => application.ask(asked).await,
        Err(error) => Err(error),
    };
    let request_id = RequestId::next();
    let answered = asked.and_then(|answer| send(&mut event, &answer, &request_id, span.as_ref()));
    if let Some(span) = &mut span {
        span.note("imks.event", event.logged_name().into_owned());
    }
    outcome::note_traced(&mut span, &answered, &request_id);
    if let Err(error) = answered {
        outcome::fail_as(&mut event, &error, &request_id);
    }
}

fn read(caller: &Caller, event: &Event) -> ImksResult<AppEvent> {
    let json = match event.args().first_json() {
        "" => "null",
        json => json,
    };
    let identity = caller.identity();
    Ok(AppEvent {
        id: clock::new_id(),
        name: event.name().to_owned(),
        payload: RawValue::from_string(json.to_owned())?,
        attachments: event.args().attachments().to_vec(),
        user_id: identity.user_id,
        username: identity.username.clone(),
        session_id: identity.session_id,
        socket_id: event.socket().id().to_owned(),
    })
}

fn send(
    event: &mut Event,
    answer: &application::Answer,
    request_id: &RequestId,
    span: Option<&Span>,
) -> ImksResult<()> {
    let Some(ack) = event.take_ack() else { return Ok(()) };
    let envelope = Success::new(&answer.data, request_id).traced(span.map(Span::parent));
    let json = serde_json::to_string(&envelope)?;
    outcome::note_sent(
        event.socket(),
        ack.send_args(&RawArgs { json: &json, attachments: &answer.attachments }),
    );
    Ok(())
}
