//! Generates the gRPC stubs of the two contracts in `proto/`: `core.v1`, which the core serves, and `imks.v1`,
//! which imks serves. Only the server speaks gRPC: without that feature there is nothing to do, and the
//! generators are not even built.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=proto");
    // Compiled into the binary by a macro that cargo does not see through.
    println!("cargo:rerun-if-changed=migrate");
    // What `imks version` says beside the version: set by the Makefile and the Dockerfile.
    println!("cargo:rerun-if-env-changed=IMKS_BUILD");
    #[cfg(feature = "server")]
    server::generate()?;
    Ok(())
}

#[cfg(feature = "server")]
mod server {
    use std::path::Path;

    use protox::prost_reflect::prost_types::{DescriptorProto, FieldDescriptorProto};
    use tonic_prost_build::Config;

    type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

    pub fn generate() -> Outcome<()> {
        // protox is a protobuf compiler in Rust: nothing to install on the machine that builds.
        let core = compile(
            "core/v1",
            &["token", "channel", "member", "permission", "login", "webhook", "emoji", "push"],
        )?;
        let builder = tonic_prost_build::configure().build_transport(false);
        builder.compile_fds(core.file_descriptor_set())?;
        let imks = compile("imks/v1", &["control"])?;
        let mut config = Config::new();
        config.enable_type_names();
        write_as_json(&mut config, &imks);
        // The calls are dispatched by the table of `src/control/operations.rs`.
        let builder = tonic_prost_build::configure().build_transport(false).build_server(false);
        builder.compile_fds_with_config(imks.file_descriptor_set(), config)?;
        // For reflection.
        let file = Path::new(&std::env::var("OUT_DIR")?).join("imks.v1.bin");
        std::fs::write(file, imks.encode_file_descriptor_set())?;
        Ok(())
    }

    fn compile(package: &str, names: &[&str]) -> Outcome<protox::Compiler> {
        let mut compiler = protox::Compiler::new(["proto"])?;
        compiler.include_imports(true).include_source_info(true);
        for name in names {
            compiler.open_file(format!("{package}/{name}.proto"))?;
        }
        Ok(compiler)
    }

    /// Gives the messages of `imks.v1` the form that they have as JSON (`src/pb/json.rs`). Messages must not be
    /// nested, because attributes of a message hold for those inside it, too.
    fn write_as_json(config: &mut Config, imks: &protox::Compiler) {
        config.type_attribute(
            ".imks.v1",
            "#[derive(::serde::Serialize, ::serde::Deserialize, ::schemars::JsonSchema)]",
        );
        config.enum_attribute(".imks.v1", "#[serde(rename_all = \"snake_case\")]");
        let files = imks.file_descriptor_set().file;
        for one in files.iter().flat_map(|file| &file.enum_type) {
            config.enum_attribute(format!(".imks.v1.{}", one.name()), named(one.name()));
        }
        let messages: Vec<_> = files.into_iter().flat_map(|file| file.message_type).collect();
        let choices: Vec<String> = messages
            .iter()
            .filter(|message| is_choice(message))
            .map(|message| format!(".imks.v1.{}", message.name()))
            .collect();
        for message in messages {
            assert!(message.nested_type.is_empty(), "{} has messages inside", message.name());
            let path = format!(".imks.v1.{}", message.name());
            config.message_attribute(&path, named(message.name()));
            let oneofs = message.oneof_decl.iter().map(|choice| choice.name());
            for inner in message.enum_type.iter().map(|one| one.name()).chain(oneofs) {
                let name = format!("{}.{inner}", message.name());
                config.enum_attribute(format!(".imks.v1.{name}"), named(&name));
            }
            // A message that is nothing but a choice looks like what was chosen.
            let form = match is_choice(&message) {
                true => "#[serde(transparent)]",
                false => "#[serde(default, deny_unknown_fields)]",
            };
            config.message_attribute(&path, form);
            for field in &message.field {
                if let Some(attribute) = attribute(field, &choices) {
                    config.field_attribute(format!("{path}.{}", field.name()), attribute);
                }
            }
        }
    }

    /// Whether a message is nothing but a choice.
    fn is_choice(message: &DescriptorProto) -> bool {
        let chosen = message.field.iter().filter(|field| field.oneof_index.is_some());
        message.oneof_decl.len() == 1 && chosen.count() == message.field.len()
    }

    /// Gives a type its name of the contract in the OpenAPI document, where the types of messaging have theirs.
    fn named(name: &str) -> String {
        format!("#[schemars(rename = \"imks.v1.{name}\")]")
    }

    /// Returns what a field has to say about its form; `choices` are the messages that are nothing but a choice.
    fn attribute(field: &FieldDescriptorProto, choices: &[String]) -> Option<String> {
        let (name, is_list) = (field.name(), field.label() as i32 == REPEATED);
        if let Some(short) = name.strip_suffix("_json") {
            let form = if is_list { "texts" } else { "text" };
            let of = if is_list { "Vec<::serde_json::Value>" } else { "::serde_json::Value" };
            return Some(format!(
                "#[serde(rename = \"{short}\", with = \"crate::pb::json::{form}\")] #[schemars(with = \"{of}\")]"
            ));
        }
        if field.r#type() as i32 == ENUM {
            let of = rust_path(field.type_name());
            return Some(format!(
                "#[serde(serialize_with = \"crate::pb::json::name::write::<{of}, _>\", \
                 deserialize_with = \"crate::pb::json::name::read::<{of}, _>\")] #[schemars(with = \"{of}\")]"
            ));
        }
        if !is_list && choices.iter().any(|choice| choice == field.type_name()) {
            return Some("#[serde(deserialize_with = \"crate::pb::json::choice\")]".to_owned());
        }
        let is_ids = is_list && name.ends_with("_ids");
        is_ids.then(|| "#[serde(deserialize_with = \"crate::pb::json::list\")]".to_owned())
    }

    /// Returns the path of an enum: `.imks.v1.Content.Format` is `crate::pb::control::content::Format`.
    fn rust_path(name: &str) -> String {
        let inside = name.trim_start_matches(".imks.v1.");
        let Some((message, name)) = inside.rsplit_once('.') else {
            return format!("crate::pb::control::{inside}");
        };
        let mut module = String::new();
        for (at, letter) in message.char_indices() {
            if letter.is_uppercase() && at > 0 {
                module.push('_');
            }
            module.extend(letter.to_lowercase());
        }
        format!("crate::pb::control::{module}::{name}")
    }

    /// `TYPE_ENUM` and `LABEL_REPEATED` of google/protobuf/descriptor.proto.
    const ENUM: i32 = 14;
    const REPEATED: i32 = 3;
}
