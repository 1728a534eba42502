//! Signatures as in Standard Webhooks 1.0: `v1,` and HMAC-SHA-256, in base64, of the id, the time and the body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::secret::{Secret, digest};
use crate::{ImksError, ImksResult};

/// The keys that sign: one, or two while receivers change from one to the other.
pub(crate) struct Keys(Vec<Vec<u8>>);

impl Keys {
    /// Parses secrets of the form `whsec_` and base64, which stand in `variable`.
    pub(crate) fn parse(secrets: &[Secret], variable: &str) -> ImksResult<Self> {
        let keys: Option<Vec<_>> = secrets.iter().map(|secret| key(secret.expose())).collect();
        let keys = keys.filter(|keys| (1..=KEYS_MAX).contains(&keys.len()));
        keys.map(Self).ok_or_else(|| ImksError::Config(format!("{variable} {RULE}")))
    }

    /// Returns the value of `webhook-signature`.
    pub(crate) fn sign(&self, id: &str, seconds: i64, body: &str) -> ImksResult<String> {
        let content = format!("{id}.{seconds}.{body}");
        let sign = |key: &Vec<u8>| {
            let signature = digest(key, content.as_bytes())?;
            Ok(format!("v1,{}", STANDARD.encode(signature)))
        };
        Ok(self.0.iter().map(sign).collect::<ImksResult<Vec<_>>>()?.join(" "))
    }
}

fn key(text: &str) -> Option<Vec<u8>> {
    let key = STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text)).ok()?;
    (24..=64).contains(&key.len()).then_some(key)
}

/// The most secrets at once: the new one and the old one.
const KEYS_MAX: usize = 2;
const RULE: &str = "must be one or two secrets of 24 to 64 bytes in base64, as `openssl rand \
    -base64 32` prints them, with or without `whsec_` in front";

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "IMKS_WEBHOOK_SECRET";

    #[test]
    fn a_signature_is_that_of_the_standard() {
        // The example of the reference implementation of Standard Webhooks.
        let keys = Keys::parse(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()], NAME).unwrap();
        let signature =
            keys.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#).unwrap();
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn two_secrets_give_two_signatures_and_what_is_no_secret_gives_none() {
        let one = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let keys = Keys::parse(&[one.into(), format!("whsec_{one}").into()], NAME).unwrap();
        let both = keys.sign("a", 1, "{}").unwrap();
        let (first, second) = both.split_once(' ').unwrap();
        assert_eq!(first, second);
        for wrong in
            [vec![], vec![""], vec!["short"], vec!["not base64, but long enough to be one?"], vec![one; 3]]
        {
            let secrets: Vec<Secret> = wrong.iter().map(|text| (*text).into()).collect();
            let error = Keys::parse(&secrets, NAME).err().unwrap().to_string();
            assert!(error.contains("IMKS_WEBHOOK_SECRET") && !error.contains("short,"), "{error}");
        }
    }
}
