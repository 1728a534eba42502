//! The trace context of W3C (<https://www.w3.org/TR/trace-context/>): the text `traceparent`, by which a request says
//! which trace it belongs to.

use std::fmt;

/// The place of a request in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: TraceId,
    /// The span that the request is a part of.
    pub span_id: SpanId,
    /// Whether the sender records the trace.
    pub sampled: bool,
}

/// The id of a trace: any bytes but zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// The id of a span: any bytes but zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

impl TraceId {
    /// Returns an id, unless all bytes are zero.
    pub fn new(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl SpanId {
    /// Returns an id, unless all bytes are zero.
    pub fn new(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl TraceParent {
    /// Reads a `traceparent`. Returns `None` for anything that the specification does not allow. Of versions to come,
    /// what this one knows is read.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > TEXT_MAX {
            return None;
        }
        let (known, more) = text.as_bytes().split_at_checked(TEXT_LENGTH)?;
        let fits = match hex(&known[..2])? {
            [0] => more.is_empty(),
            [0xff] => false,
            [_] => more.is_empty() || more.starts_with(b"-"),
        };
        let [flags] = hex(&known[53..])?;
        if !fits || [2, 35, 52].iter().any(|at| known[*at] != b'-') {
            return None;
        }
        Some(Self {
            trace_id: TraceId::new(hex(&known[3..35])?)?,
            span_id: SpanId::new(hex(&known[36..52])?)?,
            sampled: flags & SAMPLED != 0,
        })
    }
}

/// Reads digits of base 16, which must be in lower case.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    (digits.len() == 2 * N).then_some(bytes)
}

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "00-{}-{}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

impl serde::Serialize for TraceParent {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The length of the text of version 00.
const TEXT_LENGTH: usize = 55;
/// The length of the longest text that is read, for versions to come.
const TEXT_MAX: usize = 256;
/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn the_example_of_the_specification_is_read_and_written_back() {
        let text = format!("00-{TRACE}-{SPAN}-01");
        let parent = TraceParent::parse(&text).unwrap();
        assert_eq!((parent.trace_id.to_string(), parent.span_id.to_string()), (TRACE.into(), SPAN.into()));
        assert!(parent.sampled && parent.to_string() == text);
        assert!(!TraceParent::parse(&format!("00-{TRACE}-{SPAN}-02")).unwrap().sampled, "another flag");
    }

    #[test]
    fn what_the_specification_forbids_is_no_parent() {
        let zeros = "0".repeat(32);
        for wrong in [
            String::new(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-01 "),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("01-{TRACE}-{SPAN}-01more"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00_{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}_{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}_01"),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!("01-{TRACE}-{SPAN}-01-{}", "m".repeat(TEXT_MAX)),
        ] {
            assert_eq!(TraceParent::parse(&wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn of_a_version_to_come_the_known_part_is_read() {
        let known = TraceParent::parse(&format!("00-{TRACE}-{SPAN}-01"));
        assert_eq!(TraceParent::parse(&format!("01-{TRACE}-{SPAN}-01-more")), known);
        assert_eq!(TraceParent::parse(&format!("cc-{TRACE}-{SPAN}-01")), known);
    }

    proptest! {
        #[test]
        fn every_parent_is_read_back(trace: [u8; 16], span: [u8; 8], sampled: bool) {
            prop_assume!(trace != [0; 16] && span != [0; 8]);
            let (trace_id, span_id) = (TraceId::new(trace).unwrap(), SpanId::new(span).unwrap());
            let parent = TraceParent { trace_id, span_id, sampled };
            prop_assert_eq!(TraceParent::parse(&parent.to_string()), Some(parent));
        }

        #[test]
        fn any_text_is_a_parent_of_the_right_form_or_none(
            text in "\\PC{0,80}|[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-?[a-z]{0,5})|[0-9a-fé-]{50,60}",
        ) {
            if let Some(parent) = TraceParent::parse(&text) {
                prop_assert_eq!(&text[3..52], &parent.to_string()[3..52]);
            }
        }
    }
}
