//! Failing disks, flipped bits, losses of power.

use super::*;

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let fs = FaultyFs::new();
    let shared: Arc<dyn FileSystem> = Arc::new(fs.clone());
    let mut writer = BlockWriter::create(&shared, data_dir(), ID, options()).unwrap();
    for (n, columns) in usual().iter().enumerate() {
        writer.add(&labels(n), columns).unwrap();
    }
    drop(writer);
    assert_eq!(fs.paths(), Vec::<PathBuf>::new());
}

#[test]
fn every_operation_may_fail_once_and_nothing_is_left() {
    let series = usual();
    for kind in [FaultKind::Io, FaultKind::NoSpace] {
        let mut failed = 0;
        for at in 0.. {
            let fs = FaultyFs::new();
            fs.create_dir_all(data_dir()).unwrap();
            fs.fail_at(Some(Fault { at: fs.operations() + at, times: 1, kind }));
            let done = write(&fs, &series, BlockOptions { file_bytes_max: 4000, ..options() });
            if let Ok(meta) = done {
                // The fault was never met.
                assert!(meta.is_some());
                break;
            }
            failed += 1;
            assert_eq!(fs.paths(), Vec::<PathBuf>::new(), "{kind:?} at {at}");
            assert_eq!(fs.list_dirs(data_dir()).unwrap(), Vec::<String>::new(), "{kind:?} at {at}");
        }
        assert!(failed > 10, "{failed}");
    }
}

/// The process and the machine die at every operation: the block is there as a whole, or not.
#[test]
fn after_a_loss_of_power_it_is_whole_or_absent() {
    let series = usual();
    let (mut absent, mut whole) = (0, 0);
    for at in 0.. {
        let fs = FaultyFs::new();
        fs.create_dir_all(data_dir()).unwrap();
        let first = fs.operations();
        fs.fail_at(Some(Fault { at: first + at, times: u64::MAX, kind: FaultKind::Io }));
        let done = write(&fs, &series, BlockOptions { file_bytes_max: 4000, ..options() });
        for seed in 0..6 {
            let after = if seed < 5 { fs.lose_power_unevenly(seed) } else { fs.lose_power(128) };
            after.fail_at(None);
            if after.paths().iter().any(|path| path.starts_with(dir())) {
                whole += 1;
                let block = open(&after).unwrap();
                assert_eq!(block.verify(), [], "at {at}, seed {seed}");
                assert_eq!(scanned(&block).unwrap(), expected(&series));
            } else {
                assert!(done.is_err(), "acknowledged and lost: at {at}, seed {seed}");
                absent += 1;
            }
        }
        if done.is_ok() {
            break;
        }
    }
    assert!(absent > 50 && whole > 5, "{absent} {whole}");
}

#[test]
fn reads_that_fail_are_errors_and_no_more() {
    let fs = FaultyFs::new();
    let series = usual();
    write(&fs, &series, options()).unwrap();
    for at in 0.. {
        fs.fail_reads_at(None);
        let block = open(&fs).unwrap();
        fs.fail_reads_at(Some(Fault { at: fs.reads() + at, times: 1, kind: FaultKind::Io }));
        let got = scanned(&block);
        fs.fail_reads_at(None);
        match got {
            Ok(content) => {
                assert_eq!(content, expected(&series));
                assert!(at > 20, "{at}");
                break;
            }
            Err(error) => assert!(matches!(error, StorageError::Io { .. }), "{error}"),
        }
        assert_eq!(all_read(&block).unwrap(), expected(&series), "a failed read is not remembered");
    }
}

/// Each byte of each file (a few bits of it): found by verification, and never a wrong answer.
#[test]
fn flipped_bits_are_found_and_give_no_wrong_answers() {
    let fs = FaultyFs::new();
    let series: Vec<Columns> = usual().into_iter().take(12).collect();
    write(&fs, &series, options()).unwrap();
    let want = expected(&series);
    let ranges = [TimeRange::new(20_000, 40_000)];
    let part = read(&open(&fs).unwrap(), 5, ranges[0]).unwrap();
    let mut flips = 0usize;
    for path in fs.paths() {
        let bytes = fs.read(&path).unwrap();
        for place in 0..bytes.len() {
            // In large files, some bytes.
            if bytes.len() > 600 && place % 7 != 0 && place > 64 && place + 64 < bytes.len() {
                continue;
            }
            let mut bytes = bytes.clone();
            bytes[place] ^= 1 << ((place * 5 + flips) % 8);
            flips += 1;
            fs.write(&path, bytes);
            let at = format!("{} byte {place}", path.display());
            let block = match open(&fs) {
                Ok(block) => block,
                Err(StorageError::Corrupted { file, .. }) => {
                    assert!(file == path || file.starts_with(dir()), "{at}");
                    continue;
                }
                Err(error) => panic!("{at}: {error}"),
            };
            let damage = block.verify();
            assert!(damage.iter().any(|damage| damage.file == path), "{at}: {damage:?}");
            match scanned(&block) {
                Ok(content) => assert_eq!(content, want, "{at}"),
                Err(StorageError::Corrupted { file, .. }) => assert_eq!(file, path, "{at}"),
                Err(error) => panic!("{at}: {error}"),
            }
            for n in 0..block.index().series() {
                match read(&block, n, TimeRange::ALL) {
                    Ok(samples) => assert_eq!(samples, want[&labels(n as usize).to_string()], "{at}"),
                    Err(StorageError::Corrupted { file, .. }) => assert_eq!(file, path, "{at}"),
                    Err(error) => panic!("{at}: {error}"),
                }
            }
            if let Ok(samples) = read(&block, 5, ranges[0]) {
                assert_eq!(samples, part, "{at}");
            }
        }
        fs.write(&path, bytes);
    }
    assert!(flips > 800, "{flips}");
    assert_eq!(open(&fs).unwrap().verify(), []);
}

/// A damaged frame costs the reads that need it, and they name it.
#[test]
fn damage_is_contained() {
    let fs = FaultyFs::new();
    let series = usual();
    write(&fs, &series, options()).unwrap();
    let path = dir().join(CHUNKS_DIR).join("000001");
    let mut bytes = fs.read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs.write(&path, bytes);
    let block = open(&fs).unwrap();
    let damage = block.verify();
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert!(damage[0].file == path && damage[0].offset <= middle as u64, "{damage:?}");
    let want = expected(&series);
    let (mut good, mut bad) = (0, 0);
    for n in 0..30 {
        match read(&block, n, TimeRange::ALL) {
            Ok(samples) => {
                assert_eq!(samples, want[&labels(n as usize).to_string()]);
                good += 1;
            }
            Err(StorageError::Corrupted { file, offset, .. }) => {
                assert_eq!((file, offset), (path.clone(), damage[0].offset));
                bad += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!((1..=4).contains(&bad), "one batch at most: {good} {bad}");
    // A scan goes on behind it.
    let mut scan = block.scan();
    let (mut labels, mut columns) = (Labels::empty(), Columns::default());
    let (mut scanned, mut failed) = (0, 0);
    loop {
        match scan.next(&mut labels, &mut columns) {
            Ok(true) => scanned += 1,
            Ok(false) => break,
            Err(_) => failed += 1,
        }
    }
    assert_eq!((scanned, failed), (good, bad));
}

#[test]
fn files_that_are_cut_or_missing_are_named() {
    let fs = FaultyFs::new();
    write(&fs, &usual(), BlockOptions { file_bytes_max: 4000, ..options() }).unwrap();
    for path in fs.paths() {
        let bytes = fs.read(&path).unwrap();
        for len in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            fs.write(&path, bytes[..len].to_vec());
            let named = match open(&fs) {
                Ok(block) => block.verify().iter().any(|damage| damage.file == path),
                Err(StorageError::Corrupted { file, .. }) => file == path,
                Err(error) => panic!("{error}"),
            };
            assert!(named, "{} cut to {len}", path.display());
        }
        fs.remove(&path).unwrap();
        let named = match open(&fs) {
            Ok(block) => block.verify().iter().any(|damage| damage.file == path),
            Err(StorageError::Corrupted { file, .. }) => file == path,
            Err(StorageError::Io { path: file, .. }) => file == path,
            Err(error) => panic!("{error}"),
        };
        assert!(named, "{} removed", path.display());
        fs.write(&path, bytes);
    }
    assert_eq!(open(&fs).unwrap().verify(), []);
}

#[test]
fn bytes_that_belong_to_nobody_are_named() {
    let fs = FaultyFs::new();
    write(&fs, &usual(), options()).unwrap();
    let path = dir().join(CHUNKS_DIR).join("000001");
    let mut bytes = fs.read(&path).unwrap();
    let end = bytes.len() as u64;
    crate::frame::encode_frame(&[b"stray"], Compression::None, &mut bytes);
    bytes.extend_from_slice(b"rubbish");
    fs.write(&path, bytes);
    let damage = open(&fs).unwrap().verify();
    assert_eq!(damage.len(), 2, "{damage:?}");
    assert!(damage[0].offset == end && damage[0].what.contains("no directory"), "{damage:?}");
}

#[test]
fn blocks_of_another_version_are_refused_by_name() {
    let fs = FaultyFs::new();
    let mut meta = write(&fs, &usual(), options()).unwrap().unwrap();
    meta.version = 2;
    meta.format = "nilometer-block/2".to_owned();
    fs.write(&dir().join(META_FILE), meta.encode());
    let error = open(&fs).unwrap_err().to_string();
    assert!(error.contains("meta.json") && error.contains("version 2"), "{error}");
}
