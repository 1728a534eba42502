//! Failures of the client library as errors of a subcommand.

use crate::ImksError;
use crate::cli::terminal::causes;
use crate::client::ClientError;

/// Returns the error for something that a client of a tool could not do. Its cause is the text of the client's own error:
/// what a server says of a refusal is in it, and must not act on the terminal that shows it.
pub(in crate::cli) fn failed(what: impl Into<String>, error: ClientError) -> ImksError {
    ImksError::Io { context: what.into(), source: std::io::Error::other(causes(&error)) }
}

/// Returns what to do about a refusal; nothing for other failures, and where nobody here can know.
pub(in crate::cli) fn advice(error: &ClientError) -> Option<&'static str> {
    let ClientError::Refused(refusal) = error else { return None };
    (refusal.code() == Some("unauthenticated")).then_some(
        "give --token or --token-file, or for an imks whose database is on this machine --development with its --data-dir",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::client::Refusal;

    #[test]
    fn what_a_server_says_of_a_refusal_cannot_act_on_the_terminal() {
        let refusal = Refusal { message: "no\u{1b}[2J\nway".into(), data: serde_json::Value::Null };
        let error = failed("joining", ClientError::Refused(Arc::new(refusal)));
        assert_eq!(crate::cli::with_causes(&error), "io: joining: refused: no[2J way");
    }

    #[test]
    fn only_who_lacks_a_good_token_is_told_how_to_give_one() {
        let refused = |code: &str| {
            let data = serde_json::json!({ "code": code });
            ClientError::Refused(Arc::new(Refusal { message: "no".into(), data }))
        };
        assert!(advice(&refused("unauthenticated")).unwrap().contains("--development"));
        assert_eq!(
            (advice(&refused("rate_limited")), advice(&ClientError::Timeout("joining"))),
            (None, None)
        );
    }
}
