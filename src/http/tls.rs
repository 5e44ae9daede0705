//! Why two sides cannot agree on a secure connection, and what to do about it.

use rustls::{AlertDescription, CertificateError};

/// A failure of TLS that no repetition mends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TlsProblem {
    /// Its certificate leads to no authority that is trusted here.
    #[error(
        "the server's certificate is signed by nobody that is trusted here; if the authority is your own, name its PEM file with --ca-file or SSL_CERT_FILE"
    )]
    UnknownAuthority,
    /// The certificate is for other names.
    #[error(
        "the server's certificate is for another name; check the address, or have the certificate made for it"
    )]
    WrongName,
    /// The certificate is no longer, or not yet, valid.
    #[error(
        "the server's certificate has run out or is not valid yet; have it renewed, or set this machine's clock"
    )]
    NotNow,
    /// The certificate is of no use for another reason.
    #[error("the server's certificate is not valid; have it made anew")]
    Invalid,
    /// The server wants to know who we are, or does not believe it.
    #[error(
        "the server wants a client certificate that it trusts; put client.cert and client.key into certs.d/HOST[:PORT] of Docker's or podman's configuration"
    )]
    ClientCertificate,
    /// The server does not speak TLS, or not a version that we speak.
    #[error(
        "the server does not speak TLS; check the address and port, or allow plain HTTP with --insecure-registry"
    )]
    NotTls,
}

impl TlsProblem {
    /// The TLS failure among an error's causes.
    pub fn among(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Self::of(error);
        }
        // What an I/O error wraps is not its source.
        let wrapped = (error.downcast_ref::<std::io::Error>()).and_then(std::io::Error::get_ref);
        match wrapped {
            Some(inner) => Self::among(inner),
            None => Self::among(error.source()?),
        }
    }

    fn of(error: &rustls::Error) -> Option<Self> {
        use AlertDescription as Alert;
        use CertificateError as Certificate;
        Some(match error {
            rustls::Error::InvalidCertificate(problem) => match problem {
                Certificate::UnknownIssuer => Self::UnknownAuthority,
                Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                    Self::WrongName
                }
                Certificate::Expired
                | Certificate::ExpiredContext { .. }
                | Certificate::NotValidYet
                | Certificate::NotValidYetContext { .. } => Self::NotNow,
                // How the platform's verifier says that it knows no such authority.
                Certificate::Other(_) => Self::UnknownAuthority,
                _ => Self::Invalid,
            },
            rustls::Error::AlertReceived(
                Alert::CertificateRequired
                | Alert::BadCertificate
                | Alert::UnknownCA
                | Alert::CertificateUnknown
                | Alert::AccessDenied,
            ) => Self::ClientCertificate,
            rustls::Error::InvalidMessage(_) | rustls::Error::PeerIncompatible(_) => Self::NotTls,
            _ => return None,
        })
    }
}
