//! Logins of the operator's own application: which claims of a token name the user, their roles and channels,
//! and the user of the directory that stands for a login.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use uuid::{Uuid, uuid};

use super::claims::{Audience, Refusal, Validity};
use super::hook::Config as HookConfig;
use crate::pb::{CoreClient, v1};
use crate::secret::Secret;

/// The settings of one's own logins.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address of a JWK set.
    pub jwks_url: Option<Secret>,
    /// A PEM file with public keys.
    pub public_key_file: Option<PathBuf>,
    /// The secret of HS256, at least 32 bytes.
    pub hmac_secret: Option<Secret>,
    /// Whether a shared secret may be used at all.
    pub allow_hmac: bool,
    /// The claim with the id of the user.
    pub user_claim: String,
    /// The claims with the name of the user; the first one that a token has counts.
    pub name_claims: Vec<String>,
    /// The claim with the roles of the user.
    pub roles_claim: String,
    /// The claim with the channels of the user.
    pub channels_claim: String,
    /// Whether a user is made when they sign in for the first time.
    pub create_users: bool,
    /// Whether a channel is made when a login names it for the first time.
    pub create_channels: bool,
    /// The channels that a user joins when they are made.
    pub first_channels: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            jwks_url: None,
            public_key_file: None,
            hmac_secret: None,
            allow_hmac: false,
            user_claim: SUBJECT.into(),
            name_claims: vec!["username".into(), "preferred_username".into(), "name".into()],
            roles_claim: "roles".into(),
            channels_claim: "channels".into(),
            create_users: true,
            create_channels: false,
            first_channels: Vec::new(),
        }
    }
}

impl Config {
    /// Whether the operator's own application decides about tokens, by keys or by `hook`.
    pub fn is_in_use(&self, hook: &HookConfig) -> bool {
        let has_keys =
            self.jwks_url.is_some() || self.public_key_file.is_some() || self.hmac_secret.is_some();
        has_keys || hook.url.is_some()
    }

    /// Returns the problems of the settings, each as a sentence that says what to change.
    pub fn problems(&self, hook: &HookConfig, has_core: bool) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, sentence: &str| {
            if !ok {
                problems.push(sentence.to_owned());
            }
        };
        let sources = [
            self.jwks_url.is_some(),
            self.public_key_file.is_some(),
            self.hmac_secret.is_some(),
            hook.url.is_some(),
        ];
        let count = sources.into_iter().filter(|is_set| *is_set).count();
        check(count <= 1, ONE_SOURCE);
        check(count == 0 || !has_core, NOT_WITH_A_CORE);
        let is_http = |url: &Secret| ["http://", "https://"].iter().any(|it| url.expose().starts_with(it));
        check(
            self.jwks_url.as_ref().is_none_or(is_http),
            "IMKS_TOKEN_JWKS_URL must start with http:// or https://",
        );
        check(hook.url.as_ref().is_none_or(is_http), "IMKS_AUTH_URL must start with http:// or https://");
        check(hook.calls_max > 0, "IMKS_AUTH_CALLS must be at least 1");
        if let Some(secret) = &self.hmac_secret {
            check(self.allow_hmac, HMAC_NOT_ALLOWED);
            check(
                secret.expose().len() >= HMAC_BYTES_MIN,
                "IMKS_TOKEN_HMAC_SECRET must have at least 32 bytes (RFC 7518 section 3.2)",
            );
        }
        check(
            !self.user_claim.is_empty(),
            "IMKS_TOKEN_CLAIM_USER must name the claim with the id of the user",
        );
        let bad = self.first_channels.iter().find(|name| !is_channel_name(name));
        problems.extend(bad.map(|name| format!("IMKS_LOGIN_CHANNELS: {name:?} {CHANNEL_NAME_RULE}")));
        problems
    }
}

/// All claims of a token. A claim that stands twice makes it invalid, because two readers could disagree.
pub(super) struct OwnClaims(Map<String, Value>);

impl<'de> Deserialize<'de> for OwnClaims {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Unique).map(Self)
    }
}

/// Reads an object without repeated names.
struct Unique;

impl<'de> Visitor<'de> for Unique {
    type Value = Map<String, Value>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
        let mut claims = Map::new();
        while let Some((name, value)) = from.next_entry::<String, Value>()? {
            if claims.insert(name, value).is_some() {
                return Err(A::Error::custom("a claim twice"));
            }
        }
        Ok(claims)
    }
}

impl OwnClaims {
    /// Returns `iss`, if the token has one.
    pub(super) fn issuer(&self) -> Result<Option<&str>, Refusal> {
        self.0.get("iss").map(|it| it.as_str().ok_or(Refusal::Invalid("iss is not a text"))).transpose()
    }

    /// Returns `aud`, if the token has one.
    pub(super) fn audience(&self) -> Result<Option<Audience>, Refusal> {
        let read = |it: &Value| Audience::deserialize(it).map_err(|_| Refusal::Invalid("aud is not a text"));
        self.0.get("aud").map(read).transpose()
    }

    /// Returns the times. `exp` is required.
    pub(super) fn validity(&self) -> Result<Validity, Refusal> {
        let seconds =
            |name: &str, why| self.0.get(name).map(|it| it.as_u64().ok_or(Refusal::Invalid(why))).transpose();
        Ok(Validity {
            exp: seconds("exp", "exp is not a number of seconds")?
                .ok_or(Refusal::Invalid("exp is missing"))?,
            iat: seconds("iat", "iat is not a number of seconds")?,
            nbf: seconds("nbf", "nbf is not a number of seconds")?,
        })
    }

    /// Returns the session that the token belongs to, if `sid` is a UUID.
    pub(super) fn session(&self) -> Option<Uuid> {
        self.0.get("sid")?.as_str()?.parse().ok()
    }

    /// Returns the login that the claims describe. `realm` separates the subjects of different issuers.
    pub(super) fn login(&self, config: &Config, realm: &str) -> Result<Login, Refusal> {
        let subject = match self.claim(&config.user_claim) {
            Some(Value::String(subject)) => subject.clone(),
            // RFC 7519 makes `sub` a text; a claim of the application's own may be the number of a row.
            Some(Value::Number(id)) if config.user_claim != SUBJECT && (id.is_u64() || id.is_i64()) => {
                id.to_string()
            }
            Some(_) => return Err(Refusal::Invalid("the claim of the user is not a text")),
            None => return Err(Refusal::Invalid("the claim of the user is missing")),
        };
        let name = match config.name_claims.iter().find_map(|claim| self.claim(claim)) {
            Some(Value::String(name)) => name.clone(),
            Some(_) => return Err(Refusal::Invalid("the claim of the name is not a text")),
            None => subject.clone(),
        };
        let role = self.claim(&config.roles_claim).map_or(Ok(None), Role::highest)?;
        let channels = match self.claim(&config.channels_claim) {
            Some(claim) => grants(claim, role)?,
            None => Vec::new(),
        };
        Login::new(realm, &subject, &name, channels)
    }

    /// Returns a claim by its name, or by a JSON pointer (RFC 6901) such as `/realm_access/roles`.
    fn claim(&self, name: &str) -> Option<&Value> {
        let Some(pointer) = name.strip_prefix('/') else { return self.0.get(name) };
        let (first, rest) = pointer.split_at(pointer.find('/').unwrap_or(pointer.len()));
        self.0.get(&first.replace("~1", "/").replace("~0", "~"))?.pointer(rest)
    }
}

/// A user as an application describes them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Login {
    /// The id of the user: the same realm and subject always give the same one.
    pub(super) user_id: Uuid,
    name: String,
    channels: Vec<Grant>,
}

/// A membership that a login names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Grant {
    pub(super) channel: String,
    /// The role of the member; `None` leaves it to the directory.
    pub(super) role: Option<Role>,
    /// Exactly these permissions, instead of a role.
    pub(super) bits: Option<u64>,
}

/// The roles of the directory, the lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Role {
    Guest,
    Member,
    Moderator,
    Owner,
}

impl Role {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Guest, "guest"),
        (Self::Member, "member"),
        (Self::Moderator, "moderator"),
        (Self::Owner, "owner"),
    ];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, it)| *it == name).map(|(role, _)| role)
    }

    fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(it, _)| *it == self).map_or("", |(_, name)| name)
    }

    /// Returns the highest role that is listed. Names that are no role here have a meaning elsewhere.
    fn highest(roles: &Value) -> Result<Option<Self>, Refusal> {
        let wrong = Refusal::Invalid("the claim of the roles is not a list of texts");
        let names: Vec<&str> = match roles {
            Value::String(name) => vec![name],
            Value::Array(names) => names.iter().map(Value::as_str).collect::<Option<_>>().ok_or(wrong)?,
            _ => return Err(wrong),
        };
        Ok(names.into_iter().filter_map(Self::named).max())
    }
}

/// Reads channels: a list of names, or an object of names with a role or a list of permissions each. `role` is
/// the role where none is named.
pub(super) fn grants(claim: &Value, role: Option<Role>) -> Result<Vec<Grant>, Refusal> {
    let wrong =
        || Refusal::Invalid("the claim of the channels is not a list of names, or of names and roles");
    match claim {
        Value::Array(names) => {
            let grant =
                |name: &Value| name.as_str().map(|name| Grant { channel: name.into(), role, bits: None });
            names.iter().map(grant).collect::<Option<_>>().ok_or_else(wrong)
        }
        Value::Object(roles) => {
            let grant = |(name, own): (&String, &Value)| match own {
                Value::String(role) => {
                    Some(Grant { channel: name.clone(), role: Some(Role::named(role)?), bits: None })
                }
                Value::Array(names) => {
                    Some(Grant { channel: name.clone(), role: None, bits: Some(bits(names)?) })
                }
                _ => None,
            };
            roles.iter().map(grant).collect::<Option<_>>().ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

/// Returns the set of the named permissions, or `None` if one is not a permission.
fn bits(names: &[Value]) -> Option<u64> {
    names.iter().try_fold(0, |bits, name| {
        let permission = v1::Permission::from_str_name(&format!("PERMISSION_{}", name.as_str()?))?;
        Some(bits | 1 << u32::try_from(i32::from(permission)).ok()?)
    })
}

impl Login {
    /// Checks the parts of a login. A name that is too long is cut; a name without a visible character is
    /// replaced by the subject.
    pub(super) fn new(realm: &str, subject: &str, name: &str, channels: Vec<Grant>) -> Result<Self, Refusal> {
        if subject.is_empty() || subject.len() > SUBJECT_BYTES_MAX {
            return Err(Refusal::Invalid("the id of the user is empty or longer than 255 bytes"));
        }
        if channels.len() > CHANNELS_OF_LOGIN_MAX {
            return Err(Refusal::Invalid("more than 500 channels"));
        }
        if channels.iter().any(|grant| !is_channel_name(&grant.channel)) {
            return Err(Refusal::Invalid("the name of a channel is not allowed"));
        }
        let user_id = user_id(realm, subject);
        let shown =
            |text: &str| text.trim().chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
        let candidates: [String; 2] = [shown(name), shown(subject)];
        let name =
            candidates.into_iter().find(|name| !name.is_empty()).unwrap_or_else(|| user_id.to_string());
        Ok(Self { user_id, name: name.trim().to_owned(), channels })
    }
}

/// Returns the id of the user that stands for a subject: a UUID of version 5 (RFC 9562).
fn user_id(realm: &str, subject: &str) -> Uuid {
    let namespace = if realm.is_empty() { NAMESPACE } else { Uuid::new_v5(&NAMESPACE, realm.as_bytes()) };
    Uuid::new_v5(&namespace, subject.as_bytes())
}

/// The users of logins: asks the directory to make what is missing, once per login.
pub(super) struct Users {
    core: CoreClient,
    seen: Mutex<HashMap<Uuid, Seen>>,
    hasher: RandomState,
}

struct Seen {
    login: u64,
    username: Arc<str>,
}

impl Users {
    pub(super) fn new(core: CoreClient) -> Self {
        Self { core, seen: Mutex::default(), hasher: RandomState::new() }
    }

    /// Returns the name of the user of a login. Asks the directory, unless it has answered the same login
    /// before and `again` is false.
    pub(super) async fn sign_in(
        &self,
        config: &Config,
        login: &Login,
        again: bool,
    ) -> Result<Arc<str>, Refusal> {
        let hash = self.hasher.hash_one(login);
        if let Some(seen) = self.seen.lock().get(&login.user_id).filter(|seen| !again && seen.login == hash) {
            return Ok(seen.username.clone());
        }
        let user = self.core.sign_in(request(config, login)).await?;
        let user = user.ok_or(Refusal::Invalid("the user does not exist, and users are not made here"))?;
        if user.deleted {
            return Err(Refusal::Invalid("the account is closed"));
        }
        let mut seen = self.seen.lock();
        if seen.len() >= SEEN_MAX {
            seen.clear();
        }
        seen.insert(login.user_id, Seen { login: hash, username: user.username.clone() });
        Ok(user.username)
    }

    /// Forgets a user, so that the directory is asked when they sign in again.
    pub(super) fn forget(&self, user: Uuid) {
        self.seen.lock().remove(&user);
    }
}

fn request(config: &Config, login: &Login) -> v1::SignInRequest {
    let grant = |grant: &Grant| v1::ChannelGrant {
        channel: grant.channel.clone(),
        role: grant.role.map(Role::name).unwrap_or_default().to_owned(),
        bits: grant.bits,
    };
    v1::SignInRequest {
        user_id: login.user_id.to_string(),
        username: login.name.clone(),
        create_user: config.create_users,
        create_channels: config.create_channels,
        first_channels: config.first_channels.clone(),
        channels: login.channels.iter().map(grant).collect(),
    }
}

/// Whether the directory allows a channel of this name.
fn is_channel_name(name: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && name.chars().count() <= NAME_CHARS_MAX && name.chars().all(allowed)
}

/// The claim with the id of the user (RFC 7519).
const SUBJECT: &str = "sub";
/// The namespace of the ids of users (RFC 9562 section 5.5). Changing it would make every user another one.
const NAMESPACE: Uuid = uuid!("6f1b4a0e-2c53-4d0b-9d0e-8f3f6c1f5a77");
/// The longest id of a user in a token, in bytes.
const SUBJECT_BYTES_MAX: usize = 255;
/// The longest name of a user or channel, in characters.
const NAME_CHARS_MAX: usize = 64;
/// The number of channels that one login names.
const CHANNELS_OF_LOGIN_MAX: usize = 500;
/// The number of logins that are remembered; when it is exceeded, all are forgotten and asked about again.
const SEEN_MAX: usize = 1 << 16;
/// The shortest secret of HS256, in bytes.
const HMAC_BYTES_MIN: usize = 32;
const ONE_SOURCE: &str = "set only one of IMKS_TOKEN_JWKS_URL, IMKS_TOKEN_PUBLIC_KEY_FILE, IMKS_TOKEN_HMAC_SECRET and IMKS_AUTH_URL";
const NOT_WITH_A_CORE: &str = "the core at IMKS_CORE_URL names the keys of tokens: unset IMKS_TOKEN_JWKS_URL, \
     IMKS_TOKEN_PUBLIC_KEY_FILE, IMKS_TOKEN_HMAC_SECRET and IMKS_AUTH_URL";
const HMAC_NOT_ALLOWED: &str = "IMKS_TOKEN_HMAC_SECRET needs IMKS_TOKEN_ALLOW_HMAC=true: whoever can read a \
     shared secret can sign in as anybody, so prefer a public key";
const CHANNEL_NAME_RULE: &str = "is not 1 to 64 letters, digits, hyphens, underscores or dots";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn login(claims: Value) -> Result<Login, Refusal> {
        let claims: OwnClaims = serde_json::from_value(claims).unwrap();
        claims.login(&Config::default(), "")
    }

    #[test]
    fn any_text_may_be_a_subject_and_the_same_one_is_always_the_same_user() {
        for subject in ["auth0|1234", "42", "ä ü", "9c7b0e3e-6bb8-4b2f-8d52-0f4b8f0c4c0e"] {
            let user = login(json!({"sub": subject})).unwrap();
            assert_eq!(user.user_id, login(json!({"sub": subject, "name": "x"})).unwrap().user_id);
            assert_eq!((user.user_id.get_version_num(), user.name.as_str()), (5, subject));
        }
        assert_ne!(user_id("a", "1"), user_id("b", "1"), "another issuer is another user");
        for subject in [json!(""), json!(7), json!(null), json!(["a"]), json!("a".repeat(256))] {
            assert!(login(json!({"sub": subject})).is_err(), "{subject}");
        }
    }

    #[test]
    fn names_roles_and_channels_come_from_their_claims() {
        let alice = login(json!({
            "sub": "1", "preferred_username": "alice", "name": "Alice M.", "roles": ["x", "guest", "moderator"],
            "channels": ["general", "room-1"],
        }));
        let alice = alice.unwrap();
        assert_eq!(alice.name, "alice");
        let granted: Vec<_> = alice.channels.iter().map(|it| (it.channel.as_str(), it.role)).collect();
        assert_eq!(granted, [("general", Some(Role::Moderator)), ("room-1", Some(Role::Moderator))]);
        let bob = login(json!({"sub": "2", "channels": {"general": "owner"}})).unwrap();
        assert_eq!(bob.channels, [Grant { channel: "general".into(), role: Some(Role::Owner), bits: None }]);
    }

    #[test]
    fn a_claim_may_be_deep_in_the_token() {
        let config = Config { roles_claim: "/realm_access/roles".into(), ..Config::default() };
        let claims = json!({"sub": "1", "realm_access": {"roles": ["owner"]}, "channels": ["a"]});
        let claims: OwnClaims = serde_json::from_value(claims).unwrap();
        assert_eq!(claims.login(&config, "").unwrap().channels[0].role, Some(Role::Owner));
        assert_eq!(claims.claim("/realm_access/none"), None);
    }

    #[test]
    fn a_claim_of_the_wrong_shape_is_refused_and_a_long_name_is_cut() {
        for (claim, value) in [
            ("name", json!(7)),
            ("roles", json!({"a": 1})),
            ("roles", json!([1])),
            ("channels", json!("general")),
            ("channels", json!([1])),
            ("channels", json!(["a b"])),
            ("channels", json!(["../x"])),
            ("channels", json!({"general": "king"})),
        ] {
            let mut claims = json!({"sub": "1"});
            claims[claim] = value.clone();
            assert!(login(claims).is_err(), "{claim} {value}");
        }
        assert_eq!(login(json!({"sub": "1", "name": "a".repeat(300)})).unwrap().name.len(), 64);
        assert_eq!(login(json!({"sub": "1", "name": " \n "})).unwrap().name, "1");
        assert!(serde_json::from_str::<OwnClaims>(r#"{"sub":"1","sub":"2"}"#).is_err());
    }

    #[test]
    fn a_shared_secret_must_be_allowed_and_long() {
        let secret = |text: &str, allow_hmac| Config {
            hmac_secret: Some(text.into()),
            allow_hmac,
            ..Config::default()
        };
        let long = "0123456789abcdef0123456789abcdef";
        assert!(secret(long, true).problems(&HookConfig::default(), false).is_empty());
        assert_eq!(secret(long, false).problems(&HookConfig::default(), false).len(), 1);
        assert_eq!(secret("short", true).problems(&HookConfig::default(), false).len(), 1);
        assert_eq!(
            secret(long, true).problems(&HookConfig::default(), true).len(),
            1,
            "the core has keys of its own"
        );
    }
}
