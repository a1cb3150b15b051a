//! TLS towards clients.

use std::io::{Error, ErrorKind};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::topology::{ClientTls, FileEntry};
use crate::wire::{ALPN, binding};

/// How handshakes are made at the moment; connections that are there keep to what held when they came.
#[derive(Default)]
pub struct Encryption(ArcSwapOption<Acceptor>);

/// One certificate with its key, and whose certificates are taken.
pub struct Acceptor {
    inner: TlsAcceptor,
    /// Of its certificate; `None`: log-ins cannot be bound to it.
    pub(super) end_point: Option<Arc<[u8]>>,
    /// Clients may not stay in the clear.
    pub(super) required: bool,
}

impl Encryption {
    /// What comes from now on is encrypted so.
    pub fn set(&self, acceptor: Option<Acceptor>) {
        self.0.store(acceptor.map(Arc::new));
    }

    pub(super) fn current(&self) -> Option<Arc<Acceptor>> {
        self.0.load_full()
    }
}

impl Acceptor {
    /// Understands the files, or says which one is no use.
    pub fn new(tls: &ClientTls) -> std::io::Result<Self> {
        let own = certificates(&tls.certificate)?;
        let key = rustls_pemfile::private_key(&mut tls.private_key.contents());
        let key = key.map_err(|cause| fault(&tls.private_key, cause))?;
        let key = key.ok_or_else(|| fault(&tls.private_key, "no private key in it"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(Error::other)?;
        let builder = match &tls.client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(file)? {
                    roots.add(certificate).map_err(|cause| fault(file, cause))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let required = tls.client_certificate_required;
                let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
                builder.with_client_cert_verifier(verifier.build().map_err(|cause| fault(file, cause))?)
            }
        };
        let end_point = own.first().and_then(|own| binding::end_point(own)).map(Arc::from);
        let mut config = builder.with_single_cert(own, key).map_err(|cause| {
            let (certificate, key) = (tls.certificate.path().display(), tls.private_key.path().display());
            Error::new(ErrorKind::InvalidData, format!("{certificate} with {key}: {cause}"))
        })?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // As in PostgreSQL no session is resumed: each client shows anew who it is.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { inner: TlsAcceptor::from(Arc::new(config)), end_point, required: tls.required })
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.inner.accept(stream).await
    }
}

fn certificates(file: &FileEntry) -> std::io::Result<Vec<rustls::pki_types::CertificateDer<'static>>> {
    let found = rustls_pemfile::certs(&mut file.contents()).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|cause| fault(file, cause))?;
    if found.is_empty() { Err(fault(file, "no certificate in it")) } else { Ok(found) }
}

fn fault(file: &FileEntry, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidData, format!("{}: {what}", file.path().display()))
}
