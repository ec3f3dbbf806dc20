//! `.proto` → descriptors (`protox`, so no `protoc` is needed) → messages and services (`prost`,
//! `tonic`) → the canonical JSON mapping (`pbjson`).

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 6] = [
    DEAD_LETTERS,
    "money/v1/money.proto",
    "orders/v1/orders.proto",
    "orders/v1/events.proto",
    "customers/v1/customers.proto",
    "customers/v1/events.proto",
];

/// A service's own files, and the file of descriptors for it: reflection shows no other service.
const SERVICES: [([&str; 2], &str); 2] = [
    (
        ["orders/v1/orders.proto", DEAD_LETTERS],
        "orders.v1.descriptors.bin",
    ),
    (
        ["customers/v1/customers.proto", DEAD_LETTERS],
        "customers.v1.descriptors.bin",
    ),
];

/// Which each service serves for its own.
const DEAD_LETTERS: &str = "dead_letters/v1/dead_letters.proto";

const PACKAGES: [&str; 4] = [
    ".dead_letters.v1",
    ".money.v1",
    ".orders.v1",
    ".customers.v1",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(FILES, ["."])?;
    let encoded = descriptors.encode_to_vec();
    for (files, descriptors) in SERVICES {
        let encoded = protox::compile(files, ["."])?.encode_to_vec();
        fs::write(out.join(descriptors), encoded)?;
    }

    let mut messages = tonic_prost_build::Config::new();
    messages.enable_type_names();
    tonic_prost_build::configure()
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "::pbjson_types")
        .compile_fds_with_config(descriptors, messages)?;

    // Unknown JSON fields are refused: a misspelt filter that was ignored would list everything.
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .build(&PACKAGES)?;
    Ok(())
}
