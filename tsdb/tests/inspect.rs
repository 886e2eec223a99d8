//! Looking into data directories: read-only opening and verification, on whole and damaged files.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use common::{content, open, open_with, options, write};
use model::{Clock, ManualClock};
use tsdb::fs::{FaultyFs, FileSystem, LockFile, ReadAt, WriteFile};
use tsdb::inspect::{self, Report};

const DIR: &str = "/data";

fn fs_of(fs: &FaultyFs) -> Arc<dyn FileSystem> {
    Arc::new(fs.clone())
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::new(0))
}

fn verify(fs: &FaultyFs) -> Report {
    let mut seen = 0;
    let report = inspect::verify(&fs_of(fs), Path::new(DIR), &mut |_, bytes| seen += bytes).unwrap();
    assert_eq!(seen, report.bytes);
    report
}

/// All files below `dir` with their bytes.
fn files(fs: &FaultyFs, dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for name in fs.list(dir).unwrap() {
        let path = dir.join(name);
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut fs.open(&path).unwrap(), &mut bytes).unwrap();
        found.push((path, bytes));
    }
    for name in fs.list_dirs(dir).unwrap() {
        found.extend(files(fs, &dir.join(name)));
    }
    found
}

#[test]
fn a_running_store_is_read_without_a_trace() {
    let fs = FaultyFs::new();
    let db = open(&fs);
    write(&db, &[("a", 1000, 1.0), ("b", 1000, 2.0)]).unwrap();
    db.maintain(1000).unwrap();
    write(&db, &[("a", 2000, f64::NAN)]).unwrap();
    let before = files(&fs, Path::new(DIR));
    let opened = inspect::open(&fs_of(&fs), Path::new(DIR), &clock()).unwrap();
    assert_eq!((content(&opened.db), opened.damage), (content(&db), 0));
    drop(opened);
    assert_eq!(files(&fs, Path::new(DIR)), before);
    // And the store never notices.
    write(&db, &[("a", 3000, 3.0)]).unwrap();
    assert_eq!(content(&db).values().map(BTreeMap::len).sum::<usize>(), 4);
}

/// A file system under which something happens the moment a file of the log is opened for the first time.
struct Meddling<F> {
    fs: FaultyFs,
    meddle: Mutex<Option<F>>,
}

impl<F> std::fmt::Debug for Meddling<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meddling")
    }
}

impl<F: FnOnce() + Send> FileSystem for Meddling<F> {
    fn open(&self, path: &Path) -> io::Result<Box<dyn io::Read + Send>> {
        if path.starts_with("/data/wal")
            && let Some(meddle) = self.meddle.lock().unwrap().take()
        {
            meddle();
        }
        self.fs.open(path)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.fs.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.fs.list(dir)
    }

    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.fs.list_dirs(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.fs.create(path)
    }

    fn open_at(&self, path: &Path) -> io::Result<Box<dyn ReadAt>> {
        self.fs.open_at(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.hard_link(from, to)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.fs.remove_dir_all(dir)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        self.fs.len(path)
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        self.fs.truncate(path, len)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.fs.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.fs.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockFile>> {
        self.fs.lock(path)
    }
}

/// A server writes a checkpoint and removes the log that it covers, while the log is being read.
#[test]
fn what_a_server_replaces_meanwhile_is_read_anew() {
    let fs = FaultyFs::new();
    let mut options = options();
    options.checkpoint_bytes = 1;
    let db = open_with(&fs, options).unwrap();
    for t in 1..50 {
        write(&db, &[("a", t * 1000, t as f64)]).unwrap();
    }
    let before = fs.list(Path::new("/data/wal")).unwrap();
    let server = Arc::clone(&db);
    let meddle = move || {
        server.maintain(50_000).unwrap();
        write(&server, &[("a", 50_000, 50.0)]).unwrap();
    };
    let meddling: Arc<dyn FileSystem> =
        Arc::new(Meddling { fs: fs.clone(), meddle: Mutex::new(Some(meddle)) });
    let opened = inspect::open(&meddling, Path::new(DIR), &clock()).unwrap();
    assert_ne!(fs.list(Path::new("/data/wal")).unwrap(), before, "the log was cut");
    assert_eq!((content(&opened.db), opened.damage), (content(&db), 0));
    assert_eq!(content(&db).values().map(BTreeMap::len).sum::<usize>(), 50);
}

#[test]
fn a_directory_that_is_not_there_is_an_error() {
    let fs = FaultyFs::new();
    let error = inspect::open(&fs_of(&fs), Path::new("/nowhere"), &clock()).unwrap_err();
    assert!(error.to_string().starts_with("list data directory: /nowhere: "), "{error}");
    assert!(inspect::verify(&fs_of(&fs), Path::new("/nowhere"), &mut |_, _| {}).is_err());
}

/// Every bit of every file that counts: named with file and place, never a panic, and reading goes on with the rest.
#[test]
fn every_flipped_bit_is_named() {
    let fs = FaultyFs::new();
    let mut options = options();
    options.checkpoint_bytes = 1;
    let db = open_with(&fs, options).unwrap();
    for t in 1..300 {
        write(&db, &[("a", t * 1000, 1.0), ("b", t * 1000, t as f64)]).unwrap();
    }
    db.maintain(300_000).unwrap();
    for t in 300..310 {
        write(&db, &[("a", t * 1000, 1.0)]).unwrap();
    }
    db.close().unwrap();
    drop(db);
    let report = verify(&fs);
    assert_eq!((report.damage, report.notes), (vec![], vec![]));
    let kinds = ["/data/wal/", "/data/head_chunks/", "/data/checkpoint."];
    for kind in kinds {
        let found =
            files(&fs, Path::new(DIR)).into_iter().any(|(path, _)| path.to_string_lossy().starts_with(kind));
        assert!(found, "{kind}");
    }
    assert_eq!(report.bytes, inspect::total_bytes(&fs, Path::new(DIR)).unwrap());
    for (path, bytes) in files(&fs, Path::new(DIR)) {
        if path.ends_with("lock") {
            continue;
        }
        // All of small files, and all of the beginning and the end of others.
        let places = (0..bytes.len()).filter(|at| at % 7 == 0 || *at < 100 || at + 100 > bytes.len());
        for at in places {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            fs.write(&path, damaged);
            let report = verify(&fs);
            // The end of the log may be a record that was being written.
            let named = report.damage.iter().any(|damage| damage.file == path)
                || report
                    .notes
                    .iter()
                    .any(|(file, what)| *file == path && what.contains("unfinished record"));
            assert!(named, "{} at {at}: {report:?}", path.display());
        }
        fs.write(&path, bytes);
    }
    assert_eq!(verify(&fs).damage, vec![]);
    // What no checksum tells, a start does.
    let opened = inspect::open(&fs_of(&fs), Path::new(DIR), &clock()).unwrap();
    assert_eq!(opened.damage, 0);
    fs.remove(Path::new("/data/head_chunks/000001")).unwrap();
    let opened = inspect::open(&fs_of(&fs), Path::new(DIR), &clock()).unwrap();
    assert!(opened.damage > 0);
}

#[test]
fn torn_tails_and_gaps_are_told_apart() {
    let fs = FaultyFs::new();
    let db = open(&fs);
    write(&db, &[("a", 1000, 1.0)]).unwrap();
    write(&db, &[("a", 2000, 1.0)]).unwrap();
    drop(db);
    let (path, bytes) =
        files(&fs, Path::new("/data/wal")).into_iter().find(|(path, _)| path.ends_with("00000001")).unwrap();
    fs.write(&path, bytes[..bytes.len() - 3].to_vec());
    let report = verify(&fs);
    assert_eq!(report.damage, vec![]);
    assert!(
        matches!(&report.notes[..], [(file, what)] if *file == path && what.contains("unfinished record")),
        "{report:?}"
    );
    // The same segment with another behind it.
    fs.write(Path::new("/data/wal/00000003"), bytes.clone());
    let report = verify(&fs);
    let text: Vec<_> = report.damage.iter().map(ToString::to_string).collect();
    assert!(text[0].starts_with("/data/wal/00000002: damaged at byte 0: the segment is missing"), "{text:?}");
    assert!(text.iter().any(|text| text.contains("/data/wal/00000001: damaged at byte")), "{text:?}");
    assert!(text.iter().any(|text| text.contains("its header says that it is segment 1")), "{text:?}");
}

/// A block that cannot be opened is read to its end all the same, and all its damages are named.
#[test]
fn a_block_that_cannot_be_opened_is_read_whole() {
    let fs = FaultyFs::new();
    let mut options = options();
    options.block_duration_min = std::time::Duration::from_secs(60);
    let db = open_with(&fs, options).unwrap();
    for t in (0..200).map(|t| t * 1000) {
        let noise = f64::from_bits((t as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2);
        write(&db, &[("a", t, noise), ("b", t, t as f64)]).unwrap();
    }
    db.compact(200_000).unwrap();
    db.close().unwrap();
    drop(db);
    assert_eq!(verify(&fs).damage, vec![]);
    let blocks = inspect::blocks(&fs, Path::new(DIR)).unwrap();
    let dir = blocks[0].dir.clone();
    let whole = files(&fs, &dir);
    let chunks = dir.join("chunks/000001");
    let bytes_of = |path: &Path| whole.iter().find(|(found, _)| found == path).unwrap().1.clone();
    // Each of them alone keeps the block from being opened.
    let closing = ["index", "tombstones", "meta.json"].map(|name| dir.join(name));
    let damage = |path: &Path, at: usize| {
        let mut bytes = bytes_of(path);
        bytes[at] ^= 1;
        fs.write(path, bytes);
    };
    let chunk_len = bytes_of(&chunks).len();
    for closes in &closing {
        damage(closes, bytes_of(closes).len() - 3);
        damage(&chunks, 40);
        damage(&chunks, chunk_len - 5);
        let named = |path: &Path| {
            verify(&fs).damage.into_iter().filter(|damage| damage.file == path).collect::<Vec<_>>()
        };
        assert!(!named(closes).is_empty() && !named(&chunks).is_empty(), "{closes:?}: {:?}", verify(&fs));
        // Both at once: the head of the file, and a missing end.
        let mut cut = bytes_of(&chunks);
        cut[6] ^= 1;
        cut.truncate(chunk_len - 1);
        fs.write(&chunks, cut);
        let found: Vec<u64> = named(&chunks).iter().map(|damage| damage.offset).collect();
        assert!(found.len() == 2 && found[0] == 0 && found[1] > 0, "{closes:?}: {found:?}");
        fs.remove(&chunks).unwrap();
        assert!(!named(closes).is_empty(), "{closes:?}");
        fs.write(&chunks, bytes_of(&chunks));
        fs.write(closes, bytes_of(closes));
    }
    // All at once, each named once.
    closing.iter().for_each(|path| damage(path, bytes_of(path).len() - 3));
    damage(&chunks, 40);
    let report = verify(&fs);
    let mut paths: Vec<&PathBuf> = report.damage.iter().map(|damage| &damage.file).collect();
    paths.sort_unstable();
    let mut want: Vec<&PathBuf> = closing.iter().chain([&chunks]).collect();
    want.sort_unstable();
    assert_eq!(paths, want);
}
