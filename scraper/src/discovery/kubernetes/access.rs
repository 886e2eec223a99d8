//! How the API server is reached: given in the configuration, in a kubeconfig file, or by the pod this server runs in.
//!
//! Files are read when first used and again when the server refuses us, so that rotated credentials in a kubeconfig are
//! found; tokens and certificates in files of their own are read anew by the HTTP client.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use model::{ConfigPath, Secret};
use net::http::{
    ClientOptions, HttpClient, HttpClientConfig, RawAuthorization, RawBasicAuth, RawHttpClientConfig,
};
use net::tls::RawTlsConfig;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use super::super::client::join_host_port;

/// Where a pod finds its account.
const ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Largest kubeconfig that is read.
const FILE_MAX_BYTES: u64 = 4 << 20;
/// How often credentials are read anew at most when the server refuses them. Tests have no patience.
const RELOAD_INTERVAL: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 10_000 });

/// Where the API server is and how to speak to it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Access {
    /// As configured.
    Server { url: Url, http: Box<HttpClientConfig> },
    /// A file as `kubectl` has.
    Kubeconfig(PathBuf),
    /// The account of the pod this server runs in.
    InCluster(ServiceAccount),
}

/// The account of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServiceAccount {
    /// Folder with `token`, `ca.crt` and `namespace`.
    pub(super) dir: PathBuf,
    /// `KUBERNETES_SERVICE_HOST`
    pub(super) host: Option<String>,
    /// `KUBERNETES_SERVICE_PORT`
    pub(super) port: Option<String>,
}

impl ServiceAccount {
    /// As Kubernetes makes it known to each container.
    pub(super) fn of_this_pod() -> Self {
        Self {
            dir: PathBuf::from(ACCOUNT_DIR),
            host: std::env::var("KUBERNETES_SERVICE_HOST").ok(),
            port: std::env::var("KUBERNETES_SERVICE_PORT").ok(),
        }
    }

    /// The namespace the pod is in.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn namespace(&self) -> Result<String, String> {
        let file = self.dir.join("namespace");
        let text = std::fs::read_to_string(&file).map_err(|error| {
            format!("could not determine the pod's namespace: {}: {error}", file.display())
        })?;
        Ok(text.trim().to_owned())
    }
}

impl Access {
    /// Reads what is needed. Blocks on files.
    fn load(&self) -> Result<(Url, HttpClientConfig), String> {
        match self {
            Self::Server { url, http } => Ok((url.clone(), http.as_ref().clone())),
            Self::Kubeconfig(file) => from_kubeconfig(file),
            Self::InCluster(account) => in_cluster(account),
        }
    }
}

fn in_cluster(account: &ServiceAccount) -> Result<(Url, HttpClientConfig), String> {
    let set = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    let (Some(host), Some(port)) = (set(&account.host), set(&account.port)) else {
        return Err("unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and \
                    KUBERNETES_SERVICE_PORT must be defined"
            .to_owned());
    };
    let url = format!("https://{}", join_host_port(&host, port));
    let url = Url::parse(&url).map_err(|error| format!("{url}: {error}"))?;
    let token = account.dir.join("token");
    std::fs::metadata(&token).map_err(|error| format!("{}: {error}", token.display()))?;
    let raw = RawHttpClientConfig {
        authorization: Some(RawAuthorization {
            credentials_file: Some(token),
            ..RawAuthorization::default()
        }),
        tls_config: Some(RawTlsConfig {
            ca_file: Some(account.dir.join("ca.crt")),
            ..RawTlsConfig::default()
        }),
        enable_http2: false,
        ..RawHttpClientConfig::default()
    };
    let http = raw.build(&ConfigPath::root(), Path::new("")).map_err(|error| error.to_string())?;
    Ok((url, http))
}

/// As much of a kubeconfig as is used. Unknown keys are others' business.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Kubeconfig {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
    contexts: Vec<NamedContext>,
    current_context: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<Secret>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<Secret>,
    token: Option<Secret>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    password: Option<Secret>,
    exec: Option<serde::de::IgnoredAny>,
    auth_provider: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

fn from_kubeconfig(file: &Path) -> Result<(Url, HttpClientConfig), String> {
    let wrong = |text: String| format!("{}: {text}", file.display());
    let size = std::fs::metadata(file).map_err(|error| wrong(error.to_string()))?.len();
    if size > FILE_MAX_BYTES {
        return Err(wrong(format!("larger than {FILE_MAX_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    // Reader's words may quote the text, which holds keys: only the place is told.
    let config: Kubeconfig = serde_yaml::from_str(&text).map_err(|error| {
        let place = error.location().map(|place| format!(" at line {}", place.line())).unwrap_or_default();
        wrong(format!("not a kubeconfig{place}"))
    })?;
    let dir = file.parent().unwrap_or(Path::new(""));
    resolve(config, dir).map_err(wrong)
}

fn resolve(config: Kubeconfig, dir: &Path) -> Result<(Url, HttpClientConfig), String> {
    let current = config.current_context;
    let context = config
        .contexts
        .into_iter()
        .find(|context| context.name == current)
        .ok_or_else(|| format!("context {current:?} does not exist"))?
        .context;
    let cluster = config
        .clusters
        .into_iter()
        .find(|cluster| cluster.name == context.cluster)
        .ok_or_else(|| format!("cluster {:?} does not exist", context.cluster))?
        .cluster;
    let user = match context.user.as_str() {
        "" => User::default(),
        name => {
            config
                .users
                .into_iter()
                .find(|user| user.name == name)
                .ok_or_else(|| format!("user {name:?} does not exist"))?
                .user
        }
    };
    if user.exec.is_some() || user.auth_provider.is_some() {
        return Err("credentials from exec and auth-provider plugins are not supported: use a token, a \
                    tokenFile or a client certificate"
            .to_owned());
    }
    let url = Url::parse(&cluster.server).map_err(|error| format!("server of cluster: {error}"))?;
    let ca = pem(cluster.certificate_authority_data, "certificate-authority-data")?;
    let cert = pem(user.client_certificate_data, "client-certificate-data")?;
    let key = pem(user.client_key_data.map(|key| key.expose().to_owned()), "client-key-data")?;
    // Data win over files, as in client-go.
    let file = |data: &Option<String>, file: Option<PathBuf>| file.filter(|_| data.is_none());
    let tls = RawTlsConfig {
        ca_file: file(&ca, cluster.certificate_authority),
        cert_file: file(&cert, user.client_certificate),
        key_file: file(&key, user.client_key),
        ca,
        cert,
        key: key.map(Secret::new),
        server_name: cluster.tls_server_name,
        insecure_skip_verify: cluster.insecure_skip_tls_verify,
        ..RawTlsConfig::default()
    };
    let mut raw = RawHttpClientConfig {
        tls_config: Some(tls),
        proxy_url: cluster.proxy_url.filter(|url| !url.is_empty()),
        enable_http2: false,
        ..RawHttpClientConfig::default()
    };
    if user.token_file.is_some() || user.token.is_some() {
        let inline = user.token.filter(|_| user.token_file.is_none());
        raw.authorization = Some(RawAuthorization {
            credentials: inline,
            credentials_file: user.token_file,
            ..RawAuthorization::default()
        });
    } else if user.username.is_some() {
        raw.basic_auth = Some(RawBasicAuth {
            username: user.username,
            password: user.password,
            ..RawBasicAuth::default()
        });
    }
    let http = raw.build(&ConfigPath::root(), dir).map_err(|error| error.to_string())?;
    Ok((url, http))
}

fn pem(data: Option<String>, key: &str) -> Result<Option<String>, String> {
    let Some(data) = data.filter(|data| !data.is_empty()) else { return Ok(None) };
    let text = base64::engine::general_purpose::STANDARD
        .decode(data.trim())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| format!("{key} is not PEM in base64"))?;
    Ok(Some(text))
}

/// The API server, once found.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) url: Url,
    pub(super) client: HttpClient,
}

/// Finds the API server, once for all who ask.
#[derive(Debug)]
pub(super) struct Connector {
    access: Access,
    user_agent: String,
    found: Mutex<Option<(Server, Instant)>>,
}

impl Connector {
    pub(super) fn new(access: Access, user_agent: String) -> Self {
        Self { access, user_agent, found: Mutex::new(None) }
    }

    /// The server.
    ///
    /// # Errors
    /// When files that say where it is are missing or wrong.
    pub(super) async fn server(self: &Arc<Self>) -> Result<Server, String> {
        if let Some((server, _)) = &*self.found.lock() {
            return Ok(server.clone());
        }
        let own = Arc::clone(self);
        let made = tokio::task::spawn_blocking(move || {
            let (url, http) = own.access.load()?;
            let client = HttpClient::new(&http, ClientOptions::new(own.user_agent.clone()))
                .map_err(|error| error.to_string())?;
            Ok(Server { url, client })
        });
        let server = made.await.unwrap_or_else(|error| Err(error.to_string()))?;
        // Two may have looked at the same time: the first one's connections serve both.
        let mut found = self.found.lock();
        Ok(found.get_or_insert_with(|| (server, Instant::now())).0.clone())
    }

    /// The server refused our credentials: they are read anew before the next request, though not all the time.
    pub(super) fn refused(&self) {
        let mut found = self.found.lock();
        if found.as_ref().is_some_and(|(_, since)| since.elapsed() >= RELOAD_INTERVAL) {
            *found = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use net::http::Credentials;

    use super::*;

    const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
preferences: {colors: true}
current-context: b
contexts:
- {name: a, context: {cluster: x, user: y}}
- {name: b, context: {cluster: c, user: u, namespace: n}}
clusters:
- name: c
  cluster: {server: 'https://127.0.0.1:6443/k', certificate-authority: ca.pem, tls-server-name: kube}
users:
- {name: u, user: {token: s3cret}}
- {name: v, user: {username: me, password: pw}}
- {name: w, user: {exec: {command: aws}}}
";

    fn load(text: &str) -> Result<(Url, HttpClientConfig), String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        std::fs::write(&file, text).unwrap();
        let expected = dir.path().join("ca.pem");
        let result = from_kubeconfig(&file);
        if let Ok((_, http)) = &result {
            assert_eq!(http.tls.files(), [expected.as_path()], "files are relative to the kubeconfig");
        }
        result.map_err(|error| error.replace(&file.display().to_string(), "FILE"))
    }

    #[test]
    fn the_current_context_of_a_kubeconfig_holds() {
        let (url, http) = load(KUBECONFIG).unwrap();
        assert_eq!(url.as_str(), "https://127.0.0.1:6443/k");
        assert_eq!(http.tls.server_name.as_deref(), Some("kube"));
        assert!(matches!(&http.credentials, Credentials::Authorization { scheme, .. } if scheme == "Bearer"));
        let (_, http) = load(&KUBECONFIG.replace("user: u,", "user: v,")).unwrap();
        assert!(matches!(http.credentials, Credentials::Basic { .. }));
    }

    #[test]
    fn what_a_kubeconfig_lacks_is_named_and_its_secrets_are_not() {
        let cases = [
            (KUBECONFIG.replace("current-context: b", "current-context: z"), "context \"z\" does not exist"),
            (KUBECONFIG.replace("cluster: c,", "cluster: d,"), "cluster \"d\" does not exist"),
            (KUBECONFIG.replace("user: u,", "user: t,"), "user \"t\" does not exist"),
            (KUBECONFIG.replace("user: u,", "user: w,"), "exec and auth-provider plugins are not supported"),
            (KUBECONFIG.replace("token: s3cret", "client-key-data: '%s3cret'"), "client-key-data is not PEM"),
            (KUBECONFIG.replace("{token: s3cret}", "s3cret"), "FILE: not a kubeconfig"),
        ];
        for (text, expected) in cases {
            let error = load(&text).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_pod_knows_its_server() {
        let dir = tempfile::tempdir().unwrap();
        let account = |host: Option<&str>| ServiceAccount {
            dir: dir.path().to_owned(),
            host: host.map(str::to_owned),
            port: Some("443".to_owned()),
        };
        let error = in_cluster(&account(None)).unwrap_err();
        assert!(error.contains("KUBERNETES_SERVICE_HOST"), "{error}");
        let error = in_cluster(&account(Some("fd00::1"))).unwrap_err();
        assert!(error.contains("token: No such file"), "{error}");
        std::fs::write(dir.path().join("token"), "t").unwrap();
        std::fs::write(dir.path().join("namespace"), "mine\n").unwrap();
        let (url, http) = in_cluster(&account(Some("fd00::1"))).unwrap();
        assert_eq!(url.as_str(), "https://[fd00::1]/");
        assert_eq!(http.tls.files(), [dir.path().join("ca.crt")]);
        assert_eq!(account(None).namespace().unwrap(), "mine");
    }
}
