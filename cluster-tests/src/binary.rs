//! The binary under test.
//!
//! Built by cargo itself the first time a test asks, in the profile that the tests run in, so that a test never
//! runs against an old binary. `KOIOS_BIN` names another one, e.g. a release build.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Path of `koios`.
pub fn koios() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            if let Some(given) = std::env::var_os("KOIOS_BIN") {
                return PathBuf::from(given);
            }
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
            let built =
                Command::new(cargo).args(["build", "-q", "-p", "koios-node"]).current_dir(workspace).status();
            assert!(built.expect("cargo runs").success(), "koios does not build");
            // target/debug/deps/<test> -> target/debug/koios
            let test = std::env::current_exe().expect("the test's own path");
            let dir = test.parent().and_then(|d| d.parent()).expect("target directory");
            dir.join("koios")
        })
        .clone()
}

/// Whether a peer program is there. With `CI=true` a missing one is a failure, not a skip.
pub fn peer(program: &str) -> bool {
    let there = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    let there = there.is_ok_and(|o| o.status.success());
    assert!(
        there || std::env::var("CI").as_deref() != Ok("true"),
        "{program} is not installed, and CI must not skip"
    );
    if !there {
        eprintln!("{program} is not installed: the part of this test that needs it does not run");
    }
    there
}
