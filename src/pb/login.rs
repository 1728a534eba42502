//! The ids of the users that stand for logins.

use uuid::{Uuid, uuid};

use super::v1;

impl v1::SignInRequest {
    /// Returns the id of the user that stands for a subject, a UUID of version 5 (RFC 9562): the same issuer and
    /// subject always give the same one. The issuer is empty where subjects stand for themselves (docs/identity.md).
    pub fn user_of(issuer: &str, subject: &str) -> Uuid {
        let namespace =
            if issuer.is_empty() { NAMESPACE } else { Uuid::new_v5(&NAMESPACE, issuer.as_bytes()) };
        Uuid::new_v5(&namespace, subject.as_bytes())
    }
}

/// The namespace of the ids of users of logins (RFC 9562 section 5.5). Changing it would make every user another one.
const NAMESPACE: Uuid = uuid!("6f1b4a0e-2c53-4d0b-9d0e-8f3f6c1f5a77");
