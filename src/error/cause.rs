//! A wrapper for errors of other libraries, so that their types do not appear in public signatures.

use std::error::Error;
use std::fmt;

/// An error of any type. `Display` and `source` are those of the wrapped error.
#[derive(Debug)]
pub struct Cause(Box<dyn Error + Send + Sync>);

impl Cause {
    /// Wraps an error, or a text if there is no error.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

/// Returns the text of an error with its causes, each once.
#[cfg(feature = "server")]
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = plain(error.to_string());
    let mut cause = error.source();
    while let Some(inner) = cause {
        // Some libraries include the cause in their message and also return it as the source.
        let told = plain(inner.to_string());
        if !text.contains(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = inner.source();
    }
    text
}

/// Cuts off the line in the source of PostgreSQL, with which the driver ends what a server has said.
#[cfg(feature = "server")]
fn plain(text: String) -> String {
    match text.rsplit_once(" at line ") {
        Some((said, line)) if line.parse::<u32>().is_ok() => said.to_owned(),
        _ => text,
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use super::*;
    use crate::ImksError;

    #[test]
    fn each_cause_is_told_once_and_without_the_line_of_somebody_elses_source() {
        let told = |text: &str| with_causes(&ImksError::AdapterRedis(Cause::new(text)));
        assert_eq!(told("role \"im\" does not exist at line 768"), "redis: role \"im\" does not exist");
        assert_eq!(told("no value at line one"), "redis: no value at line one");
        assert_eq!(told("redis"), "redis");
    }
}
