//! Where credentials come from: the entry itself, the environment, a profile, a web identity, the container or the
//! machine; and the role they are exchanged for. The order is that of AWS' SDK for Go, which Prometheus uses. What does
//! not last is asked for anew before it ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use model::{Clock, Secret, Timestamp};
use net::http::{HttpClientConfig, SendLimits};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use super::api::{Account, Call, STS, Sender, form, param};
use super::environment::{Environment, Profile};
use super::sign::Credentials;
use super::xml::Element;
use crate::discovery::DiscoveryContext;
use crate::discovery::client::{ApiClient, status_text};
use crate::discovery::refresh::RefreshError;

/// How long before their end credentials are exchanged.
const RENEW_BEFORE_MS: i64 = 5 * 60 * 1000;
/// How long the credentials of a role last (AWS' SDK: 15 minutes).
const ROLE_SECONDS: u32 = 900;
/// The metadata services are next door.
const METADATA_LIMITS: SendLimits = SendLimits { timeout: Duration::from_secs(5), body_max_bytes: 1 << 20 };
const METADATA_TOKEN_SECONDS: &str = "21600";
/// Largest token file that is read.
const TOKEN_MAX_BYTES: u64 = 1 << 20;

/// What an entry says about credentials.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wanted {
    pub(super) access_key: Option<String>,
    pub(super) secret_key: Option<Secret>,
    pub(super) profile: Option<String>,
    pub(super) role_arn: Option<String>,
    pub(super) external_id: Option<String>,
}

/// Finds credentials and keeps them until they end.
#[derive(Debug)]
pub(super) struct CredentialSource {
    wanted: Wanted,
    environment: Environment,
    sender: Sender,
    /// For those who must not see our credentials: without the HTTP client block.
    plain: Sender,
    clock: Arc<dyn Clock>,
    kept: Mutex<Option<Credentials>>,
}

/// A role to take on.
struct Role<'a> {
    arn: &'a str,
    session: Option<&'a str>,
    external_id: Option<&'a str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Served {
    access_key_id: String,
    secret_access_key: Secret,
    token: Secret,
    expiration: String,
    code: String,
    message: String,
}

fn other(text: impl Into<String>) -> RefreshError {
    RefreshError::Other(text.into())
}

impl CredentialSource {
    pub(super) fn new(account: &Account, context: &DiscoveryContext) -> Self {
        let sender = |http: HttpClientConfig| Sender {
            client: ApiClient::new(http, context),
            clock: Arc::clone(&context.clock),
        };
        Self {
            wanted: account.wanted.clone(),
            environment: account.environment.clone(),
            sender: sender(account.http.clone()),
            plain: sender(HttpClientConfig::default()),
            clock: Arc::clone(&context.clock),
            kept: Mutex::new(None),
        }
    }

    /// Credentials that last a while.
    ///
    /// # Errors
    /// When nobody gives any.
    pub(super) async fn get(&self, region: &str) -> Result<Credentials, RefreshError> {
        let mut kept = self.kept.lock().await;
        let soon = self.clock.now_ms().saturating_add(RENEW_BEFORE_MS);
        if let Some(credentials) =
            kept.as_ref().filter(|known| known.expires.is_none_or(|expires| expires > soon))
        {
            return Ok(credentials.clone());
        }
        let found = self.find(region).await;
        let found = found.map_err(|error| other(format!("failed to retrieve AWS credentials: {error}")))?;
        *kept = Some(found.clone());
        Ok(found)
    }

    /// They were refused: looks for them anew next time.
    pub(super) async fn forget(&self) {
        *self.kept.lock().await = None;
    }

    /// The region, where the entry names none.
    ///
    /// # Errors
    /// When nobody knows.
    pub(super) async fn region(&self) -> Result<String, RefreshError> {
        let env = &self.environment;
        if let Some(region) = env.get("AWS_REGION").or_else(|| env.get("AWS_DEFAULT_REGION")) {
            return Ok(region.to_owned());
        }
        let name = self.wanted.profile.clone().unwrap_or_else(|| env.profile_name().to_owned());
        let profile = blocking(env, move |env| env.profile(&name)).await?;
        if let Some(region) = profile.as_ref().and_then(|profile| profile.get("region")) {
            return Ok(region.to_owned());
        }
        let found = self.metadata("/latest/meta-data/placement/region").await;
        found.map_err(|error| other(format!("could not determine AWS region: {error}")))
    }

    async fn find(&self, region: &str) -> Result<Credentials, RefreshError> {
        let wanted = &self.wanted;
        let base = match (&wanted.access_key, &wanted.secret_key) {
            (Some(access_key), Some(secret_key)) => Credentials {
                access_key: access_key.clone(),
                secret_key: secret_key.clone(),
                token: None,
                expires: None,
            },
            _ => self.surrounding(region).await?,
        };
        match &wanted.role_arn {
            None => Ok(base),
            Some(arn) => {
                let external_id = wanted.external_id.as_deref();
                self.assume(&base, &Role { arn, session: None, external_id }, region).await
            }
        }
    }

    /// What is not in the entry.
    async fn surrounding(&self, region: &str) -> Result<Credentials, RefreshError> {
        let env = &self.environment;
        if let Some(name) = &self.wanted.profile {
            return self.of_profile(name, region).await;
        }
        if let Some(credentials) = self.of_variables() {
            return Ok(credentials);
        }
        if let Some(file) = env.get("AWS_WEB_IDENTITY_TOKEN_FILE") {
            let arn = env
                .get("AWS_ROLE_ARN")
                .ok_or_else(|| other("AWS_WEB_IDENTITY_TOKEN_FILE is set but AWS_ROLE_ARN is not"))?;
            let role = Role { arn, session: env.get("AWS_ROLE_SESSION_NAME"), external_id: None };
            return self.web_identity(file, &role, region).await;
        }
        let name = env.profile_name().to_owned();
        let is_named = env.get("AWS_PROFILE").is_some();
        let exists = {
            let name = name.clone();
            blocking(env, move |env| env.profile(&name)).await?.is_some()
        };
        if exists || is_named { self.of_profile(&name, region).await } else { self.of_machine().await }
    }

    fn of_variables(&self) -> Option<Credentials> {
        let env = &self.environment;
        Some(Credentials {
            access_key: env.get("AWS_ACCESS_KEY_ID").or_else(|| env.get("AWS_ACCESS_KEY"))?.to_owned(),
            secret_key: Secret::new(env.get("AWS_SECRET_ACCESS_KEY").or_else(|| env.get("AWS_SECRET_KEY"))?),
            token: env.get("AWS_SESSION_TOKEN").map(Secret::new),
            expires: None,
        })
    }

    async fn of_profile(&self, name: &str, region: &str) -> Result<Credentials, RefreshError> {
        let owned = name.to_owned();
        let chain = blocking(&self.environment, move |env| env.chain(&owned)).await?;
        let Some(last) = chain.last() else { return Err(other("no profile")) };
        let mut credentials = self.of_last_profile(last, region).await?;
        for (index, profile) in chain.iter().enumerate().rev() {
            let is_last = index + 1 == chain.len();
            let has_source = profile.get("source_profile").or_else(|| profile.get("credential_source"));
            if let Some(arn) = profile.get("role_arn").filter(|_| !is_last || has_source.is_some()) {
                let role = Role {
                    arn,
                    session: profile.get("role_session_name"),
                    external_id: profile.get("external_id"),
                };
                credentials = self.assume(&credentials, &role, region).await?;
            }
        }
        Ok(credentials)
    }

    /// The credentials a chain of profiles begins with.
    async fn of_last_profile(&self, profile: &Profile, region: &str) -> Result<Credentials, RefreshError> {
        if let (Some(access_key), Some(secret_key)) =
            (profile.get("aws_access_key_id"), profile.get("aws_secret_access_key"))
        {
            return Ok(Credentials {
                access_key: access_key.to_owned(),
                secret_key: Secret::new(secret_key),
                token: profile.get("aws_session_token").map(Secret::new),
                expires: None,
            });
        }
        match profile.get("credential_source") {
            Some("Environment") => {
                return self.of_variables().ok_or_else(|| other("environment variables hold no credentials"));
            }
            Some("Ec2InstanceMetadata") => return self.of_instance().await,
            Some("EcsContainer") => {
                return match self.of_container().await {
                    Some(result) => result,
                    None => Err(other(
                        "EcsContainer was specified as the credential source, but \
                                       AWS_CONTAINER_CREDENTIALS_RELATIVE_URI was not set",
                    )),
                };
            }
            Some(source) => return Err(other(format!("invalid credential source {source:?}"))),
            None => {}
        }
        if let (Some(file), Some(arn)) = (profile.get("web_identity_token_file"), profile.get("role_arn")) {
            let role = Role { arn, session: profile.get("role_session_name"), external_id: None };
            return self.web_identity(file, &role, region).await;
        }
        for key in ["sso_session", "sso_start_url", "credential_process"] {
            if profile.get(key).is_some() {
                return Err(other(format!("profiles with {key} are not supported")));
            }
        }
        self.of_machine().await
    }

    /// What the container or the machine has.
    async fn of_machine(&self) -> Result<Credentials, RefreshError> {
        match self.of_container().await {
            Some(result) => result,
            None => self.of_instance().await,
        }
    }

    /// `None`: this is no container with an account.
    async fn of_container(&self) -> Option<Result<Credentials, RefreshError>> {
        let env = &self.environment;
        let url = match (
            env.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
            env.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        ) {
            (Some(path), _) => format!("{}{path}", env.container_server),
            (None, Some(url)) => url.to_owned(),
            (None, None) => return None,
        };
        Some(self.container_credentials(&url).await)
    }

    async fn container_credentials(&self, url: &str) -> Result<Credentials, RefreshError> {
        let env = &self.environment;
        let token = match env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(file) => Some(read_token(file).await?),
            None => env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Secret::new),
        };
        let headers = token.map(|token| (http::header::AUTHORIZATION, token));
        served(&self.ask(Method::GET, url, headers.as_slice()).await?)
    }

    async fn of_instance(&self) -> Result<Credentials, RefreshError> {
        const PATH: &str = "/latest/meta-data/iam/security-credentials/";
        let roles = self.metadata(PATH).await?;
        let role = roles.lines().next().map(str::trim).filter(|role| !role.is_empty());
        let role = role.ok_or_else(|| other("no EC2 IMDS role found"))?;
        served(self.metadata(&format!("{PATH}{role}")).await?.as_bytes())
    }

    /// Asks the machine's metadata service (version 2; where it has no tokens, version 1).
    async fn metadata(&self, path: &str) -> Result<String, RefreshError> {
        let env = &self.environment;
        if env.get("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Err(other("access disabled to EC2 IMDS via client option, or AWS_EC2_METADATA_DISABLED"));
        }
        let server = env.metadata_server.trim_end_matches('/');
        let ttl = (
            HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds"),
            Secret::new(METADATA_TOKEN_SECONDS),
        );
        let token = self.exchange(Method::PUT, &format!("{server}/latest/api/token"), &[ttl]).await?;
        let mut headers = Vec::new();
        match token {
            (StatusCode::OK, token) => headers.push((
                HeaderName::from_static("x-aws-ec2-metadata-token"),
                Secret::new(String::from_utf8_lossy(&token)),
            )),
            (StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, _) => {}
            (status, _) => return Err(RefreshError::Status(status_text(status))),
        }
        let body = self.ask(Method::GET, &format!("{server}{path}"), &headers).await?;
        Ok(String::from_utf8_lossy(&body).trim().to_owned())
    }

    async fn ask(
        &self,
        method: Method,
        url: &str,
        headers: &[(HeaderName, Secret)],
    ) -> Result<Bytes, RefreshError> {
        match self.exchange(method, url, headers).await? {
            (StatusCode::OK, body) => Ok(body),
            (status, _) => Err(RefreshError::Status(format!("{} from {url}", status_text(status)))),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        url: &str,
        headers: &[(HeaderName, Secret)],
    ) -> Result<(StatusCode, Bytes), RefreshError> {
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .body(Bytes::new())
            .map_err(|error| other(format!("{url}: {error}")))?;
        for (name, text) in headers {
            let mut value = HeaderValue::from_str(text.expose())
                .map_err(|_| other("a token holds characters not allowed in a header"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(name, value);
        }
        let answer = self.plain.client.send(request, url, METADATA_LIMITS).await?;
        Ok((answer.status(), answer.into_body()))
    }

    async fn assume(
        &self,
        base: &Credentials,
        role: &Role<'_>,
        region: &str,
    ) -> Result<Credentials, RefreshError> {
        let mut params = self.role_params(role);
        params.push(param("DurationSeconds", ROLE_SECONDS.to_string()));
        params.extend(role.external_id.map(|id| param("ExternalId", id)));
        self.ask_sts("AssumeRole", &params, Some(base), region).await
    }

    async fn web_identity(
        &self,
        file: &str,
        role: &Role<'_>,
        region: &str,
    ) -> Result<Credentials, RefreshError> {
        let token = read_token(file).await?;
        let mut params = self.role_params(role);
        params.push(param("WebIdentityToken", token.expose()));
        self.ask_sts("AssumeRoleWithWebIdentity", &params, None, region).await
    }

    fn role_params(&self, role: &Role<'_>) -> Vec<(String, String)> {
        let session =
            role.session.map_or_else(|| format!("nilometer-{}", self.clock.now_ms()), str::to_owned);
        vec![param("RoleArn", role.arn), param("RoleSessionName", session)]
    }

    async fn ask_sts(
        &self,
        action: &str,
        params: &[(String, String)],
        base: Option<&Credentials>,
        region: &str,
    ) -> Result<Credentials, RefreshError> {
        let endpoint = self.environment.sts_endpoint.as_deref().map(Url::parse).transpose();
        let endpoint = endpoint.map_err(|error| other(format!("AWS_ENDPOINT_URL_STS: {error}")))?;
        let call = Call {
            service: STS,
            region,
            endpoint: endpoint.as_ref(),
            method: Method::POST,
            path: "/".to_owned(),
            query: Vec::new(),
            body: form(action, STS, params),
        };
        let sender = if base.is_some() { &self.sender } else { &self.plain };
        let body = sender.send(&call, base).await.map_err(|error| error.during(action))?;
        let decode = |reason: String| RefreshError::Decode { from: format!("sts {action}"), reason };
        let root = Element::parse(&body).map_err(decode)?;
        let given = root
            .find(&format!("{action}Result/Credentials"))
            .ok_or_else(|| decode("no credentials in it".to_owned()))?;
        let text = |name: &str| given.get(name).unwrap_or_default();
        complete(text("AccessKeyId"), text("SecretAccessKey"), text("SessionToken"), text("Expiration"))
    }
}

/// Credentials as metadata services write them.
fn served(json: &[u8]) -> Result<Credentials, RefreshError> {
    // The reader's words might quote the answer.
    let served: Served = serde_json::from_slice(json)
        .map_err(|_| other("the metadata service's answer holds no credentials"))?;
    if !matches!(served.code.as_str(), "" | "Success") {
        return Err(other(format!("metadata service: {}: {}", served.code, served.message)));
    }
    let (secret, token) = (served.secret_access_key.expose(), served.token.expose());
    complete(&served.access_key_id, secret, token, &served.expiration)
}

fn complete(access_key: &str, secret: &str, token: &str, expires: &str) -> Result<Credentials, RefreshError> {
    if access_key.is_empty() || secret.is_empty() {
        return Err(other("the answer holds no credentials"));
    }
    Ok(Credentials {
        access_key: access_key.to_owned(),
        secret_key: Secret::new(secret),
        token: (!token.is_empty()).then(|| Secret::new(token)),
        expires: instant(expires)?,
    })
}

fn instant(text: &str) -> Result<Option<Timestamp>, RefreshError> {
    if text.is_empty() {
        return Ok(None);
    }
    let at: jiff::Timestamp =
        text.parse().map_err(|error| other(format!("expiration of credentials {text:?}: {error}")))?;
    Ok(Some(at.as_millisecond()))
}

async fn read_token(file: &str) -> Result<Secret, RefreshError> {
    let file = PathBuf::from(file);
    let wrong = |error: String| other(format!("{}: {error}", file.display()));
    let size = tokio::fs::metadata(&file).await.map_err(|error| wrong(error.to_string()))?.len();
    if size > TOKEN_MAX_BYTES {
        return Err(wrong(format!("larger than {TOKEN_MAX_BYTES} bytes")));
    }
    let text = tokio::fs::read_to_string(&file).await.map_err(|error| wrong(error.to_string()))?;
    Ok(Secret::new(text.trim()))
}

/// File work, off the reactor.
async fn blocking<T: Send + 'static>(
    environment: &Environment,
    work: impl FnOnce(&Environment) -> Result<T, String> + Send + 'static,
) -> Result<T, RefreshError> {
    let environment = environment.clone();
    let done = tokio::task::spawn_blocking(move || work(&environment)).await;
    done.unwrap_or_else(|error| Err(error.to_string())).map_err(RefreshError::Other)
}
