//! `resolv.conf`: which servers to ask, and under which names.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use tokio::io::AsyncReadExt as _;

/// Most bytes read of the file.
const FILE_MAX_BYTES: u64 = 64 << 10;
/// Most servers that are asked one after the other.
const SERVERS_MAX: usize = 8;
/// Most search domains (glibc since 2.26 knows no bound; 32 is Go's and systemd's practice).
const SEARCH_MAX: usize = 32;
/// Most dots that `ndots` may ask for, as in glibc.
const NDOTS_MAX: usize = 15;
const DNS_PORT: u16 = 53;

/// What matters of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ResolvConf {
    pub(super) servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
}

impl ResolvConf {
    /// Reads the file.
    pub(super) async fn read(path: &Path) -> Result<Self, String> {
        let error = |error: std::io::Error| format!("could not load resolv.conf: {error}");
        let file = tokio::fs::File::open(path).await.map_err(error)?;
        let mut text = String::new();
        file.take(FILE_MAX_BYTES).read_to_string(&mut text).await.map_err(error)?;
        Ok(Self::parse(&text))
    }

    /// Lines that nobody understands do not count, as in every resolver. A server may have a port in our form
    /// (`127.0.0.1:5353`, `[::1]:5353`), beside the plain one.
    pub(super) fn parse(text: &str) -> Self {
        let mut conf = Self { servers: Vec::new(), search: Vec::new(), ndots: 1 };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().and_then(server)),
                // Of both keys the last line holds.
                Some("domain") => conf.search = words.next().map(str::to_owned).into_iter().collect(),
                Some("search") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    for option in words {
                        if let Some(dots) = option.strip_prefix("ndots:").and_then(|dots| dots.parse().ok()) {
                            conf.ndots = NDOTS_MAX.min(dots);
                        }
                    }
                }
                _ => {}
            }
        }
        conf.servers.truncate(SERVERS_MAX);
        conf.search.truncate(SEARCH_MAX);
        conf
    }

    /// The names to ask for, in order, all of them rooted.
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let own = format!("{name}.");
        let searched = self.search.iter().map(|domain| {
            let domain = domain.trim_matches('.');
            if domain.is_empty() { own.clone() } else { format!("{own}{domain}.") }
        });
        let has_dots = name.matches('.').count() >= self.ndots;
        if has_dots {
            std::iter::once(own.clone()).chain(searched).collect()
        } else {
            searched.chain(std::iter::once(own.clone())).collect()
        }
    }
}

fn server(text: &str) -> Option<SocketAddr> {
    let parsed = text
        .parse::<IpAddr>()
        .map(|ip| SocketAddr::new(ip, DNS_PORT))
        .or_else(|_| text.parse::<SocketAddr>())
        // `fe80::1%2`: a link-local address and its interface by number.
        .or_else(|_| format!("[{text}]:{DNS_PORT}").parse::<SocketAddr>());
    if parsed.is_err() {
        tracing::warn!(server = text, "resolv.conf names a server that is no address");
    }
    parsed.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_as_they_are_found() {
        let conf = ResolvConf::parse(
            "# made by hand\n; too\ndomain lost.example\nnameserver 10.0.0.1 # first\nnameserver\t::1\nnameserver dns.example\n\
             nameserver 127.0.0.1:5353\nnameserver fe80::1%2\nsearch a.example. b.example\noptions edns0 ndots:2 rotate\nsortlist x",
        );
        let servers: Vec<String> = conf.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[::1]:53", "127.0.0.1:5353", "[fe80::1%2]:53"]);
        assert_eq!(conf.candidates("x.y"), ["x.y.a.example.", "x.y.b.example.", "x.y."]);
        assert_eq!(conf.candidates("x.y.z"), ["x.y.z.", "x.y.z.a.example.", "x.y.z.b.example."]);
        assert_eq!(conf.candidates("x."), ["x."]);
        let plain = ResolvConf::parse("domain d.example\noptions ndots:99");
        assert_eq!(plain.ndots, NDOTS_MAX);
        assert_eq!(plain.candidates("x"), ["x.d.example.", "x."]);
        let many = "nameserver 10.0.0.1\n".repeat(100);
        assert_eq!(ResolvConf::parse(&many).servers.len(), SERVERS_MAX);
        assert_eq!(ResolvConf::parse("").candidates("a.b"), ["a.b."]);
    }
}
