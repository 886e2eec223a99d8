//! Deletions from blocks.

use super::*;

#[test]
fn deletions_hide_and_stay() {
    let fs = FaultyFs::new();
    let mut series = usual();
    write(&fs, &series, options()).unwrap();
    let block = open(&fs).unwrap();
    assert!(!block.has_tombstones());
    let scan_before = block.scan();
    block.delete([(3, TimeRange::new(10_000, 60_000)), (5, TimeRange::ALL)]).unwrap();
    block.delete([(3, TimeRange::new(55_000, 70_000)), (3, TimeRange::new(0, 0))]).unwrap();
    assert!(block.has_tombstones());
    drop(scan_before);
    series[3].retain(|t| !(10_000..=70_000).contains(&t) && t != 0);
    series[5].clear();
    let mut want = expected(&series);
    want.insert(labels(5).to_string(), Vec::new());
    for block in [&block, &open(&fs).unwrap()] {
        assert_eq!(block.tombstones().len(), 3);
        assert_eq!(scanned(block).unwrap(), want);
        assert_eq!(all_read(block).unwrap(), want);
        assert_eq!(block.verify(), []);
    }
    block.delete([(30, TimeRange::ALL)]).unwrap();
    assert!(block.verify()[0].what.contains("tombstone of series 30"));
}

#[test]
fn a_failed_deletion_hides_nothing() {
    let fs = FaultyFs::new();
    let series = usual();
    write(&fs, &series, options()).unwrap();
    let block = open(&fs).unwrap();
    for at in 0..4 {
        fs.fail_at(Some(Fault { at: fs.operations() + at, times: 1, kind: FaultKind::NoSpace }));
        assert!(block.delete([(3, TimeRange::ALL)]).is_err(), "{at}");
        assert_eq!(all_read(&block).unwrap(), expected(&series));
    }
    fs.fail_at(None);
    block.delete([(3, TimeRange::ALL)]).unwrap();
    assert_eq!(read(&block, 3, TimeRange::ALL).unwrap(), Vec::<String>::new());
    assert!(!fs.paths().iter().any(|path| path.ends_with("tombstones.tmp")));
}
