//! What went wrong, in the words Prometheus' users know: Go's.

use std::error::Error;

use rustls::{AlertDescription, CertificateError};

use crate::error::NetError;

/// Why no TCP connection came about.
pub(super) fn dialling(error: &(dyn Error + 'static), host: &str, address: String) -> NetError {
    let mut source = Some(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            let reason = match io.kind() {
                std::io::ErrorKind::ConnectionRefused => "connect: connection refused",
                std::io::ErrorKind::ConnectionReset => "connect: connection reset by peer",
                std::io::ErrorKind::HostUnreachable => "connect: no route to host",
                std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable",
                std::io::ErrorKind::TimedOut => "i/o timeout",
                _ => break,
            };
            return NetError::Connect { address, reason: reason.to_owned() };
        }
        source = cause.source();
    }
    let cause = root_cause(error);
    if error.to_string().starts_with("dns error") {
        let unknown = ["Name or service not known", "No address associated", "nodename nor servname"];
        let reason =
            if unknown.iter().any(|text| cause.contains(text)) { "no such host".to_owned() } else { cause };
        return NetError::Lookup { host: host.to_owned(), reason };
    }
    NetError::Connect { address, reason: cause }
}

/// Why there is no TLS.
pub(super) fn handshake(error: &std::io::Error) -> NetError {
    match find_tls(error) {
        Some(tls) => NetError::Handshake(tls_text(tls)),
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => NetError::Handshake("EOF".to_owned()),
        None => NetError::Handshake(root_cause(error)),
    }
}

/// Why a request got no answer.
pub(super) fn request(error: &hyper_util::client::legacy::Error) -> NetError {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(own) = cause.downcast_ref::<NetError>() {
            return own.clone();
        }
        source = cause.source();
    }
    other(error)
}

/// Whether the connection ended under a request.
pub(super) fn broke_off(error: &hyper_util::client::legacy::Error) -> bool {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(hyper) = cause.downcast_ref::<hyper::Error>()
            && (hyper.is_incomplete_message() || hyper.is_canceled() || hyper.is_closed())
        {
            return true;
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
            return matches!(io.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof);
        }
        source = cause.source();
    }
    false
}

/// Why an answer broke off.
pub(super) fn body(error: &hyper::Error) -> NetError {
    if error.is_incomplete_message() { NetError::UnexpectedEof } else { other(error) }
}

fn other(error: &(dyn Error + 'static)) -> NetError {
    let mut source = Some(error);
    while let Some(cause) = source {
        if let Some(tls) = find_tls(cause) {
            return NetError::Handshake(tls_text(tls));
        }
        if let Some(hyper) = cause.downcast_ref::<hyper::Error>() {
            if hyper.is_incomplete_message() {
                return NetError::Protocol("EOF".to_owned());
            }
            if hyper.is_parse_too_large() {
                return NetError::HeadersTooLarge;
            }
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            match io.kind() {
                std::io::ErrorKind::UnexpectedEof => return NetError::UnexpectedEof,
                std::io::ErrorKind::ConnectionReset => {
                    return NetError::Protocol("read: connection reset by peer".to_owned());
                }
                _ => {}
            }
        }
        source = cause.source();
    }
    NetError::Protocol(root_cause(error))
}

fn find_tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(tls);
    }
    let inner = error.downcast_ref::<std::io::Error>()?.get_ref()?;
    find_tls(inner)
}

fn tls_text(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => {
            format!("tls: failed to verify certificate: x509: {}", certificate_text(error))
        }
        rustls::Error::AlertReceived(alert) => format!("remote error: tls: {}", alert_text(*alert)),
        rustls::Error::InvalidMessage(_) => "tls: first record does not look like a TLS handshake".to_owned(),
        rustls::Error::PeerIncompatible(_) => {
            format!("tls: server selected unsupported protocol version or parameters ({error})")
        }
        other => format!("tls: {other}"),
    }
}

fn certificate_text(error: &CertificateError) -> String {
    let ago = |from: u64, to: u64| model::duration::format(std::time::Duration::from_secs(to.abs_diff(from)));
    match error {
        CertificateError::UnknownIssuer => "certificate signed by unknown authority".to_owned(),
        CertificateError::Expired | CertificateError::NotValidYet => {
            "certificate has expired or is not yet valid".to_owned()
        }
        CertificateError::ExpiredContext { time, not_after } => format!(
            "certificate has expired or is not yet valid: it expired {} ago",
            ago(not_after.as_secs(), time.as_secs())
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "certificate has expired or is not yet valid: it becomes valid in {}",
            ago(time.as_secs(), not_before.as_secs())
        ),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> =
                presented.iter().map(|name| name.split('"').nth(1).unwrap_or(name)).collect();
            let expected = expected.to_str();
            if names.is_empty() {
                format!("certificate is not valid for any names, but wanted to match {expected}")
            } else {
                format!("certificate is valid for {}, not {expected}", names.join(", "))
            }
        }
        CertificateError::Revoked => "certificate has been revoked".to_owned(),
        other => other.to_string(),
    }
}

fn alert_text(alert: AlertDescription) -> String {
    let text = match alert {
        AlertDescription::UnexpectedMessage => "unexpected message",
        AlertDescription::HandshakeFailure => "handshake failure",
        AlertDescription::BadCertificate => "bad certificate",
        AlertDescription::UnsupportedCertificate => "unsupported certificate",
        AlertDescription::CertificateRevoked => "revoked certificate",
        AlertDescription::CertificateExpired => "expired certificate",
        AlertDescription::CertificateUnknown => "unknown certificate",
        AlertDescription::UnknownCA => "unknown certificate authority",
        AlertDescription::AccessDenied => "access denied",
        AlertDescription::DecodeError => "error decoding message",
        AlertDescription::DecryptError => "error decrypting message",
        AlertDescription::ProtocolVersion => "protocol version not supported",
        AlertDescription::InsufficientSecurity => "insufficient security level",
        AlertDescription::InternalError => "internal error",
        AlertDescription::UnrecognisedName => "unrecognized name",
        AlertDescription::CertificateRequired => "certificate required",
        AlertDescription::NoApplicationProtocol => "no application protocol",
        other => return format!("{other:?}"),
    };
    text.to_owned()
}

pub(super) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
