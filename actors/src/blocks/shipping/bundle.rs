//! One shipped object: stretches of the files of a node's logs, of all shards together, so that a look costs one
//! write whatever the number of cores.
//!
//! `KOIOSSHP`, version, three zero bytes, `u32` length of the index, `u32` CRC32C of the index, the index as JSON,
//! then the stretches one after the other. Integers are little-endian. Invariant: reading allocates nothing beyond
//! the object itself, and a stretch whose checksum does not match is an error and never data.

use std::collections::BTreeMap;

use koios_block::crc32c;
use serde::{Deserialize, Serialize};

use super::FileKey;

const MAGIC: &[u8; 8] = b"KOIOSSHP";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 20;
/// Most stretches of one object.
pub const PARTS_MAX: usize = 4096;

/// A stretch of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Of which file.
    pub file: FileKey,
    /// Where in the file it begins.
    pub offset: u64,
    /// Its length.
    pub bytes: u32,
    /// Whether the file ends with it.
    pub last: bool,
    /// CRC32C of its bytes.
    pub crc: u32,
}

impl Part {
    /// Position in the file behind it.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.bytes))
    }
}

/// What an object says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// External labels of the node, which its blocks have too.
    pub external: BTreeMap<String, String>,
    /// Stretches in the order of their bytes.
    pub parts: Vec<Part>,
    /// With this object the log is whole, and no sample that is acknowledged later is older than this, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<i64>,
}

/// Makes an object.
pub fn write(index: &Index, stretches: &[Vec<u8>]) -> Vec<u8> {
    let json = serde_json::to_vec(index).expect("BUG: an index that is no JSON");
    let mut out =
        Vec::with_capacity(HEADER_BYTES + json.len() + stretches.iter().map(Vec::len).sum::<usize>());
    out.extend_from_slice(MAGIC);
    out.extend([VERSION, 0, 0, 0]);
    out.extend((json.len() as u32).to_le_bytes());
    out.extend(crc32c(&json).to_le_bytes());
    out.extend(json);
    stretches.iter().for_each(|s| out.extend_from_slice(s));
    out
}

/// Reads an object.
///
/// # Errors
/// What is wrong with it.
pub fn read(bytes: &[u8]) -> Result<(Index, Vec<&[u8]>), String> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err("a shipped object is cut short".to_owned());
    };
    if head[..8] != *MAGIC || head[8] != VERSION {
        return Err("an object is no shipped log of a known version".to_owned());
    }
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let Some((json, mut data)) = rest.split_at_checked(number(12) as usize) else {
        return Err("the index of a shipped object is cut short".to_owned());
    };
    if crc32c(json) != number(16) {
        return Err("the index of a shipped object does not match its checksum".to_owned());
    }
    let index: Index = serde_json::from_slice(json).map_err(|e| format!("index of a shipped object: {e}"))?;
    if index.parts.len() > PARTS_MAX {
        return Err(format!("a shipped object has more than {PARTS_MAX} stretches"));
    }
    let mut stretches = Vec::with_capacity(index.parts.len());
    for part in &index.parts {
        let Some((own, behind)) = data.split_at_checked(part.bytes as usize) else {
            return Err("a shipped stretch is cut short".to_owned());
        };
        if crc32c(own) != part.crc {
            return Err("a shipped stretch does not match its checksum".to_owned());
        }
        stretches.push(own);
        data = behind;
    }
    Ok((index, stretches))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_and_every_cut_and_flip_is_noticed() {
        let stretch = b"123456789".to_vec();
        let file = FileKey { shard: 1, checkpoint: false, number: 7 };
        let part = Part { file, offset: 24, bytes: 9, last: false, crc: crc32c(&stretch) };
        let external = BTreeMap::from([("dc".into(), "a".into())]);
        let index = Index { external, parts: vec![part], settled: None };
        let object = write(&index, std::slice::from_ref(&stretch));
        let json = r#"{"external":{"dc":"a"},"parts":[{"file":{"shard":1,"checkpoint":false,"number":7},"offset":24,"bytes":9,"last":false,"crc":3808858755}]}"#;
        let mut want = b"KOIOSSHP\x01\0\0\0".to_vec();
        want.extend((json.len() as u32).to_le_bytes());
        want.extend(crc32c(json.as_bytes()).to_le_bytes());
        want.extend(json.as_bytes());
        want.extend(&stretch);
        assert_eq!(object, want);
        assert_eq!(read(&object).unwrap(), (index.clone(), vec![stretch.as_slice()]));
        let settled = write(&Index { settled: Some(-5), ..index }, std::slice::from_ref(&stretch));
        assert_eq!(read(&settled).unwrap().0.settled, Some(-5));
        for cut in 0..object.len() {
            assert!(read(&object[..cut]).is_err(), "cut at {cut}");
        }
        // The three bytes between version and length say nothing.
        for flip in (0..object.len()).filter(|f| !(9..12).contains(f)) {
            let mut bad = object.clone();
            bad[flip] ^= 1;
            assert!(read(&bad).is_err(), "flip at {flip}");
        }
    }
}
