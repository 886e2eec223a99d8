//! Types, units and help texts of a target's metric families.

use std::collections::HashMap;
use std::sync::Arc;

use model::{Metadata, MetricKind};

use super::lines::MetadataLine;

/// Families are remembered for so many scrapes after they were last seen.
const KEEP_SCRAPES: u64 = 10;

/// Families by name.
pub(crate) type MetadataList = Vec<(String, Metadata)>;

#[derive(Debug)]
struct Family {
    name: String,
    metadata: Metadata,
    last_seen: u64,
    /// Hashes of the lines that last gave help and unit.
    help_line: u64,
    unit_line: u64,
}

/// Families on the last pages.
#[derive(Debug, Default)]
pub(super) struct MetadataCache {
    families: Vec<Option<Family>>,
    free: Vec<u32>,
    index: HashMap<String, u32>,
    /// Where the family that comes next is likely to be: behind the last one, as on the first page.
    expected: u32,
    changed: bool,
}

impl MetadataCache {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// The place of family `name`, made if need be. `None` when there is no number left.
    pub(super) fn family(&mut self, name: &[u8], iteration: u64) -> Option<u32> {
        let expected = self.expected;
        if let Some(family) = self.get_mut(expected)
            && family.name.as_bytes() == name
        {
            family.last_seen = iteration;
            self.expected = expected.wrapping_add(1);
            return Some(expected);
        }
        let name = String::from_utf8_lossy(name);
        if let Some(place) = self.index.get(name.as_ref()).copied() {
            self.expected = place.wrapping_add(1);
            if let Some(family) = self.get_mut(place) {
                family.last_seen = iteration;
            }
            return Some(place);
        }
        let family = Family {
            name: name.clone().into_owned(),
            metadata: Metadata::default(),
            last_seen: iteration,
            help_line: 0,
            unit_line: 0,
        };
        let place = match self.free.pop() {
            Some(place) => {
                self.families[place as usize] = Some(family);
                place
            }
            None => {
                let place = u32::try_from(self.families.len()).ok()?;
                self.families.push(Some(family));
                place
            }
        };
        self.index.insert(name.into_owned(), place);
        self.changed = true;
        Some(place)
    }

    /// The name of a family; empty when it has been forgotten.
    pub(super) fn name(&self, place: u32) -> &str {
        self.families.get(place as usize).and_then(Option::as_ref).map_or("", |family| &family.name)
    }

    /// The family was seen again.
    pub(super) fn seen(&mut self, place: u32, iteration: u64) {
        if let Some(family) = self.get_mut(place) {
            family.last_seen = iteration;
        }
    }

    pub(super) fn set_kind(&mut self, place: u32, kind: MetricKind) {
        if let Some(family) = self.get_mut(place)
            && family.metadata.kind != kind
        {
            family.metadata.kind = kind;
            self.changed = true;
        }
    }

    pub(super) fn set_help(&mut self, place: u32, help: &str, line: u64) {
        let Some(family) = self.get_mut(place) else { return };
        family.help_line = line;
        if family.metadata.help != help {
            help.clone_into(&mut family.metadata.help);
            self.changed = true;
        }
    }

    pub(super) fn set_unit(&mut self, place: u32, unit: &str, line: u64) {
        let Some(family) = self.get_mut(place) else { return };
        family.unit_line = line;
        if family.metadata.unit != unit {
            unit.clone_into(&mut family.metadata.unit);
            self.changed = true;
        }
    }

    /// Whether what is known of the family is what this line says.
    pub(super) fn is_from(&self, place: u32, what: MetadataLine) -> bool {
        let family = self.families.get(place as usize).and_then(Option::as_ref);
        family.is_some_and(|family| match what {
            MetadataLine::Type(_) => true,
            MetadataLine::Help(line) => family.help_line == line,
            MetadataLine::Unit(line) => family.unit_line == line,
        })
    }

    /// Forgets families that have not been seen for long.
    pub(super) fn flush(&mut self, iteration: u64) {
        for (place, slot) in self.families.iter_mut().enumerate() {
            if slot.as_ref().is_some_and(|family| iteration - family.last_seen > KEEP_SCRAPES)
                && let Some(family) = slot.take()
            {
                self.index.remove(&family.name);
                self.free.push(place as u32);
                self.changed = true;
            }
        }
    }

    /// All families in order of names, if anything changed since this was last asked.
    pub(super) fn take_changed(&mut self) -> Option<Arc<MetadataList>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut list: MetadataList = self
            .families
            .iter()
            .flatten()
            .map(|family| (family.name.clone(), family.metadata.clone()))
            .collect();
        list.sort_by(|a, b| a.0.cmp(&b.0));
        Some(Arc::new(list))
    }

    fn get_mut(&mut self, place: u32) -> Option<&mut Family> {
        self.families.get_mut(place as usize).and_then(Option::as_mut)
    }
}
