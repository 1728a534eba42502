//! The address of a server as a terminal may show it.

use super::text;

/// Returns an address in one line without its user and password, which may also stand in its query. What stands before
/// `://` and is no scheme may be a part of them.
pub(crate) fn without_secrets(url: &str) -> String {
    let split = url.split_once("://").filter(|(scheme, _)| is_scheme(scheme));
    let (scheme, rest) = split.unwrap_or(("", url));
    let separator = if scheme.is_empty() { "" } else { "://" };
    let (user, host) = rest.rsplit_once('@').map_or(("", rest), |(_, host)| ("***@", host));
    let (place, query) = host.split_once(['?', '#']).map_or((host, ""), |(place, _)| (place, "?***"));
    text::line(&format!("{scheme}{separator}{user}{place}{query}"))
}

fn is_scheme(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_password_of_an_address_is_not_shown() {
        assert_eq!(without_secrets("postgres://im:hunter@2@db/imks"), "postgres://***@db/imks");
        assert_eq!(without_secrets("postgres://db/imks?password=hunter2"), "postgres://db/imks?***");
        assert_eq!(without_secrets("postgres://im:h?u@db/imks?password=a@b"), "postgres://***@b");
        assert_eq!(without_secrets("im:hunter2@db"), "***@db");
        assert_eq!(without_secrets("https://chat.example/io/"), "https://chat.example/io/");
        assert_eq!(without_secrets("redis://cache:6379"), "redis://cache:6379");
        assert_eq!(without_secrets("sqlite:data/imks.db"), "sqlite:data/imks.db");
        assert_eq!(without_secrets("wss://me:sec/r@et@chat.example/io/"), "wss://***@chat.example/io/");
        assert_eq!(without_secrets("me:sec://ret@chat.example"), "***@chat.example");
        assert_eq!(without_secrets("http://127.0.0.1:3000/x#secret"), "http://127.0.0.1:3000/x?***");
        assert_eq!(without_secrets("nats://a:b@one:4222,nats://c:d@two"), "nats://***@two");
    }

    proptest! {
        #[test]
        fn no_text_panics_and_nothing_before_the_host_is_shown(text in ".*", host in "[a-z]{1,9}") {
            let shown = without_secrets(&format!("http://{text}@{host}"));
            prop_assert_eq!(shown, format!("http://***@{host}"));
            let _ = without_secrets(&text);
        }
    }
}
