//! What the receiver learns from a request once it is written: new series, layouts of those that keep their order, and
//! the end of layouts that do not or that nobody uses.

use std::sync::atomic::Ordering::Relaxed;

use model::Labels;
use model::storage::{Append, AppendOptions, Appender, LayoutSlot, SeriesRef};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::index::{CUT, Index, NONE, Place};
use super::plan::{PART_MIN, Plan, Stretch};
use super::receiver::{Learned, Opened, Receiver, Scanned, valid_labels};
use super::series::WrittenSeries;
use crate::protobuf::DecodeError;

/// Between two upkeeps.
const TICK_MS: i64 = 60_000;
/// What has not come for so many upkeeps is let go of.
const IDLE_TICKS: u8 = 10;
/// Most series of a layout: a row is written as a whole.
const SLOTS_MAX: usize = 4096;
/// Most layouts.
const LAYOUTS_MAX: usize = 100_000;

/// What the receiver counts.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) invalid_labels: IntCounter,
    cache_entries: IntGauge,
    cache_full: IntCounter,
    layouts: IntGauge,
    layouts_opened: IntCounter,
    layouts_closed_idle: IntCounter,
    layouts_closed_order: IntCounter,
    samples_rows: IntCounter,
    samples_references: IntCounter,
    samples_labels: IntCounter,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// When one is registered already.
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let vec = |name: &str, help: &str, label: &str| {
            let vec = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let closed = vec(
            "nilometer_remote_write_layouts_closed_total",
            "Layouts of the remote-write receiver that were given up, by reason: idle, or series that came in other orders.",
            "reason",
        )?;
        let samples = vec(
            "nilometer_remote_write_samples_total",
            "Float samples taken from remote write by how their series was known: as part of a row, by reference, or by its labels.",
            "road",
        )?;
        Ok(Self {
            invalid_labels: counter(
                "prometheus_api_remote_write_invalid_labels_samples_total",
                "Samples of remote-write series left out because their labels are invalid.",
            )?,
            cache_entries: gauge(
                "nilometer_remote_write_cache_entries",
                "Series that the remote-write receiver recognises by their raw bytes.",
            )?,
            cache_full: counter(
                "nilometer_remote_write_cache_full_total",
                "Series that the remote-write receiver could not remember because it remembers too many.",
            )?,
            layouts: gauge(
                "nilometer_remote_write_layouts",
                "Groups of series that remote write brings in a stable order and that are written as rows.",
            )?,
            layouts_opened: counter(
                "nilometer_remote_write_layouts_opened_total",
                "Layouts that the remote-write receiver has opened.",
            )?,
            layouts_closed_idle: closed.with_label_values(&["idle"]),
            layouts_closed_order: closed.with_label_values(&["order"]),
            samples_rows: samples.with_label_values(&["row"]),
            samples_references: samples.with_label_values(&["reference"]),
            samples_labels: samples.with_label_values(&["labels"]),
        })
    }

    /// Counts the float samples of a request.
    pub(super) fn wrote(&self, rows: u64, references: u64, all: u64) {
        self.samples_rows.inc_by(rows);
        self.samples_references.inc_by(references);
        self.samples_labels.inc_by(all.saturating_sub(rows + references));
    }
}

/// The transaction by which layouts change; most requests need none.
struct Changes<'a> {
    append: &'a dyn Append,
    appender: Option<Box<dyn Appender>>,
}

impl Changes<'_> {
    fn appender(&mut self) -> &mut dyn Appender {
        &mut **self.appender.get_or_insert_with(|| self.append.appender(AppendOptions::default()))
    }

    fn finish(self) {
        if let Some(Err(error)) = self.appender.map(Appender::commit) {
            tracing::warn!(%error, "layouts of remote write could not be changed");
        }
    }
}

impl Receiver {
    /// Learns from a request.
    pub(super) fn learn<'a, S: WrittenSeries>(
        &self,
        scanned: Scanned<'a>,
        plan: &Plan,
        learned: &Learned<'_>,
        series_of: &impl Fn(&'a [u8]) -> Result<S, DecodeError>,
    ) {
        let Learned { series, dead, opened, stored } = *learned;
        if !series.is_empty()
            || !dead.is_empty()
            || !opened.is_empty()
            || !plan.disordered.is_empty()
            || !plan.stretches.is_empty()
        {
            let mut index = self.index.write();
            let mut changes = Changes { append: &*self.append, appender: None };
            remember(&mut index, scanned, series);
            for opened in opened {
                self.take_up(&mut index, &mut changes, scanned, opened, stored);
            }
            for (at, layout) in dead.iter().chain(&plan.disordered) {
                let same = index.layout(*at).is_some_and(|known| known.layout == *layout);
                if let Some(layout) = same.then(|| index.close_layout(*at, true)).flatten() {
                    changes.appender().close_layout(layout);
                    self.metrics.layouts_closed_order.inc();
                }
            }
            if stored {
                for stretch in &plan.stretches {
                    self.settle(&mut index, &mut changes, scanned, stretch, series_of);
                }
            }
            changes.finish();
            self.report(&mut index);
        }
        self.maintain();
    }

    /// Lets go of what no request has named for ten minutes, if a minute has passed since the last look. Requests call it; the owner
    /// of the receiver calls it every few seconds, from a thread that may block, since senders that are gone send none.
    pub fn maintain(&self) {
        let (now, due) = (self.clock.now_ms(), self.upkeep_ms.load(Relaxed));
        // A clock that was set back does not stop it.
        if (now >= due || now < due - 2 * TICK_MS)
            && self.upkeep_ms.compare_exchange(due, now + TICK_MS, Relaxed, Relaxed).is_ok()
        {
            self.upkeep();
        }
    }

    fn upkeep(&self) {
        let mut index = self.index.write();
        let idle = index.upkeep(IDLE_TICKS);
        let mut changes = Changes { append: &*self.append, appender: None };
        for layout in idle.layouts {
            changes.appender().close_layout(layout);
            self.metrics.layouts_closed_idle.inc();
        }
        for (layout, slot) in idle.slots {
            changes.appender().retire_slot(layout, LayoutSlot(slot));
        }
        changes.finish();
        self.report(&mut index);
    }

    fn report(&self, index: &mut Index) {
        self.metrics.cache_entries.set(index.len().cast_signed() as i64);
        self.metrics.layouts.set(index.layouts().cast_signed() as i64);
        self.metrics.cache_full.inc_by(std::mem::take(&mut index.refused_new));
    }

    /// Takes up a layout of new series, or closes it when nothing came of it.
    fn take_up(
        &self,
        index: &mut Index,
        changes: &mut Changes<'_>,
        scanned: Scanned<'_>,
        opened: &Opened,
        stored: bool,
    ) {
        let is_wanted = stored && index.layouts() < LAYOUTS_MAX;
        let mut at = None;
        for (slot, (item, series)) in (0u32..).zip(&opened.members).filter(|_| is_wanted) {
            let key = scanned.items[*item as usize].key;
            let (Some(key), Some(series)) = (key, *series) else { continue };
            // Another request may have been quicker: its series stay where they are.
            let known = index.find(key).is_some();
            if let Some(entry) = index.insert(key, series).filter(|_| !known) {
                let at = *at.get_or_insert_with(|| index.add_layout(opened.layout));
                index.join(entry, at, slot);
            }
        }
        if at.is_some() {
            self.metrics.layouts_opened.inc();
        } else {
            changes.appender().close_layout(opened.layout);
        }
    }

    /// Makes members of series that came in the same order again.
    fn settle<'a, S: WrittenSeries>(
        &self,
        index: &mut Index,
        changes: &mut Changes<'_>,
        scanned: Scanned<'a>,
        stretch: &Stretch,
        series_of: &impl Fn(&'a [u8]) -> Result<S, DecodeError>,
    ) {
        let loose = |index: &Index, item: usize| {
            let entry = scanned.items[item].key.and_then(|key| index.find(key))?;
            matches!(index.entry(entry).place(), Place::Loose { .. }).then_some(entry)
        };
        let mut onto = stretch.onto.filter(|(at, layout)| {
            index.layout(*at).is_some_and(|known| known.layout == *layout && known.slots.len() < SLOTS_MAX)
        });
        // Another request may have been quicker.
        if stretch.items.clone().filter(|item| loose(index, *item).is_some()).count() < PART_MIN {
            return;
        }
        for item in stretch.items.clone() {
            let Some(entry) = loose(index, item) else { continue };
            let message = scanned.items[item].message(scanned.message);
            let Some(labels) = labels_of(message, series_of) else { continue };
            let full = |at: u32| index.layout(at).is_none_or(|known| known.slots.len() >= SLOTS_MAX);
            let (at, layout) = match onto.filter(|(at, _)| !full(*at)) {
                Some(open) => open,
                None if index.layouts() >= LAYOUTS_MAX => return,
                None => {
                    let layout = changes.appender().open_layout();
                    self.metrics.layouts_opened.inc();
                    (index.add_layout(layout), layout)
                }
            };
            onto = Some((at, layout));
            match changes.appender().extend_layout(layout, &labels) {
                Ok(slot) => index.join(entry, at, slot.0),
                Err(error) => {
                    tracing::debug!(%error, "series not joined to a layout");
                    return;
                }
            }
        }
    }
}

fn labels_of<'a, S: WrittenSeries>(
    message: &'a [u8],
    series_of: &impl Fn(&'a [u8]) -> Result<S, DecodeError>,
) -> Option<Labels> {
    let series = series_of(message).ok()?;
    valid_labels(&series.label_pairs().ok()?)
}

/// Takes up series that were named by their labels, and who came next to them.
fn remember(index: &mut Index, scanned: Scanned<'_>, learned: &[(u32, SeriesRef)]) {
    for (item, series) in learned {
        if let Some(key) = scanned.items[*item as usize].key {
            index.insert(key, *series);
        }
    }
    let items = scanned.items;
    let simple = |at: usize| items.get(at).filter(|item| item.simple);
    let entry = |at: usize| simple(at).and_then(|item| index.find(item.key?));
    let follow = |at: usize| {
        let Some(before) = entry(at) else { return };
        let same_run = |next: &&super::scan::Item| items[at].t == next.t;
        let next = match simple(at + 1).filter(same_run) {
            _ if at + 1 == items.len() => CUT,
            Some(_) => entry(at + 1).unwrap_or(NONE),
            None => NONE,
        };
        index.entry(before).follow(next);
    };
    for (item, _) in learned {
        let at = *item as usize;
        if at > 0 {
            follow(at - 1);
        }
        follow(at);
    }
}
