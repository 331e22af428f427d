//! Generates the protobuf messages and services, and finds out which commit is built.
//!
//! protox compiles the `.proto` files, so the system needs no `protoc`. A build of
//! the engine alone (`--no-default-features`) generates nothing.

use std::path::Path;
use std::process::Command;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rustc-env=GALAXY_PUSH_REVISION={}", revision());
    #[cfg(feature = "messages")]
    messages::generate()?;
    Ok(())
}

/// The commit: what `GALAXY_PUSH_REVISION` says, else what git says of this folder, else
/// nothing. A line break would end cargo's instruction, so only a word is taken.
fn revision() -> String {
    println!("cargo::rerun-if-env-changed=GALAXY_PUSH_REVISION");
    let set = std::env::var("GALAXY_PUSH_REVISION").ok();
    // Only where it is optimised: a build for tests would be made anew after each commit.
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let found = set.or_else(|| is_release.then(git_revision).flatten());
    let is_word = |text: &String| text.chars().all(|c| c.is_ascii_graphic());
    found
        .map(|text| text.trim().to_owned())
        .filter(is_word)
        .unwrap_or_default()
}

/// The commit that is checked out here, if this folder is a checkout of its own and not a
/// folder in somebody else's.
fn git_revision() -> Option<String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().ok()?;
    let top = Path::new(&git(&["rev-parse", "--show-toplevel"])?)
        .canonicalize()
        .ok()?;
    if top != here {
        return None;
    }
    // What changes when another commit is checked out. A file that does not exist would
    // count as changed each time.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "logs/HEAD", "packed-refs"]
        .into_iter()
        .chain(branch.as_deref())
    {
        if let Some(path) = git(&["rev-parse", "--git-path", name])
            && here.join(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--verify", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

#[cfg(feature = "messages")]
mod messages {
    use std::path::PathBuf;

    /// The contract.
    const CONTRACT: [&str; 3] = [
        "galaxy/backend/push/v1/push.proto",
        "galaxy/push/gateway/v1/gateway.proto",
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
