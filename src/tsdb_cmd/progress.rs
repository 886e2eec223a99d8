//! A progress bar on standard error, where that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How far a long piece of work has come. Removed from the screen when dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Of `total` bytes; `None`: nobody knows how many there will be.
    pub(crate) fn bytes(what: &'static str, total: Option<u64>) -> Self {
        let (bar, template) = match total {
            Some(total) => (
                ProgressBar::new(total),
                "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}",
            ),
            None => (ProgressBar::new_spinner(), "{prefix} {spinner} {bytes} {bytes_per_sec} {msg}"),
        };
        Self::start(bar, what, template)
    }

    /// Of `total` things.
    pub(crate) fn count(what: &'static str, total: u64) -> Self {
        Self::start(ProgressBar::new(total), what, "{prefix} {wide_bar} {pos}/{len} {eta} {msg}")
    }

    fn start(bar: ProgressBar, what: &'static str, template: &str) -> Self {
        bar.set_style(ProgressStyle::with_template(template).expect("templates are constants of this file"));
        bar.set_prefix(what);
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar }
    }

    /// This much more is done.
    pub(crate) fn advance(&self, amount: u64) {
        self.bar.inc(amount);
    }

    /// What is being done right now.
    pub(crate) fn say(&self, text: String) {
        self.bar.set_message(text);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
