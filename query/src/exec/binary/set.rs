//! `and`, `or`, `unless`: which steps of which series stay.

use crate::ast::BinaryOp;
use crate::exec::column::{Bits, Column};
use crate::exec::error::QueryError;
use crate::exec::eval::check_every;
use crate::exec::labels::{ENTRY_BYTES, Grouper, Pick};
use crate::exec::state::{Scratch, State};
use crate::exec::stream::{Head, Source, Stream};
use crate::plan::BinaryPlan;

/// Evaluates a set operator.
pub(super) fn set<'q>(
    state: &'q State<'q>,
    plan: &'q BinaryPlan,
    left: Stream<'q>,
    right: Stream<'q>,
) -> Result<Stream<'q>, QueryError> {
    let pick = Pick::new(&plan.matching.labels, plan.matching.on);
    if plan.op == BinaryOp::Or {
        return or(state, pick, left, right);
    }
    // Where the right side is present, per match group.
    let mut grouper = Grouper::new(pick);
    hold_groups(state, &left, &right)?;
    let groups: Vec<usize> = right.heads.iter().map(|head| grouper.group(&head.labels).0).collect();
    let present = presence(state, &right, &groups, grouper.len())?;
    drop(right);
    let keep = plan.op == BinaryOp::And;
    let mut left = left;
    let mut masks = Vec::with_capacity(left.len());
    let mut kept = Vec::with_capacity(left.len());
    for (index, head) in std::mem::take(&mut left.heads).into_iter().enumerate() {
        check_every(state, index)?;
        let group = grouper.find(&head.labels);
        // A series whose group the right side never has is dropped whole by `and`, kept whole by `unless`.
        if group.is_none() && keep {
            continue;
        }
        masks.push((index, group));
        kept.push(head);
    }
    let steps = left.steps;
    Ok(Stream::new(steps, kept, Masked { inner: left, masks, present, keep }))
}

/// Counts the match groups before they are there: each series may be one of its own.
fn hold_groups(state: &State<'_>, left: &Stream<'_>, right: &Stream<'_>) -> Result<(), QueryError> {
    let each = ENTRY_BYTES + size_of::<(usize, Option<usize>)>() + size_of::<Head>();
    state.limits.hold_bytes((left.len() + right.len()).saturating_mul(each))
}

/// The steps at which each group has anything.
fn presence<'q>(
    state: &'q State<'q>,
    stream: &Stream<'q>,
    groups: &[usize],
    count: usize,
) -> Result<Vec<Bits>, QueryError> {
    state.limits.hold_bytes(count.saturating_mul(Bits::bytes(stream.steps.count)))?;
    let mut present = vec![Bits::new(stream.steps.count); count];
    stream.for_each(state, |index, column| {
        column.mark_presence(&mut present[groups[index]]);
        Ok(())
    })?;
    Ok(present)
}

struct Masked<'q> {
    inner: Stream<'q>,
    /// Series of `inner`, each with its group.
    masks: Vec<(usize, Option<usize>)>,
    present: Vec<Bits>,
    keep: bool,
}

impl Source for Masked<'_> {
    fn read(&self, index: usize, into: &mut Column, scratch: &mut Scratch) -> Result<(), QueryError> {
        let (series, group) = self.masks[index];
        self.inner.source.read(series, into, scratch)?;
        if let Some(group) = group {
            into.mask(&self.present[group], self.keep);
        }
        Ok(())
    }
}

fn or<'q>(
    state: &'q State<'q>,
    pick: Pick,
    left: Stream<'q>,
    mut right: Stream<'q>,
) -> Result<Stream<'q>, QueryError> {
    hold_groups(state, &left, &right)?;
    let mut grouper = Grouper::new(pick);
    let groups: Vec<usize> = left.heads.iter().map(|head| grouper.group(&head.labels).0).collect();
    let found: Vec<Option<usize>> = right.heads.iter().map(|head| grouper.find(&head.labels)).collect();
    // Both the presence and the samples of the left side are wanted: reading it once costs memory, twice costs time.
    let (left, present) = if found.iter().any(Option::is_some) {
        let table = left.materialize(state)?;
        state.limits.hold_bytes(grouper.len().saturating_mul(Bits::bytes(table.steps.count)))?;
        let mut present = vec![Bits::new(table.steps.count); grouper.len()];
        for (column, group) in table.columns.iter().zip(&groups) {
            column.mark_presence(&mut present[*group]);
        }
        (table.into_stream(), present)
    } else {
        (left, Vec::new())
    };
    let mut left = left;
    let mut heads = std::mem::take(&mut left.heads);
    let left_len = heads.len();
    heads.append(&mut right.heads);
    let steps = left.steps;
    let right = Masked { inner: right, masks: found.into_iter().enumerate().collect(), present, keep: false };
    Stream::new(steps, heads, Or { left, left_len, right }).merge_equal(state, false)
}

struct Or<'q> {
    left: Stream<'q>,
    left_len: usize,
    right: Masked<'q>,
}

impl Source for Or<'_> {
    fn read(&self, index: usize, into: &mut Column, scratch: &mut Scratch) -> Result<(), QueryError> {
        match index.checked_sub(self.left_len) {
            None => self.left.source.read(index, into, scratch),
            Some(index) => self.right.read(index, into, scratch),
        }
    }
}
