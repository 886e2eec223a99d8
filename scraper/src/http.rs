//! Asking a target for its page: request headers as Prometheus 3 sends them, and what of the answer counts.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Request, Response, StatusCode};
use net::NetError;
use net::http::{HttpClient, SendLimits};

use crate::config::{NameEscaping, ScrapeConfig, ScrapeProtocol};
use crate::error::ScrapeError;
use crate::unpack::Unpacker;

/// How much longer than the limit a body may be on the wire: small pages grow when compressed.
const WIRE_EXTRA_BYTES: u64 = 64 << 10;
/// No page may be longer, uncompressed or compressed, whatever `body_size_limit` says: what fits into memory many times.
pub(crate) const BODY_MAX_BYTES: u64 = 256 << 20;

const TIMEOUT_HEADER: &str = "x-prometheus-scrape-timeout-seconds";

/// A page as received.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) body: Bytes,
    pub(crate) gzip: bool,
    pub(crate) content_type: String,
    /// The answer's headers hold something that is not for other eyes.
    pub(crate) has_credentials: bool,
}

/// Asks one target.
pub(crate) struct PageSource {
    client: HttpClient,
    url: String,
    request: Result<Request<()>, String>,
    timeout: Duration,
    body_size_limit: u64,
}

impl PageSource {
    pub(crate) fn new(
        client: HttpClient,
        config: &ScrapeConfig,
        url: &str,
        timeout: Duration,
        user_agent: &str,
    ) -> Self {
        Self {
            client,
            url: url.to_owned(),
            request: request(config, url, timeout, user_agent).map_err(|error| error.to_string()),
            timeout,
            body_size_limit: effective_limit(config.limits.body_size),
        }
    }

    /// The page.
    pub(crate) async fn fetch(&self) -> Result<Page, ScrapeError> {
        let request = match &self.request {
            Ok(request) => request.clone().map(|()| Bytes::new()),
            Err(error) => return Err(ScrapeError::Url(self.url.clone(), error.clone())),
        };
        let limits =
            SendLimits { timeout: self.timeout, body_max_bytes: self.body_size_limit + WIRE_EXTRA_BYTES };
        let response = match self.client.send(request, limits).await {
            Ok(response) => response,
            Err(NetError::BodyTooLarge { .. }) => return Err(ScrapeError::BodySizeLimit),
            Err(NetError::UnexpectedEof) => return Err(ScrapeError::UnexpectedEof),
            Err(source) => return Err(ScrapeError::Net { url: self.url.clone(), source }),
        };
        page(response)
    }
}

fn page(response: Response<Bytes>) -> Result<Page, ScrapeError> {
    let status = response.status();
    if status != StatusCode::OK {
        // The words of the server, where they are others than the usual ones.
        let own = response.extensions().get::<hyper::ext::ReasonPhrase>();
        let reason = match own {
            Some(reason) => format!(" {}", String::from_utf8_lossy(reason.as_bytes())),
            None => status.canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default(),
        };
        return Err(ScrapeError::Status(format!("{}{reason}", status.as_u16())));
    }
    let (parts, body) = response.into_parts();
    let content_type = parts
        .headers
        .get(CONTENT_TYPE)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .unwrap_or_default();
    // Exactly this word, as in Prometheus.
    let gzip = parts.headers.get(CONTENT_ENCODING).is_some_and(|value| value == "gzip");
    let has_credentials = parts.headers.keys().any(|name| is_credential(name.as_str()));
    Ok(Page { body, gzip, content_type, has_credentials })
}

/// Whether a header of an answer is about credentials; `name` is in lower case.
fn is_credential(name: &str) -> bool {
    const NAMES: [&str; 5] =
        ["set-cookie", "www-authenticate", "proxy-authenticate", "authentication-info", "x-api-key"];
    const PARTS: [&str; 5] = ["token", "secret", "password", "credential", "authorization"];
    NAMES.contains(&name) || PARTS.iter().any(|part| name.contains(part))
}

/// The bound in bytes at which a body is too long.
pub(crate) fn effective_limit(configured: u64) -> u64 {
    if configured == 0 { BODY_MAX_BYTES } else { configured.min(BODY_MAX_BYTES) }
}

impl Page {
    /// The uncompressed text. One of `limit` bytes is too long already.
    pub(crate) fn text<'a>(
        &'a self,
        unpacker: &'a mut Unpacker,
        limit: u64,
    ) -> Result<&'a [u8], ScrapeError> {
        let text: &[u8] = if self.gzip { unpacker.gunzip(&self.body, limit)? } else { &self.body };
        if text.len() as u64 >= limit { Err(ScrapeError::BodySizeLimit) } else { Ok(text) }
    }
}

fn request(
    config: &ScrapeConfig,
    url: &str,
    timeout: Duration,
    user_agent: &str,
) -> Result<Request<()>, http::Error> {
    let encoding = if config.enable_compression { "gzip" } else { "identity" };
    Request::get(url)
        .header(ACCEPT, accept(&config.scrape_protocols, config.name_escaping))
        .header(ACCEPT_ENCODING, HeaderValue::from_static(encoding))
        .header(USER_AGENT, user_agent)
        .header(TIMEOUT_HEADER, model::float::format_fixed(timeout.as_secs_f64()))
        .body(())
}

/// The `Accept` header: each format with a weight, anything last.
fn accept(protocols: &[ScrapeProtocol], escaping: NameEscaping) -> String {
    let mut weight = ScrapeProtocol::ALL.len() + 1;
    let mut out = String::new();
    for protocol in protocols {
        out.push_str(protocol.media_type());
        if protocol.has_escaping() {
            out.push_str(";escaping=");
            out.push_str(escaping.as_str());
        }
        out.push_str(&format!(";q=0.{weight},"));
        weight -= 1;
    }
    out.push_str(&format!("*/*;q=0.{weight}"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_weighs_like_prometheus() {
        assert_eq!(
            accept(&ScrapeProtocol::DEFAULT, NameEscaping::AllowUtf8),
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        );
        assert_eq!(
            accept(&[ScrapeProtocol::Text0_0_4, ScrapeProtocol::OpenMetrics1_0_0], NameEscaping::Underscores),
            "text/plain;version=0.0.4;q=0.6,\
             application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.5,*/*;q=0.4"
        );
    }

    #[test]
    fn gzip_is_bounded_and_checked() {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![b'a'; 1 << 20]).unwrap();
        let body = Bytes::from(encoder.finish().unwrap());
        assert!(body.len() < 10_000);
        let page =
            Page { body: body.clone(), gzip: true, content_type: String::new(), has_credentials: false };
        let mut unpacker = Unpacker::new();
        assert_eq!(page.text(&mut unpacker, u64::MAX).unwrap().len(), 1 << 20);
        assert_eq!(page.text(&mut unpacker, (1 << 20) + 1).unwrap().len(), 1 << 20);
        assert!(
            matches!(page.text(&mut unpacker, 1 << 20), Err(ScrapeError::BodySizeLimit)),
            "equality fails"
        );
        assert!(matches!(page.text(&mut unpacker, 100_000), Err(ScrapeError::BodySizeLimit)));
        let cut = Page {
            body: body.slice(..body.len() / 2),
            gzip: true,
            content_type: String::new(),
            has_credentials: false,
        };
        assert!(matches!(cut.text(&mut unpacker, u64::MAX), Err(ScrapeError::UnexpectedEof)));
        let plain = Page {
            body: Bytes::from_static(b"this is not compressed\n"),
            gzip: true,
            content_type: String::new(),
            has_credentials: false,
        };
        assert!(matches!(plain.text(&mut unpacker, u64::MAX), Err(ScrapeError::Gzip(_))));
    }
}
