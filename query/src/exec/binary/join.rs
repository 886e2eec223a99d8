//! Arithmetic and comparisons between series that match.

use std::collections::HashMap;

use model::{Labels, LabelsBuilder};

use super::{Element, columns, element};
use crate::ast::{BinaryOp, Cardinality};
use crate::exec::arith::OpNotes;
use crate::exec::column::{Bits, Cell, Column, histogram_size};
use crate::exec::error::QueryError;
use crate::exec::eval::check_every;
use crate::exec::labels::{
    ENTRY_BYTES, Grouper, LabelMap, Pick, is_metadata_label, label_bytes, without_metadata,
};
use crate::exec::state::{Scratch, State};
use crate::exec::steps::Steps;
use crate::exec::stream::{Head, Source, Stream};
use crate::plan::BinaryPlan;

/// Joins two vectors.
pub(super) fn join<'q>(
    state: &'q State<'q>,
    plan: &'q BinaryPlan,
    left: Stream<'q>,
    right: Stream<'q>,
) -> Result<Stream<'q>, QueryError> {
    // Seen from here, many series may match one; `group_right` swaps the sides.
    let swapped = plan.matching.card == Cardinality::OneToMany;
    let (many, one) = if swapped { (right, left) } else { (left, right) };
    let groups = groups(state, plan, &many.heads, &one.heads)?;
    // Prometheus swaps the sides, but not their fills: with `group_right`, `fill_left` is for the many, on the right.
    let (fill_many, fill_one) = (plan.matching.fill.lhs, plan.matching.fill.rhs);
    let steps = many.steps;
    let joiner = Joiner { state, plan, many, one, swapped, steps, fill_many, fill_one };
    joiner.build(&groups)
}

/// Series of both sides that agree on the labels that count.
#[derive(Default)]
struct Group {
    many: Vec<usize>,
    one: Vec<usize>,
}

/// Bytes of a group with its place in the map, and the least that its lists take.
const GROUP_BYTES: usize = size_of::<Group>() + ENTRY_BYTES + 2 * size_of::<[usize; 4]>();

fn groups(
    state: &State<'_>,
    plan: &BinaryPlan,
    many: &[Head],
    one: &[Head],
) -> Result<Vec<Group>, QueryError> {
    let pick = Pick::new(&plan.matching.labels, plan.matching.on);
    let bytes = size_of::<usize>() * (many.len() + one.len());
    state.limits.hold_bytes(bytes)?;
    let mut grouper = Grouper::new(pick);
    let mut groups: Vec<Group> = Vec::new();
    let mut group_of = |labels: &Labels, groups: &mut Vec<Group>| {
        let (group, is_new) = grouper.group(labels);
        if is_new {
            state.limits.hold_bytes(GROUP_BYTES)?;
            groups.push(Group::default());
        }
        Ok::<usize, QueryError>(group)
    };
    for (index, head) in many.iter().enumerate() {
        check_every(state, index)?;
        let group = group_of(&head.labels, &mut groups)?;
        groups[group].many.push(index);
    }
    for (index, head) in one.iter().enumerate() {
        check_every(state, index)?;
        let group = group_of(&head.labels, &mut groups)?;
        groups[group].one.push(index);
    }
    Ok(groups)
}

/// Whether the result is another metric than the operands.
fn changes_metric(op: BinaryOp) -> bool {
    matches!(
        op,
        BinaryOp::Add
            | BinaryOp::Sub
            | BinaryOp::Mul
            | BinaryOp::Div
            | BinaryOp::Mod
            | BinaryOp::Pow
            | BinaryOp::Atan2
    )
}

struct Joiner<'q> {
    state: &'q State<'q>,
    plan: &'q BinaryPlan,
    many: Stream<'q>,
    one: Stream<'q>,
    swapped: bool,
    steps: Steps,
    /// Stand-in for a missing series of the many.
    fill_many: Option<f64>,
    /// Stand-in for a missing series of the one.
    fill_one: Option<f64>,
}

/// A series of the result.
enum Item {
    /// Of two series, when read.
    Pair { many: usize, one: usize },
    /// Worked out beforehand.
    Ready(Box<Column>),
}

impl<'q> Joiner<'q> {
    fn build(self, groups: &[Group]) -> Result<Stream<'q>, QueryError> {
        let (mut heads, mut items) = (Vec::new(), Vec::new());
        let fills = self.fill_many.is_some() || self.fill_one.is_some();
        let one_to_one = self.plan.matching.card == Cardinality::OneToOne;
        let of_ones = self.one.len().saturating_mul(size_of::<u32>() + size_of::<Option<Column>>());
        self.state.limits.hold_bytes(of_ones)?;
        let mut uses = vec![0u32; self.one.len()];
        for (number, group) in groups.iter().enumerate() {
            check_every(self.state, number)?;
            let takes_turns = group.one.len() > 1 || (one_to_one && group.many.len() > 1);
            if !fills && !takes_turns {
                let [one] = group.one[..] else { continue };
                let results: Vec<Head> = group
                    .many
                    .iter()
                    .map(|many| self.result(&self.many.heads[*many], &self.one.heads[one]))
                    .collect();
                self.hold_heads(&results)?;
                if results.len() < 2 || all_distinct(&results) {
                    uses[one] += u32::try_from(group.many.len()).unwrap_or(u32::MAX);
                    items.extend(group.many.iter().map(|&many| Item::Pair { many, one }));
                    heads.extend(results);
                    continue;
                }
            }
            if group.many.is_empty() && group.one.len() < 2 && !fills {
                continue;
            }
            let (results, bytes) = self.take_turns(group)?;
            for (head, column) in results {
                self.state.limits.hold(column.sample_size())?;
                self.state.limits.hold_bytes(size_of::<Item>() + size_of::<Column>() + column.bytes())?;
                heads.push(head);
                items.push(Item::Ready(Box::new(column)));
            }
            self.state.limits.release_bytes(bytes);
        }
        let shared = self.read_shared(&uses)?;
        let (state, steps) = (self.state, self.steps);
        let stream = Stream::new(steps, heads, Joined { joiner: self, items, shared });
        stream.merge_equal(state, false)
    }

    /// Counts the labels of new series.
    fn hold_heads(&self, heads: &[Head]) -> Result<(), QueryError> {
        let labels: usize = heads.iter().map(|head| label_bytes(&head.labels)).sum();
        let each = size_of::<Head>() + size_of::<Item>();
        self.state.limits.hold_bytes(labels + each * heads.len())
    }

    /// Columns of the "one" side that several pairs need.
    fn read_shared(&self, uses: &[u32]) -> Result<Vec<Option<Column>>, QueryError> {
        let mut shared = vec![None; uses.len()];
        self.state.with_scratch(|scratch| {
            for (index, _) in uses.iter().enumerate().filter(|(_, uses)| **uses > 1) {
                check_every(self.state, index)?;
                let mut column = Column::default();
                self.one.source.read(index, &mut column, scratch)?;
                self.state.limits.hold(column.sample_size())?;
                self.state.limits.hold_bytes(column.bytes())?;
                shared[index] = Some(column);
            }
            Ok(shared)
        })
    }

    /// Labels of what the operator makes of two series.
    fn result(&self, many: &Head, one: &Head) -> Head {
        let matching = &self.plan.matching;
        let mut builder = LabelsBuilder::from(&many.labels);
        if changes_metric(self.plan.op) {
            builder.retain(|name, _| !is_metadata_label(name));
        }
        if matching.card == Cardinality::OneToOne {
            builder.retain(|name, _| matching.labels.iter().any(|label| label == name) == matching.on);
        }
        for label in &matching.include {
            builder.set(&**label, one.labels.value(label));
        }
        let mut labels = builder.build();
        let delayed = self.state.features.delayed_name_removal;
        if self.plan.return_bool && !delayed {
            labels = without_metadata(&labels);
        }
        Head { labels, drop_name: delayed && (self.plan.return_bool || many.drop_name) }
    }

    /// What stands in for a missing partner: the labels that count.
    fn stand_in(&self, partner: &Head) -> Head {
        let pick = Pick::new(&self.plan.matching.labels, self.plan.matching.on);
        Head { labels: pick.of(&partner.labels), drop_name: false }
    }

    fn notes(&self) -> OpNotes<'q> {
        OpNotes { notes: &self.state.notes, op: self.plan.op, span: self.plan.span }
    }

    fn elements(&self, many: Cell<'_>, one: Cell<'_>) -> Option<Element> {
        let (left, right) = if self.swapped { (one, many) } else { (many, one) };
        element(self.plan, left, right, &self.notes())
    }

    /// Works out a group in which several series of a side take turns, or missing ones are filled in. Also says what it has
    /// counted for the results, which is to be released when they are counted for good.
    fn take_turns(&self, group: &Group) -> Result<(Vec<(Head, Column)>, usize), QueryError> {
        let mut bytes = 0;
        let results = self.state.with_scratch(|scratch| {
            let mut read = |stream: &Stream<'q>, indexes: &[usize], scratch: &mut Scratch| {
                indexes
                    .iter()
                    .map(|&index| {
                        self.state.limits.check()?;
                        let mut column = Column::default();
                        stream.source.read(index, &mut column, scratch)?;
                        bytes += column.bytes();
                        self.state.limits.hold_bytes(column.bytes())?;
                        Ok(column)
                    })
                    .collect::<Result<Vec<Column>, QueryError>>()
            };
            let ones = read(&self.one, &group.one, scratch)?;
            let manys = read(&self.many, &group.many, scratch)?;
            self.check_ones(group, &ones, &manys, scratch)?;
            let mut turns = Turns::new(self, group);
            for step in 0..self.steps.count {
                self.state.limits.check_at(step)?;
                let one = ones.iter().enumerate().find_map(|(at, column)| Some((at, column.cell(step)?)));
                let mut matched = false;
                for (at, column) in manys.iter().enumerate() {
                    check_every(self.state, at)?;
                    let Some(cell) = column.cell(step) else { continue };
                    let (partner, other) = match (one, self.fill_one) {
                        (Some((at, cell)), _) => (Some(at), cell),
                        (None, Some(fill)) => (None, Cell::Float(fill)),
                        (None, None) => continue,
                    };
                    if let Some(element) = self.elements(cell, other) {
                        turns.add(step, Some(at), partner, element, matched)?;
                        matched = true;
                    }
                }
                if let (false, Some((at, cell)), Some(fill)) = (matched, one, self.fill_many)
                    && let Some(element) = self.elements(Cell::Float(fill), cell)
                {
                    turns.add(step, None, Some(at), element, false)?;
                }
            }
            Ok(turns.finish())
        });
        self.state.limits.release_bytes(bytes);
        results
    }

    /// Several series of the "one" side at the same step are an error, wherever the many side has anything at all.
    fn check_ones(
        &self,
        group: &Group,
        ones: &[Column],
        manys: &[Column],
        scratch: &mut Scratch,
    ) -> Result<(), QueryError> {
        if ones.len() < 2 {
            return Ok(());
        }
        let mut clashes: Vec<(usize, usize, usize)> = Vec::new();
        // Of the clashes at a step only the first can be the one that is told.
        let mut clashed = Bits::new(self.steps.count);
        let mut present = Bits::new(self.steps.count);
        for (at, column) in ones.iter().enumerate() {
            self.state.limits.check()?;
            if present.overlaps(column) {
                let steps = (0..self.steps.count).filter(|step| present.get(*step) && column.has(*step));
                for step in steps {
                    if clashed.get(step) {
                        continue;
                    }
                    clashed.set(step);
                    let earlier = ones[..at].iter().position(|earlier| earlier.has(step));
                    clashes.extend(earlier.map(|earlier| (step, earlier, at)));
                }
            }
            column.mark_presence(&mut present);
        }
        if clashes.is_empty() {
            return Ok(());
        }
        let fills = self.fill_many.is_some() || self.fill_one.is_some();
        let mut many_present = Bits::new(self.steps.count);
        manys.iter().for_each(|column| column.mark_presence(&mut many_present));
        let meets = |bits: &Bits| clashes.iter().find(|(step, ..)| fills || bits.get(*step)).copied();
        let mut clash = meets(&many_present);
        let mut column = scratch.take_column(&self.state.limits, self.steps.count)?;
        for index in 0..self.many.len() {
            if clash.is_some() {
                break;
            }
            self.state.limits.check()?;
            self.many.source.read(index, &mut column, scratch)?;
            column.mark_presence(&mut many_present);
            clash = meets(&many_present);
        }
        scratch.give_column(column);
        let Some((_, a, b)) = clash else { return Ok(()) };
        let labels = |at: usize| &self.one.heads[group.one[at]].labels;
        let mut pair = [labels(a), labels(b)];
        pair.sort();
        let pick = Pick::new(&self.plan.matching.labels, self.plan.matching.on);
        Err(QueryError::execution(format!(
            "found duplicate series for the match group {} on the {} hand-side of the operation: [{}, {}];\
             many-to-many matching not allowed: matching labels must be unique on one side",
            pick.of(labels(b)),
            if self.swapped { "left" } else { "right" },
            pair[0],
            pair[1]
        )))
    }
}

fn all_distinct(heads: &[Head]) -> bool {
    let mut seen = LabelMap::with_capacity(heads.len());
    heads.iter().enumerate().all(|(index, head)| seen.insert(&head.labels, index).1)
}

/// A series of the many and one of the one; `None`: filled in.
type Pair = (Option<usize>, Option<usize>);

/// Bytes of a result beside its column: its place in the list and in the map.
const RESULT_BYTES: usize = size_of::<(Head, Column)>() + ENTRY_BYTES;

/// Results of a group, by the pair they come from (`None`: filled in).
struct Turns<'a, 'q> {
    joiner: &'a Joiner<'q>,
    group: &'a Group,
    pairs: HashMap<Pair, usize>,
    numbers: LabelMap,
    results: Vec<(Head, Column)>,
    /// What is counted of all this.
    bytes: usize,
    /// Steps at which each result was matched, whether or not the comparison held.
    matched: Vec<Bits>,
}

impl<'a, 'q> Turns<'a, 'q> {
    fn new(joiner: &'a Joiner<'q>, group: &'a Group) -> Self {
        Self {
            joiner,
            group,
            pairs: HashMap::new(),
            numbers: LabelMap::with_capacity(4),
            results: Vec::new(),
            bytes: 0,
            matched: Vec::new(),
        }
    }

    fn add(
        &mut self,
        step: usize,
        many: Option<usize>,
        one: Option<usize>,
        element: Element,
        matched_before: bool,
    ) -> Result<(), QueryError> {
        if matched_before && self.joiner.plan.matching.card == Cardinality::OneToOne {
            return Err(QueryError::execution(
                "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
            ));
        }
        let number = self.number(many, one)?;
        if self.matched[number].get(step) {
            return Err(QueryError::execution(
                "multiple matches for labels: grouping labels must ensure unique matches",
            ));
        }
        self.matched[number].set(step);
        if let Element::Histogram(histogram) = &element {
            self.hold_bytes(16 * histogram_size(histogram) + 16)?;
        }
        element.store(step, &mut self.results[number].1);
        Ok(())
    }

    fn hold_bytes(&mut self, bytes: usize) -> Result<(), QueryError> {
        self.bytes += bytes;
        self.joiner.state.limits.hold_bytes(bytes)
    }

    /// The result series of a pair.
    fn number(&mut self, many: Option<usize>, one: Option<usize>) -> Result<usize, QueryError> {
        if let Some(number) = self.pairs.get(&(many, one)) {
            return Ok(*number);
        }
        let joiner = self.joiner;
        let many_head = many.map(|at| joiner.many.heads[self.group.many[at]].clone());
        let one_head = one.map(|at| joiner.one.heads[self.group.one[at]].clone());
        let head = match (many_head, one_head) {
            (Some(many), Some(one)) => joiner.result(&many, &one),
            (Some(many), None) => joiner.result(&many, &joiner.stand_in(&many)),
            (None, Some(one)) => joiner.result(&joiner.stand_in(&one), &one),
            (None, None) => Head::new(Labels::empty()),
        };
        let (number, is_new) = self.numbers.insert(&head.labels, self.results.len());
        if is_new {
            let steps = joiner.steps.count;
            joiner.state.limits.admit(self.results.len().saturating_mul(steps))?;
            joiner.state.limits.check()?;
            joiner.hold_heads(std::slice::from_ref(&head))?;
            self.hold_bytes(RESULT_BYTES + Column::bytes_of(steps) + Bits::bytes(steps))?;
            let mut column = Column::default();
            column.reset(steps);
            self.results.push((head, column));
            self.matched.push(Bits::new(joiner.steps.count));
        }
        self.hold_bytes(2 * size_of::<(Pair, usize)>())?;
        self.pairs.insert((many, one), number);
        Ok(number)
    }

    fn finish(self) -> (Vec<(Head, Column)>, usize) {
        let results = self.results.into_iter().filter(|(_, column)| !column.is_empty()).collect();
        (results, self.bytes)
    }
}

/// The result of a join.
struct Joined<'q> {
    joiner: Joiner<'q>,
    items: Vec<Item>,
    shared: Vec<Option<Column>>,
}

impl Source for Joined<'_> {
    fn read(&self, index: usize, into: &mut Column, scratch: &mut Scratch) -> Result<(), QueryError> {
        let (many, one) = match &self.items[index] {
            Item::Ready(column) => {
                into.clone_from(column);
                return Ok(());
            }
            Item::Pair { many, one } => (*many, *one),
        };
        let joiner = &self.joiner;
        let (limits, steps) = (&joiner.state.limits, joiner.steps.count);
        let mut many_column = scratch.take_column(limits, steps)?;
        joiner.many.source.read(many, &mut many_column, scratch)?;
        let mut one_column = scratch.take_column(limits, steps)?;
        let one_ref = match &self.shared[one] {
            Some(shared) => shared,
            None => {
                joiner.one.source.read(one, &mut one_column, scratch)?;
                &one_column
            }
        };
        let (left, right) = if joiner.swapped { (one_ref, &many_column) } else { (&many_column, one_ref) };
        columns(joiner.plan, left, right, into, &joiner.notes());
        scratch.give_column(one_column);
        scratch.give_column(many_column);
        Ok(())
    }
}
