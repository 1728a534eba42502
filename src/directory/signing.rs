//! The signing keys of the directory and the tokens that they sign.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use uuid::Uuid;

use super::user::unknown;
use super::{Directory, User, shown};
use crate::clock::{Micros, Timestamp, micros, now_micros};
use crate::error::{Cause, ImksError, ImksResult};
use crate::models::db::{Db, on, transaction};

/// A signing key as stored. It does not implement `Debug`, because it contains the private key.
#[derive(Clone, FromRow)]
pub(super) struct KeyRow {
    pub(super) kid: String,
    private_key: Vec<u8>,
    pub(super) public_key: Vec<u8>,
    pub(super) created_at: Micros,
    pub(super) not_after: Option<Micros>,
    pub(super) revoked: bool,
}

/// A signing key, without its secret part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SigningKeyInfo {
    /// The id of the key in the header of a token.
    pub kid: String,
    /// When the key was made.
    #[serde(serialize_with = "shown::time")]
    #[schemars(with = "Timestamp")]
    pub created_at: Micros,
    /// When its signatures end to be valid. The key that signs has no end yet.
    #[serde(serialize_with = "shown::optional_time")]
    #[schemars(with = "Option<Timestamp>")]
    pub not_after: Option<Micros>,
    /// Whether its signatures were declared void.
    pub revoked: bool,
}

impl From<KeyRow> for SigningKeyInfo {
    fn from(key: KeyRow) -> Self {
        let KeyRow { kid, created_at, not_after, revoked, .. } = key;
        Self { kid, created_at, not_after, revoked }
    }
}

/// The claims in a token of the directory.
#[derive(Serialize, Deserialize)]
pub(super) struct Claims {
    iss: String,
    aud: String,
    pub(super) sub: Uuid,
    pub(super) sid: Uuid,
    pub(super) username: String,
    /// When the token was issued, in seconds since the epoch, like all times in a token.
    pub(super) iat: i64,
    pub(super) exp: i64,
}

/// The verdict of the directory on a token.
pub(super) enum Checked {
    Valid(Claims),
    Invalid,
    Expired,
    Revoked,
}

impl Directory {
    /// Issues a token for `user` that is valid for `ttl`, at most 31 days.
    ///
    /// # Errors
    /// `InvalidInput` if `ttl` is too long or shorter than a second; `Database`.
    pub async fn issue_token(&self, user: &User, ttl: Duration) -> ImksResult<String> {
        Self::check_ttl(ttl)?;
        self.sign(user, Uuid::now_v7(), ttl, now_micros()).await.map(|(token, _)| token)
    }

    /// Signs a token of a session that is issued at `now`, and returns it with its end.
    pub(super) async fn sign(
        &self,
        user: &User,
        session: Uuid,
        ttl: Duration,
        now: Micros,
    ) -> ImksResult<(String, Micros)> {
        let key = self.active_key().await?;
        let issued_at = now / 1_000_000;
        let claims = Claims {
            iss: self.0.config.issuer.clone(),
            aud: self.0.config.audience.clone(),
            sub: user.id,
            sid: session,
            username: user.username.clone(),
            iat: issued_at,
            exp: issued_at.saturating_add_unsigned(ttl.as_secs()),
        };
        let header = Header { kid: Some(key.kid), ..Header::new(Algorithm::EdDSA) };
        let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(&key.private_key))
            .map_err(|error| ImksError::Signing(Cause::new(error)))?;
        Ok((token, claims.exp.saturating_mul(1_000_000)))
    }

    /// Checks that a token may be valid for `ttl`.
    ///
    /// # Errors
    /// `InvalidInput` if `ttl` is too long or shorter than a second.
    pub fn check_ttl(ttl: Duration) -> ImksResult<()> {
        if ttl < Duration::from_secs(1) || ttl > TTL_MAX {
            return Err(ImksError::invalid("ttl", "has to be between a second and 31 days (744h)"));
        }
        Ok(())
    }

    /// Replaces the signing key, and returns the one that signs now. Tokens signed with the old key remain valid for
    /// [`super::Config::key_overlap`].
    ///
    /// # Errors
    /// `Database`.
    pub async fn rotate_signing_key(&self) -> ImksResult<SigningKeyInfo> {
        self.replace_older_than(Duration::ZERO).await?;
        self.active_key().await.map(SigningKeyInfo::from)
    }

    /// Replaces the signing key if it is older than [`super::Config::key_age`], unless that is zero.
    pub(super) async fn rotate_by_age(&self) -> ImksResult<()> {
        let age = self.0.config.key_age;
        let key = self.active_key().await?;
        let is_due = !age.is_zero() && key.created_at.saturating_add(micros(age)) <= now_micros();
        if is_due && self.replace_older_than(age).await? {
            tracing::info!("the signing key was replaced because of its age");
        }
        Ok(())
    }

    /// Declares the signatures of a key void at once, and replaces it if it is the one that signs. Its tokens are
    /// refused as soon as servers read the keys again, within minutes.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn revoke_signing_key(&self, kid: &str) -> ImksResult<()> {
        let key = self.keys().await?.into_iter().find(|key| key.kid == kid && !key.revoked);
        let key = key.ok_or_else(|| unknown("key", kid))?;
        if key.not_after.is_none() {
            self.rotate_signing_key().await?;
        }
        let (db, now) = (self.db().clone(), now_micros());
        self.settled(async move {
            on!(&db, pool => { sqlx::query(REVOKE).bind(&key.kid).bind(now + TOKEN_LIFE).execute(pool).await?; });
            Ok(())
        })
        .await
    }

    /// Returns the signing keys whose tokens can still be around, the newest first.
    ///
    /// # Errors
    /// `Database`.
    pub async fn signing_keys(&self) -> ImksResult<Vec<SigningKeyInfo>> {
        Ok(self.keys().await?.into_iter().map(SigningKeyInfo::from).collect())
    }

    async fn replace_older_than(&self, age: Duration) -> ImksResult<bool> {
        let (db, now) = (self.db().clone(), now_micros());
        let key = KeyRow::generate(now)?;
        let (before, until) =
            (now.saturating_sub(micros(age)), now.saturating_add(micros(self.0.config.key_overlap)));
        self.settled(async move { replace(&db, key, before, until).await }).await
    }

    /// Returns the current signing key, and creates one if there is none.
    pub(super) async fn active_key(&self) -> ImksResult<KeyRow> {
        if let Some(key) = self.keys().await?.into_iter().find(|key| key.not_after.is_none()) {
            return Ok(key);
        }
        // Two processes that start at the same time create two keys; both are listed, so both are valid.
        let key = KeyRow::generate(now_micros())?;
        let (db, new) = (self.db().clone(), key.clone());
        self.settled(async move { insert(&db, new).await }).await?;
        Ok(key)
    }

    /// Returns the keys whose signatures are valid, and those that were revoked lately, the newest first.
    pub(super) async fn keys(&self) -> ImksResult<Vec<KeyRow>> {
        let now = now_micros();
        Ok(on!(read self.db(), pool => sqlx::query_as(GOOD).bind(now).fetch_all(pool).await?))
    }

    /// Checks the signature, times, revocation and account of a token against the database.
    pub(super) async fn check_token(&self, token: &str, audience: &str) -> ImksResult<Checked> {
        if token.len() > TOKEN_BYTES_MAX {
            return Ok(Checked::Invalid);
        }
        let Ok(header) = jsonwebtoken::decode_header(token) else { return Ok(Checked::Invalid) };
        let keys = self.keys().await?;
        let is_good = |key: &&KeyRow| Some(&key.kid) == header.kid.as_ref() && !key.revoked;
        let Some(key) = keys.iter().find(is_good) else {
            return Ok(Checked::Invalid);
        };
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        rules.set_issuer(&[&self.0.config.issuer]);
        rules.set_audience(&[audience]);
        rules.leeway = LEEWAY_S;
        let verifier = DecodingKey::from_ed_der(&key.public_key);
        let claims = match jsonwebtoken::decode::<Claims>(token, &verifier, &rules) {
            Ok(token) => token.claims,
            Err(error) if *error.kind() == jsonwebtoken::errors::ErrorKind::ExpiredSignature => {
                return Ok(Checked::Expired);
            }
            Err(_) => return Ok(Checked::Invalid),
        };
        self.check_account(claims).await
    }

    async fn check_account(&self, claims: Claims) -> ImksResult<Checked> {
        let revoked_at: Option<Micros> = on!(read self.db(), pool => {
            sqlx::query_scalar(REVOKED).bind(claims.sub).bind(claims.sid).fetch_one(pool).await?
        });
        if revoked_at.is_some_and(|revoked_at| claims.iat.saturating_mul(1_000_000) <= revoked_at) {
            return Ok(Checked::Revoked);
        }
        let user = self.users_by_id(&[claims.sub]).await?.pop();
        let active = user.is_some_and(|user| user.deleted_at.is_none());
        Ok(if active { Checked::Valid(claims) } else { Checked::Invalid })
    }
}

impl KeyRow {
    fn generate(now: Micros) -> ImksResult<Self> {
        let mut private_key = PKCS8_ED25519.to_vec();
        let mut seed = [0_u8; 32];
        getrandom::fill(&mut seed)?;
        private_key.extend_from_slice(&seed);
        let public_key = public_key(&private_key)?;
        Ok(Self {
            kid: Uuid::now_v7().to_string(),
            private_key,
            public_key,
            created_at: now,
            not_after: None,
            revoked: false,
        })
    }
}

fn public_key(private_key: &[u8]) -> ImksResult<Vec<u8>> {
    let failed = |cause: Cause| ImksError::Signing(cause);
    let key = EncodingKey::from_ed_der(private_key);
    let jwk = Jwk::from_encoding_key(&key, Algorithm::EdDSA).map_err(|error| failed(Cause::new(error)))?;
    match jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(pair) => {
            URL_SAFE_NO_PAD.decode(pair.x).map_err(|error| failed(Cause::new(error)))
        }
        _ => Err(failed(Cause::new("an Ed25519 key is not an octet key pair"))),
    }
}

async fn insert(db: &Db, key: KeyRow) -> ImksResult<()> {
    on!(db, pool => {
        sqlx::query(INSERT)
            .bind(&key.kid).bind(&key.private_key).bind(&key.public_key).bind(key.created_at)
            .execute(pool).await?;
    });
    Ok(())
}

/// Replaces the keys that sign and were made at `before` or earlier. Returns whether there was one: of two
/// processes that replace the same key, one does it.
async fn replace(db: &Db, key: KeyRow, before: Micros, old_until: Micros) -> ImksResult<bool> {
    Ok(transaction!(db, tx => {
        let retired =
            sqlx::query(RETIRE).bind(old_until).bind(before).execute(&mut *tx).await?.rows_affected() > 0;
        if retired {
            sqlx::query(INSERT)
                .bind(&key.kid).bind(&key.private_key).bind(&key.public_key).bind(key.created_at)
                .execute(&mut *tx).await?;
        }
        retired
    }))
}

/// The prefix of a version 1 PKCS #8 Ed25519 private key (RFC 8410), which the 32 bytes of the seed follow.
const PKCS8_ED25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// The longest lifetime of a token.
pub(super) const TTL_MAX: Duration = Duration::from_secs(31 * 24 * 3600);
/// The longest token that is checked.
const TOKEN_BYTES_MAX: usize = 8 << 10;
const LEEWAY_S: u64 = 5;
/// The longest lifetime of a token, in microseconds: how long a revoked key is listed as such.
const TOKEN_LIFE: Micros = 31 * 24 * 3_600_000_000;
const GOOD: &str = "SELECT kid, private_key, public_key, created_at, not_after, revoked FROM directory_signing_key \
     WHERE not_after IS NULL OR not_after > $1 ORDER BY created_at DESC, kid DESC";
const INSERT: &str =
    "INSERT INTO directory_signing_key (kid, private_key, public_key, created_at) VALUES ($1, $2, $3, $4)";
const RETIRE: &str =
    "UPDATE directory_signing_key SET not_after = $1 WHERE not_after IS NULL AND created_at <= $2";
const REVOKE: &str = "UPDATE directory_signing_key SET revoked = TRUE, not_after = $2 WHERE kid = $1";
/// When the tokens of a user, or of a session, were last withdrawn.
pub(super) const REVOKED: &str =
    "SELECT MAX(revoked_at) FROM directory_revocation WHERE subject_id IN ($1, $2)";
