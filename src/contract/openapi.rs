//! OpenAPI 3.1: the routes of the HTTP API.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::schemas::{Schemas, envelope};
use super::{Audience, BACK_ENDS_PREFIX, Contract, Endpoint, PREFIX, Place, type_name};
use crate::error::Code;

/// Writes the document.
pub(super) fn write(contract: &Contract) -> String {
    let mut schemas = Schemas::new(SchemaSettings::draft2020_12(), contract);
    let mut paths = BTreeMap::<String, Map<String, Value>>::new();
    for endpoint in &contract.endpoints {
        let Place { method, path, audience, .. } = endpoint.place;
        let prefix = match audience {
            Audience::Everybody | Audience::Users => PREFIX,
            Audience::BackEnds => BACK_ENDS_PREFIX,
        };
        let operations = paths.entry(format!("{prefix}{path}")).or_default();
        operations.insert(method.as_str().into(), operation(endpoint, &mut schemas));
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "imks",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas.finish(),
            "responses": failures(),
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "The token of a user" },
                "key": { "type": "http", "scheme": "bearer", "description": "The API key of a back end, from `imks key add`" },
                "certificate": { "type": "mutualTLS", "description": "The certificate of a back end" },
            },
        },
    });
    format!("{document:#}\n")
}

fn operation(endpoint: &Endpoint, schemas: &mut Schemas) -> Value {
    let Place { name, method, path, statuses, audience, key_field } = endpoint.place;
    let mut request = schemas.read(type_name(name, "Request"), endpoint.request);
    let answer = schemas.written(type_name(name, "Answer"), endpoint.answer);
    let mut parameters: Vec<Value> =
        path_parameters(path).map(|name| parameter("path", name, &mut request)).collect();
    if has(&request, key_field) {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": is_required(&request, key_field),
            "schema": present(take(&mut request, key_field)),
        }));
    }
    let mut operation = json!({
        "operationId": type_name(name, ""),
        "summary": name,
        "responses": responses(statuses, &answer),
        "security": match audience {
            Audience::Everybody => json!([]),
            Audience::Users => json!([{ "token": [] }]),
            Audience::BackEnds => json!([{ "key": [] }, { "certificate": [] }]),
        },
        "tags": [match audience {
            Audience::Everybody => "everybody",
            Audience::Users => "users",
            Audience::BackEnds => "back ends",
        }],
    });
    if method.has_body() {
        let required = request.get("required").is_some();
        operation["requestBody"] =
            json!({ "required": required, "content": { "application/json": { "schema": request } } });
    } else {
        let names: Vec<String> =
            properties(&request).map(|it| it.keys().cloned().collect()).unwrap_or_default();
        parameters.extend(names.iter().map(|name| parameter("query", name, &mut request)));
    }
    operation["parameters"] = parameters.into();
    operation
}

/// Moves a field of a request into a parameter.
fn parameter(place: &str, name: &str, request: &mut Value) -> Value {
    let required = place == "path" || is_required(request, name);
    let mut schema = present(take(request, name));
    let description = schema.as_object_mut().and_then(|it| it.remove("description"));
    let mut parameter = json!({ "name": name, "in": place, "required": required, "schema": schema });
    if let Some(description) = description {
        parameter["description"] = description;
    }
    if place == "query" && parameter["schema"]["type"] == "array" {
        parameter["explode"] = false.into();
    }
    parameter
}

/// Removes a field from the schema of a request. Returns its schema.
fn take(request: &mut Value, name: &str) -> Value {
    if let Some(required) = request.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|it| it != name);
        if required.is_empty() {
            request.as_object_mut().map(|it| it.remove("required"));
        }
    }
    request["properties"].as_object_mut().and_then(|it| it.remove(name)).unwrap_or_default()
}

/// Returns a schema without `null`, which cannot be written in a path or a query.
fn present(mut schema: Value) -> Value {
    if let Some(types) = schema.get_mut("type").and_then(Value::as_array_mut) {
        types.retain(|it| it != "null");
        if let [only] = types.as_slice() {
            schema["type"] = only.clone();
        }
    }
    if let Some(forms) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        forms.retain(|it| it["type"] != "null");
    }
    if schema.get("default").is_some_and(Value::is_null) {
        schema.as_object_mut().map(|it| it.remove("default"));
    }
    schema
}

fn properties(request: &Value) -> Option<&Map<String, Value>> {
    request.get("properties")?.as_object()
}

fn has(request: &Value, name: &str) -> bool {
    properties(request).is_some_and(|it| it.contains_key(name))
}

fn is_required(request: &Value, name: &str) -> bool {
    request["required"].as_array().is_some_and(|it| it.iter().any(|it| it == name))
}

fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn responses(statuses: &[u16], answer: &Value) -> Value {
    let content = json!({ "application/json": { "schema": envelope(answer) } });
    let successes = statuses.iter().map(|status| {
        (status.to_string(), json!({ "description": "The request was carried out", "content": content }))
    });
    let failures = by_status()
        .into_keys()
        .chain([HEAD_TOO_LARGE])
        .map(|status| (status.to_string(), json!({ "$ref": format!("#/components/responses/{status}") })));
    successes.chain(failures).collect::<Map<_, _>>().into()
}

/// Returns the responses of refused and failed requests, by status.
fn failures() -> Map<String, Value> {
    let response = |(status, codes): (u16, Vec<Code>)| {
        let codes: Vec<String> = codes.iter().map(|code| format!("`{code}`: {}", code.sentence())).collect();
        let mut response = json!({
            "description": codes.join("\n\n"),
            "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Failure" } } },
        });
        let header = match status {
            401 => Some(("WWW-Authenticate", "string")),
            429 | 503 => Some(("Retry-After", "integer")),
            _ => None,
        };
        if let Some((header, kind)) = header {
            response["headers"] = json!({ header: { "schema": { "type": kind } } });
        }
        (status.to_string(), response)
    };
    let head = json!({ "description": "The request head is too large. Refused before it is read, so without a `request_id`." });
    by_status().into_iter().map(response).chain([(HEAD_TOO_LARGE.to_string(), head)]).collect()
}

/// Returns the codes of errors by their status, without that of another method.
fn by_status() -> BTreeMap<u16, Vec<Code>> {
    let mut codes = BTreeMap::<u16, Vec<Code>>::new();
    for code in Code::ALL.iter().filter(|code| **code != Code::MethodNotAllowed) {
        codes.entry(code.http_status()).or_default().push(*code);
    }
    codes
}

/// The status of a request whose path, query and headers are too long together.
const HEAD_TOO_LARGE: u16 = 431;
