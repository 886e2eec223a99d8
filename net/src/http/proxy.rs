//! Through whom a request goes: `proxy_url`, `no_proxy`, `proxy_from_environment`, as Go's `httpproxy` decides.
//!
//! A proxy of the configuration that has no `no_proxy` beside it is used for every host. With `no_proxy`, and always
//! with a proxy of the environment, `localhost` and loopback addresses are reached directly.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use http::{HeaderName, HeaderValue, Uri};
use model::{ConfigError, ConfigPath, Secret};

/// The proxy settings of a block, as written.
pub(super) struct RawProxy {
    pub(super) url: Option<Secret>,
    pub(super) no_proxy: Option<String>,
    pub(super) from_environment: bool,
    pub(super) connect_header: Option<BTreeMap<String, Vec<Secret>>>,
}

/// Valid proxy settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProxyConfig {
    source: Source,
    connect_headers: Vec<(HeaderName, Secret)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Source {
    #[default]
    None,
    Fixed {
        proxy: Proxy,
        no_proxy: Option<NoProxy>,
    },
    Environment,
}

impl RawProxy {
    /// Checks the settings of the block at `path`.
    pub(super) fn build(self, path: &ConfigPath) -> Result<ProxyConfig, ConfigError> {
        let refuse = |text: &str| Err(ConfigError::new(path, text));
        let is_given = self.url.is_some();
        let url = self.url.filter(|url| !url.is_empty());
        let no_proxy = self.no_proxy.filter(|hosts| !hosts.is_empty());
        let header = self.connect_header.unwrap_or_default();
        if !header.is_empty() && !self.from_environment && url.is_none() {
            return refuse(
                "if proxy_connect_header is configured, proxy_url or proxy_from_environment must also be configured",
            );
        }
        if self.from_environment && url.is_some() {
            return refuse("if proxy_from_environment is configured, proxy_url must not be configured");
        }
        if self.from_environment && no_proxy.is_some() {
            return refuse("if proxy_from_environment is configured, no_proxy must not be configured");
        }
        if !is_given && no_proxy.is_some() {
            return refuse("if no_proxy is configured, proxy_url must also be configured");
        }
        let source = match url {
            _ if self.from_environment => Source::Environment,
            None => Source::None,
            Some(url) => Source::Fixed {
                proxy: Proxy::parse(url.expose())
                    .map_err(|error| ConfigError::new(&path.key("proxy_url"), error))?,
                no_proxy: no_proxy.as_deref().map(NoProxy::parse),
            },
        };
        let mut connect_headers = Vec::new();
        for (name, values) in header {
            let path = path.key("proxy_connect_header").key(&name);
            let header = HeaderName::try_from(name.as_str())
                .map_err(|_| ConfigError::new(&path, format!("{name:?} is no header name")))?;
            for value in values {
                if HeaderValue::from_str(value.expose()).is_err() {
                    return Err(ConfigError::new(&path, "a value is not allowed in a header"));
                }
                connect_headers.push((header.clone(), value));
            }
        }
        Ok(ProxyConfig { source, connect_headers })
    }
}

impl ProxyConfig {
    /// The proxies these settings mean, with the environment as `variable` tells it.
    pub(super) fn resolve(&self, variable: impl Fn(&str) -> Option<String>) -> Proxies {
        let connect_headers = self.connect_headers.clone();
        let direct = Proxies { http: None, https: None, no_proxy: None, connect_headers };
        match &self.source {
            Source::None => direct,
            Source::Fixed { proxy, no_proxy } => {
                let proxy = Some(Arc::new(proxy.clone()));
                Proxies { http: proxy.clone(), https: proxy, no_proxy: no_proxy.clone(), ..direct }
            }
            Source::Environment => {
                let any = |names: [&str; 2]| {
                    names.into_iter().filter_map(&variable).find(|value| !value.is_empty())
                };
                let proxy = |names: [&'static str; 2]| {
                    let value = any(names)?;
                    match Proxy::of_environment(&value) {
                        Ok(proxy) => Some(Arc::new(proxy)),
                        Err(error) => {
                            tracing::warn!(
                                variable = names[0],
                                error,
                                "the environment's proxy cannot be used"
                            );
                            None
                        }
                    }
                };
                Proxies {
                    http: proxy(["HTTP_PROXY", "http_proxy"]),
                    https: proxy(["HTTPS_PROXY", "https_proxy"]),
                    no_proxy: Some(NoProxy::parse(&any(["NO_PROXY", "no_proxy"]).unwrap_or_default())),
                    ..direct
                }
            }
        }
    }
}

/// The proxies of a client.
#[derive(Clone, Debug)]
pub(super) struct Proxies {
    http: Option<Arc<Proxy>>,
    https: Option<Arc<Proxy>>,
    no_proxy: Option<NoProxy>,
    /// Sent along with `CONNECT`.
    pub(super) connect_headers: Vec<(HeaderName, Secret)>,
}

impl Proxies {
    /// The proxy for requests to `target`.
    pub(super) fn of(&self, target: &Uri) -> Option<&Proxy> {
        let is_https = target.scheme_str() == Some("https");
        let proxy = if is_https { self.https.as_deref() } else { self.http.as_deref() }?;
        let port = target.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        match &self.no_proxy {
            Some(no_proxy) if no_proxy.covers(target.host()?, port) => None,
            _ => Some(proxy),
        }
    }
}

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProxyKind {
    Http,
    Https,
    Socks5,
}

/// One proxy.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Proxy {
    pub(super) kind: ProxyKind,
    /// Without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    /// User and password.
    pub(super) credentials: Option<(Secret, Secret)>,
}

impl Proxy {
    /// Reads a URL. No error shows any of it but the scheme: it may hold a password.
    fn parse(text: &str) -> Result<Self, String> {
        let url = url::Url::parse(text).map_err(|error| match error {
            url::ParseError::RelativeUrlWithoutBase => {
                format!("parse \"{}\": missing protocol scheme", model::config::SECRET_MASK)
            }
            other => format!("parse \"{}\": {other}", model::config::SECRET_MASK),
        })?;
        let (kind, port) = match url.scheme() {
            "http" => (ProxyKind::Http, 80),
            "https" => (ProxyKind::Https, 443),
            "socks5" | "socks5h" => (ProxyKind::Socks5, 1080),
            other => {
                return Err(format!("unsupported proxy scheme {other:?}: http, https, socks5 or socks5h"));
            }
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("the proxy has no host")?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let decoded = |text: &str| {
            Secret::new(percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned())
        };
        let credentials = (!url.username().is_empty() || url.password().is_some())
            .then(|| (decoded(url.username()), decoded(url.password().unwrap_or_default())));
        if kind == ProxyKind::Socks5
            && let Some((user, password)) = &credentials
            && (user.expose().len() > 255 || password.expose().len() > 255)
        {
            return Err("user and password of a SOCKS proxy have at most 255 bytes".to_owned());
        }
        Ok(Self { kind, host: host.to_owned(), port: url.port().unwrap_or(port), credentials })
    }

    /// Reads a value of the environment, where `host:port` will do.
    fn of_environment(text: &str) -> Result<Self, String> {
        Self::parse(text).or_else(|error| Self::parse(&format!("http://{text}")).map_err(|_| error))
    }

    /// `host:port`
    pub(super) fn address(&self) -> String {
        join_host_port(&self.host, self.port)
    }

    /// What an HTTP proxy asks for.
    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        let (user, password) = self.credentials.as_ref()?;
        let pair = format!("{}:{}", user.expose(), password.expose());
        let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// Host and port as one address.
pub(super) fn join_host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Hosts that are reached directly. What cannot be understood is ignored, as everywhere in this world.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct NoProxy {
    everything: bool,
    networks: Vec<(IpAddr, u8)>,
    addresses: Vec<(IpAddr, Option<u16>)>,
    domains: Vec<Domain>,
}

#[derive(Clone, Debug, PartialEq)]
struct Domain {
    /// With a dot before it.
    suffix: String,
    /// Whether the name itself counts too, not only what ends with it.
    itself: bool,
    port: Option<u16>,
}

impl NoProxy {
    fn parse(text: &str) -> Self {
        let mut out = Self::default();
        for entry in text.split(',').map(|entry| entry.trim().to_lowercase()) {
            if entry == "*" {
                return Self { everything: true, ..Self::default() };
            }
            if let Some(network) = network(&entry) {
                out.networks.push(network);
                continue;
            }
            let Some((host, port)) = split_port(&entry) else { continue };
            if let Ok(address) = host.parse::<IpAddr>() {
                out.addresses.push((address.to_canonical(), port));
                continue;
            }
            let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
            let itself = !host.starts_with('.');
            let name = host.strip_prefix('.').unwrap_or(host);
            if name.is_empty() {
                continue;
            }
            let name = match url::Host::parse(name) {
                Ok(url::Host::Domain(ascii)) if !name.is_ascii() => ascii,
                _ => name.to_owned(),
            };
            out.domains.push(Domain { suffix: format!(".{name}"), itself, port });
        }
        out
    }

    fn covers(&self, host: &str, port: u16) -> bool {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if self.everything || host == "localhost" {
            return true;
        }
        let is_port = |wanted: Option<u16>| wanted.is_none_or(|wanted| wanted == port);
        if let Ok(address) = host.parse::<IpAddr>() {
            let address = address.to_canonical();
            if address.is_loopback()
                || self.networks.iter().any(|network| holds(*network, address))
                || self.addresses.iter().any(|(own, port)| *own == address && is_port(*port))
            {
                return true;
            }
        }
        let host = host.to_lowercase();
        self.domains.iter().any(|domain| {
            is_port(domain.port)
                && (host.ends_with(&domain.suffix) || (domain.itself && host == domain.suffix[1..]))
        })
    }
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?);
    (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits))
}

fn holds((network, bits): (IpAddr, u8), address: IpAddr) -> bool {
    let same = |a: u128, b: u128, width: u8| bits == 0 || (a ^ b) >> (width - bits) == 0;
    match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u128::from(u32::from(a)), u128::from(u32::from(b)), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(u128::from(a), u128::from(b), 128),
        _ => false,
    }
}

/// `host:port`, `[v6]:port`, or a host or address alone; `None` when there is no host or no such port.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port.parse().ok()?))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => {
            (!host.is_empty()).then_some(())?;
            Some((host, Some(port.parse().ok()?)))
        }
        _ => (!text.is_empty()).then_some((text, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(url: &str, no_proxy: Option<&str>) -> Proxies {
        let raw = RawProxy {
            url: Some(Secret::new(url)),
            no_proxy: no_proxy.map(str::to_owned),
            from_environment: false,
            connect_header: None,
        };
        raw.build(&ConfigPath::root()).unwrap().resolve(|_| panic!("the environment does not count"))
    }

    fn host_of(proxies: &Proxies, target: &str) -> Option<String> {
        proxies.of(&target.parse().unwrap()).map(Proxy::address)
    }

    #[test]
    fn reads_urls_of_proxies() {
        let proxy = Proxy::parse("http://us%40er:p%3Aw@[::1]:3128/x").unwrap();
        assert_eq!((proxy.kind, proxy.address().as_str()), (ProxyKind::Http, "[::1]:3128"));
        // us@er:p:w
        assert_eq!(proxy.authorization().unwrap(), "Basic dXNAZXI6cDp3");
        assert!(!format!("{proxy:?}").contains("p:w"));
        assert_eq!(Proxy::parse("socks5h://P.example").unwrap().address(), "P.example:1080");
        assert_eq!(Proxy::parse("https://p").unwrap().port, 443);
        assert!(Proxy::parse("p:1").is_err());
        assert_eq!(Proxy::of_environment("p:1").unwrap().address(), "p:1");
        assert_eq!(Proxy::of_environment("user:pw@p:1").unwrap().address(), "p:1");
    }

    #[test]
    fn no_proxy_names_hosts_suffixes_networks_and_ports() {
        let list = "a.example, .b.example,*.c.example,10.0.0.0/8,fd00::/16,192.168.1.1:81,[::2]:82,d.example:83,  ,:9,\
                    bücher.example,x:y,300.0.0.0/8,10.0.0.0/33";
        let proxies = proxies("http://p:1", Some(list));
        let direct = [
            "http://a.example/",
            "http://A.EXAMPLE:99/",
            "https://x.a.example/",
            "http://x.b.example/",
            "http://x.c.example/",
            "http://10.200.3.4/",
            "https://[fd00::1]/",
            "http://192.168.1.1:81/",
            "http://[::2]:82/",
            "http://d.example:83/",
            "https://x.d.example:83/",
            "http://xn--bcher-kva.example/",
            "http://localhost:9090/",
            "http://127.0.0.5:9090/",
            "http://[::1]/",
            "http://[::ffff:10.1.1.1]/",
        ];
        for target in direct {
            assert_eq!(host_of(&proxies, target), None, "{target}");
        }
        let proxied = [
            "http://xa.example/",
            "http://b.example/",
            "http://c.example/",
            "http://11.0.0.1/",
            "http://192.168.1.1/",
            "http://[::2]/",
            "http://d.example/",
            "http://localhost.example/",
        ];
        for target in proxied {
            assert_eq!(host_of(&proxies, target).as_deref(), Some("p:1"), "{target}");
        }
    }

    #[test]
    fn a_proxy_without_exceptions_is_for_everybody_and_a_star_is_for_nobody() {
        for target in ["http://localhost/", "https://127.0.0.1/", "http://x.example/"] {
            assert!(host_of(&proxies("socks5://p:1", None), target).is_some(), "{target}");
            assert!(host_of(&proxies("socks5://p:1", Some("a,*")), target).is_none(), "{target}");
        }
    }

    #[test]
    fn the_environment_has_one_proxy_for_each_scheme() {
        let raw = RawProxy { url: None, no_proxy: None, from_environment: true, connect_header: None };
        let config = raw.build(&ConfigPath::root()).unwrap();
        let variable = |name: &str| match name {
            "HTTP_PROXY" => Some(String::new()),
            "http_proxy" => Some("plain:3128".to_owned()),
            "HTTPS_PROXY" => Some("socks5://secure".to_owned()),
            "https_proxy" => Some("http://not-this".to_owned()),
            "NO_PROXY" => Some("x.example".to_owned()),
            _ => None,
        };
        let proxies = config.resolve(variable);
        assert_eq!(host_of(&proxies, "http://y.example/").as_deref(), Some("plain:3128"));
        assert_eq!(host_of(&proxies, "https://y.example/").as_deref(), Some("secure:1080"));
        assert_eq!(host_of(&proxies, "https://x.example/"), None);
        assert_eq!(host_of(&proxies, "http://localhost/"), None);
        assert_eq!(host_of(&config.resolve(|_| None), "http://y.example/"), None);
    }
}
