//! The contract that programs can read: every request, event and route with the schemas of its types. From them come
//! OpenAPI for HTTP, AsyncAPI for Socket.IO, and declarations for TypeScript.

mod asyncapi;
mod openapi;
mod schemas;
mod typescript;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};

/// Describes a type.
type Describe = fn(&mut SchemaGenerator) -> Schema;

/// Everything that clients and back ends can send, and everything that they get.
#[derive(Debug, Clone, Default)]
pub struct Contract {
    credentials: Option<Describe>,
    parts: Vec<Describe>,
    requests: Vec<Request>,
    pushes: Vec<Push>,
    endpoints: Vec<Endpoint>,
}

/// An event that a client sends, and its answer.
#[derive(Debug, Clone)]
struct Request {
    name: &'static str,
    payload: Describe,
    answer: Describe,
}

/// An event that the server sends.
#[derive(Debug, Clone)]
struct Push {
    name: &'static str,
    payload: Describe,
}

/// A route of the HTTP API.
#[derive(Debug, Clone)]
struct Endpoint {
    place: Place,
    request: Describe,
    answer: Describe,
}

/// What a route is called, where it is, and who may call it.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The event or the call that it answers.
    pub name: &'static str,
    /// The method.
    pub method: Method,
    /// The path below [`PREFIX`] and the prefix of its audience, with its parameters in braces.
    pub path: &'static str,
    /// The statuses of success.
    pub statuses: &'static [u16],
    /// Who may call it.
    pub audience: Audience,
    /// The field that the header `Idempotency-Key` stands for.
    pub key_field: &'static str,
}

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Everybody, without a token.
    Everybody,
    /// Users, with their tokens.
    Users,
    /// Back ends, with their keys or certificates.
    BackEnds,
}

/// The method of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Writes.
    Post,
    /// Stores or replaces.
    Put,
    /// Changes some fields.
    Patch,
    /// Removes. Its parameters are in the path and the query.
    Delete,
}

impl Method {
    fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Put => "put",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }

    /// Whether parameters that are not in the path are in a JSON body, rather than in the query.
    pub fn has_body(self) -> bool {
        matches!(self, Self::Post | Self::Put | Self::Patch)
    }
}

impl Contract {
    /// Says what clients sign in with.
    pub fn credentials<T: JsonSchema>(&mut self) {
        self.credentials = Some(T::json_schema);
    }

    /// Adds a type that others refer to by its name.
    pub fn part<T: JsonSchema>(&mut self) {
        self.parts.push(SchemaGenerator::subschema_for::<T>);
    }

    /// Adds an event that clients send.
    pub fn request<Req: JsonSchema, Res: JsonSchema>(&mut self, name: &'static str) {
        self.requests.push(Request { name, payload: Req::json_schema, answer: Res::json_schema });
    }

    /// Adds an event that the server sends.
    pub fn push<T: JsonSchema + ?Sized>(&mut self, name: &'static str) {
        self.pushes.push(Push { name, payload: T::json_schema });
    }

    /// Adds a route.
    pub fn endpoint<Req: JsonSchema, Res: JsonSchema>(&mut self, place: Place) {
        self.endpoints.push(Endpoint { place, request: Req::json_schema, answer: Res::json_schema });
    }
}

/// The documents about a contract, each made when somebody first asks for it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Documents(Arc<Made>);

#[derive(Debug)]
struct Made {
    contract: Contract,
    texts: [OnceLock<Bytes>; DOCUMENTS.len()],
}

/// A document about the contract.
#[derive(Debug, Clone, Copy)]
pub struct Document {
    /// The name of its file.
    pub file: &'static str,
    /// Its media type.
    pub mime: &'static str,
    write: fn(&Contract) -> String,
    place: usize,
}

/// All documents.
pub const DOCUMENTS: [Document; 3] = [
    Document { file: "openapi.json", mime: "application/json", write: openapi::write, place: 0 },
    Document { file: "asyncapi.json", mime: "application/json", write: asyncapi::write, place: 1 },
    Document { file: "imks.d.ts", mime: "text/plain; charset=utf-8", write: typescript::write, place: 2 },
];

impl Documents {
    /// Returns the documents about a contract.
    pub fn new(contract: Contract) -> Self {
        Self(Arc::new(Made { contract, texts: Default::default() }))
    }

    /// Returns the text of a document.
    pub fn text(&self, document: &Document) -> Bytes {
        let Made { contract, texts } = &*self.0;
        texts[document.place].get_or_init(|| (document.write)(contract).into()).clone()
    }
}

/// Returns the name of the schema of something about an event or a call: `MessageSendRequest` for `message:send` and
/// `Request`.
fn type_name(name: &str, suffix: &str) -> String {
    let words = name.split([':', '_']).map(|word| {
        let mut letters = word.chars();
        letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect::<Cow<'_, str>>()
    });
    words.chain([suffix.into()]).collect()
}

/// The number of the newest change of this contract. It rises by one with each, which gets a line in docs/protocol.md
/// ("Feature levels").
pub const FEATURE_LEVEL: u32 = 10;
/// The prefix of every path of the HTTP API.
pub const PREFIX: &str = "/api/v1";
/// The prefix of every path for back ends.
pub const BACK_ENDS_PREFIX: &str = "/api/v1/admin";
/// The name of what clients sign in with.
const CREDENTIALS: &str = "ConnectAuth";
