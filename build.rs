//! Generates the protobuf messages and services.
//!
//! protox compiles the `.proto` files, so the system needs no `protoc`. A build of
//! the engine alone (`--no-default-features`) generates nothing.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    #[cfg(feature = "messages")]
    messages::generate()?;
    Ok(())
}

#[cfg(feature = "messages")]
mod messages {
    use std::path::PathBuf;

    /// The contract.
    const CONTRACT: [&str; 2] = [
        "galaxy/backend/push/v1/push.proto",
        "galaxy/push/publisher/v1/publisher.proto",
    ];
    /// gRPC's own services, which the listeners have too.
    const STANDARD: [&str; 3] = [
        "grpc/health/v1/health.proto",
        "grpc/reflection/v1/reflection.proto",
        "grpc/reflection/v1alpha/reflection.proto",
    ];

    pub(crate) fn generate() -> Result<(), Box<dyn std::error::Error>> {
        tonic_prost_build::configure()
            // Stubs need tonic; messages do not.
            .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
            .server_mod_attribute(".", "#[cfg(feature = \"client\")]")
            .bytes(".galaxy.backend.push.v1.ClientEvent.payload")
            .compile_fds(protox::compile(CONTRACT, ["proto"])?)?;
        tonic_prost_build::configure()
            .build_client(false)
            .build_server(false)
            .btree_map(".grpc.health.v1.HealthListResponse.statuses")
            .compile_fds(protox::compile(STANDARD, ["proto"])?)?;

        // What reflection tells of all of them.
        let mut compiler = protox::Compiler::new(["proto"])?;
        compiler
            .include_imports(true)
            .open_files(CONTRACT.iter().chain(&STANDARD))?;
        let out = PathBuf::from(std::env::var("OUT_DIR")?);
        std::fs::write(
            out.join("descriptors.bin"),
            compiler.encode_file_descriptor_set(),
        )?;
        Ok(())
    }
}
