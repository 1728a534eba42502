//! The address of a server as a terminal may show it.

use super::text;

/// Returns an address in one line without its user and password, which may also stand in its query.
pub(crate) fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let separator = if scheme.is_empty() { "" } else { "://" };
    let (user, host) = rest.rsplit_once('@').map_or(("", rest), |(_, host)| ("***@", host));
    let (place, query) = host.split_once('?').map_or((host, ""), |(place, _)| (place, "?***"));
    text::line(&format!("{scheme}{separator}{user}{place}{query}"))
}

#[cfg(test)]
mod tests {
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
    }
}
