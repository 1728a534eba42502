//! Generates the gRPC stubs of the core contract (`proto/`). Only the server speaks gRPC: without that
//! feature there is nothing to do, and the generators are not even built.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=proto");
    // Compiled into the binary by a macro that cargo does not see through.
    println!("cargo:rerun-if-changed=migrate");
    // What `imks version` says beside the version: set by the Makefile and the Dockerfile.
    println!("cargo:rerun-if-env-changed=IMKS_BUILD");
    generate()
}

#[cfg(feature = "server")]
fn generate() -> Result<(), Box<dyn std::error::Error>> {
    let files =
        ["token", "channel", "member", "permission", "login"].map(|name| format!("core/v1/{name}.proto"));
    // protox is a protobuf compiler in Rust: nothing to install on the machine that builds.
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}

#[cfg(not(feature = "server"))]
fn generate() -> Result<(), Box<dyn std::error::Error>> {
    Ok(())
}
