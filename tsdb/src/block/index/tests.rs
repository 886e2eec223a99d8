use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use model::labels::Labels;
use model::matcher::{MatchOp, Matcher};
use model::storage::StorageError;
use proptest::prelude::*;

use super::*;
use crate::block::Damage;
use crate::cache::BlockCache;
use crate::fs::{FaultyFs, FileSystem};
use crate::index::Catalogue;
use crate::index::tests::matcher;

const PATH: &str = "/data/index";

fn chunks_of(series: usize) -> Vec<u8> {
    (0..series % 7).map(|byte| (byte * series) as u8).collect()
}

fn write(mut writer: IndexWriter, series: &[Labels]) -> FaultyFs {
    let fs = FaultyFs::new();
    fs.create_dir_all(Path::new("/data")).unwrap();
    let mut file = fs.create(Path::new(PATH)).unwrap();
    for (number, labels) in series.iter().enumerate() {
        writer.add(labels, &chunks_of(number)).unwrap();
        if number % 100 == 99 {
            writer.flush_to(&mut *file).unwrap();
        }
    }
    assert_eq!(writer.finish(&mut *file).unwrap(), fs.len(Path::new(PATH)).unwrap());
    fs
}

fn open(fs: &FaultyFs) -> Result<IndexReader, StorageError> {
    IndexReader::open(fs, PathBuf::from(PATH), BlockCache::new(1 << 20))
}

fn verify(reader: &IndexReader) -> Vec<Damage> {
    let mut damage = Vec::new();
    reader.verify(&mut damage);
    damage
}

fn regex(op: MatchOp, name: &str, value: &str) -> Matcher {
    Matcher::new(op, name, value).unwrap()
}

/// As a node exporter has them, in order: 40 targets with 100 metrics each, most with more labels.
fn realistic() -> Vec<Labels> {
    let mut series = Vec::new();
    for target in 0..40 {
        for metric in 0..100 {
            for mode in ["idle", "iowait", "user"].iter().take(1 + metric % 3) {
                let instance = format!("10.0.0.{target}:9100");
                let mut labels = Labels::from_pairs([
                    ("__name__", format!("node_{metric}_total")),
                    ("instance", instance),
                    ("job", "node".into()),
                ]);
                if metric % 3 > 0 {
                    labels = labels.with("mode", mode).with("cpu", &(metric % 8).to_string());
                }
                if metric == 7 {
                    labels = labels.with("id", &format!("/system.slice/é{target}-{metric}.scope"));
                }
                series.push(labels);
            }
        }
    }
    series.sort();
    series
}

fn check(reader: &IndexReader, series: &[Labels], matchers: &[Matcher]) -> Result<(), TestCaseError> {
    let mut catalogue = Catalogue::default();
    series.iter().for_each(|labels| assert!(catalogue.add(labels).is_some()));
    let want: Vec<u32> =
        (0..series.len() as u32).filter(|id| Matcher::all_match(matchers, &series[*id as usize])).collect();
    prop_assert_eq!(reader.select(matchers).unwrap(), want.clone(), "{:?}", matchers);
    prop_assert_eq!(catalogue.select(matchers), want.clone());
    prop_assert_eq!(reader.label_names_of(&want).unwrap(), catalogue.label_names_of(&want));
    for name in reader.label_names() {
        prop_assert_eq!(
            reader.label_values_of(&name, &want).unwrap(),
            catalogue.label_values_of(&name, &want)
        );
    }
    let labels: Vec<Labels> = want.iter().map(|id| series[*id as usize].clone()).collect();
    prop_assert_eq!(reader.labels_of(&want).unwrap(), labels);
    Ok(())
}

#[test]
fn an_index_of_many_pages_answers() {
    let series = realistic();
    let fs = write(IndexWriter::new(), &series);
    let reader = open(&fs).unwrap();
    assert_eq!(reader.series() as usize, series.len());
    assert_eq!(verify(&reader), []);
    let selections = [
        vec![Matcher::equal("__name__", "node_17_total"), Matcher::equal("instance", "10.0.0.7:9100")],
        vec![Matcher::equal("__name__", "node_17_tota")],
        vec![Matcher::equal("instance", "10.0.0.39:9100"), Matcher::not_equal("mode", "idle")],
        vec![Matcher::equal("id", "")],
        vec![Matcher::not_equal("id", "")],
        vec![regex(MatchOp::Regex, "__name__", "node_1.*"), regex(MatchOp::NotRegex, "mode", "idle|user")],
        vec![
            regex(MatchOp::Regex, "__name__", "node_[5-7]+_total"),
            regex(MatchOp::Regex, "instance", ".*1:9100"),
        ],
        vec![regex(MatchOp::Regex, "id", ".*é2.*"), Matcher::equal("job", "node")],
        vec![
            Matcher::equal("__name__", "node_7_total"),
            regex(MatchOp::NotRegex, "id", "/system.slice/é3[0-9].*"),
        ],
        vec![],
    ];
    for matchers in &selections {
        check(&reader, &series, matchers).unwrap();
    }
    let mut cursor = SeriesCursor::new();
    let mut chunks = Vec::new();
    for (number, labels) in series.iter().enumerate() {
        reader.chunks(number as u32, &mut chunks).unwrap();
        assert_eq!(cursor.labels(&reader, number as u32).unwrap(), *labels);
        assert_eq!(chunks, chunks_of(number));
    }
    // In any order.
    for step in 0..series.len() {
        let number = step * 7919 % series.len();
        reader.chunks(number as u32, &mut chunks).unwrap();
        assert_eq!(cursor.labels(&reader, number as u32).unwrap(), series[number]);
        assert_eq!(chunks, chunks_of(number));
        assert_eq!(reader.labels(number as u32).unwrap(), series[number]);
    }
    assert!(matches!(reader.labels(series.len() as u32), Err(StorageError::Corrupted { .. })));
    assert!(reader.size_bytes() < 12 * series.len() as u64, "{} bytes", reader.size_bytes());
    assert!(reader.memory() < 4096, "{} bytes of memory", reader.memory());
}

#[test]
fn every_value_is_found_and_nothing_between() {
    let values: Vec<String> =
        (0..5000).map(|number| format!("{:04}-{}", number * 2, "x".repeat(number % 13))).collect();
    let series: Vec<Labels> =
        values.iter().map(|value| Labels::from_pairs([("a", "same"), ("id", value), ("z", "end")])).collect();
    let reader = open(&write(IndexWriter::new(), &series)).unwrap();
    for (number, value) in values.iter().enumerate() {
        assert_eq!(reader.select(&[Matcher::equal("id", value.as_str())]).unwrap(), [number as u32]);
        let between = format!("{:04}", number * 2 + 1);
        assert_eq!(reader.select(&[Matcher::equal("id", between)]).unwrap(), [0u32; 0]);
        if number % 50 == 0 {
            let prefix = regex(MatchOp::Regex, "id", &format!("{:04}.*", number * 2));
            assert_eq!(reader.select(&[prefix]).unwrap(), [number as u32]);
        }
    }
    assert_eq!(reader.label_values("id").unwrap(), values);
    assert_eq!(reader.label_values("a").unwrap(), ["same"]);
    assert_eq!(reader.label_values("b").unwrap(), [""; 0]);
    assert_eq!(reader.label_names(), ["a", "id", "z"]);
    let hundreds = regex(MatchOp::Regex, "id", "12.*");
    assert_eq!(reader.select(&[hundreds]).unwrap(), (600..650).collect::<Vec<u32>>());
}

#[test]
fn an_index_without_series_is_one() {
    let reader = open(&write(IndexWriter::new(), &[])).unwrap();
    assert_eq!(reader.series(), 0);
    assert_eq!(reader.select(&[]).unwrap(), [0u32; 0]);
    assert_eq!(reader.select(&[Matcher::equal("a", "")]).unwrap(), [0u32; 0]);
    assert_eq!(verify(&reader), []);
    let reader = open(&write(IndexWriter::new(), &[Labels::empty()])).unwrap();
    assert_eq!(reader.select(&[]).unwrap(), [0]);
    assert_eq!(reader.labels(0).unwrap(), Labels::empty());
    assert_eq!(verify(&reader), []);
}

#[test]
#[should_panic(expected = "after")]
fn series_out_of_order_are_our_mistake() {
    let mut writer = IndexWriter::new();
    writer.add(&Labels::from_pairs([("a", "2")]), &[]).unwrap();
    let _ = writer.add(&Labels::from_pairs([("a", "1")]), &[]);
}

#[test]
fn long_values_and_many_labels_are_fine() {
    let long = "v".repeat(100_000);
    let many: Vec<(String, String)> =
        (0..2000).map(|label| (format!("label{label:05}"), format!("{label}"))).collect();
    let mut series = vec![
        Labels::from_pairs([("a", long.as_str()), ("b", "1")]),
        Labels::from_pairs([("a", format!("{long}w"))]),
        Labels::from_pairs(many.clone()),
        Labels::from_pairs(many).with("label00001", "other"),
    ];
    series.sort();
    let reader = open(&write(IndexWriter::new(), &series)).unwrap();
    for (number, labels) in series.iter().enumerate() {
        assert_eq!(reader.labels(number as u32).unwrap(), *labels);
    }
    assert_eq!(reader.select(&[Matcher::equal("a", format!("{long}w"))]).unwrap().len(), 1);
    assert_eq!(verify(&reader), []);
}

/// Numbers and labels.
type Answer = (Vec<u32>, Vec<Labels>);

/// What readers do: answers, or the first error.
fn use_all(reader: &IndexReader, matchers: &[Vec<Matcher>]) -> Result<Vec<Answer>, StorageError> {
    matchers
        .iter()
        .map(|matchers| {
            let ids = reader.select(matchers)?;
            let mut chunks = Vec::new();
            ids.iter().try_for_each(|id| reader.chunks(*id, &mut chunks))?;
            reader.label_names_of(&ids)?;
            reader.label_values_of("mode", &ids)?;
            let labels = reader.labels_of(&ids)?;
            Ok((ids, labels))
        })
        .collect()
}

fn selections() -> Vec<Vec<Matcher>> {
    vec![
        vec![Matcher::equal("__name__", "node_17_total"), Matcher::equal("instance", "10.0.0.7:9100")],
        vec![regex(MatchOp::Regex, "__name__", "node_[34].*"), regex(MatchOp::NotRegex, "mode", "idle|user")],
        vec![Matcher::equal("id", ""), Matcher::equal("cpu", "2")],
    ]
}

#[test]
fn flipped_bits_are_found_and_change_no_answer() {
    let fs = write(IndexWriter::new(), &realistic());
    let bytes = fs.read(Path::new(PATH)).unwrap();
    let want = use_all(&open(&fs).unwrap(), &selections()).unwrap();
    let step = 1601;
    let mut harmless = 0;
    for bit in (0..bytes.len() * 8).step_by(step) {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs.write(Path::new(PATH), damaged);
        let reader = match open(&fs) {
            Ok(reader) => reader,
            Err(StorageError::Corrupted { .. }) => continue,
            Err(other) => panic!("{other}"),
        };
        match use_all(&reader, &selections()) {
            Ok(answers) => {
                assert_eq!(answers, want, "bit {bit}");
                harmless += 1;
            }
            Err(StorageError::Corrupted { file, .. }) => assert_eq!(file, Path::new(PATH)),
            Err(other) => panic!("{other}"),
        }
        if bit % 64 == 0 {
            let damage = verify(&reader);
            let near = damage.iter().any(|damage| damage.offset <= bit as u64 / 8);
            assert!(near, "bit {bit}: {damage:?}");
        }
    }
    assert!(harmless > 0, "damage costs only what needs the page");
}

#[test]
fn a_file_cut_short_or_of_another_version_is_refused() {
    let fs = write(IndexWriter::new(), &realistic()[..50]);
    let bytes = fs.read(Path::new(PATH)).unwrap();
    for len in 0..bytes.len() {
        fs.write(Path::new(PATH), bytes[..len].to_vec());
        assert!(matches!(open(&fs), Err(StorageError::Corrupted { .. })), "{len} bytes");
    }
    let mut other = bytes.clone();
    other[4] = 9;
    fs.write(Path::new(PATH), other);
    assert!(open(&fs).unwrap_err().to_string().contains("version 9 "));
    assert!(matches!(
        IndexReader::open(&fs, "/data/none".into(), BlockCache::new(0)),
        Err(StorageError::Io { .. })
    ));
}

/// Puts other bytes into a page and gives it a checksum that fits.
fn tamper(bytes: &mut [u8], page: Range<u64>, at: usize, with: u8) {
    let page = &mut bytes[page.start as usize..page.end as usize];
    let body = page.len() - 4;
    page[at % body] = with;
    let crc = crc32c::crc32c(&page[..body]);
    page[body..].copy_from_slice(&crc.to_le_bytes());
}

/// An index, and where its pages are.
fn tamperable() -> (Vec<u8>, Vec<Range<u64>>) {
    let fs = write(IndexWriter::uncompressed(), &realistic()[..400]);
    let bytes = fs.read(Path::new(PATH)).unwrap();
    let reader = open(&fs).unwrap();
    let of = |section| {
        let directory = reader.table.directory(section);
        (0..directory.pages()).map(|page| directory.bytes_of(page).unwrap()).collect::<Vec<_>>()
    };
    let sections = [Section::Chunks, Section::Postings, Section::Values, Section::Series];
    let mut pages: Vec<_> = sections.into_iter().flat_map(of).collect();
    let table = reader.table.directory(Section::Series).end()..bytes.len() as u64 - FOOTER_LEN as u64;
    pages.push(table);
    (bytes, pages)
}

#[test]
fn the_example_is_true() {
    let example = crate::block::tests::example(include_str!("../../../../docs/formats/index.md"));
    let series = [
        Labels::from_pairs([("__name__", "up"), ("job", "a")]),
        Labels::from_pairs([("__name__", "up"), ("job", "b"), ("zone", "é")]),
        Labels::from_pairs([("__name__", "x"), ("job", "a")]),
    ];
    let lists: [&[u8]; 3] = [&[0xaa], &[0xbb, 0xcc], &[]];
    let fs = FaultyFs::new();
    fs.create_dir_all(Path::new("/data")).unwrap();
    let mut file = fs.create(Path::new(PATH)).unwrap();
    let mut writer = IndexWriter::new();
    series.iter().zip(lists).for_each(|(labels, list)| writer.add(labels, list).unwrap());
    writer.finish(&mut *file).unwrap();
    let written = fs.read(Path::new(PATH)).unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x} ")).collect::<String>();
    assert_eq!(hex(&example), hex(&written));
    fs.write(Path::new(PATH), example);
    let reader = open(&fs).unwrap();
    let mut chunks = Vec::new();
    for (number, (labels, list)) in (0u32..).zip(series.iter().zip(lists)) {
        assert_eq!(reader.labels(number).unwrap(), *labels);
        reader.chunks(number, &mut chunks).unwrap();
        assert_eq!(chunks, list);
    }
    assert_eq!(reader.select(&[Matcher::equal("job", "a")]).unwrap(), [0, 2]);
    assert_eq!(verify(&reader), []);
}

proptest! {
    #[test]
    fn index_catalogue_and_plain_filter_agree(
        sets in prop::collection::btree_set(prop::collection::btree_map("[abc]", "[xyz]{1,3}", 0..4), 0..80),
        matchers in prop::collection::vec(matcher(), 0..4),
    ) {
        let mut series: Vec<Labels> = sets.into_iter().map(Labels::from_pairs).collect();
        series.sort();
        let reader = open(&write(IndexWriter::new(), &series)).unwrap();
        check(&reader, &series, &matchers)?;
        prop_assert_eq!(verify(&reader), []);
    }

    /// Damage that a checksum does not show is no reason to panic, nor to read or allocate without end.
    #[test]
    fn bad_content_with_a_good_checksum_is_contained(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u16>(), any::<u8>()), 1..4),
    ) {
        static FILE: OnceLock<(Vec<u8>, Vec<Range<u64>>)> = OnceLock::new();
        let (bytes, pages) = FILE.get_or_init(tamperable);
        let mut bytes = bytes.clone();
        let fs = write(IndexWriter::new(), &[]);
        for (page, at, with) in changes {
            tamper(&mut bytes, page.get(pages).clone(), at.into(), with);
        }
        fs.write(Path::new(PATH), bytes);
        if let Ok(reader) = open(&fs) {
            for matchers in selections() {
                let _ = use_all(&reader, &[matchers]);
            }
            verify(&reader);
        }
    }

    #[test]
    fn anything_may_come_as_a_file(mut bytes in prop::collection::vec(any::<u8>(), 0..300), head: bool) {
        let fs = FaultyFs::new();
        fs.create_dir_all(Path::new("/data")).unwrap();
        if head && bytes.len() >= HEADER_LEN + FOOTER_LEN {
            // Past the checks of head and end, and of the table's checksum.
            bytes[..8].copy_from_slice(&[b'N', b'I', b'L', b'I', 1, 0, 0, 0]);
            let table = 8..bytes.len() - FOOTER_LEN;
            if table.len() > 5 {
                bytes[8] = 0;
                tamper(&mut bytes, table.start as u64..table.end as u64, 0, 0);
            }
            let footer = bytes.len() - FOOTER_LEN;
            bytes[footer..footer + 8].copy_from_slice(&8u64.to_le_bytes());
            bytes[footer + 8..footer + 16].copy_from_slice(&(table.len() as u64).to_le_bytes());
            let crc = crc32c::crc32c(&[&bytes[..8], &bytes[footer..footer + 16]].concat());
            bytes[footer + 16..footer + 20].copy_from_slice(&crc.to_le_bytes());
            bytes[footer + 20..].copy_from_slice(b"NILI");
        }
        fs.write(Path::new(PATH), bytes);
        if let Ok(reader) = IndexReader::open(&fs, PATH.into(), BlockCache::new(1 << 20)) {
            verify(&reader);
        }
    }
}
