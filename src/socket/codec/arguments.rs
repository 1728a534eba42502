//! The arguments that events and acks are sent with, and their encoding as JSON text.

use bytes::Bytes;
use serde::Serialize;

use super::args::Args;
use super::non_json::{self, Note};
pub use super::placeholder::Placeholder;
use crate::engine::FrameWriter;
use crate::error::ImksResult;

/// A value that can be sent as the arguments of an event or ack.
pub trait Arguments {
    /// Writes the arguments as comma-separated JSON without brackets.
    fn write_json(&self, out: &mut FrameWriter) -> ImksResult<()>;

    /// Whether there are no arguments.
    fn is_empty(&self) -> bool {
        false
    }

    /// Returns the attachments that [`Placeholder`]s in the JSON refer to.
    fn attachments(&self) -> &[Bytes] {
        &[]
    }

    /// Whether [`Arguments::write_json`] may write a [`Binary`](crate::socket::Binary), which becomes an
    /// attachment.
    fn may_hold_binary(&self) -> bool {
        false
    }

    /// Returns the approximate number of bytes that [`Arguments::write_json`] writes. A bad estimate costs a
    /// copy.
    fn size_hint(&self) -> usize {
        DEFAULT_JSON_BYTES
    }

    /// Returns the values that JSON does not have, by their position in what [`Arguments::write_json`] writes.
    fn non_json(&self) -> &[Note] {
        &[]
    }
}

/// A single argument.
#[derive(Debug, Clone, Copy)]
pub struct One<'a, T: ?Sized>(pub &'a T);

impl<T: Serialize + ?Sized> Arguments for One<'_, T> {
    fn write_json(&self, out: &mut FrameWriter) -> ImksResult<()> {
        non_json::write(out, self.0)
    }

    fn may_hold_binary(&self) -> bool {
        true
    }
}

/// Implements `Arguments` for tuples, with one argument per field.
macro_rules! tuple_arguments {
    ($first:ident $(, $other:ident)*) => {
        impl<$first: Serialize $(, $other: Serialize)*> Arguments for ($first, $($other,)*) {
            #[allow(non_snake_case, reason = "fields are named as their types")]
            fn write_json(&self, out: &mut FrameWriter) -> ImksResult<()> {
                let ($first, $($other,)*) = self;
                non_json::write(out, $first)?;
                $(
                    out.push_str(",");
                    non_json::write(out, $other)?;
                )*
                Ok(())
            }

            fn may_hold_binary(&self) -> bool {
                true
            }
        }
    };
}

tuple_arguments!(A);
tuple_arguments!(A, B);
tuple_arguments!(A, B, C);
tuple_arguments!(A, B, C, D);
tuple_arguments!(A, B, C, D, E);
tuple_arguments!(A, B, C, D, E, F);

/// No arguments.
impl Arguments for () {
    fn write_json(&self, _: &mut FrameWriter) -> ImksResult<()> {
        Ok(())
    }

    fn is_empty(&self) -> bool {
        true
    }

    fn size_hint(&self) -> usize {
        0
    }
}

/// Sends received arguments. Text and attachments are shared and not parsed again.
impl Arguments for Args {
    fn write_json(&self, out: &mut FrameWriter) -> ImksResult<()> {
        out.push_str(self.json());
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.json().is_empty()
    }

    fn attachments(&self) -> &[Bytes] {
        self.attachments()
    }

    fn size_hint(&self) -> usize {
        self.json().len()
    }

    fn non_json(&self) -> &[Note] {
        self.non_json()
    }
}

/// Arguments as comma-separated JSON text without brackets, and the attachments that the text refers to.
#[derive(Debug, Clone, Copy)]
pub struct RawArgs<'a> {
    /// The JSON text, for example `1,{"a":2}`. It must be valid JSON when put into brackets.
    pub json: &'a str,
    /// The attachments, in the order of the placeholders' numbers.
    pub attachments: &'a [Bytes],
}

impl Arguments for RawArgs<'_> {
    fn write_json(&self, out: &mut FrameWriter) -> ImksResult<()> {
        out.push_str(self.json);
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.json.is_empty()
    }

    fn attachments(&self) -> &[Bytes] {
        self.attachments
    }

    fn size_hint(&self) -> usize {
        self.json.len()
    }
}

/// The estimated size of one serialized argument.
pub(crate) const DEFAULT_JSON_BYTES: usize = 256;
