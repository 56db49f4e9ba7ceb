//! How much there is on disk: of a directory, of the file system below it.

use std::fs;
use std::path::Path;

/// Deepest directory that is looked into.
const DEPTH_MAX: usize = 16;

/// Bytes of all files below `dir`; what cannot be read counts as nothing.
pub fn dir_bytes(dir: &Path) -> u64 {
    walk(dir, 0)
}

fn walk(dir: &Path, depth: usize) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let mut total = 0u64;
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        total = total.saturating_add(match kind.is_dir() {
            true if depth < DEPTH_MAX => walk(&entry.path(), depth + 1),
            true => 0,
            false => entry.metadata().map_or(0, |m| m.len()),
        });
    }
    total
}

/// Size of the file system that holds `path`, bytes.
///
/// # Errors
/// The operating system's.
pub fn file_system_bytes(path: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_files_and_knows_the_file_system() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("x"), [0; 10]).unwrap();
        fs::write(dir.path().join("a/b/y"), [0; 32]).unwrap();
        assert_eq!(dir_bytes(dir.path()), 42);
        assert_eq!(dir_bytes(&dir.path().join("missing")), 0);
        assert!(file_system_bytes(dir.path()).unwrap() > 1 << 20);
        assert!(file_system_bytes(&dir.path().join("missing")).is_err());
    }
}
