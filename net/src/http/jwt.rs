//! Signed assertions for the `jwt-bearer` grant (RFC 7523): RS256, RS384, RS512, by the same provider that does TLS.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::Secret;
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::RsaSigningKey;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::sign::SigningKey as _;
use serde_json::{Map, Value, json};

use crate::error::NetError;

/// How long an assertion is valid, in seconds.
const VALID_SECS: u64 = 600;

/// The hash under the RSA signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
}

impl Algorithm {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "RS256" => Some(Self::Rs256),
            "RS384" => Some(Self::Rs384),
            "RS512" => Some(Self::Rs512),
            _ => None,
        }
    }

    fn name_and_scheme(self) -> (&'static str, SignatureScheme) {
        match self {
            Self::Rs256 => ("RS256", SignatureScheme::RSA_PKCS1_SHA256),
            Self::Rs384 => ("RS384", SignatureScheme::RSA_PKCS1_SHA384),
            Self::Rs512 => ("RS512", SignatureScheme::RSA_PKCS1_SHA512),
        }
    }
}

/// What an assertion says.
pub(super) struct Claims<'a> {
    pub(super) issuer: &'a str,
    pub(super) subject: &'a str,
    pub(super) audience: &'a str,
    pub(super) scopes: &'a [String],
    /// Win over all others.
    pub(super) own: &'a BTreeMap<String, Value>,
    /// Unique.
    pub(super) id: String,
    /// Seconds since the epoch.
    pub(super) now_secs: u64,
}

/// The assertion, signed with the RSA key in `pem`.
pub(super) fn sign(
    claims: &Claims<'_>,
    pem: &Secret,
    algorithm: Algorithm,
    key_id: &str,
) -> Result<Secret, NetError> {
    let unusable = |reason: &str| NetError::File {
        path: PathBuf::from("client_certificate_key"),
        reason: reason.to_owned(),
    };
    let key = PrivateKeyDer::from_pem_slice(pem.expose().as_bytes())
        .map_err(|_| unusable("holds no private key in PEM"))?;
    let key = RsaSigningKey::new(&key).map_err(|_| unusable("is not a valid RSA private key"))?;
    let (name, scheme) = algorithm.name_and_scheme();

    let mut header = json!({"alg": name, "typ": "JWT"});
    if !key_id.is_empty() {
        header["kid"] = key_id.into();
    }
    let mut payload = Map::new();
    payload.insert("iss".to_owned(), claims.issuer.into());
    payload.insert("sub".to_owned(), claims.subject.into());
    payload.insert("aud".to_owned(), claims.audience.into());
    payload.insert("jti".to_owned(), claims.id.as_str().into());
    payload.insert("iat".to_owned(), claims.now_secs.into());
    payload.insert("exp".to_owned(), claims.now_secs.saturating_add(VALID_SECS).into());
    if !claims.scopes.is_empty() {
        payload.insert("scope".to_owned(), claims.scopes.join(" ").into());
    }
    payload.extend(claims.own.iter().map(|(name, value)| (name.clone(), value.clone())));

    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let mut text = format!("{}.{}", encoded(&header), encoded(&Value::Object(payload)));
    let signature = key
        .choose_scheme(&[scheme])
        .ok_or_else(|| unusable("cannot sign"))?
        .sign(text.as_bytes())
        .map_err(|_| unusable("cannot sign"))?;
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut text);
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = include_str!("../../tests/rsa-for-tests-only.pem");

    #[test]
    fn assertions_say_what_they_must_and_are_signed() {
        let own = BTreeMap::from([("aud".to_owned(), json!(["x", "y"])), ("n".to_owned(), json!(1))]);
        let claims = Claims {
            issuer: "iss",
            subject: "sub",
            audience: "aud",
            scopes: &["a".to_owned(), "b".to_owned()],
            own: &own,
            id: "id".to_owned(),
            now_secs: 1_000,
        };
        for (algorithm, name) in [("", "RS256"), ("RS384", "RS384"), ("RS512", "RS512")] {
            let algorithm = Algorithm::parse(algorithm).unwrap();
            let signed = sign(&claims, &Secret::new(KEY), algorithm, "k1").unwrap();
            let parts: Vec<&str> = signed.expose().split('.').collect();
            let read = |part: &str| -> Value {
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
            };
            assert_eq!(read(parts[0]), json!({"alg": name, "typ": "JWT", "kid": "k1"}));
            assert_eq!(
                read(parts[1]),
                json!({"iss": "iss", "sub": "sub", "aud": ["x", "y"], "jti": "id", "iat": 1000, "exp": 1600,
                       "scope": "a b", "n": 1})
            );
            let (_, scheme) = algorithm.name_and_scheme();
            let provider = rustls::crypto::ring::default_provider();
            let verifiers = provider.signature_verification_algorithms.mapping;
            let (_, verifiers) = verifiers.iter().find(|(own, _)| *own == scheme).unwrap();
            let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
            let public = RsaSigningKey::new(&key).unwrap();
            // The key itself comes after the 24 bytes that say what kind it is.
            let public = &public.public_key().unwrap().as_ref()[24..].to_vec();
            let message = format!("{}.{}", parts[0], parts[1]);
            let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
            verifiers[0].verify_signature(public, message.as_bytes(), &signature).unwrap();
            assert!(verifiers[0].verify_signature(public, b"other", &signature).is_err());
        }
    }

    #[test]
    fn keys_of_other_kinds_are_refused() {
        let claims = Claims {
            issuer: "",
            subject: "",
            audience: "",
            scopes: &[],
            own: &BTreeMap::new(),
            id: String::new(),
            now_secs: 0,
        };
        let elliptic = rcgen::KeyPair::generate().unwrap().serialize_pem();
        for (pem, reason) in [("hunter2", "no private key"), (elliptic.as_str(), "not a valid RSA")] {
            let error = sign(&claims, &Secret::new(pem), Algorithm::Rs256, "").unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("hunter2"), "{error}");
        }
        assert_eq!(Algorithm::parse("ES256"), None);
    }
}
