//! Who calls, and what the caller may do.

use std::sync::Arc;

use uuid::Uuid;

use crate::{ImksError, ImksResult};

/// A back end that has proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The id of the API key, or one that is made of the name in the certificate.
    pub id: Uuid,
    /// The name of the API key, or the one in the certificate.
    pub name: Arc<str>,
    pub(super) scopes: Scopes,
    /// Whether the caller has an API key, which may be revoked while a call goes on.
    pub(super) has_key: bool,
}

impl Caller {
    /// Returns a caller who may do everything, known by a name that somebody else vouches for.
    pub(super) fn trusted(name: &str) -> Self {
        let id = Uuid::new_v5(&NAMES, name.as_bytes());
        Self { id, name: name.into(), scopes: Scopes::ALL, has_key: false }
    }

    /// Checks that the caller has a scope.
    ///
    /// # Errors
    /// [`ImksError::Forbidden`].
    pub fn require(&self, scope: Scope) -> ImksResult<()> {
        if self.scopes.include(scope) { Ok(()) } else { Err(ImksError::Forbidden(scope.name())) }
    }
}

/// A group of calls that a key may be limited to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Scope {
    /// Sends messages and events.
    Publish = 1,
    /// Reads messages, events, presence, unread counts and sessions.
    Read = 2,
    /// Deletes messages, removes users from channels, ends connections and sessions.
    Moderate = 4,
    /// Changes users, channels and memberships.
    Users = 8,
    /// Begins and ends sessions of users: with it, a back end can act as anybody.
    Tokens = 16,
    /// Sets and releases legal holds, and reads what was deleted for good.
    Compliance = 32,
}

impl Scope {
    /// Every scope.
    pub const EVERY: [Self; 6] =
        [Self::Publish, Self::Read, Self::Moderate, Self::Users, Self::Tokens, Self::Compliance];

    /// Returns the name in commands, errors and the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Moderate => "moderate",
            Self::Users => "users",
            Self::Tokens => "tokens",
            Self::Compliance => "compliance",
        }
    }
}

/// A set of scopes. As text: their names with commas between them, or `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope, those of later versions included.
    pub const ALL: Self = Self(u8::MAX);
    /// No scope.
    pub(super) const NONE: Self = Self(0);

    /// Whether the scope is in the set.
    pub fn include(self, scope: Scope) -> bool {
        self.0 & scope as u8 != 0
    }

    /// Reads the names of scopes.
    ///
    /// # Errors
    /// [`ImksError::InvalidInput`] for a name that does not exist, or no name at all.
    pub fn parse(text: &str) -> ImksResult<Self> {
        let names = text.split(',').map(str::trim);
        names.clone().try_fold(Self::NONE, |scopes, name| {
            if name == ALL {
                return Ok(Self::ALL);
            }
            let scope = Scope::EVERY.into_iter().find(|scope| scope.name() == name);
            let known = Scope::EVERY.map(Scope::name).join(", ");
            let scope =
                scope.ok_or_else(|| ImksError::invalid("scope", format!("write {known} or {ALL}")))?;
            Ok(Self(scopes.0 | scope as u8))
        })
    }

    /// Returns the names of the scopes.
    pub fn show(self) -> String {
        if self == Self::ALL {
            return ALL.into();
        }
        let names = Scope::EVERY.into_iter().filter(|scope| self.include(*scope)).map(Scope::name);
        names.collect::<Vec<_>>().join(",")
    }
}

const ALL: &str = "all";
/// The namespace of the ids that are made of names.
const NAMES: Uuid = Uuid::from_u128(0x5b7e_2c7e_91f4_4d0a_8d5c_0f3a_6f0e_7c11);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_read_back_as_written_and_others_are_told_the_choice() {
        for text in ["publish", "publish,read", "publish,read,moderate,users", "all"] {
            assert_eq!(Scopes::parse(text).unwrap().show(), text);
        }
        assert!(Scopes::parse(" users , read ").unwrap().include(Scope::Users));
        for text in ["", "write", "publish,", "ALL"] {
            let error = Scopes::parse(text).unwrap_err().client_message();
            assert!(error.contains("publish, read, moderate, users, tokens, compliance or all"), "{error}");
        }
    }

    #[test]
    fn a_key_can_do_what_its_scopes_say_and_nothing_else() {
        let caller = Caller { scopes: Scopes::parse("read").unwrap(), ..Caller::trusted("search") };
        assert!(caller.require(Scope::Read).is_ok());
        assert_eq!(caller.require(Scope::Publish).unwrap_err().code(), "forbidden");
        assert!(Scope::EVERY.iter().all(|scope| Caller::trusted("core").require(*scope).is_ok()));
        let nobody = Caller { scopes: Scopes::NONE, ..Caller::trusted("core") };
        assert!(Scope::EVERY.iter().all(|scope| nobody.require(*scope).is_err()));
        assert_eq!(Caller::trusted("core").id, Caller::trusted("core").id);
        assert_ne!(Caller::trusted("core").id, Caller::trusted("other").id);
    }
}
