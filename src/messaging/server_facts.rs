//! What a server says about itself to everybody, without a token: `GET /api/v1/server`.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Number;

use super::api::Answer;
use crate::contract::{Audience, Contract, FEATURE_LEVEL, Method, Place};
use crate::envelope::{RequestId, Success};

/// The limits that clients are told, by name.
pub(super) type Limits = Arc<BTreeMap<&'static str, Number>>;

/// What a server speaks and allows. Nothing in it is secret.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ServerFacts {
    name: &'static str,
    version: &'static str,
    protocol: u32,
    feature_level: u32,
    limits: Limits,
}

/// The request of [`ServerFacts`], which has no fields.
#[derive(Debug, Deserialize, JsonSchema)]
struct Ask {}

impl ServerFacts {
    /// Returns the facts about this server, and adds their route to the contract.
    pub(super) fn new(limits: Limits, contract: &mut Contract) -> Self {
        contract.endpoint::<Ask, Self>(PLACE);
        Self { name: NAME, version: VERSION, protocol: PROTOCOL, feature_level: FEATURE_LEVEL, limits }
    }

    /// Answers a request.
    pub fn answer(&self) -> Answer {
        Answer::success(200, &Success::new(self, &RequestId::next()), None)
    }

    /// Returns the path below the prefix of the API.
    pub fn path() -> &'static str {
        PLACE.path
    }
}

const PLACE: Place = Place {
    name: "server",
    method: Method::Get,
    path: "/server",
    statuses: &[200],
    audience: Audience::Everybody,
    key_field: "",
};
/// The name of the program.
pub(super) const NAME: &str = "imks";
/// The version of the program.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The version of the messaging protocol.
pub(super) const PROTOCOL: u32 = 1;
