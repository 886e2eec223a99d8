//! What is written is read, in as few bytes as it should take.

use super::*;

#[test]
fn a_block_of_a_later_level_gives_back_what_it_was_given() {
    let series = usual();
    for options in [
        BlockOptions::for_level(2),
        BlockOptions {
            batch_series: 4,
            chunk_samples: 20,
            chunk_histograms: 8,
            ..BlockOptions::for_level(2)
        },
    ] {
        let fs = FaultyFs::new();
        write(&fs, &series, options).unwrap().unwrap();
        let block = open(&fs).unwrap();
        assert_eq!(block.verify(), []);
        assert_eq!(scanned(&block).unwrap(), expected(&series));
        assert_eq!(all_read(&block).unwrap(), expected(&series));
    }
}

#[test]
fn a_block_gives_back_what_it_was_given() {
    let fs = FaultyFs::new();
    let series = usual();
    let meta = write(&fs, &series, options()).unwrap().unwrap();
    let block = open(&fs).unwrap();
    assert_eq!(block.meta(), &meta);
    assert_eq!(meta.stats.num_series, 30);
    assert_eq!(meta.stats.num_samples, series.iter().map(|columns| columns.len() as u64).sum::<u64>());
    assert_eq!(meta.compaction.sources, [ID]);
    let size: usize = fs.paths().iter().filter_map(|path| fs.read(path)).map(|bytes| bytes.len()).sum();
    assert_eq!(block.size_bytes(), size as u64);
    assert_eq!(scanned(&block).unwrap(), expected(&series));
    assert_eq!(all_read(&block).unwrap(), expected(&series));
    assert_eq!(block.verify(), []);
    let found = block.index().select(&[model::matcher::Matcher::equal("pod", "003")]).unwrap();
    assert_eq!(found.len(), 4);
}

/// The buckets of classic histograms, whose order of labels is not that of their bounds, with gaps and restarts.
#[test]
fn buckets_are_counted_against_each_other() {
    let bounds = ["+Inf", "0.1", "1", "10", "2", "5", "7"];
    let mut all: Vec<(Labels, Columns)> = Vec::new();
    for (place, le) in bounds.iter().enumerate() {
        for (m, method) in ["GET", "PUT", "x"].iter().enumerate() {
            let mut columns = Columns::default();
            let rank = if place == 0 { 9 } else { place as i64 };
            let mut common = 0;
            for i in 0..300i64 {
                // Most of what is observed is below the smallest bound, and comes by chance; then it starts again.
                common = if i == 200 { 0 } else { common + ((i * 2_654_435_761 + m as i64) >> 7) % 5000 };
                if m == 1 && place == 3 && i % 11 == 0 {
                    continue;
                }
                columns.push_float(i * 1000, (common + rank * (i % 200 / 10)) as f64, 0);
            }
            let labels = Labels::from_pairs([("__name__", "d_bucket"), ("le", *le), ("method", *method)]);
            all.push((labels, columns));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let build = |bucket_chain: usize| {
        let fs = FaultyFs::new();
        let shared: Arc<dyn FileSystem> = Arc::new(fs.clone());
        let options = BlockOptions { bucket_chain, ..BlockOptions::for_level(1) };
        let mut writer = BlockWriter::create(&shared, data_dir(), ID, options).unwrap();
        all.iter().for_each(|(labels, columns)| writer.add(labels, columns).unwrap());
        let (_, parts) = writer.finish_with_parts(made(0, 1_000_000)).unwrap().unwrap();
        let block = open(&fs).unwrap();
        assert_eq!(block.verify(), []);
        let want: Content = all.iter().map(|(labels, columns)| (labels.to_string(), text(columns))).collect();
        assert_eq!(scanned(&block).unwrap(), want);
        assert_eq!(all_read(&block).unwrap(), want);
        parts.samples
    };
    let (alone, against) = (build(1), build(4));
    assert!(against * 10 < alone * 9, "{against} of {alone}");
}

/// A series that repeats another one, batches away, refers to its chunks; tombstones and times stay its own.
#[test]
fn equal_chunks_are_stored_once() {
    let count = |rank: i64| {
        let mut columns = Columns::default();
        (0..200i64).for_each(|i| columns.push_float(i * 1000, (i * i * (rank + 3) % 1009) as f64, 0));
        columns
    };
    let name = |name: &str, extra: &[(&str, String)]| {
        let pairs = extra.iter().map(|(k, v)| (*k, v.clone())).chain([("__name__", name.to_owned())]);
        Labels::from_pairs(pairs)
    };
    let mut all: Vec<(Labels, Columns)> = Vec::new();
    for n in 0..20i64 {
        for le in ["1", "2", "+Inf"] {
            let extra = [("n", format!("{n:02}")), ("le", le.to_owned())];
            all.push((
                name("h_bucket", &extra),
                count(if le == "+Inf" { n } else { 100 + n * le.len() as i64 }),
            ));
        }
        all.push((name("h_count", &[("n", format!("{n:02}"))]), count(n)));
        // The same values at other times.
        let mut shifted = Columns::default();
        count(n).values.iter().zip(0..).for_each(|(v, i)| shifted.push_float(i * 1000 + 7, *v, 0));
        all.push((name("i_count", &[("n", format!("{n:02}"))]), shifted));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let size = |all: &[(Labels, Columns)]| {
        let fs = FaultyFs::new();
        let shared: Arc<dyn FileSystem> = Arc::new(fs.clone());
        let options = BlockOptions { chunk_samples: 60, ..options() };
        let mut writer = BlockWriter::create(&shared, data_dir(), ID, options).unwrap();
        all.iter().for_each(|(labels, columns)| writer.add(labels, columns).unwrap());
        let (meta, parts) = writer.finish_with_parts(made(0, 1_000_000)).unwrap().unwrap();
        let block = open(&fs).unwrap();
        assert_eq!(block.verify(), []);
        assert_eq!(meta.stats.num_samples as usize, all.len() * 200);
        let want: Content = all.iter().map(|(labels, columns)| (labels.to_string(), text(columns))).collect();
        assert_eq!(scanned(&block).unwrap(), want);
        assert_eq!(all_read(&block).unwrap(), want);
        let series = all.iter().position(|(labels, _)| labels.get("__name__") == Some("h_count")).unwrap();
        let mut part = Columns::default();
        block.read(series as u32, TimeRange::new(70_000, 90_000), &mut part).unwrap();
        assert_eq!((part.times.len(), part.times[0], part.values[0]), (21, 70_000, all[series].1.values[70]));
        block.delete([(series as u32, TimeRange::new(0, 100_000))]).unwrap();
        let mut rest = Columns::default();
        block.read(series as u32, TimeRange::ALL, &mut rest).unwrap();
        assert_eq!(rest.times.first(), Some(&101_000));
        // The chunks are still there for whoever else has them.
        let other = all.iter().position(|(_, columns)| columns.values == all[series].1.values).unwrap();
        rest.clear();
        block.read(other as u32, TimeRange::ALL, &mut rest).unwrap();
        assert_eq!(rest.times.len(), if other == series { 99 } else { 200 });
        parts.samples
    };
    let equal = size(&all);
    for (labels, columns) in &mut all {
        if labels.get("__name__") == Some("h_count") {
            columns.values.iter_mut().for_each(|value| *value = 1009.0 - *value);
        }
    }
    let other = size(&all);
    assert!(equal * 10 < other * 9, "{equal} and {other}");
}

/// Series with equal times have one column between them, and those with gaps use it.
#[test]
fn equal_times_are_stored_once() {
    let fs: Arc<dyn FileSystem> = Arc::new(FaultyFs::new());
    let mut writer = BlockWriter::create(&fs, data_dir(), ID, options()).unwrap();
    for n in 0..50 {
        let mut columns = Columns::default();
        for i in (0..20i64).filter(|i| n % 5 != 3 || i % 7 != 2) {
            columns.push_float(i * 1000 + (i * i) % 13, n as f64, 0);
        }
        writer.add(&labels(n), &columns).unwrap();
    }
    let (_, parts) = writer.finish_with_parts(made(0, 100_000)).unwrap().unwrap();
    assert_eq!(parts.time_columns, 1, "{parts:?}");
}

#[test]
fn nothing_makes_no_block() {
    let fs = FaultyFs::new();
    assert_eq!(write(&fs, &[Columns::default(), Columns::default()], options()).unwrap(), None);
    assert_eq!(fs.paths(), Vec::<PathBuf>::new());
    assert_eq!(fs.list_dirs(data_dir()).unwrap(), Vec::<String>::new());
}

#[test]
fn many_files_are_one_block() {
    let fs = FaultyFs::new();
    let series = usual();
    write(&fs, &series, BlockOptions { file_bytes_max: 1500, ..options() }).unwrap();
    assert!(fs.list(&dir().join(CHUNKS_DIR)).unwrap().len() > 5);
    let block = open(&fs).unwrap();
    assert_eq!(scanned(&block).unwrap(), expected(&series));
    assert_eq!(block.verify(), []);
}

#[test]
fn reads_go_through_the_cache_and_scans_do_not() {
    let fs = FaultyFs::new();
    write(&fs, &usual(), options()).unwrap();
    let shared: Arc<dyn FileSystem> = Arc::new(fs.clone());
    let cache = BlockCache::new(1 << 20);
    let block = Block::open(&shared, &dir(), &cache).unwrap();
    read(&block, 3, TimeRange::ALL).unwrap();
    let before = fs.reads();
    read(&block, 3, TimeRange::ALL).unwrap();
    assert_eq!(fs.reads(), before, "all of it is in the cache");
    drop(block);
    assert_eq!(cache.stats().entries, 0, "nothing of a closed block stays");
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        (-50i64..50).prop_map(|v| v as f64),
        (0i64..1000).prop_map(|v| v as f64 / 100.0),
        Just(f64::from_bits(STALE_NAN_BITS)),
        Just(-0.0),
    ]
}

prop_compose! {
    /// Times of a few targets; each series takes those of one, all or some.
    fn any_series()(
        targets in prop::collection::vec(prop::collection::btree_set(0i64..2000, 1..120), 1..4),
        series in prop::collection::vec(
            (any::<prop::sample::Index>(), 0u8..6, prop::collection::vec(value(), 1..20), prop::collection::btree_set(0i64..2000, 0..10)),
            0..60,
        ),
        scale in prop_oneof![Just(1i64), Just(15), Just(1000)],
    ) -> Vec<Columns> {
        series.into_iter().map(|(target, kind, values, histograms)| {
            let times = &targets[target.index(targets.len())];
            let mut columns = Columns::default();
            for (i, t) in times.iter().enumerate() {
                if kind == 1 && i % 3 == 0 || kind == 2 && i < 10 {
                    continue;
                }
                let start = if kind == 3 && i > 5 { t - 1 } else { 0 };
                columns.push_float(t * scale, values[i % values.len()], start);
            }
            for t in histograms.iter().filter(|_| kind >= 4) {
                columns.push_histogram(t * scale, histogram(*t), if kind == 5 { *t } else { 0 });
            }
            columns
        }).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn blocks_agree_with_what_they_were_given(
        series in any_series(),
        batch_series in 1usize..10,
        chunk_samples in 1usize..60,
        lz4 in any::<bool>(),
        asked in prop::collection::vec((any::<prop::sample::Index>(), -10i64..2_100_000, 0i64..1_000_000), 0..20),
        dead in prop::collection::vec((any::<prop::sample::Index>(), -10i64..2_100_000, 0i64..300_000), 0..4),
    ) {
        let fs = FaultyFs::new();
        let compression = if lz4 { Compression::Lz4 } else { Compression::Zstd(1) };
        let options = BlockOptions { batch_series, chunk_samples, compression, ..options() };
        let meta = write(&fs, &series, options).unwrap();
        let mut stored: Vec<(Labels, Columns)> =
            series.into_iter().enumerate().map(|(n, columns)| (labels(n), columns)).filter(|(_, columns)| !columns.is_empty()).collect();
        prop_assert_eq!(meta.is_some(), !stored.is_empty());
        if stored.is_empty() {
            return Ok(());
        }
        let block = open(&fs).unwrap();
        prop_assert_eq!(block.verify(), []);
        let content = |stored: &[(Labels, Columns)]| -> Content {
            stored.iter().map(|(labels, columns)| (labels.to_string(), text(columns))).collect()
        };
        prop_assert_eq!(scanned(&block).unwrap(), content(&stored));
        let dead: Vec<(u32, TimeRange)> = dead.iter().map(|(n, from, len)| {
            (n.index(stored.len()) as u32, TimeRange::new(*from, from + len))
        }).collect();
        block.delete(dead.iter().copied()).unwrap();
        for (series, range) in &dead {
            stored[*series as usize].1.retain(|t| !range.contains(t));
        }
        prop_assert_eq!(scanned(&block).unwrap(), content(&stored));
        for (n, from, len) in asked {
            let n = n.index(stored.len());
            let range = TimeRange::new(from, from + len);
            let mut want = stored[n].1.clone();
            want.clip(|t| range.contains(t));
            prop_assert_eq!(read(&block, n as u32, range).unwrap(), text(&want));
        }
    }
}

/// The document's example is what we write, and we read it.
#[test]
fn the_example_of_the_document_is_true() {
    let mut columns = Columns::default();
    columns.push_float(1000, 1.0, 0);
    columns.push_float(2000, 2.0, 0);
    columns.push_float(3000, 3.0, 0);
    let fs = FaultyFs::new();
    let series = [columns.clone(), columns];
    write(&fs, &series, BlockOptions { compression: Compression::None, ..options() }).unwrap();
    let path = dir().join(CHUNKS_DIR).join("000001");
    let written = fs.read(&path).unwrap();
    let hex: String = written.iter().map(|b| format!("{b:02x} ")).collect();
    let example = example(include_str!("../../../../docs/formats/block.md"));
    assert_eq!(example, written, "written: {hex}");
    fs.write(&path, example);
    assert_eq!(scanned(&open(&fs).unwrap()).unwrap(), expected(&series));
}

/// The document's second example: a batch whose series are those of the batch before.
#[test]
fn the_example_of_a_reference_to_another_batch_is_true() {
    let mut columns = Columns::default();
    (0..32).for_each(|n| columns.push_float(1000 + n * 1000, n as f64, 0));
    let fs = FaultyFs::new();
    let series = [columns.clone(), columns];
    let options =
        BlockOptions { compression: Compression::None, batch_series: 1, ..BlockOptions::for_level(1) };
    write(&fs, &series, options).unwrap();
    let path = dir().join(CHUNKS_DIR).join("000001");
    let written = fs.read(&path).unwrap();
    let hex: String = written.iter().map(|b| format!("{b:02x} ")).collect();
    let example = example_at(include_str!("../../../../docs/formats/block.md"), 1);
    assert_eq!(example, written, "written: {hex}");
    fs.write(&path, example);
    assert_eq!(scanned(&open(&fs).unwrap()).unwrap(), expected(&series));
}
