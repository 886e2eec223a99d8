//! What end-to-end tests are made of: the built program in a directory of its own, real brokers beside it, sinks that
//! write down what they are told. Loopback only; every process is ended by the one who started it.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "shared by test binaries that each use a part")]
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

pub mod http;
pub mod nilometer;
pub mod redis;
pub mod remote_write;
pub mod sinks;

use std::net::TcpListener;
use std::time::{Duration, Instant};

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asks again and again until `question` has an answer.
///
/// # Panics
/// When there is none within a minute; says what was waited for.
pub fn wait_for<T>(what: &str, mut question: impl FnMut() -> Option<T>) -> T {
    let start = now();
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "waited a minute for {what}");
        pause(Duration::from_millis(50));
    }
}

/// Sleeps: these tests run against real processes with real clocks.
#[expect(clippy::disallowed_methods, reason = "other processes' time cannot be paused")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

#[expect(clippy::disallowed_methods, reason = "other processes' time cannot be paused")]
pub fn now() -> Instant {
    Instant::now()
}

/// Whether `program` can be run. Without it a test is skipped loudly, or fails where CI is set.
pub fn available(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|paths| std::env::split_paths(&paths).any(|folder| folder.join(program).is_file()));
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{program} is missing, and CI must not skip tests");
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}
