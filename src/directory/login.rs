//! Users and memberships of logins that the server verified by itself (core/v1/login.proto): made on first
//! sight, brought up to date later.

use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::change::{Change, record};
use super::member::admit;
use super::permission::ALL_BITS;
use super::place::Place;
use super::role::MEMBER;
use super::status::failed;
use super::user::{INSERT, NAME_CHARS_MAX, checked_name};
use super::{Directory, NewChannel, RoleName, User};
use crate::clock::{Micros, now_micros};
use crate::error::{ImksError, ImksResult, Precondition};
use crate::models::db::{Db, on, transaction};
use crate::pb::{IDS_MAX, v1};
use crate::shown::shown;

/// A membership to make: the channel, and the only role of the member there.
struct Join {
    place: Place,
    role: Uuid,
}

#[tonic::async_trait]
impl v1::login_service_server::LoginService for Directory {
    async fn sign_in(
        &self,
        request: Request<v1::SignInRequest>,
    ) -> Result<Response<v1::SignInResponse>, Status> {
        let user = self.sign_in(request.into_inner()).await.map_err(|error| match error {
            ImksError::InvalidInput { .. } => Status::invalid_argument("a name in the login"),
            error => failed(error),
        })?;
        Ok(Response::new(v1::SignInResponse { user: user.map(Into::into) }))
    }
}

impl Directory {
    /// Creates the user that stands for a login, before they sign in for the first time. `issuer` is empty where the
    /// subject stands for itself (docs/identity.md).
    ///
    /// # Errors
    /// `InvalidInput` if the name is not allowed, or the subject empty; `Conflict` if one of them is taken; `Database`.
    pub async fn create_user_of_login(
        &self,
        username: &str,
        bot: bool,
        issuer: &str,
        subject: &str,
    ) -> ImksResult<User> {
        let id = id_of_login(issuer, subject)?;
        if !self.users_by_id(&[id]).await?.is_empty() {
            return Err(ImksError::Conflict { what: "login", name: subject.to_owned() });
        }
        self.create(id, username, bot).await
    }

    /// Returns the user that stands for a login, unless there is none or the account is closed.
    ///
    /// # Errors
    /// `InvalidInput` if the subject is empty; `Database`.
    pub async fn user_of_login(&self, issuer: &str, subject: &str) -> ImksResult<Option<User>> {
        let user = self.users_by_id(&[id_of_login(issuer, subject)?]).await?.pop();
        Ok(user.filter(|user| user.deleted_at.is_none()))
    }

    /// Makes what is missing of a user and their memberships. Returns the user, whose account may be closed, or
    /// `None` if there is no such user and none may be made.
    async fn sign_in(&self, login: v1::SignInRequest) -> ImksResult<Option<User>> {
        let id =
            Uuid::parse_str(&login.user_id).map_err(|_| ImksError::invalid("user_id", "is not a UUID"))?;
        let names = names(&login.username, id)?;
        if login.channels.len() > IDS_MAX || login.first_channels.len() > IDS_MAX {
            return Err(ImksError::invalid("channels", "has more than 500 names"));
        }
        let mut user = self.users_by_id(&[id]).await?.pop();
        if user.is_none() && login.create_user {
            let first = login
                .first_channels
                .iter()
                .map(|channel| v1::ChannelGrant { channel: channel.clone(), ..Default::default() });
            let joins = self.missing(id, first, login.create_channels).await?;
            user = self.make(id, &names, joins).await?;
        }
        let Some(user) = user.filter(|user| user.deleted_at.is_none()) else {
            return Ok(self.users_by_id(&[id]).await?.pop());
        };
        let joins = self.missing(id, login.channels.into_iter(), login.create_channels).await?;
        if !joins.is_empty() {
            let db = self.db().clone();
            self.settled(async move { join_all(&db, id, joins, now_micros()).await }).await?;
        }
        self.renamed(user, &names).await.map(Some)
    }

    /// Creates a user with the first of `names` that is free, and their first memberships. Returns the user,
    /// also if another process made it meanwhile.
    async fn make(&self, id: Uuid, names: &[String], joins: Vec<Join>) -> ImksResult<Option<User>> {
        let joins = std::sync::Arc::new(joins);
        for username in names {
            let user = User {
                id,
                username: username.clone(),
                bot: false,
                created_at: now_micros(),
                deleted_at: None,
            };
            let (db, row, joins) = (self.db().clone(), user.clone(), joins.clone());
            if self.settled(async move { insert(&db, row, &joins).await }).await? {
                return Ok(Some(user));
            }
        }
        Ok(self.users_by_id(&[id]).await?.pop())
    }

    /// Returns the user under the first of `names` that is free, unless their name is one of them already.
    async fn renamed(&self, mut user: User, names: &[String]) -> ImksResult<User> {
        if names.contains(&user.username) {
            return Ok(user);
        }
        for username in names {
            if self.rename(user.id, username.clone()).await? {
                user.username.clone_from(username);
                return Ok(user);
            }
        }
        Ok(user)
    }

    /// Returns the memberships among `grants` that do not exist yet, or have another role. Makes channels that
    /// do not exist if `create`, and leaves them out otherwise.
    async fn missing(
        &self,
        user: Uuid,
        grants: impl Iterator<Item = v1::ChannelGrant> + Send,
        create: bool,
    ) -> ImksResult<Vec<Join>> {
        let mut joins = Vec::new();
        for grant in grants {
            let Some(place) = self.granted(&grant.channel, create).await? else {
                let channel = grant.channel;
                tracing::info!(%user, channel = &*shown(&channel), "a login names a channel that does not exist: they do not join it");
                continue;
            };
            if self.is_banned(place, user).await? {
                tracing::debug!(%user, channel = grant.channel, "a login names a channel that the user is banned from");
                continue;
            }
            let member = self.member(user, place.id()).await?;
            let role = match (grant.bits, grant.role.as_str()) {
                (Some(bits), _) => self.role_of_bits(bits).await?,
                (None, "") if member.is_some() => continue,
                (None, "") => self.role_named(place, RoleName::Member.as_str()).await?,
                (None, role) => self.role_named(place, role).await?,
            };
            let has = |member: super::Member| {
                let here = member.roles.iter().filter(|held| held.place_id == place.id());
                here.map(|held| held.id).eq([role])
            };
            if !member.is_some_and(has) {
                joins.push(Join { place, role });
            }
        }
        // Each membership locks its channel: in one order, so that two logins do not wait for each other.
        joins.sort_by_key(|join| join.place.id());
        Ok(joins)
    }

    /// Returns the channel with this name, which may be of another workspace (`acme/team`). Makes it if it does not
    /// exist and `create`.
    async fn granted(&self, name: &str, create: bool) -> ImksResult<Option<Place>> {
        let (workspace, own) =
            name.split_once('/').map_or((None, name), |(workspace, own)| (Some(workspace), own));
        checked_name("channel", own)?;
        if let Some(workspace) = workspace
            && self.workspace_if_any(workspace).await?.is_none()
        {
            return Ok(None);
        }
        let channel = match create {
            true => {
                Some(self.ensure_channel(NewChannel { name: name.into(), ..NewChannel::default() }).await?)
            }
            false => self.channel_named(name).await?,
        };
        Ok(channel.filter(|channel| !channel.is_direct()).as_ref().map(Place::from))
    }

    async fn role_named(&self, place: Place, name: &str) -> ImksResult<Uuid> {
        let roles = self.role_ids(place.workspace_id(), &[name.to_owned()]).await?;
        roles.first().copied().ok_or_else(|| ImksError::invalid("role", "is not a role of the directory"))
    }

    /// Returns a role with exactly these permissions, and creates it if it is missing.
    async fn role_of_bits(&self, bits: u64) -> ImksResult<Uuid> {
        if bits > ALL_BITS {
            return Err(ImksError::invalid("bits", "has unknown permissions"));
        }
        let name = format!("bits-{bits}");
        let (db, row) = (self.db().clone(), name.clone());
        self.settled(async move {
            on!(&db, pool => {
                sqlx::query(ADD_ROLE).bind(Uuid::now_v7()).bind(row).bind(bits.cast_signed()).execute(pool).await?;
            });
            Ok(())
        })
        .await?;
        Ok(on!(read self.db(), pool => sqlx::query_scalar(ROLE_OF_BITS).bind(&name).fetch_one(pool).await?))
    }
}

fn id_of_login(issuer: &str, subject: &str) -> ImksResult<Uuid> {
    if subject.is_empty() {
        return Err(ImksError::invalid("login", "is empty"));
    }
    Ok(v1::SignInRequest::user_of(issuer, subject))
}

/// Returns the names to try for a user, in this order: the wished one, then with a longer and longer end of the
/// id. The id itself is always free.
fn names(wished: &str, id: Uuid) -> ImksResult<Vec<String>> {
    let wished = wished.trim();
    if wished.is_empty() || wished.chars().count() > NAME_CHARS_MAX || wished.chars().any(char::is_control) {
        return Err(ImksError::invalid("username", "is not 1 to 64 characters without control characters"));
    }
    let digits = id.simple().to_string();
    let with_suffix = |len: usize| {
        let start: String = wished.chars().take(NAME_CHARS_MAX - len - 1).collect();
        format!("{start}-{}", &digits[digits.len() - len..])
    };
    Ok(vec![wished.to_owned(), with_suffix(4), with_suffix(8), id.to_string()])
}

/// Returns whether the user was inserted; `false` if the id or the name is taken.
async fn insert(db: &Db, user: User, joins: &[Join]) -> ImksResult<bool> {
    Ok(transaction!(db, tx => {
        let done = sqlx::query(INSERT)
            .bind(user.id).bind(&user.username).bind(user.bot).bind(user.created_at)
            .execute(&mut *tx).await?.rows_affected() == 1;
        let mut changes = Vec::new();
        for Join { place, role } in joins.iter().filter(|_| done) {
            admit!(tx, *place, user.id, Some(vec![*role]), user.created_at);
            changes.push(Change::joined(user.id, place.id()));
        }
        record!(tx, user.created_at, &changes);
        done
    }))
}

async fn join_all(db: &Db, user: Uuid, joins: Vec<Join>, now: Micros) -> ImksResult<()> {
    transaction!(db, tx => {
        let mut changes = Vec::new();
        for Join { place, role } in &joins {
            admit!(tx, *place, user, Some(vec![*role]), now);
            changes.push(Change::joined(user, place.id()));
        }
        record!(tx, now, &changes);
    });
    Ok(())
}

const ADD_ROLE: &str =
    "INSERT INTO directory_role (id, name, bits) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
const ROLE_OF_BITS: &str = "SELECT id FROM directory_role WHERE name = $1 AND workspace_id IS NULL";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_second_gets_a_suffix_and_no_name_is_longer_than_allowed() {
        let id = Uuid::parse_str("01234567-89ab-5def-8123-456789abcdef").unwrap();
        assert_eq!(names("Alice", id).unwrap()[..3], ["Alice", "Alice-cdef", "Alice-89abcdef"]);
        let long = "ä".repeat(64);
        assert!(names(&long, id).unwrap().iter().all(|name| name.chars().count() <= 64));
        for bad in ["", "  ", "a\nb", &"a".repeat(65)] {
            assert!(names(bad, id).is_err(), "{bad:?}");
        }
    }
}
