//! `meta.json`: what a block is, in the words of Prometheus, so that people and tools find what they know.
//!
//! The file ends with a checksum of itself: a flipped bit in a bound of time would else hide samples without a word. Keys that
//! this program does not know are kept. The document is `docs/formats/block.md`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use model::sample::{TimeRange, Timestamp};
use model::storage::StorageError;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::{FORMAT, META_FILE, VERSION, create_synced};
use crate::fs::FileSystem;

/// Most bytes of the file: thousands of sources.
const META_BYTES_MAX: u64 = 16 << 20;
/// Before the eight digits of the checksum.
const CRC_KEY: &str = "\"crc32c\": \"";
const CRC_ZERO: &str = "00000000";

/// A block's `meta.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BlockMeta {
    /// Its name.
    #[serde(with = "id")]
    pub(crate) ulid: Ulid,
    /// First millisecond, inclusive.
    #[serde(rename = "minTime")]
    pub(crate) min_time: Timestamp,
    /// Last millisecond, exclusive.
    #[serde(rename = "maxTime")]
    pub(crate) max_time: Timestamp,
    /// How much is in it.
    pub(crate) stats: BlockStats,
    /// Where it comes from.
    pub(crate) compaction: BlockCompaction,
    /// Of this format.
    pub(crate) version: u32,
    /// The format, with its version again: blocks of other programs have another or none.
    pub(crate) format: String,
    /// What this program does not know.
    #[serde(flatten)]
    pub(crate) extra: BTreeMap<String, serde_json::Value>,
}

/// Numbers of things, as written; later deletions are in the tombstones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct BlockStats {
    pub(crate) num_samples: u64,
    pub(crate) num_float_samples: u64,
    pub(crate) num_histogram_samples: u64,
    pub(crate) num_series: u64,
    pub(crate) num_chunks: u64,
    pub(crate) num_tombstones: u64,
}

/// How a block came to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlockCompaction {
    /// 1: straight from the head; else one more than the highest of its parents.
    pub(crate) level: u32,
    /// The level-1 blocks whose samples are in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "ids")]
    pub(crate) sources: Vec<Ulid>,
    /// The blocks that it was made of, and replaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) parents: Vec<BlockParent>,
    /// Nothing is left in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) deletable: bool,
    /// Compacting it failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) failed: bool,
    /// Such as that it holds out-of-order samples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) hints: Vec<String>,
}

/// A block that another one was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlockParent {
    #[serde(with = "id")]
    pub(crate) ulid: Ulid,
    #[serde(rename = "minTime")]
    pub(crate) min_time: Timestamp,
    #[serde(rename = "maxTime")]
    pub(crate) max_time: Timestamp,
}

impl BlockMeta {
    /// The span of its samples, both ends included.
    pub(crate) fn range(&self) -> TimeRange {
        TimeRange::new(self.min_time, self.max_time.saturating_sub(1))
    }

    /// The text of the file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let body = serde_json::to_string_pretty(self).expect("invariant: a meta has only text keys");
        let body = body.strip_suffix("\n}").expect("invariant: it is an object");
        let open = |crc: &str| format!("{body},\n  {CRC_KEY}{crc}\"\n}}\n");
        let crc = crc32c::crc32c(open(CRC_ZERO).as_bytes());
        open(&format!("{crc:08x}")).into_bytes()
    }

    /// The inverse of [`BlockMeta::encode`]. What is wrong is told as text.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        // The version first: a later one may have other fields, or another checksum.
        #[derive(Deserialize)]
        struct Kind {
            version: Option<u32>,
            format: Option<String>,
        }
        let kind: Kind = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match (kind.format.as_deref(), kind.version) {
            (Some(FORMAT), Some(VERSION)) => {}
            (Some(format), Some(version)) => {
                return Err(format!("format {format:?}, version {version}, is unknown to this program"));
            }
            _ => return Err("a block of another program: it has no format".to_owned()),
        }
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        let at = text.rfind(CRC_KEY).ok_or("no checksum")? + CRC_KEY.len();
        let digits = text.get(at..at + CRC_ZERO.len()).ok_or("no checksum")?;
        let zeroed =
            [text.get(..at), Some(CRC_ZERO), text.get(at + CRC_ZERO.len()..)].map(Option::unwrap_or_default);
        if format!("{:08x}", crc32c::crc32c(zeroed.concat().as_bytes())) != digits {
            return Err("checksum mismatch".to_owned());
        }
        let mut meta: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        meta.extra.remove("crc32c");
        if meta.min_time >= meta.max_time {
            return Err(format!("from {} to {} is no span of time", meta.min_time, meta.max_time));
        }
        Ok(meta)
    }

    /// Reads `dir/meta.json`.
    ///
    /// # Errors
    /// [`StorageError::Corrupted`] when it is damaged, of another program, or of an unknown version.
    pub(crate) fn read(fs: &dyn FileSystem, dir: &Path) -> Result<Self, StorageError> {
        let path = dir.join(META_FILE);
        let io = |source| StorageError::Io { what: "reading", path: path.clone(), source };
        let mut bytes = Vec::new();
        fs.open(&path).map_err(io)?.take(META_BYTES_MAX).read_to_end(&mut bytes).map_err(io)?;
        Self::decode(&bytes).map_err(|what| StorageError::Corrupted { file: path.clone(), offset: 0, what })
    }

    /// Writes `dir/meta.json` and syncs it; the directory is not synced.
    pub(super) fn write(&self, fs: &dyn FileSystem, dir: &Path) -> Result<u64, StorageError> {
        let bytes = self.encode();
        create_synced(fs, &dir.join(META_FILE), &bytes)?;
        Ok(bytes.len() as u64)
    }
}

/// The ULID that a directory's name is, if it is one as we write it.
pub(crate) fn parse_id(text: &str) -> Option<Ulid> {
    Ulid::from_string(text).ok().filter(|id| id.to_string() == text)
}

mod id {
    use serde::{Deserialize, Deserializer, Serializer};
    use ulid::Ulid;

    pub(super) fn serialize<S: Serializer>(id: &Ulid, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&id.to_string())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Ulid, D::Error> {
        let text = String::deserialize(from)?;
        super::parse_id(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no ULID")))
    }
}

mod ids {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use ulid::Ulid;

    pub(super) fn serialize<S: Serializer>(ids: &[Ulid], to: S) -> Result<S::Ok, S::Error> {
        ids.iter().map(Ulid::to_string).collect::<Vec<_>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Ulid>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        let id = |text: &String| super::parse_id(text).ok_or_else(|| format!("{text:?} is no ULID"));
        texts.iter().map(id).collect::<Result<_, _>>().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::block) fn example() -> BlockMeta {
        let id = |n: u128| Ulid::from_parts(1_700_000_000_000, n);
        BlockMeta {
            ulid: id(1),
            min_time: 1_699_992_000_000,
            max_time: 1_699_999_200_000,
            stats: BlockStats {
                num_samples: 4,
                num_float_samples: 4,
                num_series: 2,
                num_chunks: 2,
                ..BlockStats::default()
            },
            compaction: BlockCompaction {
                level: 2,
                sources: vec![id(2)],
                parents: vec![BlockParent {
                    ulid: id(2),
                    min_time: 1_699_992_000_000,
                    max_time: 1_699_999_200_000,
                }],
                ..BlockCompaction::default()
            },
            version: VERSION,
            format: FORMAT.to_owned(),
            extra: BTreeMap::new(),
        }
    }

    #[test]
    fn it_comes_back_with_what_we_do_not_know() {
        let mut meta = example();
        assert_eq!(BlockMeta::decode(&meta.encode()), Ok(meta.clone()));
        meta.extra.insert("downsampled".to_owned(), serde_json::json!({"5m": ["x"]}));
        assert_eq!(BlockMeta::decode(&meta.encode()), Ok(meta));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let bytes = example().encode();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(BlockMeta::decode(&bytes).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() - 1 {
            assert!(BlockMeta::decode(&bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn other_versions_and_other_programs_are_named() {
        let mut meta = example();
        meta.version = 7;
        let error = BlockMeta::decode(&meta.encode()).unwrap_err();
        assert!(error.contains("version 7"), "{error}");
        let error = BlockMeta::decode(br#"{"ulid": "x", "version": 1}"#).unwrap_err();
        assert!(error.contains("another program"), "{error}");
        let fs = crate::fs::FaultyFs::new();
        fs.write(Path::new("/b/meta.json"), meta.encode());
        let error = BlockMeta::read(&fs, Path::new("/b")).unwrap_err().to_string();
        assert!(error.contains("/b/meta.json") && error.contains("version 7"), "{error}");
    }

    #[test]
    fn names_of_directories_are_ids_or_not() {
        let id = Ulid::from_parts(1_700_000_000_000, 0xabcdef);
        assert_eq!(parse_id(&id.to_string()), Some(id));
        assert_eq!(parse_id(&id.to_string().to_lowercase()), None);
        assert_eq!(parse_id("wal"), None);
        assert_eq!(parse_id(&format!("{id}.tmp")), None);
    }
}
