//! `label_replace` and `label_join`: change labels, never look at samples.

use model::labels::METRIC_NAME;
use model::{Labels, LabelsBuilder};

use super::error::QueryError;
use super::eval::{check_every, vector};
use super::labels::label_bytes;
use super::state::State;
use super::steps::Steps;
use super::stream::Stream;
use crate::plan::LabelReplacePlan;

fn set(
    state: &State<'_>,
    stream: &mut Stream<'_>,
    destination: &str,
    mut value: impl FnMut(&Labels) -> Option<String>,
) -> Result<(), QueryError> {
    let mut builder = LabelsBuilder::new();
    for (index, head) in stream.heads.iter_mut().enumerate() {
        check_every(state, index)?;
        let Some(value) = value(&head.labels) else { continue };
        builder.reset(&head.labels);
        builder.set(destination, value);
        head.labels = builder.build();
        state.limits.hold_bytes(label_bytes(&head.labels))?;
        if destination == METRIC_NAME {
            head.drop_name = false;
        }
    }
    Ok(())
}

pub(crate) fn replace<'q>(
    state: &'q State<'q>,
    plan: &'q LabelReplacePlan,
    steps: Steps,
) -> Result<Stream<'q>, QueryError> {
    let mut stream = vector(state, &plan.arg, steps)?;
    set(state, &mut stream, &plan.destination, |labels| {
        plan.regex.replace(labels.value(&plan.source), &plan.replacement)
    })?;
    stream.merge_equal(state, false)
}

pub(crate) fn join<'q>(
    state: &'q State<'q>,
    mut stream: Stream<'q>,
    destination: &str,
    separator: &str,
    sources: &[String],
) -> Result<Stream<'q>, QueryError> {
    set(state, &mut stream, destination, |labels| {
        let values: Vec<&str> = sources.iter().map(|source| labels.value(source)).collect();
        Some(values.join(separator))
    })?;
    stream.merge_equal(state, false)
}
