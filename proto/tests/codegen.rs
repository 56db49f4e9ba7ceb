//! The checked-in generated code is what the `.proto` files say.

use std::path::Path;

use prost::Message;

const FILES: [&str; 13] = [
    "koios/peer.proto",
    "prometheus/remote.proto",
    "prometheus/read.proto",
    "prometheus/write_v2.proto",
    "thanos/types.proto",
    "thanos/store.proto",
    "thanos/info.proto",
    "thanos/rules.proto",
    "thanos/targets.proto",
    "thanos/metadata.proto",
    "thanos/exemplars.proto",
    "thanos/status.proto",
    "thanos/query.proto",
];

#[test]
fn checked_in_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(FILES, [root]).expect("proto files compile");
    let out = tempfile::tempdir().unwrap();
    std::fs::write(out.path().join("descriptors.bin"), descriptors.encode_to_vec()).unwrap();
    tonic_prost_build::configure()
        .out_dir(out.path())
        .bytes(".koios.peer.v1.Chunk.data")
        .bytes(".thanos.Chunk.data")
        .compile_fds(descriptors)
        .expect("code generates");
    for entry in std::fs::read_dir(out.path()).unwrap() {
        let entry = entry.unwrap();
        let target = root.join("src/gen").join(entry.file_name());
        let fresh = std::fs::read(entry.path()).unwrap();
        if std::env::var_os("KOIOS_WRITE_CODEGEN").is_some() {
            std::fs::write(&target, &fresh).unwrap();
        }
        let kept = std::fs::read(&target).unwrap_or_default();
        assert!(
            kept == fresh,
            "{} is not what the .proto says; run this test with KOIOS_WRITE_CODEGEN=1",
            target.display()
        );
    }
}
