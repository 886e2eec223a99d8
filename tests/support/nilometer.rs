//! The built program as a process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::http::{self, Answer, encoded};
use super::{free_port, wait_for};

/// A running `nilometer`; killed when dropped.
#[derive(Debug)]
pub struct Nilometer {
    child: Child,
    pub port: u16,
    pub dir: PathBuf,
}

impl Nilometer {
    /// Starts in `dir` with a configuration file there, and waits until it is ready.
    pub fn start(dir: &Path, args: &[&str]) -> Self {
        Self::start_at(free_port(), dir, args)
    }

    /// The same at a given port.
    pub fn start_at(port: u16, dir: &Path, args: &[&str]) -> Self {
        let mut server = Self::spawn_at(port, dir, args);
        server.wait_until_ready();
        server
    }

    /// Starts, and does not wait.
    pub fn spawn_at(port: u16, dir: &Path, args: &[&str]) -> Self {
        let log = File::options().create(true).append(true).open(dir.join("nilometer.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_nilometer"))
            .current_dir(dir)
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, port, dir: dir.to_owned() }
    }

    /// # Panics
    /// When it ends before.
    pub fn wait_until_ready(&mut self) {
        wait_for("the server to be ready", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended with {status}:\n{}", self.log());
            }
            http::get(self.port, "/-/ready").filter(|answer| answer.status == 200)
        });
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that was logged in this directory, by earlier processes too.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("nilometer.log")).unwrap_or_default()
    }

    /// SIGKILL: no chance to say goodbye.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and whether it ended well.
    pub fn stop(mut self) -> bool {
        self.signal("TERM");
        self.child.wait().unwrap().success()
    }

    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap();
        assert!(status.success());
    }

    pub fn get(&self, path: &str) -> Answer {
        http::get(self.port, path).unwrap_or_else(|| panic!("no answer to {path}:\n{}", self.log()))
    }

    /// `data` of an API answer.
    pub fn api(&self, path: &str) -> Value {
        let answer = self.get(&format!("/api/v1/{path}"));
        let mut json = answer.json();
        assert_eq!(json["status"], "success", "{path}: {json}");
        json["data"].take()
    }

    /// The result of an instant query.
    pub fn query(&self, expr: &str) -> Vec<Value> {
        match self.api(&format!("query?query={}", encoded(expr)))["result"].take() {
            Value::Array(result) => result,
            other => panic!("{expr} gave {other}"),
        }
    }

    /// The single value of an instant query, if there is just one.
    pub fn value(&self, expr: &str) -> Option<f64> {
        match self.query(expr).as_slice() {
            [one] => one["value"][1].as_str()?.parse().ok(),
            _ => None,
        }
    }

    /// The alert of this name from `/api/v1/alerts`.
    pub fn alert(&self, name: &str) -> Option<Value> {
        let alerts = self.api("alerts")["alerts"].take();
        alerts.as_array()?.iter().find(|alert| alert["labels"]["alertname"] == name).cloned()
    }
}

impl Drop for Nilometer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
