//! What survives: clean closes, kills, damage of either file.

use super::database::DATABASE_DIR;
use super::export::{EXPORT_FILE, read_export, seal, write_export};
use super::*;

fn metrics() -> StateMetrics {
    crate::metrics::Metrics::new(&prometheus::Registry::new()).unwrap().state
}

fn change(key: &str, value: Option<&str>) -> Change {
    Change { table: Table::Silences, key: key.to_owned(), value: value.map(str::to_owned) }
}

async fn filled(dir: &Path) {
    let store = StateStore::open(dir, 0, metrics()).await.unwrap();
    store.write(vec![change("a", Some("1")), change("b", Some("2"))]).await.unwrap();
    store.write(vec![change("b", None), change("c", Some("3"))]).await.unwrap();
    store.close().await;
}

fn silences(store: &StateStore) -> Vec<(String, String)> {
    store.entries(Table::Silences)
}

fn expected() -> Vec<(String, String)> {
    vec![("a".to_owned(), "1".to_owned()), ("c".to_owned(), "3".to_owned())]
}

#[tokio::test]
async fn survives_closing_and_is_locked_while_open() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let store = StateStore::open(dir.path(), 0, metrics()).await.unwrap();
    assert_eq!(silences(&store), expected());
    let second = StateStore::open(dir.path(), 0, metrics()).await;
    assert!(matches!(second, Err(StateError::Locked { .. })), "{second:?}");
    store.close().await;
    assert!(store.write(vec![change("z", None)]).await.is_err());
}

#[tokio::test]
async fn acknowledged_writes_survive_without_a_clean_close() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let store = StateStore::open(dir.path(), 0, metrics()).await.unwrap();
    store.write(vec![change("a", Some("1"))]).await.unwrap();
    store.write(vec![change("c", Some("3"))]).await.unwrap();
    // What a kill leaves: the files as they are now, without the export.
    copy_dir(&dir.path().join(DATABASE_DIR), &copy.path().join(DATABASE_DIR));
    let again = StateStore::open(copy.path(), 0, metrics()).await.unwrap();
    assert_eq!(silences(&again), expected());
    again.close().await;
    store.close().await;
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn rebuilds_from_the_export_when_sled_refuses() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let file = dir.path().join(DATABASE_DIR).join("conf");
    std::fs::write(&file, b"this is no configuration of sled").unwrap();
    let counters = metrics();
    let store = StateStore::open(dir.path(), 77, counters.clone()).await.unwrap();
    assert_eq!(silences(&store), expected());
    assert_eq!(counters.rebuilds.get(), 1);
    assert!(dir.path().join(format!("{DATABASE_DIR}.damaged-77")).exists());
    store.close().await;
    // And the rebuilt database is a good one.
    let store = StateStore::open(dir.path(), 78, counters.clone()).await.unwrap();
    assert_eq!((silences(&store), counters.rebuilds.get()), (expected(), 1));
    store.close().await;
}

#[tokio::test]
async fn values_that_fail_their_checksum_come_from_the_export() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    {
        let database = sled::open(dir.path().join(DATABASE_DIR)).unwrap();
        let tree = database.open_tree("silences").unwrap();
        tree.insert("a", b"xxxx1").unwrap();
        tree.insert("new", seal("4")).unwrap();
        database.flush().unwrap();
    }
    let counters = metrics();
    let store = StateStore::open(dir.path(), 5, counters.clone()).await.unwrap();
    let mut want = expected();
    want.push(("new".to_owned(), "4".to_owned()));
    assert_eq!((silences(&store), counters.rebuilds.get()), (want, 1));
    store.close().await;
}

/// The document's own example is what the code reads and writes.
#[test]
fn the_documented_export_is_read_and_written() {
    let document = include_str!("../../../docs/formats/alertmanager-state.md");
    let hex = document.split("```hex").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let byte = |pair: &str| u8::from_str_radix(pair, 16).unwrap();
    let bytes: Vec<u8> = hex.split_whitespace().map(byte).collect();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(EXPORT_FILE), &bytes).unwrap();
    let state = read_export(dir.path()).unwrap().unwrap();
    assert_eq!((state.tables[&Table::Silences]["a"].as_str(), state.generation), ("1", 3));
    assert!(state.tables[&Table::NotificationLog].is_empty());
    write_export(dir.path(), &state).unwrap();
    assert_eq!(std::fs::read(dir.path().join(EXPORT_FILE)).unwrap(), bytes);
    let (crc, value) = (&seal("1")[..4], &seal("1")[4..]);
    let shown =
        format!("{} {:02x}", crc.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "), value[0]);
    assert!(document.contains(&shown), "{shown}");
}

#[test]
fn a_cut_or_changed_export_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tables = Tables::from([(Table::Silences, BTreeMap::from([("k".repeat(50), "v".repeat(500))]))]);
    write_export(dir.path(), &State { generation: 1, tables }).unwrap();
    let file = dir.path().join(EXPORT_FILE);
    let whole = std::fs::read(&file).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(&file, &whole[..cut]).unwrap();
        assert!(read_export(dir.path()).is_err(), "cut at {cut}");
    }
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x20;
        std::fs::write(&file, changed).unwrap();
        assert!(read_export(dir.path()).is_err(), "changed at {at}");
    }
}

/// The database's threads let go of its lock some time after it was closed.
async fn reopened(dir: &std::path::Path) -> StateStore {
    for _ in 0..200 {
        match StateStore::open(dir, 0, metrics()).await {
            Err(StateError::Locked { .. }) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            opened => return opened.unwrap(),
        }
    }
    panic!("still locked");
}

#[tokio::test]
async fn a_removed_database_is_filled_from_the_export_and_a_bad_export_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    std::fs::remove_dir_all(dir.path().join(DATABASE_DIR)).unwrap();
    let store = StateStore::open(dir.path(), 0, metrics()).await.unwrap();
    assert_eq!(silences(&store), expected());
    store.close().await;
    std::fs::remove_dir_all(dir.path().join(DATABASE_DIR)).unwrap();
    let export = dir.path().join(EXPORT_FILE);
    let mut bytes = std::fs::read(&export).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&export, bytes).unwrap();
    let store = reopened(dir.path()).await;
    assert_eq!(silences(&store), []);
    store.close().await;
}

/// A file system of its own with `size`; `None` where the tests may not mount one.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(dir.path())
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { dir });
        }
        eprintln!("SKIPPED: a full disk needs a tmpfs, and this user may not mount one");
        None
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn filler(&self) -> PathBuf {
        self.dir.path().join("filler")
    }

    /// Takes all room that is left.
    fn fill(&self) {
        use std::io::Write as _;
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(self.filler()).unwrap();
        for block in [4096, 1] {
            while file.write_all(&vec![7; block]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the database may still be open when a test fails.
        let _ = std::process::Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

fn log_change(key: &str, value: &str) -> Change {
    Change { table: Table::NotificationLog, key: key.to_owned(), value: Some(value.to_owned()) }
}

/// Writes until the disk refuses; gives the number of the refused write.
async fn write_until_refused(store: &StateStore) -> usize {
    for i in 0..2000 {
        if store.write(vec![change(&format!("big{i}"), Some(&noise(i)))]).await.is_err() {
            return i;
        }
    }
    panic!("a full disk takes everything");
}

/// Text that no compression makes small.
fn noise(seed: usize) -> String {
    (0..512u64)
        .map(|i| format!("{:016x}", xxhash_rust::xxh3::xxh3_64_with_seed(&i.to_le_bytes(), seed as u64)))
        .collect()
}

/// A full disk is over when it has room again, without a restart. What was refused does not come back; what was kept
/// has followed.
#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_when_a_full_disk_has_room_again() {
    let Some(disk) = SmallDisk::mount("12m") else { return };
    let counters = metrics();
    let store = StateStore::open(&disk.state(), 0, counters.clone()).await.unwrap();
    store.write(vec![change("a", Some("1"))]).await.unwrap();
    disk.fill();
    let refused = write_until_refused(&store).await;
    assert_eq!(counters.durable.get(), 0);
    assert!(store.keep(vec![log_change("kept", &noise(9999))]).await.is_err());
    assert_eq!(store.entries(Table::NotificationLog)[0].0, "kept");
    disk.free();
    store.write(vec![change("c", Some("3"))]).await.unwrap();
    assert_eq!(counters.durable.get(), 1);
    assert!(counters.reopens.get() > 0);
    let before = silences(&store);
    assert!(before.iter().all(|(key, _)| *key != format!("big{refused}")));
    assert_eq!(before.len(), refused + 2);
    store.close().await;
    std::fs::remove_file(disk.state().join(EXPORT_FILE)).unwrap();
    let store = StateStore::open(&disk.state(), 0, counters).await.unwrap();
    assert_eq!(silences(&store), before);
    assert_eq!(store.entries(Table::NotificationLog)[0].0, "kept");
    store.close().await;
}

/// The server starts on a full disk with what the export has; nothing is moved. With room again the database is read
/// after all, and what only that had is there.
#[tokio::test(flavor = "multi_thread")]
async fn starts_on_a_full_disk() {
    let Some(disk) = SmallDisk::mount("12m") else { return };
    filled(&disk.state()).await;
    // The database is ahead of the export.
    let export = std::fs::read(disk.state().join(EXPORT_FILE)).unwrap();
    let store = StateStore::open(&disk.state(), 0, metrics()).await.unwrap();
    store.write(vec![change("late", Some("4"))]).await.unwrap();
    store.close().await;
    std::fs::write(disk.state().join(EXPORT_FILE), export).unwrap();
    disk.fill();
    let counters = metrics();
    let store = StateStore::open(&disk.state(), 0, counters.clone()).await.unwrap();
    assert_eq!(silences(&store), expected());
    assert_eq!(counters.durable.get(), 0);
    let refused = store.write(vec![change("z", Some("5"))]).await.unwrap_err();
    assert!(refused.to_string().contains("No space left"), "{refused}");
    assert!(store.keep(vec![log_change("kept", "1")]).await.is_err());
    // An attempt that fails leaves things that sled takes for damage in the next one.
    assert!(store.write(vec![change("z", Some("5"))]).await.is_err());
    assert_eq!(counters.rebuilds.get(), 0);
    disk.free();
    // Without anybody's write: the store tries by itself.
    tokio::time::timeout(Duration::from_secs(10), store.adopted()).await.unwrap();
    assert_eq!(counters.durable.get(), 1);
    let mut want = expected();
    want.push(("late".to_owned(), "4".to_owned()));
    assert_eq!(silences(&store), want);
    store.close().await;
    let store = StateStore::open(&disk.state(), 0, counters.clone()).await.unwrap();
    assert_eq!(silences(&store), want);
    assert_eq!(store.entries(Table::NotificationLog), [("kept".to_owned(), "1".to_owned())]);
    assert_eq!(counters.rebuilds.get(), 0);
    store.close().await;
}

/// A directory that cannot be made now may be usable later: no mount is needed for this one.
#[tokio::test(start_paused = true)]
async fn goes_on_trying_to_open() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&link, &link).unwrap();
    let counters = metrics();
    let store = StateStore::open(&link.join("state"), 0, counters.clone()).await.unwrap();
    assert!(store.write(vec![change("a", Some("1"))]).await.is_err());
    assert!(store.keep(vec![log_change("kept", "1")]).await.is_err());
    assert_eq!((silences(&store), counters.durable.get()), (Vec::new(), 0));
    std::fs::remove_file(&link).unwrap();
    store.adopted().await;
    assert_eq!(counters.durable.get(), 1);
    store.write(vec![change("a", Some("2"))]).await.unwrap();
    store.close().await;
    let store = StateStore::open(&link.join("state"), 0, counters).await.unwrap();
    assert_eq!(silences(&store), [("a".to_owned(), "2".to_owned())]);
    assert_eq!(store.entries(Table::NotificationLog).len(), 1);
    store.close().await;
}

/// After refused writes only the export has what is kept in memory.
#[tokio::test]
async fn a_newer_export_wins_over_a_readable_database() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let mut state = read_export(dir.path()).unwrap().unwrap();
    assert_eq!(state.generation, 2);
    state.change(&change("a", None));
    state.change(&change("d", Some("9")));
    // Of the same generation: the database wins.
    write_export(dir.path(), &state).unwrap();
    let store = StateStore::open(dir.path(), 0, metrics()).await.unwrap();
    assert_eq!(silences(&store), expected());
    store.close().await;
    state.generation = 4;
    write_export(dir.path(), &state).unwrap();
    for _ in 0..2 {
        let store = StateStore::open(dir.path(), 0, metrics()).await.unwrap();
        assert_eq!(silences(&store), [("c".to_owned(), "3".to_owned()), ("d".to_owned(), "9".to_owned())]);
        store.close().await;
        std::fs::remove_file(dir.path().join(EXPORT_FILE)).unwrap();
    }
}

/// What is written together is there together: a reader of the log cut at any byte sees both or neither.
#[tokio::test]
async fn writes_are_all_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = StateStore::open(dir.path(), 0, metrics()).await.unwrap();
    store.write(vec![change("a", Some("1")), log_change("b", "2")]).await.unwrap();
    store.close().await;
    let file = dir.path().join(DATABASE_DIR).join("db");
    let whole = std::fs::read(&file).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let (mut none, mut both) = (0, 0);
    for cut in (0..=used).rev().step_by(used.div_ceil(150)) {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(&dir.path().join(DATABASE_DIR), &copy.path().join(DATABASE_DIR));
        let mut bytes = whole.clone();
        bytes[cut..].fill(0);
        std::fs::write(copy.path().join(DATABASE_DIR).join("db"), bytes).unwrap();
        let store = StateStore::open(copy.path(), 0, metrics()).await.unwrap();
        match (silences(&store).len(), store.entries(Table::NotificationLog).len()) {
            (0, 0) => none += 1,
            (1, 1) => both += 1,
            half => panic!("cut at {cut} of {used}: {half:?}"),
        }
        store.close().await;
    }
    assert!(none > 0 && both > 0, "{none} {both}");
}

/// A damaged database cannot be rebuilt on a full disk: it stays where it is until it can.
#[tokio::test(flavor = "multi_thread")]
async fn damage_on_a_full_disk_waits_for_room() {
    let Some(disk) = SmallDisk::mount("12m") else { return };
    filled(&disk.state()).await;
    std::fs::write(disk.state().join(DATABASE_DIR).join("conf"), b"this is no configuration of sled")
        .unwrap();
    disk.fill();
    let counters = metrics();
    let store = StateStore::open(&disk.state(), 7, counters.clone()).await.unwrap();
    assert!(store.write(vec![change("z", Some("5"))]).await.is_err());
    assert_eq!((silences(&store), counters.rebuilds.get(), counters.durable.get()), (expected(), 0, 0));
    assert_eq!(std::fs::read_dir(disk.state()).unwrap().count(), 2);
    disk.free();
    store.write(vec![change("z", Some("5"))]).await.unwrap();
    assert_eq!((silences(&store).len(), counters.rebuilds.get(), counters.durable.get()), (3, 1, 1));
    store.close().await;
}
