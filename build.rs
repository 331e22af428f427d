//! Generates the protobuf messages and services.
//!
//! protox compiles the `.proto` files, so the system needs no `protoc`. A build of
//! the engine alone (`--no-default-features`) generates nothing.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    #[cfg(feature = "messages")]
    generate()?;
    Ok(())
}

#[cfg(feature = "messages")]
fn generate() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(
        [
            "galaxy/backend/push/v1/push.proto",
            "galaxy/push/publisher/v1/publisher.proto",
        ],
        ["proto"],
    )?;
    tonic_prost_build::configure()
        // Stubs need tonic; messages do not.
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .bytes(".galaxy.backend.push.v1.ClientEvent.payload")
        .compile_fds(files)?;
    Ok(())
}
