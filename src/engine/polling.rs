//! HTTP long-polling: GET and POST over the same driver.

/// Where HTTP requests of a polling session arrive.
#[derive(Debug, Default)]
pub(super) struct Inbox;
