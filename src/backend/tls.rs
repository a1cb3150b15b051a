//! TLS towards servers, by libpq's `sslmode` (PostgreSQL documentation, 34.19).

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::topology::{FileEntry, Server, ServerTls, TlsNegotiation};
use crate::wire::ALPN;

/// Shakes hands on a stream whose server agreed to TLS, or is taken to speak nothing else.
pub(super) async fn connect(stream: TcpStream, server: &Server) -> std::io::Result<TlsStream<TcpStream>> {
    let config = tls_to_server(server.tls, server.tls_ca.as_ref()).map_err(std::io::Error::other)?;
    let name = ServerName::try_from(server.host.clone()).map_err(std::io::Error::other)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    // Who does not confirm the protocol may be a server of another one, to which the way was bent.
    if server.tls_negotiation == TlsNegotiation::Direct && stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return Err(std::io::Error::other(
            "the server does not confirm in its TLS handshake that it speaks PostgreSQL",
        ));
    }
    Ok(stream)
}

/// Says what is wrong with the certificates that a server's own is checked against.
pub fn check_authorities(server: &Server) -> Result<(), Fault> {
    tls_to_server(server.tls, server.tls_ca.as_ref()).map(drop)
}

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// What is asked of a server's certificate, and said of the protocol.
pub(crate) fn tls_to_server(mode: ServerTls, authorities: Option<&FileEntry>) -> Result<ClientConfig, Fault> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let strictness = match mode {
        ServerTls::VerifyFull => Strictness::Full,
        ServerTls::VerifyCa => Strictness::Authority,
        // As in libpq, a given authority is checked even where only encryption was asked for.
        _ if authorities.is_some() => Strictness::Authority,
        _ => Strictness::None,
    };
    let roots = Arc::new(roots(authorities)?);
    let inner = WebPkiServerVerifier::builder_with_provider(roots, provider).build()?;
    let verifier = Arc::new(Verifier { inner, strictness });
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn roots(authorities: Option<&FileEntry>) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    match authorities {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(file) => {
            let told = |cause: &dyn std::fmt::Display| format!("{}: {cause}", file.path().display());
            for certificate in rustls_pemfile::certs(&mut file.contents()) {
                roots.add(certificate.map_err(|cause| told(&cause))?).map_err(|cause| told(&cause))?;
            }
            if roots.is_empty() {
                return Err(told(&"no certificate in it").into());
            }
        }
    }
    Ok(roots)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strictness {
    /// Encryption only, against listeners.
    None,
    /// The chain, not the name.
    Authority,
    Full,
}

#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    strictness: Strictness,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.strictness == Strictness::None {
            return Ok(ServerCertVerified::assertion());
        }
        match self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.strictness == Strictness::Authority => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
