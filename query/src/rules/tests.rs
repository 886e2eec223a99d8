//! Rules on fakes: a script instead of an engine, a small store in memory, a sink that remembers, clocks that obey.

mod alerts;
mod fakes;
mod files;
mod groups;
mod reload;
mod restoring;
mod running;
