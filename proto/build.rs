//! Generates the gRPC code with protox, so that building needs no `protoc`.

use std::path::PathBuf;

const FILES: [&str; 7] = [
    "millstream/v1/block.proto",
    "millstream/v1/stream.proto",
    "millstream/v1/ingest.proto",
    "millstream/v1/log.proto",
    "millstream/v1/control.proto",
    "millstream/v1/agent.proto",
    "opentelemetry/proto/collector/logs/v1/logs_service.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=millstream");
    println!("cargo::rerun-if-changed=opentelemetry");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(
        out.join("descriptors.bin"),
        protox::prost::Message::encode_to_vec(&descriptors),
    )?;
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .include_file("protocol.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
