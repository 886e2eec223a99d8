//! Requests as bytes against a store that writes down what it is told.

use std::collections::BTreeMap;
use std::sync::Mutex as StdMutex;

use model::storage::{ABSENT_BITS, CommitSummary, LayoutRef, LayoutSlot, Row, RowOutcome};
use model::{Exemplar, ManualClock, Metadata};

use super::*;

#[derive(Default)]
struct Store {
    series: Vec<Labels>,
    samples: BTreeMap<(u64, i64), SampleValue>,
    /// Look-ups by labels: what the cache saves.
    lookups: usize,
    exemplars: usize,
    forget: bool,
    /// Series by slot; `None` once closed.
    layouts: Vec<Option<Vec<u64>>>,
    retired: usize,
    in_rows: usize,
}

#[derive(Clone, Default)]
struct FakeAppend(Arc<StdMutex<Store>>);

struct FakeAppender {
    store: Arc<StdMutex<Store>>,
    pending: Vec<((u64, i64), SampleValue)>,
    max_time: i64,
}

impl Append for FakeAppend {
    fn appender(&self, options: AppendOptions) -> Box<dyn Appender> {
        let max_time = options.max_time.unwrap_or(i64::MAX);
        Box::new(FakeAppender { store: Arc::clone(&self.0), pending: Vec::new(), max_time })
    }
}

impl Appender for FakeAppender {
    fn open_layout(&mut self) -> LayoutRef {
        let mut store = self.store.lock().unwrap();
        store.layouts.push(Some(Vec::new()));
        LayoutRef(store.layouts.len() as u64 - 1)
    }
    fn extend_layout(&mut self, layout: LayoutRef, labels: &Labels) -> Result<LayoutSlot, AppendError> {
        let mut store = self.store.lock().unwrap();
        let known = store.series.iter().position(|known| known == labels);
        let series = known.unwrap_or_else(|| {
            store.series.push(labels.clone());
            store.series.len() - 1
        });
        let slots = store.layouts[layout.0 as usize].as_mut().ok_or(AppendError::UnknownSeries)?;
        slots.push(series as u64);
        Ok(LayoutSlot(slots.len() as u32 - 1))
    }
    fn retire_slot(&mut self, _: LayoutRef, _: LayoutSlot) {
        self.store.lock().unwrap().retired += 1;
    }
    fn close_layout(&mut self, layout: LayoutRef) {
        self.store.lock().unwrap().layouts[layout.0 as usize] = None;
    }
    fn append_row(&mut self, row: &Row<'_>) -> RowOutcome {
        self.append_row_part(LayoutSlot(0), row)
    }
    fn append_row_part(&mut self, first: LayoutSlot, row: &Row<'_>) -> RowOutcome {
        let slots = self.store.lock().unwrap().layouts[row.layout.0 as usize].clone();
        let Some(slots) = slots else {
            return RowOutcome { error: Some(AppendError::UnknownSeries), ..RowOutcome::default() };
        };
        let mut outcome = RowOutcome::default();
        for (slot, value) in (first.0..).zip(row.values) {
            if value.to_bits() != ABSENT_BITS {
                let sample = AppendSample::float(row.t, *value);
                match self.append(Some(SeriesRef(slots[slot as usize])), &Labels::empty(), sample) {
                    Ok(_) => outcome.appended += 1,
                    Err(why) => outcome.refused.push((LayoutSlot(slot), why)),
                }
            }
        }
        self.store.lock().unwrap().in_rows += outcome.appended;
        outcome
    }
    fn append(
        &mut self,
        series: Option<SeriesRef>,
        labels: &Labels,
        sample: AppendSample,
    ) -> Result<SeriesRef, AppendError> {
        let mut store = self.store.lock().unwrap();
        let reference = match series {
            Some(_) if store.forget => {
                store.forget = false;
                return Err(AppendError::UnknownSeries);
            }
            Some(reference) => reference.0,
            None => {
                store.lookups += 1;
                match store.series.iter().position(|known| known == labels) {
                    Some(index) => index as u64,
                    None => {
                        store.series.push(labels.clone());
                        store.series.len() as u64 - 1
                    }
                }
            }
        };
        if sample.t > self.max_time {
            return Err(AppendError::OutOfBounds);
        }
        if store.samples.range((reference, sample.t + 1)..(reference + 1, i64::MIN)).next().is_some() {
            return Err(AppendError::OutOfOrder);
        }
        self.pending.push(((reference, sample.t), sample.value));
        Ok(SeriesRef(reference))
    }
    fn append_exemplar(&mut self, _: SeriesRef, _: &Exemplar) -> Result<(), AppendError> {
        self.store.lock().unwrap().exemplars += 1;
        Ok(())
    }
    fn update_metadata(&mut self, _: SeriesRef, _: &Metadata) -> Result<(), AppendError> {
        Ok(())
    }
    fn commit(self: Box<Self>) -> Result<CommitSummary, StorageError> {
        self.store.lock().unwrap().samples.extend(self.pending);
        Ok(CommitSummary::default())
    }
    fn rollback(self: Box<Self>) {}
}

const NOW: i64 = 1_700_000_000_000;

fn receiver() -> (Receiver, Arc<StdMutex<Store>>) {
    let store = FakeAppend::default();
    let clock = Arc::new(ManualClock::new(NOW));
    let receiver =
        Receiver::new(Arc::new(store.clone()), clock, 7, ReceiverOptions::default(), &Registry::new())
            .unwrap();
    (receiver, store.0)
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn message(number: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    varint(&mut out, body.len() as u64);
    out.extend_from_slice(body);
    out
}

fn label(name: &str, value: &[u8]) -> Vec<u8> {
    message(1, &[message(1, name.as_bytes()), message(2, value)].concat())
}

fn sample(t: i64, v: f64) -> Vec<u8> {
    let mut body = vec![1 << 3 | 1];
    body.extend_from_slice(&v.to_le_bytes());
    body.push(2 << 3);
    varint(&mut body, t as u64);
    message(2, &body)
}

fn series(name: &str, parts: &[Vec<u8>]) -> Vec<u8> {
    message(1, &[label("__name__", name.as_bytes()), label("job", b"j"), parts.concat()].concat())
}

fn body(series: &[Vec<u8>]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(&series.concat()).unwrap()
}

#[test]
fn stores_samples_and_names_a_series_once() {
    let (receiver, store) = receiver();
    for step in 0..3 {
        let t = NOW + step * 1000;
        let summary =
            receiver.write_v1(&body(&[series("a", &[sample(t, 1.5)]), series("b", &[sample(t, f64::NAN)])]));
        assert_eq!(summary.unwrap().samples, 2);
    }
    let store = store.lock().unwrap();
    assert_eq!(store.series[0], Labels::from_pairs([("__name__", "a"), ("job", "j")]));
    assert_eq!(store.samples.len(), 6);
    assert_eq!(store.lookups, 2, "later requests must be recognised by their bytes");
}

#[test]
fn a_forgotten_series_is_named_anew() {
    let (receiver, store) = receiver();
    receiver.write_v1(&body(&[series("a", &[sample(NOW, 1.0)])])).unwrap();
    store.lock().unwrap().forget = true;
    receiver.write_v1(&body(&[series("a", &[sample(NOW + 1, 2.0)])])).unwrap();
    let store = store.lock().unwrap();
    assert_eq!((store.lookups, store.samples.len()), (2, 2));
}

#[test]
fn one_refused_sample_rolls_the_request_back() {
    let (receiver, store) = receiver();
    receiver.write_v1(&body(&[series("a", &[sample(NOW, 1.0)])])).unwrap();
    let bad = body(&[series("b", &[sample(NOW, 1.0)]), series("a", &[sample(NOW - 1, 1.0)])]);
    let error = receiver.write_v1(&bad).unwrap_err();
    assert!(!error.is_retryable());
    assert_eq!(
        error.to_string(),
        format!("out of order sample (series {{__name__=\"a\", job=\"j\"}}, timestamp {})", NOW - 1)
    );
    let future = body(&[series("c", &[sample(NOW + FUTURE_MAX_MS + 1, 1.0)])]);
    assert!(matches!(
        receiver.write_v1(&future),
        Err(WriteError::Refused { error: AppendError::OutOfBounds, .. })
    ));
    assert_eq!(store.lock().unwrap().samples.len(), 1);
}

#[test]
fn series_with_invalid_labels_are_left_out_and_counted() {
    let (receiver, store) = receiver();
    let samples = [sample(NOW, 1.0), sample(NOW + 1, 2.0)].concat();
    let nameless = message(1, &[label("job", b"j"), samples.clone()].concat());
    let repeated = series("a", &[label("job", b"k"), samples.clone()]);
    let not_utf8 = message(1, &[label("__name__", b"x\xff"), samples.clone()].concat());
    let good = series("good", std::slice::from_ref(&samples));
    let summary = receiver.write_v1(&body(&[nameless, repeated, not_utf8, good])).unwrap();
    assert_eq!((summary.samples, summary.invalid_labels_samples), (2, 6));
    assert_eq!(store.lock().unwrap().series.len(), 1);
}

/// A series was once recognised by the labels before its first sample only: the second one here ended up in the first.
#[test]
fn labels_after_samples_are_read_too() {
    let (receiver, store) = receiver();
    let scattered =
        |job| message(1, &[label("__name__", b"a"), sample(NOW, 1.0), label("job", job)].concat());
    receiver.write_v1(&body(&[scattered(b"j")])).unwrap();
    receiver.write_v1(&body(&[scattered(b"k")])).unwrap();
    let expected = ["j", "k"].map(|job| Labels::from_pairs([("__name__", "a"), ("job", job)]));
    assert_eq!(store.lock().unwrap().series, expected);
}

#[test]
fn bombs_and_garbage_are_refused_before_anything_is_allocated() {
    let (receiver, _) = receiver();
    let bomb = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
    assert!(matches!(receiver.write_v1(&bomb), Err(WriteError::Compression(_))));
    assert!(matches!(receiver.write_v1(b"hello"), Err(WriteError::Compression(_))));
    assert!(matches!(receiver.write_v1(&body(&[vec![0x0a, 0x7f]])), Err(WriteError::Decode(_))));
}

/// A 2.0 request: symbols, then for each series label references and parts.
fn body_v2(symbols: &[&str], series: &[(&[u8], Vec<Vec<u8>>)]) -> Vec<u8> {
    let symbols = symbols.iter().map(|symbol| message(4, symbol.as_bytes()));
    let series = series
        .iter()
        .map(|(references, parts)| message(5, &[message(1, references), parts.concat()].concat()));
    let all: Vec<Vec<u8>> = symbols.chain(series).collect();
    snap::raw::Encoder::new().compress_vec(&all.concat()).unwrap()
}

#[test]
fn version_2_names_series_by_symbols_that_change_from_request_to_request() {
    let (receiver, store) = receiver();
    let first = body_v2(
        &["", "__name__", "a", "b", "job", "j"],
        &[(&[1, 2, 4, 5], vec![sample(NOW, 1.0)]), (&[1, 3, 4, 5], vec![sample(NOW, 2.0)])],
    );
    let second = body_v2(&["", "job", "j", "__name__", "b"], &[(&[3, 4, 1, 2], vec![sample(NOW + 1, 3.0)])]);
    assert_eq!(receiver.write_v2(&first).unwrap().summary.samples, 2);
    assert_eq!(receiver.write_v2(&second).unwrap().summary.samples, 1);
    let store = store.lock().unwrap();
    assert_eq!(store.series.len(), 2);
    assert_eq!(store.samples[&(1, NOW + 1)], SampleValue::Float(3.0));
    assert_eq!(store.lookups, 2, "the texts are the same, whatever their references");
}

#[test]
fn version_2_keeps_the_good_and_tells_of_the_bad() {
    let (receiver, store) = receiver();
    let symbols = ["", "__name__", "a", "b"];
    receiver.write_v2(&body_v2(&symbols, &[(&[1, 2], vec![sample(NOW, 1.0)])])).unwrap();
    let mixed = body_v2(
        &symbols,
        &[(&[1, 2], vec![sample(NOW - 5, 1.0), sample(NOW + 5, 2.0)]), (&[1, 3], vec![sample(NOW, 1.0)])],
    );
    let written = receiver.write_v2(&mixed).unwrap();
    assert_eq!(written.summary.samples, 2);
    assert!(written.first_refusal.unwrap().to_string().contains("out of order sample"));
    assert_eq!(store.lock().unwrap().samples.len(), 3);
}

#[test]
fn version_2_with_references_out_of_range_is_refused_whole() {
    let (receiver, store) = receiver();
    for references in [&[1u8, 9][..], &[1], &[0xff, 0xff, 0xff, 0xff, 0xff, 0x0f, 1]] {
        let good: (&[u8], _) = (&[1, 2], vec![sample(NOW, 1.0)]);
        let bad = body_v2(&["", "__name__", "a"], &[good, (references, vec![sample(NOW, 1.0)])]);
        assert!(matches!(receiver.write_v2(&bad), Err(WriteError::Decode(_))), "{references:?}");
    }
    assert!(store.lock().unwrap().samples.is_empty());
}
