//! The route tree: which receiver gets an alert, and how alerts are grouped on the way.
//!
//! The tree is immutable; a reload builds a new one. A route's *key* is the path of its matchers
//! (`{}/{team="a"}`): the notification log is kept by it, so two siblings with equal matchers share their log, and a
//! route that is moved within the file keeps it. A route's *id* is its position in the walk of the
//! tree, children before their parent: the order in which the API lists groups that are otherwise equal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::{Labels, Matcher};

/// How the alerts of a route are grouped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupBy {
    /// `['...']`: every label set is a group of its own.
    All,
    /// By the values of these labels; none: one group.
    Labels(BTreeSet<String>),
}

impl GroupBy {
    /// The labels that an alert's group is called by.
    pub fn group_labels(&self, labels: &Labels) -> Labels {
        match self {
            Self::All => labels.clone(),
            Self::Labels(names) => labels.filtered(|name| names.contains(name)),
        }
    }
}

/// A node of the tree with everything inherited filled in.
#[derive(Clone, Debug)]
pub struct Route {
    /// Position in the walk of the tree, children first.
    pub id: usize,
    /// The path of matchers from the root.
    pub key: String,
    /// Name of the receiver.
    pub receiver: String,
    /// Grouping.
    pub group_by: GroupBy,
    /// Sorted as in the key.
    pub matchers: Vec<Matcher>,
    /// Whether the siblings after it are tried too.
    pub continue_: bool,
    /// How long a new group collects alerts.
    pub group_wait: Duration,
    /// How long changes of a group are collected.
    pub group_interval: Duration,
    /// After how long an unchanged group is notified again.
    pub repeat_interval: Duration,
    /// Names of the intervals in which nothing is sent. Not inherited.
    pub mute_time_intervals: Vec<String>,
    /// Names of the intervals outside of which nothing is sent. Not inherited.
    pub active_time_intervals: Vec<String>,
    /// Labels of the route, templates not expanded.
    pub labels: BTreeMap<String, String>,
    /// Children, tried in order.
    pub routes: Vec<Arc<Route>>,
}

impl Route {
    /// The nodes that `labels` end in: at least one if the node matches at all.
    pub fn matching(self: &Arc<Self>, labels: &Labels) -> Vec<Arc<Self>> {
        let mut found = Vec::new();
        self.collect(labels, &mut found);
        found
    }

    fn collect(self: &Arc<Self>, labels: &Labels, found: &mut Vec<Arc<Self>>) -> bool {
        if !Matcher::all_match(&self.matchers, labels) {
            return false;
        }
        let before = found.len();
        for child in &self.routes {
            if child.collect(labels, found) && !child.continue_ {
                break;
            }
        }
        if found.len() == before {
            found.push(Arc::clone(self));
        }
        true
    }

    /// The node and all below it, parents first.
    pub fn walk(self: &Arc<Self>) -> Vec<Arc<Self>> {
        let mut nodes = vec![Arc::clone(self)];
        let mut next = 0;
        while let Some(node) = nodes.get(next).cloned() {
            nodes.extend(node.routes.iter().cloned());
            next += 1;
        }
        nodes
    }
}
