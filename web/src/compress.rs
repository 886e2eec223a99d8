//! Compression of answers: gzip or deflate, whichever the client lists first.
//!
//! Observed on Prometheus: the first token that reads exactly `gzip` or `deflate` wins; tokens with `;q=` and other
//! spellings are ignored.

use std::io::Write as _;

use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt as _;

/// Level 1 of zlib-rs codes without tables made for the text: hardly smaller than it.
const LEVEL: u32 = 3;

/// A form of compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, as HTTP means it.
    Deflate,
}

impl Encoding {
    /// What the client wants.
    pub fn wanted(headers: &HeaderMap) -> Option<Self> {
        let listed = headers.get(ACCEPT_ENCODING)?.to_str().ok()?;
        listed.split(',').find_map(|token| match token.trim() {
            "gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            _ => None,
        })
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// Sets `Content-Encoding`.
    pub(crate) fn name_in(self, headers: &mut HeaderMap) {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(self.as_str()));
    }

    fn compress(self, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let out = Vec::with_capacity(bytes.len() / 4 + 64);
        // Level 1: answers are read once; the time of level 6 is worth more than its bytes on loopback and LAN.
        match self {
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(out, Compression::new(LEVEL));
                encoder.write_all(bytes)?;
                encoder.finish()
            }
            Self::Deflate => {
                let mut encoder = flate2::write::ZlibEncoder::new(out, Compression::new(LEVEL));
                encoder.write_all(bytes)?;
                encoder.finish()
            }
        }
    }
}

/// Compresses an answer that comes in pieces.
#[derive(Debug)]
pub(crate) enum Compressor {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Deflate(flate2::write::ZlibEncoder<Vec<u8>>),
}

impl Compressor {
    pub(crate) fn new(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Gzip => Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), Compression::new(LEVEL))),
            Encoding::Deflate => {
                Self::Deflate(flate2::write::ZlibEncoder::new(Vec::new(), Compression::new(LEVEL)))
            }
        }
    }

    /// Takes in more.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Deflate(encoder) => encoder.write_all(bytes),
        }
    }

    fn out(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Deflate(encoder) => encoder.get_mut(),
        }
    }

    /// Bytes that have come out of it.
    pub(crate) fn waiting(&mut self) -> usize {
        self.out().len()
    }

    /// What has come out of it.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.out())
    }

    /// The last that comes out of it; nothing when it is asked again.
    pub(crate) fn finish(&mut self) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.try_finish()?,
            Self::Deflate(encoder) => encoder.try_finish()?,
        }
        Ok(self.take())
    }
}

/// Compresses a whole answer on the pool's threads. Answers that are encoded already stay as they are.
pub async fn compress(response: Response<Body>, encoding: Encoding, pool: &net::CpuPool) -> Response<Body> {
    if response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(collected) = body.collect().await else {
        return Response::from_parts(parts, Body::empty());
    };
    let bytes: Bytes = collected.to_bytes();
    if bytes.is_empty() {
        // Prometheus names the encoding of nothing, too.
        encoding.name_in(&mut parts.headers);
        return Response::from_parts(parts, Body::from(bytes));
    }
    let input = bytes.clone();
    // Small answers are faster compressed here than handed over.
    let compressed = if bytes.len() < 16 << 10 {
        encoding.compress(&input).ok()
    } else {
        pool.run(move || encoding.compress(&input).ok()).await.ok().flatten()
    };
    let Some(compressed) = compressed else {
        return Response::from_parts(parts, Body::from(bytes));
    };
    parts.headers.remove(CONTENT_LENGTH);
    encoding.name_in(&mut parts.headers);
    Response::from_parts(parts, Body::from(compressed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_exact_token_wins() {
        let wanted = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_str(text).unwrap());
            Encoding::wanted(&headers)
        };
        assert_eq!(wanted("gzip, deflate, br"), Some(Encoding::Gzip));
        assert_eq!(wanted("br, deflate,gzip"), Some(Encoding::Deflate));
        assert_eq!(wanted("GZIP, gzip;q=1.0"), None);
        assert_eq!(Encoding::wanted(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn answers_of_any_size_read_back_the_same() {
        use std::io::Read as _;
        let pool = net::CpuPool::new(2);
        for size in [0, 1, 1000, 100_000] {
            for encoding in [Encoding::Gzip, Encoding::Deflate] {
                let body: Vec<u8> = (0..size).map(|n: usize| (n % 251) as u8).collect();
                let mut response = Response::new(Body::from(body.clone()));
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(size));
                let response = compress(response, encoding, &pool).await;
                assert_eq!(response.headers()[CONTENT_ENCODING], encoding.as_str());
                let bytes = response.into_body().collect().await.unwrap().to_bytes();
                let mut back = Vec::new();
                match encoding {
                    _ if size == 0 => {}
                    Encoding::Gzip => {
                        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut back).map(|_| ()).unwrap();
                    }
                    Encoding::Deflate => {
                        flate2::read::ZlibDecoder::new(&bytes[..])
                            .read_to_end(&mut back)
                            .map(|_| ())
                            .unwrap();
                    }
                }
                assert_eq!(back, body, "{encoding:?} {size}");
            }
        }
    }

    #[tokio::test]
    async fn encoded_answers_stay_as_they_are() {
        let pool = net::CpuPool::new(2);
        let mut response = Response::new(Body::from("packed"));
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("br"));
        let response = compress(response, Encoding::Gzip, &pool).await;
        assert_eq!(response.headers()[CONTENT_ENCODING], "br");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "packed");
    }
}
