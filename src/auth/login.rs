//! Logins of the operator's own application: which claims of a token name the user, their roles and channels,
//! and the user of the directory that stands for a login.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use tokio::time::Instant;
use uuid::Uuid;

use super::claims::{Audience, Refusal, Validity};
use super::login_config::{LoginConfig, NAME_CHARS_MAX, SUBJECT, is_channel_name};
use super::recent::{Bounds, Recent};
use crate::pb::{CoreClient, v1};

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
    pub(super) fn login(&self, config: &LoginConfig, realm: &str) -> Result<Login, Refusal> {
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

    /// Returns the id of the user as the token says it, cut, for the log.
    pub(super) fn subject(&self, config: &LoginConfig) -> Option<String> {
        match self.claim(&config.user_claim)? {
            Value::String(subject) => Some(subject.chars().take(SUBJECT_CHARS_LOGGED).collect()),
            Value::Number(id) => Some(id.to_string()),
            _ => None,
        }
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
pub struct Login {
    /// The id of the user in the application.
    subject: Box<str>,
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
        Some(bits | permission.bit()?)
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
        let user_id = v1::SignInRequest::user_of(realm, subject);
        let candidates: [String; 2] = [shown(name), shown(subject)];
        let name =
            candidates.into_iter().find(|name| !name.is_empty()).unwrap_or_else(|| user_id.to_string());
        Ok(Self { subject: subject.into(), user_id, name, channels })
    }

    /// Returns the id of the user in the application.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Returns the name of the user.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns how many bytes the texts of the login take.
    pub(super) fn weight(&self) -> usize {
        let channels = self.channels.iter().map(|grant| size_of::<Grant>() + grant.channel.len());
        self.subject.len() + self.name.len() + channels.sum::<usize>()
    }
}

/// Returns the characters of a name that are seen, at most [`NAME_CHARS_MAX`]. Joiners and variation selectors stay
/// between two characters that are not ASCII, where scripts and emoji need them: a selector, a joiner, or both.
fn shown(text: &str) -> String {
    let (mut shown, mut joiners) = (String::new(), String::new());
    for c in text.chars().filter(|c| !c.is_control() && !is_deceptive(*c)) {
        if is_joiner(c) {
            let before = joiners.chars().next_back();
            if before.is_none_or(|before| is_selector(before) && !is_selector(c)) {
                joiners.push(c);
            }
            continue;
        }
        if !c.is_ascii() && shown.chars().next_back().is_some_and(|before| !before.is_ascii()) {
            shown.push_str(&joiners);
        }
        joiners.clear();
        shown.push(c);
    }
    let cut: String = shown.trim().chars().take(NAME_CHARS_MAX).collect();
    cut.trim_end_matches(is_joiner).trim().to_owned()
}

/// Whether a character is not seen, and could make a name look like another one: marks of direction, spaces without a
/// width, and fillers.
fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
        | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}'
        | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Whether a character only changes how its neighbours look.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}') || is_selector(c)
}

/// Whether a character selects how the one before it looks.
fn is_selector(c: char) -> bool {
    matches!(c, '\u{fe00}'..='\u{fe0f}')
}

/// The users of logins: asks the directory to make what is missing, once per login.
pub(super) struct Users {
    core: CoreClient,
    seen: Mutex<Recent<Uuid, Seen>>,
    hasher: RandomState,
}

struct Seen {
    login: u64,
    username: Arc<str>,
}

impl Users {
    pub(super) fn new(core: CoreClient) -> Self {
        Self { core, seen: Mutex::new(Recent::new(SEEN)), hasher: RandomState::new() }
    }

    /// Returns the name of the user of a login. Asks the directory, unless it has answered the same login
    /// before and `again` is false.
    pub(super) async fn sign_in(
        &self,
        config: &LoginConfig,
        login: &Login,
        again: bool,
    ) -> Result<Arc<str>, Refusal> {
        let hash = self.hasher.hash_one(login);
        let now = Instant::now();
        let is_same = |seen: &&Seen| !again && seen.login == hash;
        if let Some(seen) = self.seen.lock().get(&login.user_id, now).filter(is_same) {
            return Ok(seen.username.clone());
        }
        let user = self.core.sign_in(request(config, login)).await?;
        let user = user.ok_or(Refusal::Invalid("the user does not exist, and users are not made here"))?;
        if user.deleted {
            return Err(Refusal::Invalid("the account is closed"));
        }
        let seen = Seen { login: hash, username: user.username.clone() };
        self.seen.lock().insert(login.user_id, seen, user.username.len(), None, now);
        Ok(user.username)
    }

    /// Forgets a user, so that the directory is asked when they sign in again.
    pub(super) fn forget(&self, user: Uuid) {
        self.seen.lock().remove(&user);
    }
}

fn request(config: &LoginConfig, login: &Login) -> v1::SignInRequest {
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

/// The longest id of a user in a token, in bytes.
const SUBJECT_BYTES_MAX: usize = 255;
/// The number of characters of the id of a user that the log shows.
const SUBJECT_CHARS_LOGGED: usize = 64;
/// The number of channels that one login names.
const CHANNELS_OF_LOGIN_MAX: usize = 500;
const SEEN: Bounds = Bounds { entries: SEEN_MAX, bytes: SEEN_BYTES_MAX };
/// The number of logins that are remembered; the oldest is forgotten and asked about again.
const SEEN_MAX: usize = 1 << 16;
/// The memory of the logins that are remembered, in bytes.
const SEEN_BYTES_MAX: usize = 32 << 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn login(claims: Value) -> Result<Login, Refusal> {
        let claims: OwnClaims = serde_json::from_value(claims).unwrap();
        claims.login(&LoginConfig::default(), "")
    }

    #[test]
    fn any_text_may_be_a_subject_and_the_same_one_is_always_the_same_user() {
        for subject in ["auth0|1234", "42", "ä ü", "9c7b0e3e-6bb8-4b2f-8d52-0f4b8f0c4c0e"] {
            let user = login(json!({"sub": subject})).unwrap();
            assert_eq!(user.user_id, login(json!({"sub": subject, "name": "x"})).unwrap().user_id);
            assert_eq!((user.user_id.get_version_num(), user.name.as_str()), (5, subject));
        }
        let user_of = v1::SignInRequest::user_of;
        assert_ne!(user_of("a", "1"), user_of("b", "1"), "another issuer is another user");
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
    fn a_name_has_no_characters_that_nobody_sees_except_where_scripts_and_emoji_need_them() {
        let unseen =
            "\u{34f}\u{115f}\u{1160}\u{17b4}\u{17b5}\u{2800}\u{3164}\u{ffa0}\u{200c}\u{200d}\u{fe00}\u{fe0f}";
        for c in unseen.chars() {
            for name in
                [format!("Al{c}ice"), format!("{c}Alice"), format!("Alice{c}"), format!("Al{c}{c}{c}ice")]
            {
                assert_eq!(shown(&name), "Alice", "{name:?}");
            }
            assert_eq!(shown(&format!(" {c} ")), "", "{c:?}");
        }
        let needed = [
            "\u{1f468}\u{200d}\u{1f469}",
            "\u{2764}\u{fe0f}\u{200d}\u{1f525}",
            "\u{915}\u{94d}\u{200d}\u{937}",
        ];
        for name in needed {
            assert_eq!(shown(name), name);
        }
        assert_eq!(shown("\u{e9}\u{200d}\u{200d}\u{200c}\u{e9}"), "\u{e9}\u{200d}\u{e9}", "one is enough");
        assert_eq!(shown("\u{e9}\u{200d}e"), "\u{e9}e");
        assert_eq!(shown(&format!("{}\u{200d}\u{e9}", "\u{e9}".repeat(63))), "\u{e9}".repeat(63));
    }

    #[test]
    fn a_claim_may_be_deep_in_the_token() {
        let config = LoginConfig { roles_claim: "/realm_access/roles".into(), ..LoginConfig::default() };
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
            ("channels", json!(["a/b/c"])),
            ("channels", json!(["/x"])),
            ("channels", json!(["x/"])),
            ("channels", json!({"general": "king"})),
        ] {
            let mut claims = json!({"sub": "1"});
            claims[claim] = value.clone();
            assert!(login(claims).is_err(), "{claim} {value}");
        }
        assert_eq!(login(json!({"sub": "1", "name": "a".repeat(300)})).unwrap().name.len(), 64);
        for unseen in [" \n ", "\u{200b}\u{202e}"] {
            assert_eq!(login(json!({"sub": "1", "name": unseen})).unwrap().name, "1");
        }
        assert_eq!(login(json!({"sub": "1", "name": "Al\u{200b}ice\u{202e}"})).unwrap().name, "Alice");
        assert!(serde_json::from_str::<OwnClaims>(r#"{"sub":"1","sub":"2"}"#).is_err());
    }
}
