//! The embedded Alertmanager: takes alerts, groups them along a route tree, suppresses what is inhibited, muted or
//! silenced, and notifies receivers, once.
//!
//! ```text
//! rules, API ─► Provider (merge) ─► Dispatcher ─► AggrGroup (timers) ─► Pipeline ─► Integration (webhook, email)
//!                    └► Inhibitor        route tree                       │ inhibit, time intervals, silences
//!                                                                        │ dedup ◄─► NotificationLog ─► StateStore
//! ```
//!
//! [`Alertmanager`] joins the parts; it implements [`model::AlertSink`] for rules of the same process and hands out the
//! types of API v2 ([`api`]) to whoever serves HTTP. Compatible with Alertmanager 0.34 in configuration, behaviour and
//! bodies; what is not here yet: receivers other than webhook and email (refused in the configuration by name), gossip
//! between replicas ([`pipeline::Cluster`] is its place), `tracing:` and `event_recorder:`.
//!
//! Time is a [`model::Clock`] for what is written down and tokio's clock for waiting; both are under the control of
//! tests. Nothing here holds an unbounded queue: alerts go straight into their groups, limits are in [`Options`].
#![forbid(unsafe_code)]

pub mod alert;
pub mod api;
pub mod config;
mod dispatch;
mod gojson;
mod inhibit;
pub mod interval;
mod manager;
pub mod matchers;
mod metrics;
mod nflog;
pub mod notify;
pub mod pipeline;
mod provider;
pub mod random;
pub mod rfc3339;
pub mod route;
mod silence;
pub mod state;
pub mod template;

pub use config::{AlertmanagerConfig, BuildOptions, RawAlertmanagerConfig};
pub use dispatch::GroupView;
pub use manager::{Alertmanager, Deps, Options, PutReport, StartError};
pub use provider::AlertLimits;
pub use silence::{Silence, SilenceError, SilenceLimits, SilenceRequest, SilenceState};
