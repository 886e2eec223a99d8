//! The bytes: checksummed values of the database, and the export file. `docs/formats/alertmanager-state.md`.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use super::database::{GENERATION, META};
use super::{State, StateError, Table};

/// Largest export that is read back: more than any real state, less than memory.
const EXPORT_BYTES_MAX: usize = 1 << 30;
const EXPORT_MAGIC: &[u8; 8] = b"NILOAMS1";
/// Name of the export within the state directory.
pub(super) const EXPORT_FILE: &str = "state.json.lz4";

/// CRC-32C of the text, little endian, before the text.
pub(super) fn seal(value: &str) -> Vec<u8> {
    let mut out = crc32c::crc32c(value.as_bytes()).to_le_bytes().to_vec();
    out.extend_from_slice(value.as_bytes());
    out
}

pub(super) fn unseal(bytes: &[u8]) -> Option<String> {
    let (crc, value) = bytes.split_first_chunk::<4>()?;
    (u32::from_le_bytes(*crc) == crc32c::crc32c(value)).then(|| String::from_utf8(value.to_vec()).ok())?
}

pub(super) fn write_export(dir: &Path, state: &State) -> Result<usize, StateError> {
    let mut named: BTreeMap<&str, &BTreeMap<String, String>> =
        state.tables.iter().map(|(table, entries)| (table.name(), entries)).collect();
    // Beside the tables, where versions without generations overlook it.
    let meta = BTreeMap::from([(GENERATION.to_owned(), state.generation.to_string())]);
    named.insert(META, &meta);
    let json = serde_json::to_vec(&named).map_err(|error| StateError::Database(error.to_string()))?;
    let packed = lz4_flex::compress_prepend_size(&json);
    let mut bytes = EXPORT_MAGIC.to_vec();
    bytes.extend_from_slice(&crc32c::crc32c(&packed).to_le_bytes());
    bytes.extend_from_slice(&packed);

    let (path, temporary) = (dir.join(EXPORT_FILE), dir.join(format!("{EXPORT_FILE}.tmp")));
    let io = |what: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| StateError::Io { what, path, source }
    };
    let mut file = std::fs::File::create(&temporary).map_err(io("could not create", &temporary))?;
    file.write_all(&bytes).map_err(io("could not write", &temporary))?;
    file.sync_all().map_err(io("could not sync", &temporary))?;
    drop(file);
    std::fs::rename(&temporary, &path).map_err(io("could not replace", &path))?;
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("could not sync", dir))?;
    Ok(bytes.len())
}

/// The export, or why it is of no use.
pub(super) fn read_export(dir: &Path) -> Result<Option<State>, String> {
    let path = dir.join(EXPORT_FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("could not read {}: {error}", path.display())),
    };
    let damaged = |what: &str| format!("{}: {what}", path.display());
    let rest =
        bytes.strip_prefix(EXPORT_MAGIC).ok_or_else(|| damaged("not a state export of this version"))?;
    let (crc, packed) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("cut off"))?;
    if u32::from_le_bytes(*crc) != crc32c::crc32c(packed) {
        return Err(damaged("checksum mismatch"));
    }
    let (size, body) = lz4_flex::block::uncompressed_size(packed).map_err(|e| damaged(&e.to_string()))?;
    if size > EXPORT_BYTES_MAX {
        return Err(damaged("declares an impossible size"));
    }
    let json = lz4_flex::decompress(body, size).map_err(|error| damaged(&error.to_string()))?;
    let mut named: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_slice(&json).map_err(|error| damaged(&error.to_string()))?;
    let generation = match named.get(META).and_then(|meta| meta.get(GENERATION)) {
        Some(text) => text.parse().map_err(|_| damaged("the generation is no number"))?,
        None => 0,
    };
    let table = |table: Table| (table, named.remove(table.name()).unwrap_or_default());
    Ok(Some(State { generation, tables: Table::ALL.into_iter().map(table).collect() }))
}
