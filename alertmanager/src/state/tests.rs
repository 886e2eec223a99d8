//! What survives: clean closes, kills, damage of either file.

use super::export::{read_export, seal, write_export};
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
    let tables = read_export(dir.path()).unwrap().unwrap();
    assert_eq!(tables[&Table::Silences]["a"], "1");
    assert!(tables[&Table::NotificationLog].is_empty());
    write_export(dir.path(), &tables).unwrap();
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
    write_export(dir.path(), &tables).unwrap();
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
    let store = StateStore::open(dir.path(), 0, metrics()).await.unwrap();
    assert_eq!(silences(&store), []);
    store.close().await;
}
