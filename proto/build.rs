//! Generates the wire types from the `.proto` files.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tonic_prost_build::configure().compile_protos(
        &["proto/coord/v1/types.proto", "proto/coord/v1/work.proto", "proto/coord/v1/control.proto"],
        &["proto"],
    )?;
    Ok(())
}
