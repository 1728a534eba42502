//! What an application does to the arguments of its events on their way, such as encrypting them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};

use super::error::{ClientError, ClientResult};
use crate::error::Cause;
use crate::socket::Binary;
use crate::socket::codec::outgoing::EncodedArgs;
use crate::socket::packet::{Args, PacketType};
use crate::socket::parser::One;

/// Changes the arguments of events on their way, between applications: the server sees one binary argument and cannot
/// read it. Answers stay as they are, because they are the server's.
///
/// The functions are called in the task that sends, and in the one that runs the handlers. What is in the outbox has been
/// changed already.
pub trait PayloadCodec: Send + Sync + 'static {
    /// Whether the events of this name are changed, both ways. An event of such a name that comes unchanged is refused,
    /// so the server's own events must not be among them.
    fn covers(&self, event: &str) -> bool;

    /// Changes what is sent.
    ///
    /// # Errors
    /// Whatever keeps the event from being sent, as [`ClientError::Payload`].
    fn encode(&self, event: &str, payload: &[u8]) -> Result<Vec<u8>, PayloadError>;

    /// Changes what was received back.
    ///
    /// # Errors
    /// Whatever keeps the event from its handlers, as [`ClientError::Payload`] in
    /// [`ClientEvent::Error`](crate::client::ClientEvent::Error).
    fn decode(&self, event: &str, payload: &[u8]) -> Result<Vec<u8>, PayloadError>;
}

/// Any error of a [`PayloadCodec`].
pub type PayloadError = Box<dyn std::error::Error + Send + Sync>;

/// A codec, if the application has one.
#[derive(Clone, Default)]
pub(crate) struct Payloads(Option<Arc<dyn PayloadCodec>>);

impl Payloads {
    pub(crate) fn new(codec: impl PayloadCodec) -> Self {
        Self(Some(Arc::new(codec)))
    }

    /// Changes the arguments of an event that is sent.
    pub(crate) fn encode(&self, event: &str, args: EncodedArgs) -> ClientResult<EncodedArgs> {
        let Some(codec) = self.of(event)? else { return Ok(args) };
        let payload = guarded(event, || codec.encode(event, &pack(&args)))?;
        EncodedArgs::new(&One(&Binary(payload.into()))).map_err(ClientError::invalid)
    }

    /// Changes the arguments of an event that was received back. Returns `None` if they are not changed.
    pub(crate) fn decode(&self, args: &Args) -> ClientResult<Option<Args>> {
        let event = args.name();
        let Some(codec) = self.of(event)? else { return Ok(None) };
        let failed = |error: &'static str| failure(event, error.into());
        // Behind it, there may be the offset of a server that restores sessions.
        let Ok(Binary(payload)) = args.first() else { return Err(failed("it came unchanged")) };
        let packed = guarded(event, || codec.decode(event, &payload))?;
        let (json, attachments) = unpack(packed.into()).ok_or_else(|| failed("it is no payload"))?;
        let comma = if json.is_empty() { "" } else { "," };
        let array = format!("[{}{comma}{json}]", serde_json::Value::from(event));
        Args::from_parts(PacketType::Event, &array, attachments).map(Some).map_err(ClientError::invalid)
    }

    fn of(&self, event: &str) -> ClientResult<Option<&dyn PayloadCodec>> {
        let Some(codec) = self.0.as_deref() else { return Ok(None) };
        Ok(guarded(event, || Ok(codec.covers(event)))?.then_some(codec))
    }
}

/// Calls a function of the application, whose panic must end no task of the client.
fn guarded<T>(event: &str, call: impl FnOnce() -> Result<T, PayloadError>) -> ClientResult<T> {
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err("the codec panicked".into()));
    result.map_err(|error| failure(event, error))
}

fn failure(event: &str, error: PayloadError) -> ClientError {
    ClientError::Payload { event: event.into(), source: Arc::new(Cause::new(error)) }
}

/// Puts arguments into one piece: their JSON and each attachment, with the number of bytes before each.
fn pack(args: &EncodedArgs) -> Vec<u8> {
    let parts = || std::iter::once(args.json().as_bytes()).chain(args.attachments().iter().map(|it| &**it));
    let mut packed = Vec::with_capacity(parts().map(|part| LENGTH_BYTES + part.len()).sum());
    for part in parts() {
        packed.put_u64_le(part.len() as u64);
        packed.put_slice(part);
    }
    packed
}

/// Takes apart what [`pack`] has made.
fn unpack(mut packed: Bytes) -> Option<(String, Vec<Bytes>)> {
    let mut part = || {
        let length = usize::try_from(packed.try_get_u64_le().ok()?).ok()?;
        (length <= packed.len()).then(|| packed.split_to(length))
    };
    let json = String::from_utf8(part()?.to_vec()).ok()?;
    let attachments = std::iter::from_fn(&mut part).collect();
    packed.is_empty().then_some((json, attachments))
}

impl std::fmt::Debug for Payloads {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Payloads({})", if self.0.is_some() { "changed" } else { "as they are" })
    }
}

/// The number of bytes of a length.
const LENGTH_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Adds one to every byte, and a 7 in front.
    struct Shifted;

    impl PayloadCodec for Shifted {
        fn covers(&self, event: &str) -> bool {
            assert_ne!(event, "panic", "a bug of the application");
            event != "plain"
        }

        fn encode(&self, _: &str, payload: &[u8]) -> Result<Vec<u8>, PayloadError> {
            Ok([7].into_iter().chain(payload.iter().map(|byte| byte.wrapping_add(1))).collect())
        }

        fn decode(&self, _: &str, payload: &[u8]) -> Result<Vec<u8>, PayloadError> {
            let rest = payload.strip_prefix(&[7]).ok_or("not shifted")?;
            Ok(rest.iter().map(|byte| byte.wrapping_sub(1)).collect())
        }
    }

    fn received(event: &str, args: &EncodedArgs, offset: &str) -> Args {
        let comma = if args.json().is_empty() { "" } else { "," };
        let array = format!("[{event:?}{comma}{}{offset}]", args.json());
        Args::from_parts(PacketType::Event, &array, args.attachments().to_vec()).unwrap()
    }

    proptest! {
        #[test]
        fn what_was_changed_is_changed_back(
            text in ".*",
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            has_offset in any::<bool>(),
        ) {
            let payloads = Payloads::new(Shifted);
            let args = EncodedArgs::new(&(&text, Binary(bytes.clone().into()), 3)).unwrap();
            let sent = payloads.encode("say", args).unwrap();
            prop_assert!(sent.attachments().len() == 1 && !sent.json().contains(&*text) || text.len() < 3);
            let args = received("say", &sent, if has_offset { r#","offset""# } else { "" });
            let back = payloads.decode(&args).unwrap().unwrap();
            let (again, Binary(binary), three): (String, Binary, u8) = back.extract().unwrap();
            prop_assert_eq!((again, binary.to_vec(), three, back.name()), (text, bytes, 3, "say"));
        }

        #[test]
        fn no_bytes_are_taken_for_a_payload_that_they_are_not(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            if let Some((json, attachments)) = unpack(bytes.clone().into()) {
                let size = attachments.iter().map(|it| it.len() + LENGTH_BYTES).sum::<usize>();
                prop_assert_eq!(json.len() + LENGTH_BYTES + size, bytes.len());
            }
        }
    }

    #[test]
    fn an_event_without_arguments_and_one_that_is_not_covered_come_as_they_were() {
        let payloads = Payloads::new(Shifted);
        let none = EncodedArgs::new(&()).unwrap();
        let back = payloads.decode(&received("say", &payloads.encode("say", none).unwrap(), "")).unwrap();
        back.unwrap().extract::<()>().unwrap();
        let plain = EncodedArgs::new(&One(&1)).unwrap();
        assert_eq!(payloads.encode("plain", plain.clone()).unwrap(), plain);
        assert!(payloads.decode(&received("plain", &plain, "")).unwrap().is_none());
        assert_eq!(Payloads::default().encode("say", plain.clone()).unwrap(), plain);
    }

    #[test]
    fn what_comes_unchanged_or_broken_is_an_error_with_its_cause() {
        let payloads = Payloads::new(Shifted);
        let binary =
            |bytes: &'static [u8]| EncodedArgs::new(&One(&Binary(Bytes::from_static(bytes)))).unwrap();
        for (args, cause) in [
            (EncodedArgs::new(&One(&1)).unwrap(), "it came unchanged"),
            (binary(b"x"), "not shifted"),
            (binary(&[7, 1, 2]), "it is no payload"),
        ] {
            let error = payloads.decode(&received("say", &args, "")).unwrap_err();
            let ClientError::Payload { event, source } = &error else { panic!("{error:?}") };
            assert_eq!((&**event, source.to_string(), error.is_retryable()), ("say", cause.into(), false));
        }
        let args = EncodedArgs::new(&One(&1)).unwrap();
        assert!(matches!(payloads.encode("panic", args), Err(ClientError::Payload { .. })));
    }
}
