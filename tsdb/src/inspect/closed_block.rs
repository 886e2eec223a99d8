//! Verifies a block that cannot be opened: each file on its own, since what they say of each other cannot be followed.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use model::storage::StorageError;

use super::{Damage, frames};
use crate::block::index::IndexReader;
use crate::block::{
    BlockMeta, CHUNK_HEAD_LEN, CHUNKS_DIR, Findings, INDEX_FILE, Tombstones, check_chunk_head,
    chunk_file_number,
};
use crate::cache::BlockCache;
use crate::fs::FileSystem;

/// Bytes that are read at once of what has no structure any more.
const READ_BYTES: usize = 1 << 20;

/// Reads all files of the block in `dir`, of which `why` says why it cannot be opened.
pub(super) fn verify(
    fs: &dyn FileSystem,
    dir: &Path,
    cache: &Arc<BlockCache>,
    why: StorageError,
) -> Vec<Damage> {
    let mut findings = Findings::new(dir);
    findings.error(why);
    if let Err(error) = BlockMeta::read(fs, dir) {
        findings.error(error);
    }
    if let Err(error) = Tombstones::read(fs, dir) {
        findings.error(error);
    }
    let index = dir.join(INDEX_FILE);
    match IndexReader::open(fs, index.clone(), Arc::clone(cache)) {
        Ok(index) => {
            let mut of_index = Vec::new();
            index.verify(&mut of_index);
            of_index.into_iter().for_each(|damage| findings.add(damage.file, damage.offset, damage.what));
        }
        Err(error) => {
            findings.error(error);
            read_all(fs, &index, &mut findings);
        }
    }
    let chunks = dir.join(CHUNKS_DIR);
    match fs.list(&chunks) {
        Ok(names) => {
            let numbers: BTreeSet<u32> = names.iter().filter_map(|name| chunk_file_number(name)).collect();
            // A name may be anything: not more than one can be missing of two.
            for number in (1..=numbers.last().copied().unwrap_or(0)).take(2 * names.len()) {
                chunk_file(fs, &chunks.join(crate::block::chunk_file_name(number)), number, &mut findings);
            }
        }
        Err(error) => findings.add(chunks, 0, format!("listing: {error}")),
    }
    findings.finish().into_iter().map(Damage::from).collect()
}

fn chunk_file(fs: &dyn FileSystem, path: &Path, number: u32, findings: &mut Findings) {
    let file = match fs.open_at(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return findings.add(path.to_owned(), 0, "missing".to_owned());
        }
        Err(error) => return findings.add(path.to_owned(), 0, format!("opening: {error}")),
    };
    match check_chunk_head(&*file, path, number) {
        Ok(Ok(())) => {}
        Ok(Err(what)) => findings.add(path.to_owned(), 0, what),
        Err(error) => findings.error(error),
    }
    let walk = frames::walk(&*file, path, CHUNK_HEAD_LEN as u64);
    walk.damage.into_iter().for_each(|(offset, what)| findings.add(path.to_owned(), offset, what));
    if let Some(offset) = walk.unfinished {
        findings.add(path.to_owned(), offset, "ends within a frame".to_owned());
    }
}

/// Reads a file for what the disk says of it.
fn read_all(fs: &dyn FileSystem, path: &Path, findings: &mut Findings) {
    let Ok(file) = fs.open_at(path) else { return };
    let mut buffer = vec![0; READ_BYTES];
    let mut at = 0;
    while at < file.len() {
        let len = usize::try_from(file.len() - at).unwrap_or(READ_BYTES).min(READ_BYTES);
        if let Err(error) = file.read_exact_at(buffer.get_mut(..len).unwrap_or_default(), at) {
            findings.add(path.to_owned(), at, format!("cannot be read: {error}"));
        }
        at += len as u64;
    }
}
