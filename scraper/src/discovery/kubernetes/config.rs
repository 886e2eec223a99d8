//! `kubernetes_sd_configs`, as written and as valid.

use std::path::{Path, PathBuf};

use model::{ConfigError, ConfigPath};
use net::http::RawHttpClientConfig;
use serde::Deserialize;
use url::Url;

use super::super::client::raw_sd_config;
use super::KubernetesSdConfig;
use super::access::{Access, ServiceAccount};
use super::objects::Resource;

raw_sd_config! {
    /// An entry of `kubernetes_sd_configs` as written.
    pub struct RawKubernetesSdConfig {
        pub api_server: Option<String>,
        pub role: Option<String>,
        pub kubeconfig_file: Option<PathBuf>,
        #[serde(default)]
        pub namespaces: RawNamespaces,
        #[serde(default)]
        pub selectors: Vec<RawSelector>,
        #[serde(default)]
        pub attach_metadata: AttachMetadata,
    }
}

/// `namespaces`
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RawNamespaces {
    /// The one this server runs in.
    pub own_namespace: bool,
    /// These.
    pub names: Vec<String>,
}

/// One of `selectors`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RawSelector {
    /// Kind of objects it chooses among.
    pub role: String,
    /// Label selector, as the API takes it.
    pub label: String,
    /// Field selector, as the API takes it.
    pub field: String,
}

/// `attach_metadata`
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct AttachMetadata {
    /// Labels of the node a target is on.
    pub node: bool,
    /// Labels and annotations of its namespace.
    pub namespace: bool,
    /// The deployment a pod is of.
    pub deployment: bool,
    /// The job a pod is of.
    pub job: bool,
    /// The cron job a pod is of.
    pub cronjob: bool,
}

/// What is discovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Node,
    Service,
    Pod,
    Endpoints,
    EndpointSlice,
    Ingress,
}

impl Role {
    const ALL: [Self; 6] =
        [Self::Node, Self::Service, Self::Pod, Self::Endpoints, Self::EndpointSlice, Self::Ingress];

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.resource().role() == word)
    }

    /// The objects that targets are made of.
    pub(super) fn resource(self) -> Resource {
        match self {
            Self::Node => Resource::Node,
            Self::Service => Resource::Service,
            Self::Pod => Resource::Pod,
            Self::Endpoints => Resource::Endpoints,
            Self::EndpointSlice => Resource::EndpointSlice,
            Self::Ingress => Resource::Ingress,
        }
    }

    /// Objects that selectors may choose among, in the order of Prometheus' message.
    fn selectable(self) -> &'static [Resource] {
        match self {
            Self::Pod => &[Resource::Pod, Resource::Node],
            Self::Service => &[Resource::Service],
            Self::EndpointSlice => &[Resource::Pod, Resource::Service, Resource::EndpointSlice],
            Self::Endpoints => &[Resource::Pod, Resource::Service, Resource::Endpoints],
            Self::Node => &[Resource::Node],
            Self::Ingress => &[Resource::Ingress],
        }
    }
}

/// A selector.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Selector {
    pub(super) resource: Resource,
    pub(super) label: String,
    pub(super) field: String,
}

impl RawKubernetesSdConfig {
    /// Checks the entry; relative files are looked for in `dir`. Reads no file yet.
    ///
    /// # Errors
    /// At the key that is wrong.
    pub fn build(&self, path: &ConfigPath, dir: &Path) -> Result<KubernetesSdConfig, ConfigError> {
        self.build_in(path, dir, ServiceAccount::of_this_pod())
    }

    /// [`RawKubernetesSdConfig::build`] as if in the pod of `account`.
    pub(super) fn build_in(
        &self,
        path: &ConfigPath,
        dir: &Path,
        account: ServiceAccount,
    ) -> Result<KubernetesSdConfig, ConfigError> {
        let fail = |text: &str| Err(ConfigError::new(path, text));
        let role = match self.role.as_deref() {
            None | Some("") => {
                return fail("role missing (one of: pod, service, endpoints, endpointslice, node, ingress)");
            }
            Some(word) => Role::parse(word).ok_or_else(|| {
                ConfigError::new(&path.key("role"), format!("unknown Kubernetes SD role {word:?}"))
            })?,
        };
        let http = self.http_client();
        let is_custom = http != RawHttpClientConfig::default();
        // Also checks it where it must not be given.
        let mut built = http.build(path, dir)?;
        built.enable_http2 = false;
        let server = self.api_server.as_deref().filter(|server| !server.is_empty());
        let kubeconfig = self.kubeconfig_file.as_deref().filter(|file| !file.as_os_str().is_empty());
        if server.is_some() && kubeconfig.is_some() {
            return fail("cannot use 'kubeconfig_file' and 'api_server' simultaneously");
        }
        if kubeconfig.is_some() && is_custom {
            return fail("cannot use a custom HTTP client configuration together with 'kubeconfig_file'");
        }
        if server.is_none() && is_custom {
            return fail(
                "to use custom HTTP client configuration please provide the 'api_server' URL explicitly",
            );
        }
        if server.is_some() && self.namespaces.own_namespace {
            return fail("cannot use 'api_server' and 'namespaces.own_namespace' simultaneously");
        }
        if kubeconfig.is_some() && self.namespaces.own_namespace {
            return fail("cannot use 'kubeconfig_file' and 'namespaces.own_namespace' simultaneously");
        }
        let access = match (server, kubeconfig) {
            (Some(server), _) => Access::Server { url: server_url(server, path)?, http: Box::new(built) },
            (None, Some(file)) => Access::Kubeconfig(dir.join(file)),
            (None, None) => Access::InCluster(account),
        };
        let mut names = self.namespaces.names.clone();
        names.sort();
        names.dedup();
        if let Some(bad) = names.iter().find(|name| !is_name(name)) {
            return Err(ConfigError::new(
                &path.key("namespaces").key("names"),
                format!("{bad:?} is not a valid namespace"),
            ));
        }
        Ok(KubernetesSdConfig {
            role,
            access,
            namespaces: names,
            own_namespace: self.namespaces.own_namespace,
            selectors: self.selectors(role, path)?,
            attach: self.attach_metadata,
        })
    }

    fn selectors(&self, role: Role, path: &ConfigPath) -> Result<Vec<Selector>, ConfigError> {
        let mut selectors: Vec<Selector> = Vec::new();
        for (index, raw) in self.selectors.iter().enumerate() {
            let here = path.key("selectors").index(index);
            let allowed = role.selectable();
            let Some(resource) = allowed.iter().copied().find(|resource| resource.role() == raw.role) else {
                let words: Vec<&str> = allowed.iter().map(|resource| resource.role()).collect();
                return Err(ConfigError::new(
                    &here,
                    format!("{} role supports only {} selectors", role.resource().role(), words.join(", ")),
                ));
            };
            if selectors.iter().any(|other| other.resource == resource) {
                return Err(ConfigError::new(&here, format!("duplicated selector role: {}", raw.role)));
            }
            check_field_selector(&raw.field)
                .map_err(|message| ConfigError::new(&here.key("field"), message))?;
            check_label_selector(&raw.label)
                .map_err(|message| ConfigError::new(&here.key("label"), message))?;
            selectors.push(Selector { resource, label: raw.label.clone(), field: raw.field.clone() });
        }
        Ok(selectors)
    }
}

fn server_url(text: &str, path: &ConfigPath) -> Result<Url, ConfigError> {
    let invalid =
        |reason: String| ConfigError::new(&path.key("api_server"), format!("is not a valid URL: {reason}"));
    let url = Url::parse(text).map_err(|error| invalid(error.to_string()))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        scheme => Err(invalid(format!("unsupported scheme {scheme:?}"))),
    }
}

/// Whether it can stand in a path as it is: DNS labels (RFC 1123).
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
}

/// `path=value,path!=value`: as much of the syntax as can be wrong; the server knows which fields there are.
fn check_field_selector(text: &str) -> Result<(), String> {
    for term in text.split(',').filter(|term| !term.is_empty()) {
        if !term.contains('=') {
            return Err(format!("invalid selector: '{text}'; can't understand '{term}'"));
        }
    }
    Ok(())
}

/// `a=b`, `a==b`, `a!=b`, `a`, `!a`, `a in (b,c)`, `a notin (b,c)`, `a>1`, `a<1`, with commas between.
fn check_label_selector(text: &str) -> Result<(), String> {
    let unable = |reason: &str| Err(format!("unable to parse requirement: {reason}"));
    let mut terms = Vec::new();
    let (mut depth, mut start) = (0_i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        if !(0..=1).contains(&depth) {
            return unable("unbalanced parentheses");
        }
    }
    if depth != 0 {
        return unable("unbalanced parentheses");
    }
    terms.push(&text[start..]);
    if terms.len() == 1 && text.trim().is_empty() {
        return Ok(());
    }
    for term in terms {
        let term = term.trim();
        let name = term.trim_start_matches('!').trim_start();
        let end = name.find(|c: char| !is_label_name_char(c)).unwrap_or(name.len());
        let (name, rest) = (&name[..end], name[end..].trim_start());
        if name.is_empty() {
            return unable(&format!("found '{term}', expected: identifier"));
        }
        let is_known = rest.is_empty() || ["=", "!=", ">", "<"].iter().any(|op| rest.starts_with(op));
        let is_set = ["in", "notin"].iter().any(|op| {
            rest.strip_prefix(op).is_some_and(|list| {
                let list = list.trim();
                list.starts_with('(') && list.ends_with(')')
            })
        });
        if !is_known && !is_set || term.starts_with('!') && !rest.is_empty() {
            return unable(&format!("found '{rest}', expected: in, notin, =, ==, !=, gt, lt"));
        }
    }
    Ok(())
}

fn is_label_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(yaml: &str) -> Result<KubernetesSdConfig, String> {
        let raw: RawKubernetesSdConfig = serde_yaml::from_str(yaml).map_err(|error| error.to_string())?;
        let path = ConfigPath::root().key("kubernetes_sd_configs").index(0);
        raw.build(&path, Path::new("/etc/nm")).map_err(|error| error.to_string())
    }

    #[test]
    fn mistakes_are_refused_in_the_words_of_prometheus() {
        let cases = [
            ("{}", "role missing (one of: pod, service, endpoints, endpointslice, node, ingress)"),
            ("{role: vacation}", "[0].role: unknown Kubernetes SD role \"vacation\""),
            (
                "{role: pod, api_server: 'http://a', kubeconfig_file: b}",
                "cannot use 'kubeconfig_file' and 'api_server' simultaneously",
            ),
            (
                "{role: pod, kubeconfig_file: b, bearer_token: c}",
                "cannot use a custom HTTP client configuration together with 'kubeconfig_file'",
            ),
            ("{role: pod, bearer_token: c}", "please provide the 'api_server' URL explicitly"),
            (
                "{role: pod, api_server: 'http://a', namespaces: {own_namespace: true}}",
                "cannot use 'api_server' and 'namespaces.own_namespace' simultaneously",
            ),
            (
                "{role: pod, kubeconfig_file: b, namespaces: {own_namespace: true}}",
                "cannot use 'kubeconfig_file' and 'namespaces.own_namespace' simultaneously",
            ),
            (
                "{role: endpoints, selectors: [{role: node, label: a}]}",
                "selectors[0]: endpoints role supports only pod, service, endpoints selectors",
            ),
            ("{role: pod, selectors: [{role: pod}, {role: pod}]}", "duplicated selector role: pod"),
            ("{role: pod, selectors: [{role: pod, field: 'a'}]}", "field: invalid selector: 'a'"),
            ("{role: pod, selectors: [{role: pod, label: 'a in b'}]}", "label: unable to parse requirement"),
            ("{role: pod, selectors: [{role: pod, label: 'a=b,'}]}", "expected: identifier"),
            ("{role: pod, selectors: [{role: pod, label: 'a in (b'}]}", "unbalanced"),
            ("{role: pod, api_server: 'ftp://a'}", "api_server: is not a valid URL"),
            ("{role: pod, namespaces: {names: [../a]}}", "is not a valid namespace"),
            ("{role: pod, namespaces: {foo: 1}}", "unknown field `foo`"),
            ("{role: pod, roles: 1}", "unknown field `roles`"),
        ];
        for (yaml, expected) in cases {
            let error = build(yaml).unwrap_err();
            assert!(error.contains(expected), "{yaml}: {error}");
        }
    }

    #[test]
    fn good_entries_are_taken() {
        let selectors = ["a=b", "a==b,c!=d", "a", "!a", "a in (b, c),d notin (e)", "x.io/y-z>1", "  "];
        for label in selectors {
            let yaml =
                format!("{{role: pod, selectors: [{{role: pod, label: {label:?}, field: 'a=b,c!=d'}}]}}");
            assert!(build(&yaml).is_ok(), "{yaml}");
        }
        let config = build("{role: node, kubeconfig_file: k, attach_metadata: {node: true}}").unwrap();
        assert_eq!(config.access, Access::Kubeconfig(PathBuf::from("/etc/nm/k")));
        assert!(config.attach.node && config.namespaces.is_empty());
        let config = build("{role: service, api_server: 'https://a:1/x', tls_config: {ca_file: c}}").unwrap();
        assert!(matches!(&config.access, Access::Server { url, .. } if url.as_str() == "https://a:1/x"));
    }
}
