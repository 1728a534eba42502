//! Calls to the core in traces: a span for each call, and the context that the core is told.

use tonic::metadata::{MetadataMap, MetadataValue};

use crate::telemetry::trace::{self, Span, SpanKind};

/// Begins the span of a call, if the request that needs it is traced.
pub(super) fn calling(method: &'static str) -> Option<Span> {
    let mut span = trace::child("core", SpanKind::Client)?;
    span.note("rpc.system", "grpc");
    span.note("rpc.method", method);
    Some(span)
}

/// Tells the core which span a call is from, as W3C writes it, if it is traced.
pub(super) fn tell(metadata: &mut MetadataMap) {
    let Some(context) = trace::current() else { return };
    // The text has only characters that metadata may have.
    if let Ok(value) = MetadataValue::try_from(context.parent().to_string()) {
        metadata.insert("traceparent", value);
    }
}
