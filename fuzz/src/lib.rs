//! Targets that are no part of one crate: a request from the network, on its way into a store.

use std::path::Path;
use std::sync::Arc;

use model::matcher::{MatchOp, Matcher};
use model::sample::TimeRange;
use model::storage::{Queryable, SelectHints, SeriesColumns};
use model::{Clock, ManualClock};
use remote::write::{Receiver, ReceiverOptions};
use tsdb::fs::FaultyFs;
use tsdb::{Db, DbOptions};

/// Bodies of remote write, of both versions: as they come, and with the bytes as content of a sound snappy block. What is
/// refused leaves nothing behind, and what is taken can be read, also after a restart. Answers the number of samples taken.
pub fn remote_write(bytes: &[u8]) -> usize {
    let fs = FaultyFs::new();
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(1_000_000));
    let options = DbOptions::new(Path::new("/data"), Arc::clone(&clock));
    let open = |fs: &FaultyFs| {
        Db::open(options.clone(), &prometheus::Registry::new(), Arc::new(fs.clone())).expect("it opens")
    };
    let db = open(&fs);
    let limits = ReceiverOptions { decoded_bytes_max: 1 << 20, cache_entries_max: 16 };
    let registry = prometheus::Registry::new();
    let append: Arc<dyn model::storage::Append> = Arc::clone(&db) as _;
    let receiver = Receiver::new(append, clock, 1, limits, &registry).expect("metrics of its own");
    let block = snap::raw::Encoder::new().compress_vec(bytes).unwrap_or_default();
    let mut before = 0;
    for body in [bytes, block.as_slice(), block.as_slice()] {
        let taken = receiver.write_v1(body).is_ok();
        let after = samples(&db);
        assert!(taken || after == before, "a refused request leaves nothing behind");
        before = after;
        let taken = receiver.write_v2(body).is_ok();
        let after = samples(&db);
        assert!(taken || after == before, "a refused request leaves nothing behind");
        before = after;
    }
    drop(db);
    assert_eq!(samples(&open(&fs.after_kill())), before, "after a restart");
    before
}

/// The number of samples in a store.
fn samples(db: &Db) -> usize {
    let querier = db.querier(TimeRange::ALL).expect("it is open");
    let all = Matcher::new(MatchOp::Regex, "__name__", ".*").expect("it compiles");
    let set = querier.select(&[all], &SelectHints::default()).expect("nothing is damaged");
    let mut columns = SeriesColumns::default();
    let mut count = 0;
    for index in 0..set.len() {
        set.read(index, &mut columns).expect("nothing is damaged");
        count += columns.len();
    }
    count
}
