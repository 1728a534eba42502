//! TypeScript: the types of all events, for the stock client.

use std::fmt::Write;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::schemas::{Schemas, referred};
use super::{CREDENTIALS, Contract, type_name};

/// Writes the declarations.
pub(super) fn write(contract: &Contract) -> String {
    let mut schemas = Schemas::new(SchemaSettings::draft2020_12(), contract);
    let (mut from_server, mut to_server) = (String::new(), String::new());
    for push in &contract.pushes {
        let name = type_name(push.name, "Event");
        schemas.written(name.clone(), push.payload);
        let line = format!("  {:?}: (payload: {name}) => void;\n", push.name);
        // An event with two forms is there twice.
        if !from_server.contains(&line) {
            from_server.push_str(&line);
        }
    }
    for request in &contract.requests {
        let (asked, answered) = (type_name(request.name, "Request"), type_name(request.name, "Answer"));
        schemas.read(asked.clone(), request.payload);
        schemas.written(answered.clone(), request.answer);
        let name = request.name;
        let _ = writeln!(
            to_server,
            "  {name:?}: (payload: {asked}, ack: (answer: Answer<{answered}>) => void) => void;"
        );
    }
    if let Some(credentials) = contract.credentials {
        schemas.read(CREDENTIALS.into(), credentials);
    }
    let types = schemas.finish();
    let mut out = format!("{HEAD}\nexport interface ServerToClientEvents {{\n{from_server}}}\n");
    let _ = writeln!(out, "\nexport interface ClientToServerEvents {{\n{to_server}}}");
    for (name, schema) in &types {
        let _ = write!(out, "\n{}export type {name} = {};\n", comment(schema, ""), shape(schema, ""));
    }
    out
}

/// Returns the type that a schema describes. Lines after the first are indented.
fn shape(schema: &Value, indent: &str) -> String {
    if let Some(name) = referred(schema) {
        return name.to_owned();
    }
    if let Some(value) = schema.get("const") {
        return value.to_string();
    }
    if let Some(values) = schema["enum"].as_array() {
        return joined(values.iter().map(Value::to_string), " | ");
    }
    for (keyword, separator) in [("anyOf", " | "), ("oneOf", " | "), ("allOf", " & ")] {
        if let Some(forms) = schema[keyword].as_array() {
            return joined(forms.iter().map(|form| shape(form, indent)), separator);
        }
    }
    match &schema["type"] {
        Value::Array(kinds) => joined(kinds.iter().map(|kind| of_kind(kind, schema, indent)), " | "),
        kind => of_kind(kind, schema, indent),
    }
}

fn of_kind(kind: &Value, schema: &Value, indent: &str) -> String {
    match kind.as_str() {
        Some("integer" | "number") => "number".into(),
        Some(kind @ ("string" | "boolean" | "null")) => kind.into(),
        Some("array") => list(schema, indent),
        Some("object") => object(schema, indent),
        _ => "unknown".into(),
    }
}

fn list(schema: &Value, indent: &str) -> String {
    if let Some(items) = schema["prefixItems"].as_array() {
        return format!("[{}]", joined(items.iter().map(|item| shape(item, indent)), ", "));
    }
    format!("Array<{}>", shape(&schema["items"], indent))
}

fn object(schema: &Value, indent: &str) -> String {
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    let others = match &schema["additionalProperties"] {
        Value::Null | Value::Bool(false) => None,
        others => Some(shape(others, indent)),
    };
    if properties.is_empty() {
        return format!("Record<string, {}>", others.as_deref().unwrap_or("never"));
    }
    let inner = format!("{indent}  ");
    let is_required =
        |name: &str| schema["required"].as_array().is_some_and(|it| it.iter().any(|it| it == name));
    let mut out = String::from("{\n");
    for (name, property) in properties {
        let mark = if is_required(name) { "" } else { "?" };
        let (comment, shape) = (comment(property, &inner), shape(property, &inner));
        let _ = writeln!(out, "{comment}{inner}{name}{mark}: {shape};");
    }
    if others.is_some() {
        let _ = writeln!(out, "{inner}[name: string]: unknown;");
    }
    out + indent + "}"
}

fn comment(schema: &Value, indent: &str) -> String {
    let Some(text) = schema["description"].as_str() else { return String::new() };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    match lines.as_slice() {
        [line] => format!("{indent}/** {line} */\n"),
        lines => {
            let lines: Vec<String> =
                lines.iter().map(|line| format!("{indent} * {line}").trim_end().to_owned()).collect();
            format!("{indent}/**\n{}\n{indent} */\n", lines.join("\n"))
        }
    }
}

fn joined(parts: impl Iterator<Item = String>, separator: &str) -> String {
    parts.collect::<Vec<_>>().join(separator)
}

const HEAD: &str = "\
// The events of imks, for the stock client. Made from the types of the server; do not edit.
//
//   import { io, Socket } from \"socket.io-client\";
//   import type { ClientToServerEvents, ServerToClientEvents } from \"./imks\";
//   const socket: Socket<ServerToClientEvents, ClientToServerEvents> = io(url, { auth: { token } });

/** The answer to a request: its data, or an error. */
export type Answer<T> = { ok: true; data: T; meta: Meta } | Failure;
";
