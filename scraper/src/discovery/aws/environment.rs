//! What a machine says about its AWS account: variables of the environment, and the profiles of `~/.aws`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::Secret;

/// Variables that are looked at.
const VARIABLES: [&str; 18] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_ACCESS_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECRET_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_EC2_METADATA_DISABLED",
];
/// Largest file that is read.
const FILE_MAX_BYTES: u64 = 1 << 20;
/// Most profiles that refer to each other.
const CHAIN_MAX: usize = 8;
const METADATA_SERVER: &str = "http://169.254.169.254";
const CONTAINER_SERVER: &str = "http://169.254.170.2";

/// What the process was started with.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Environment {
    variables: BTreeMap<String, Secret>,
    home: Option<PathBuf>,
    /// The metadata service of EC2.
    pub(super) metadata_server: String,
    /// The one of containers.
    pub(super) container_server: String,
    /// Instead of AWS' own: for tests.
    pub(super) sts_endpoint: Option<String>,
}

impl Environment {
    /// That of this process.
    pub(super) fn of_this_process() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let variables = VARIABLES
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), Secret::new(variable(name)?))))
            .collect();
        Self {
            variables,
            home: std::env::home_dir(),
            metadata_server: variable("AWS_EC2_METADATA_SERVICE_ENDPOINT")
                .unwrap_or_else(|| METADATA_SERVER.to_owned()),
            container_server: CONTAINER_SERVER.to_owned(),
            sts_endpoint: variable("AWS_ENDPOINT_URL_STS"),
        }
    }

    /// An environment for tests.
    #[cfg(test)]
    pub(super) fn of(variables: &[(&str, &str)], home: &Path, server: &str) -> Self {
        let variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect();
        Self {
            variables,
            home: Some(home.to_owned()),
            metadata_server: server.to_owned(),
            container_server: server.to_owned(),
            sts_endpoint: Some(server.to_owned()),
        }
    }

    /// A variable that is set and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(Secret::expose)
    }

    /// The profile that holds when none is configured.
    pub(super) fn profile_name(&self) -> &str {
        self.get("AWS_PROFILE").unwrap_or("default")
    }

    /// A profile, from both files. Blocks on files.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn profile(&self, name: &str) -> Result<Option<Profile>, String> {
        let in_home = |file: &str| self.home.as_ref().map(|home| home.join(".aws").join(file));
        let config = self.get("AWS_CONFIG_FILE").map(PathBuf::from).or_else(|| in_home("config"));
        let credentials =
            self.get("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from).or_else(|| in_home("credentials"));
        let mut keys = BTreeMap::new();
        let mut found = false;
        for (file, long_names) in [(config, true), (credentials, false)] {
            let Some(text) = file.as_deref().map(read).transpose()?.flatten() else { continue };
            // What the file of credentials says wins.
            found |= read_profile(&text, name, long_names, &mut keys);
        }
        Ok(found.then_some(Profile { keys }))
    }

    /// The profile `name` and those it takes its credentials from, first one first.
    ///
    /// # Errors
    /// When one does not exist, or they refer to each other in circles.
    pub(super) fn chain(&self, name: &str) -> Result<Vec<Profile>, String> {
        let mut chain = Vec::new();
        let mut next = Some(name.to_owned());
        while let Some(name) = next.take() {
            let profile =
                self.profile(&name)?.ok_or_else(|| format!("failed to get shared config profile, {name}"))?;
            let source = profile.get("source_profile").map(str::to_owned);
            let is_own = source.as_deref() == Some(name.as_str());
            chain.push(profile);
            if chain.len() > CHAIN_MAX {
                return Err(format!("profiles refer to each other more than {CHAIN_MAX} times"));
            }
            next = source.filter(|_| !is_own);
        }
        Ok(chain)
    }
}

/// The settings of a profile.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Profile {
    keys: BTreeMap<String, Secret>,
}

impl Profile {
    /// A setting that is there and not empty.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(Secret::expose).filter(|value| !value.is_empty())
    }
}

fn read(file: &Path) -> Result<Option<String>, String> {
    let wrong = |error: String| format!("{}: {error}", file.display());
    match std::fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
        Ok(meta) if meta.len() > FILE_MAX_BYTES => {
            return Err(wrong(format!("larger than {FILE_MAX_BYTES} bytes")));
        }
        Ok(_) => {}
    }
    std::fs::read_to_string(file).map(Some).map_err(|error| wrong(error.to_string()))
}

/// Adds the keys of `[name]` (`[profile name]` where names are long); whether it is there.
fn read_profile(text: &str, name: &str, long_names: bool, keys: &mut BTreeMap<String, Secret>) -> bool {
    let (mut inside, mut found) = (false, false);
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some(section) = trimmed.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let section = section.trim();
            let long = section.strip_prefix("profile").filter(|rest| rest.starts_with(char::is_whitespace));
            inside = match long {
                Some(long) => long_names && long.trim() == name,
                None => section == name && (!long_names || name == "default"),
            };
            found |= inside;
        } else if inside && !line.starts_with(char::is_whitespace) && !trimmed.starts_with(['#', ';']) {
            // Lines that are set in belong to settings of settings.
            if let Some((key, value)) = trimmed.split_once('=') {
                let value = value.split(" #").next().unwrap_or_default().trim();
                keys.insert(key.trim().to_ascii_lowercase(), Secret::new(value));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_in_two_files_and_refer_to_each_other() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let write =
            |file: &str, text: &str| std::fs::write(home.path().join(".aws").join(file), text).unwrap();
        write(
            "config",
            "# c\n[default]\nregion = eu-west-1\naws_access_key_id = no\n[profile a]\nrole_arn=r\nsource_profile = default\n\
             s3 =\n  max = 3\n[b]\nregion = ignored\n[profile c]\nsource_profile=c\n[profile d]\nsource_profile=x\n",
        );
        write(
            "credentials",
            "[default]\naws_access_key_id = AK # mine\naws_secret_access_key = s3cr=t\n[b]\nx=1\n",
        );
        let env = Environment::of(&[], home.path(), "");
        let default = env.profile("default").unwrap().unwrap();
        assert_eq!(default.get("region"), Some("eu-west-1"));
        assert_eq!(default.get("aws_access_key_id"), Some("AK"));
        assert_eq!(default.get("aws_secret_access_key"), Some("s3cr=t"));
        assert!(!format!("{default:?}").contains("s3cr"));
        let chain = env.chain("a").unwrap();
        assert_eq!((chain.len(), chain[0].get("max"), chain[0].get("role_arn")), (2, None, Some("r")));
        assert_eq!(env.profile("b").unwrap().unwrap().get("region"), None);
        assert_eq!(env.chain("c").unwrap().len(), 1, "its own source");
        assert_eq!(env.chain("d").unwrap_err(), "failed to get shared config profile, x");
        assert_eq!(env.profile("e").unwrap(), None);
        let env = Environment::of(&[("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/x")], home.path(), "");
        assert_eq!(env.profile("default").unwrap().unwrap().get("aws_access_key_id"), Some("no"));
    }
}
