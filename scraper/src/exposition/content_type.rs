//! Which format a page is in, by its `Content-Type` and the job's `fallback_scrape_protocol`.

use super::{Format, PageFormat};

/// No format can be told. Texts are Prometheus'.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentTypeError {
    /// No header and no fallback.
    #[error(
        "non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol specified for target"
    )]
    Blank,
    /// A malformed header and no fallback.
    #[error("cannot parse Content-Type {} and no fallback_scrape_protocol for target", model::labels::Quoted(.0))]
    Malformed(String),
    /// Another type and no fallback.
    #[error(
        "received unsupported Content-Type {} and no fallback_scrape_protocol specified for target",
        model::labels::Quoted(.0)
    )]
    Unsupported(String),
}

/// The format of a page with the given header (empty: none).
///
/// # Errors
/// When it cannot be told or is not read.
pub fn media_type(header: &str, fallback: Option<PageFormat>) -> Result<PageFormat, ContentTypeError> {
    if header.is_empty() {
        return fallback.ok_or(ContentTypeError::Blank);
    }
    let Some(media_type) = parse(header) else {
        return fallback.ok_or_else(|| ContentTypeError::Malformed(header.to_owned()));
    };
    match media_type.as_str() {
        "text/plain" => Ok(PageFormat::Text(Format::Text)),
        "application/openmetrics-text" => Ok(PageFormat::Text(Format::OpenMetrics)),
        "application/vnd.google.protobuf" => Ok(PageFormat::Protobuf),
        _ => fallback.ok_or_else(|| ContentTypeError::Unsupported(header.to_owned())),
    }
}

/// The media type of a header, lower case; `None` when the header is malformed. (Go's `mime.ParseMediaType`.)
fn parse(header: &str) -> Option<String> {
    let (media_type, mut rest) = match header.split_once(';') {
        Some((media_type, rest)) => (media_type, Some(rest)),
        None => (header, None),
    };
    let media_type = media_type.trim().to_ascii_lowercase();
    let (kind, subtype) = media_type.split_once('/')?;
    if !is_token(kind) || !is_token(subtype) {
        return None;
    }
    let mut names: Vec<String> = Vec::new();
    while let Some(parameters) = rest {
        let parameters = parameters.trim_start();
        if parameters.trim().is_empty() {
            // A semicolon at the end is let pass.
            break;
        }
        let (name, value) = parameters.split_once('=')?;
        let name = name.trim_end().to_ascii_lowercase();
        if !is_token(&name) || names.contains(&name) {
            return None;
        }
        names.push(name);
        rest = after_value(value)?;
    }
    Some(media_type)
}

/// What follows the parameter value that `text` begins with: `None` (outer) when it is malformed.
#[expect(clippy::option_option, reason = "outer: well-formed or not; inner: whether there is more")]
fn after_value(text: &str) -> Option<Option<&str>> {
    let text = text.trim_start();
    let rest = if let Some(quoted) = text.strip_prefix('"') {
        let mut escaped = false;
        let end = quoted.char_indices().find_map(|(index, c)| {
            if escaped {
                escaped = false;
                return None;
            }
            escaped = c == '\\';
            (c == '"').then_some(index)
        })?;
        quoted.get(end + 1..)?
    } else {
        let length = text.bytes().take_while(|byte| is_token_byte(*byte)).count();
        if length == 0 {
            return None;
        }
        text.get(length..)?
    };
    let rest = rest.trim_start();
    if rest.is_empty() {
        return Some(None);
    }
    rest.strip_prefix(';').map(Some)
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// A token character of RFC 2045.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_fallbacks() {
        let om = Some(PageFormat::Text(Format::OpenMetrics));
        for header in [
            "text/plain",
            "text/plain; version=0.0.4; charset=utf-8",
            "TEXT/PLAIN;charset=\"utf-8\"",
            "text/plain;",
            " text/plain ; a=b ;",
        ] {
            assert_eq!(media_type(header, om), Ok(PageFormat::Text(Format::Text)), "{header}");
        }
        assert_eq!(
            media_type("application/openmetrics-text; version=1.0.0", None),
            Ok(PageFormat::Text(Format::OpenMetrics))
        );
        assert_eq!(
            media_type("application/vnd.google.protobuf; encoding=delimited", om),
            Ok(PageFormat::Protobuf)
        );
        for header in ["text/plain; version", "text/plain; a=1; a=2", "text", "text/plain; =x", "te xt/plain"]
        {
            assert_eq!(
                media_type(header, None),
                Err(ContentTypeError::Malformed(header.to_owned())),
                "{header}"
            );
            assert_eq!(media_type(header, om), Ok(PageFormat::Text(Format::OpenMetrics)), "{header}");
        }
        assert_eq!(media_type("", None), Err(ContentTypeError::Blank));
        assert_eq!(media_type("", om), Ok(PageFormat::Text(Format::OpenMetrics)));
        assert_eq!(media_type("text/html", None), Err(ContentTypeError::Unsupported("text/html".to_owned())));
        assert_eq!(media_type("text/html", om), Ok(PageFormat::Text(Format::OpenMetrics)));
    }
}
