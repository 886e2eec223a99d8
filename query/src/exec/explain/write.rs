//! The forms of an explanation: lines for people, JSON for the UI.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Analysis, Explanation, Measured, PlanNode};
use crate::exec::date::rfc3339_millis;

pub(super) fn text(explanation: &Explanation) -> String {
    let mut out = String::new();
    header(&mut out, explanation);
    // Depth-first with a stack of our own: plans may be as deep as the parser lets them.
    let mut open = vec![(&explanation.root, String::new(), String::new())];
    while let Some((node, lead, below)) = open.pop() {
        out.push_str(&lead);
        line(&mut out, node);
        let last = node.children.len().saturating_sub(1);
        for (index, child) in node.children.iter().enumerate().rev() {
            let (branch, rest) = if index == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            open.push((child, format!("{below}{branch}"), format!("{below}{rest}")));
        }
    }
    out
}

fn header(out: &mut String, explanation: &Explanation) {
    let times = &explanation.times;
    let (start, end) = (rfc3339_millis(times.start), rfc3339_millis(times.end));
    let mut add = |line: String| {
        out.push_str(&line);
        out.push('\n');
    };
    if times.step == 0 {
        add(format!("{} at {start}", explanation.value_type.documented()));
    } else {
        let step = model::duration::format_ms(times.step);
        add(format!("{} steps of {step}, {start} to {end}", explanation.steps));
    }
    if let Some(extent) = explanation.extent {
        add(format!("reads {} to {}", rfc3339_millis(extent.min), rfc3339_millis(extent.max)));
    }
    if let Some(Analysis { stats, result_series, result_points }) = &explanation.analysis {
        let took = stats.prepare + stats.inner_eval + stats.result_sort;
        add(format!(
            "took {took:.1?}: {} series, {} samples read, {} looked at; held at most {} samples, {}",
            stats.series,
            stats.samples_read,
            stats.total_samples,
            stats.peak_samples,
            bytes(stats.peak_memory_bytes)
        ));
        add(format!("gave {result_series} series, {result_points} points"));
    }
    out.push('\n');
}

fn line(out: &mut String, node: &PlanNode) {
    out.push_str(node.operator);
    for (name, value) in &node.properties {
        // Writing to a string cannot fail.
        let _ = match value {
            Value::String(text) => write!(out, " {name}={text}"),
            other => write!(out, " {name}={other}"),
        };
    }
    if let Some(Measured { series, samples, nanos, own_nanos, memory_bytes, .. }) = node.measured {
        let (all, own) = (Duration::from_nanos(nanos), Duration::from_nanos(own_nanos));
        let _ = write!(out, "  [{series} series, {samples} samples, {all:.1?}, own {own:.1?}");
        if memory_bytes > 0 {
            let _ = write!(out, ", {}", bytes(memory_bytes));
        }
        out.push(']');
    }
    out.push('\n');
}

/// `12.5 MiB`
fn bytes(bytes: u64) -> String {
    crate::exec::error::bytes_text(bytes)
}

pub(super) fn json(explanation: &Explanation) -> String {
    let times = &explanation.times;
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    put("query", explanation.text.as_str().into());
    put("resultType", explanation.value_type.as_str().into());
    put("start", seconds(times.start));
    put("end", seconds(times.end));
    put("step", seconds(times.step));
    put("steps", explanation.steps.into());
    put("lookbackDelta", seconds(explanation.lookback_ms));
    if let Some(extent) = explanation.extent {
        put("reads", json!({"start": seconds(extent.min), "end": seconds(extent.max)}));
    }
    if let Some(Analysis { stats, result_series, result_points }) = &explanation.analysis {
        let took = stats.prepare + stats.inner_eval + stats.result_sort;
        put(
            "analysis",
            json!({
                "seconds": took.as_secs_f64(),
                "series": stats.series,
                "samplesRead": stats.samples_read,
                "totalQueryableSamples": stats.total_samples,
                "peakSamples": stats.peak_samples,
                "peakMemoryBytes": stats.peak_memory_bytes,
                "resultSeries": result_series,
                "resultPoints": result_points,
            }),
        );
    }
    let mut out = opened(&object);
    out.push_str(",\"plan\":");
    plan_json(&mut out, &explanation.root);
    out.push('}');
    out
}

/// The object without its last brace.
fn opened(object: &Map<String, Value>) -> String {
    let mut text = serde_json::to_string(object).expect("maps of plain values can be written");
    text.pop();
    text
}

/// The tree, without recursion: plans may be as deep as the parser lets them.
fn plan_json(out: &mut String, root: &PlanNode) {
    enum Part<'a> {
        Node(&'a PlanNode, bool),
        End,
    }
    let mut open = vec![Part::Node(root, true)];
    while let Some(part) = open.pop() {
        match part {
            Part::Node(node, first) => {
                if !first {
                    out.push(',');
                }
                out.push_str(&opened(&node_json(node)));
                out.push_str(",\"children\":[");
                open.push(Part::End);
                let children = node.children.iter().enumerate().rev();
                open.extend(children.map(|(index, child)| Part::Node(child, index == 0)));
            }
            Part::End => out.push_str("]}"),
        }
    }
}

fn seconds(ms: i64) -> Value {
    if ms % 1000 == 0 { (ms / 1000).into() } else { (ms as f64 / 1000.0).into() }
}

/// An operator without its operands.
fn node_json(node: &PlanNode) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("operator".to_owned(), node.operator.into());
    object.extend(node.properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    if let Some(span) = node.span {
        object.insert("span".to_owned(), json!([span.start, span.end]));
    }
    if let Some(measured) = node.measured {
        let own = Duration::from_nanos(measured.own_nanos).as_secs_f64();
        let all = Duration::from_nanos(measured.nanos).as_secs_f64();
        object.insert(
            "measured".to_owned(),
            json!({
                "series": measured.series,
                "reads": measured.reads,
                "samples": measured.samples,
                "seconds": all,
                "ownSeconds": own,
                "memoryBytes": measured.memory_bytes,
            }),
        );
    }
    object
}
