//! The cluster's keys: one ring from which every sealed thing is derived.
//!
//! The ring turns while it is used: `turn` reads the secret file again, and from then on the first secret seals and all of
//! them open. To change a secret without losing anybody: append the new one everywhere, move it to the front
//! everywhere, remove the old one everywhere; after each step every node reads its file again.
//!
//! Owns reading the secret file, deriving keys (HMAC-SHA-256 as an extract step, RFC 5869), the proofs of
//! the doorbell and the tokens of node RPCs. Refuses to print any of it. Without a secret the ring still
//! holds one key, derived from the cluster name alone: that keeps two clusters apart and junk out, but is no
//! protection, which is why `has_secret` decides where gossip may listen.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use aws_lc_rs::hmac;

use crate::error::ClusterError;

/// Shortest secret that is taken.
pub const SECRET_CHARS_MIN: usize = 16;
/// Most secrets in one file.
pub const SECRETS_MAX: usize = 8;
/// How many minutes two clocks may differ.
pub const CLOCK_MINUTES_MAX: i64 = 2;

/// What one secret gives.
pub(crate) struct Key {
    pub(crate) id: u32,
    pub(crate) aead: LessSafeKey,
    mac: hmac::Key,
}

/// Primary key first, then keys that are still accepted.
pub struct KeyRing {
    cluster: String,
    secret: bool,
    keys: ArcSwap<Vec<Arc<Key>>>,
}

/// What reading the secret file again changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turned {
    /// Another secret seals now.
    pub primary: bool,
    /// Secrets that are accepted now and were not before.
    pub added: usize,
    /// Secrets that are no longer accepted.
    pub removed: usize,
}

impl KeyRing {
    /// A ring for `cluster`; `secrets` empty means no protection.
    pub fn new(cluster: &str, secrets: &[String]) -> Self {
        let none = [String::new()];
        let keys = keys(cluster, if secrets.is_empty() { &none } else { secrets });
        Self { cluster: cluster.to_owned(), secret: !secrets.is_empty(), keys: ArcSwap::from_pointee(keys) }
    }

    /// Reads a secret file: one secret a line, `#` starts a comment line.
    ///
    /// # Errors
    /// `ClusterError::Secret` when it cannot be read, holds none, too many or a short one.
    pub fn from_file(cluster: &str, path: &Path) -> Result<Self, ClusterError> {
        Ok(Self::new(cluster, &read_secrets(path)?))
    }

    /// Reads the secret file again, for everybody who holds this ring. On an error the ring stays as it is.
    ///
    /// # Errors
    /// Those of `from_file`, and when the ring began without a secret: addresses were chosen for that.
    pub fn turn(&self, path: &Path) -> Result<Turned, ClusterError> {
        let secrets = read_secrets(path)?;
        if !self.secret {
            let detail =
                "this node began without a secret, and has to be started again to get one".to_owned();
            return Err(ClusterError::Secret { path: path.display().to_string(), detail });
        }
        let (old, new) = (self.keys.load_full(), keys(&self.cluster, &secrets));
        let missing =
            |a: &[Arc<Key>], b: &[Arc<Key>]| a.iter().filter(|k| b.iter().all(|o| o.id != k.id)).count();
        let turned = Turned {
            primary: old[0].id != new[0].id,
            added: missing(&new, &old),
            removed: missing(&old, &new),
        };
        self.keys.store(Arc::new(new));
        Ok(turned)
    }

    /// Whether a real secret is set.
    pub fn has_secret(&self) -> bool {
        self.secret
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The key to seal with.
    pub(crate) fn primary(&self) -> Arc<Key> {
        self.keys.load()[0].clone()
    }

    /// A key by its id.
    pub(crate) fn by_id(&self, id: u32) -> Option<Arc<Key>> {
        self.keys.load().iter().find(|k| k.id == id).cloned()
    }

    /// Hex proof of knowing the primary key, bound to `parts`.
    pub fn proof(&self, parts: &[&[u8]]) -> String {
        hex(hmac::sign(&self.primary().mac, &join(parts)).as_ref())
    }

    /// Whether `proof` was made over `parts` with any key of the ring. Constant time per key.
    pub fn verify_proof(&self, parts: &[&[u8]], proof: &str) -> bool {
        let Some(tag) = unhex(proof) else { return false };
        let message = join(parts);
        self.keys.load().iter().any(|k| hmac::verify(&k.mac, &message, &tag).is_ok())
    }

    /// Token that a node puts on an RPC at `now_ms`.
    pub fn rpc_token(&self, now_ms: i64) -> String {
        let minute = now_ms.div_euclid(60_000);
        format!("{minute}.{}", self.proof(&[b"rpc", &minute.to_be_bytes()]))
    }

    /// Whether a token was made by a member within the last minutes.
    pub fn verify_rpc_token(&self, token: &str, now_ms: i64) -> bool {
        let Some((minute, proof)) = token.split_once('.') else { return false };
        let Ok(minute) = minute.parse::<i64>() else { return false };
        let fresh = (now_ms.div_euclid(60_000)).abs_diff(minute) <= CLOCK_MINUTES_MAX as u64;
        fresh && self.verify_proof(&[b"rpc", &minute.to_be_bytes()], proof)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({:?}, {} keys, secret: {})", self.cluster, self.keys.load().len(), self.secret)
    }
}

fn read_secrets(path: &Path) -> Result<Vec<String>, ClusterError> {
    let fail = |detail: String| ClusterError::Secret { path: path.display().to_string(), detail };
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    let secrets: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map(str::to_owned)
        .collect();
    if secrets.is_empty() || secrets.len() > SECRETS_MAX {
        return Err(fail(format!("holds {} secrets, want 1 to {SECRETS_MAX}", secrets.len())));
    }
    if let Some(i) = secrets.iter().position(|s| s.chars().count() < SECRET_CHARS_MIN) {
        return Err(fail(format!("secret number {} is shorter than {SECRET_CHARS_MIN} characters", i + 1)));
    }
    Ok(secrets)
}

fn keys(cluster: &str, secrets: &[String]) -> Vec<Arc<Key>> {
    secrets.iter().map(|s| Arc::new(derive(cluster, s))).collect()
}

fn derive(cluster: &str, secret: &str) -> Key {
    let root = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let expand =
        |purpose: &str| hmac::sign(&root, &join(&[b"koios", cluster.as_bytes(), purpose.as_bytes()]));
    let aead_bytes = expand("gossip-aead-v1");
    let aead =
        UnboundKey::new(&CHACHA20_POLY1305, aead_bytes.as_ref()).expect("BUG: SHA-256 gives a 32-byte key");
    let id_bytes = expand("key-id-v1");
    let id = u32::from_be_bytes(id_bytes.as_ref()[..4].try_into().expect("BUG: four bytes"));
    let mac = hmac::Key::new(hmac::HMAC_SHA256, expand("proof-v1").as_ref());
    Key { id, aead: LessSafeKey::new(aead), mac }
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for p in parts {
        out.extend_from_slice(&(p.len() as u32).to_be_bytes());
        out.extend_from_slice(p);
    }
    out
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() > 256 || !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_prove_membership_for_minutes_only() {
        let ours = KeyRing::new("a", &["0123456789abcdef".into()]);
        let rotated = KeyRing::new("a", &["fedcba9876543210".into(), "0123456789abcdef".into()]);
        let other_cluster = KeyRing::new("b", &["0123456789abcdef".into()]);
        let token = ours.rpc_token(1_000_000_000);
        assert!(ours.verify_rpc_token(&token, 1_000_000_000));
        assert!(rotated.verify_rpc_token(&token, 1_000_060_000));
        assert!(!ours.verify_rpc_token(&token, 1_000_000_000 + 4 * 60_000));
        assert!(!other_cluster.verify_rpc_token(&token, 1_000_000_000));
        assert!(!ours.verify_rpc_token("x.y", 0) && !ours.verify_rpc_token("", 0));
        assert!(!format!("{ours:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn a_ring_turns_for_everybody_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let (old, new) = ("0123456789abcdef", "fedcba9876543210");
        let write = |secrets: &[&str]| std::fs::write(&path, secrets.join("\n")).unwrap();
        write(&[old]);
        let ring = Arc::new(KeyRing::from_file("c", &path).unwrap());
        let held = ring.clone();
        let peer = KeyRing::new("c", &[new.to_owned()]);
        assert!(!held.verify_rpc_token(&peer.rpc_token(0), 0));
        write(&[old, new]);
        assert_eq!(ring.turn(&path).unwrap(), Turned { primary: false, added: 1, removed: 0 });
        assert!(
            held.verify_rpc_token(&peer.rpc_token(0), 0) && !peer.verify_rpc_token(&held.rpc_token(0), 0)
        );
        write(&[new, old]);
        assert_eq!(ring.turn(&path).unwrap(), Turned { primary: true, added: 0, removed: 0 });
        assert!(peer.verify_rpc_token(&held.rpc_token(0), 0));
        write(&["short"]);
        assert!(ring.turn(&path).is_err());
        assert!(peer.verify_rpc_token(&held.rpc_token(0), 0), "a bad file changes nothing");
        write(&[new]);
        assert_eq!(ring.turn(&path).unwrap(), Turned { primary: false, added: 0, removed: 1 });
        let open = KeyRing::new("c", &[]);
        assert!(open.turn(&path).unwrap_err().to_string().contains("started again"));
    }

    #[test]
    fn secret_file_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            KeyRing::from_file("c", &path)
        };
        assert!(read("# comment\n0123456789abcdef\n").unwrap().has_secret());
        assert!(read("short\n").unwrap_err().to_string().contains("fix:"));
        assert!(read("\n").is_err());
        assert!(KeyRing::from_file("c", &dir.path().join("none")).is_err());
    }
}
