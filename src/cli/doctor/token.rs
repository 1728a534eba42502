//! What a token says of itself, as far as anybody can read it without its key.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

use super::advice::excerpt;
use super::report::{Fault, Outcome};

/// Looks at a token at the time `now`, in seconds since 1970. Whether its signature is good only the server knows.
pub(super) fn examine(token: &str, now: i64) -> Outcome {
    let parts: Vec<&str> = token.split('.').collect();
    let decoded = match parts.as_slice() {
        [header, claims, _] => decode(header).zip(decode(claims)),
        _ => None,
    };
    let Some((header, claims)) = decoded else {
        let text = "no JSON Web Token: only the server, or its login hook, knows what it says";
        return Outcome::Good(text.into());
    };
    let shown = describe(&header, &claims);
    let (expires, begins) = (claims["exp"].as_i64(), claims["nbf"].as_i64());
    match (expires, begins) {
        (Some(expires), _) if expires <= now => Outcome::Failed(Fault::new(
            format!("{shown}, expired {} ago", span(now.saturating_sub(expires))),
            "the server refuses it; a client that keeps one token has this after a while",
            "get a new token: `imks token USER`, or from your application",
        )),
        (_, Some(begins)) if begins > now => Outcome::Failed(Fault::new(
            format!("{shown}, valid in {}", span(begins.saturating_sub(now))),
            "the token is not valid yet",
            "check the clocks of this machine and of whoever issues tokens",
        )),
        (Some(expires), _) => {
            Outcome::Good(format!("{shown}, expires in {}", span(expires.saturating_sub(now))))
        }
        (None, _) => Outcome::Warned(Fault::new(
            format!("{shown}, without exp"),
            "the token never expires; imks refuses such tokens",
            "issue tokens with exp",
        )),
    }
}

fn decode(part: &str) -> Option<Value> {
    let json = BASE64_URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&json).ok().filter(Value::is_object)
}

fn describe(header: &Value, claims: &Value) -> String {
    let of = |object: &Value, name: &str| match &object[name] {
        Value::Null => "none".to_owned(),
        Value::String(text) => excerpt(text),
        other => excerpt(&other.to_string()),
    };
    format!(
        "{} with key {}, of {}, for {}, subject {}",
        of(header, "alg"),
        of(header, "kid"),
        of(claims, "iss"),
        of(claims, "aud"),
        of(claims, "sub")
    )
}

/// Returns a time in seconds as people say it.
fn span(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token(claims: Value) -> String {
        let header = json!({ "alg": "EdDSA", "kid": "k1" });
        let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.x", part(header), part(claims))
    }

    #[test]
    fn a_token_is_decoded_and_its_dates_are_compared_with_the_clock() {
        let claims = json!({ "iss": "imks", "aud": "imks", "sub": "u", "exp": 1_000, "nbf": 10 });
        let good = examine(&token(claims.clone()), 100);
        let text = "EdDSA with key k1, of imks, for imks, subject u, expires in 15 min";
        assert_eq!(good, Outcome::Good(text.into()));
        let Outcome::Failed(expired) = examine(&token(claims.clone()), 1_030) else { panic!() };
        assert!(expired.found.contains("expired 30 s ago"), "{}", expired.found);
        let Outcome::Failed(early) = examine(&token(claims), 5) else { panic!() };
        assert!(early.found.contains("valid in 5 s"));
    }

    #[test]
    fn a_token_without_an_end_is_told_and_an_opaque_one_is_not_judged() {
        assert!(matches!(examine(&token(json!({})), 0), Outcome::Warned(_)));
        assert!(matches!(examine(&token(json!({ "exp": i64::MIN })), 100), Outcome::Failed(_)));
        for opaque in ["secret", "a.b.c", "", "....", "W10.W10.x"] {
            assert!(matches!(examine(opaque, 0), Outcome::Good(_)), "{opaque}");
        }
    }
}
