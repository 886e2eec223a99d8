//! Templates of notifications: Alertmanager's default templates, user files on top, text and HTML mode.
//!
//! The engine and the function table are `model::template`'s. The default templates have Alertmanager's names, so
//! that user files can call and override them, and give the same results; their source is our own.

pub mod data;

use std::collections::HashMap;

use model::template::{Env, Functions, Mode, Template, TemplateError, TemplateSet, Value};
use parking_lot::Mutex;

const DEFAULT_TEXT: &str = include_str!("default.tmpl");
const DEFAULT_EMAIL: &str = include_str!("email.tmpl");
/// What the marks in `email.tmpl` stand for, in the order in which they are replaced: mail programs want every style
/// inline, so nearly every element repeats the same.
const EMAIL_MARKS: [(&str, &str); 5] = [
    ("@tr", "<tr style=\"@base;\">"),
    (
        "@cell",
        "<td class=\"content-block\" style=\"@base; vertical-align: top; padding: 0 0 20px;\" valign=\"top\">",
    ),
    ("@br", "<br style=\"@base;\">"),
    ("@base", "margin: 0; @style; font-size: 14px"),
    ("@style", "font-family: 'Helvetica Neue', Helvetica, Arial, sans-serif; box-sizing: border-box"),
];

/// A file with template definitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateFile {
    /// For messages: the path as configured.
    pub name: String,
    /// The source.
    pub text: String,
}

/// Templates that are kept compiled: a configuration has dozens of them; url files may bring more.
const COMPILED_MAX: usize = 256;

/// All named templates of a configuration, in both modes.
pub struct Templates {
    text: TemplateSet,
    html: TemplateSet,
    /// By mode and source. Emptied when full.
    compiled: Mutex<HashMap<(bool, String), Template>>,
}

impl std::fmt::Debug for Templates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Templates").finish_non_exhaustive()
    }
}

impl Templates {
    /// The default templates with `files` on top; later definitions of a name win.
    ///
    /// # Errors
    /// When a file is malformed; the message names file and line.
    pub fn new(files: &[TemplateFile]) -> Result<Self, String> {
        let functions: Functions = data::functions();
        let build = |mode| -> Result<TemplateSet, String> {
            let mut set = TemplateSet::new(mode, &functions);
            let email = email_source();
            let own = [("default.tmpl", DEFAULT_TEXT), ("email.tmpl", email.as_str())];
            let theirs = files.iter().map(|file| (file.name.as_str(), file.text.as_str()));
            for (name, source) in own.into_iter().chain(theirs) {
                set.add(name, source).map_err(|error| error.to_string())?;
            }
            Ok(set)
        };
        Ok(Self { text: build(Mode::Text)?, html: build(Mode::Html)?, compiled: Mutex::default() })
    }

    /// Whether `template` is well-formed.
    ///
    /// # Errors
    /// With the reason.
    pub fn check(&self, template: &str, html: bool) -> Result<(), String> {
        let set = if html { &self.html } else { &self.text };
        set.compile("", template).map(|_| ()).map_err(|error| error.to_string())
    }

    /// Runs `template` without escaping.
    ///
    /// # Errors
    /// When it is malformed or fails.
    pub fn text(&self, template: &str, data: &Value, env: &Env) -> Result<String, TemplateError> {
        if !template.contains("{{") {
            return Ok(template.to_owned());
        }
        self.compiled(template, false)?.execute(data, env)
    }

    /// Runs `template` with escaping by context.
    ///
    /// # Errors
    /// When it is malformed or fails.
    pub fn html(&self, template: &str, data: &Value, env: &Env) -> Result<String, TemplateError> {
        if template.is_empty() {
            return Ok(String::new());
        }
        self.compiled(template, true)?.execute(data, env)
    }

    fn compiled(&self, source: &str, html: bool) -> Result<Template, TemplateError> {
        let key = (html, source.to_owned());
        if let Some(template) = self.compiled.lock().get(&key) {
            return Ok(template.clone());
        }
        let set = if html { &self.html } else { &self.text };
        let template = set.compile("", source)?;
        let mut compiled = self.compiled.lock();
        if compiled.len() >= COMPILED_MAX {
            compiled.clear();
        }
        compiled.insert(key, template.clone());
        Ok(template)
    }
}

fn email_source() -> String {
    EMAIL_MARKS.iter().fold(DEFAULT_EMAIL.to_owned(), |source, (mark, text)| source.replace(mark, text))
}

#[cfg(test)]
mod tests;
