//! The run that is going on in this thread: its bounds, its environment, the template it belongs to.
//!
//! `gotmpl`'s functions are plain closures that live as long as their table, while what they need (the time, how to
//! query, how much work is left) belongs to one run. Runs nest (`tmpl`); an inner run spends the outer one's budget.

use std::cell::RefCell;
use std::sync::Arc;

use super::set::Compiled;
use super::{Env, Limits};

pub(super) struct Run {
    pub env: Env,
    pub limits: Limits,
    pub steps_left: u64,
    pub template: Arc<Compiled>,
}

thread_local! {
    static RUNS: RefCell<Vec<Run>> = const { RefCell::new(Vec::new()) };
}

/// Ends the run when dropped.
pub(super) struct RunGuard;

impl Drop for RunGuard {
    fn drop(&mut self) {
        RUNS.with_borrow_mut(|runs| {
            let Some(ended) = runs.pop() else { return };
            if let Some(outer) = runs.last_mut() {
                outer.steps_left = outer.steps_left.min(ended.steps_left);
            }
        });
    }
}

/// Begins a run.
pub(super) fn begin(env: Env, limits: Limits, template: Arc<Compiled>) -> RunGuard {
    RUNS.with_borrow_mut(|runs| {
        let steps_left = runs.last().map_or(limits.steps, |outer| outer.steps_left);
        runs.push(Run { env, limits, steps_left, template });
    });
    RunGuard
}

/// Counts one call; false when the budget is spent.
pub(super) fn step() -> bool {
    with(|run| {
        let left = run.steps_left > 0;
        run.steps_left = run.steps_left.saturating_sub(1);
        left
    })
    .unwrap_or(true)
}

/// Looks at the run that is going on; `None` outside of one.
pub(super) fn with<R>(look: impl FnOnce(&mut Run) -> R) -> Option<R> {
    RUNS.with_borrow_mut(|runs| runs.last_mut().map(look))
}

/// The environment of the run that is going on.
pub(super) fn env() -> Env {
    with(|run| run.env.clone()).unwrap_or_else(|| Env::at(0))
}
