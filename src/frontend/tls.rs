//! TLS towards clients.

use std::fs::File;
use std::io::{BufReader, Error, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::topology::ClientTls;
use crate::wire::binding;

pub(super) struct Acceptor {
    inner: TlsAcceptor,
    /// Of its certificate; `None`: log-ins cannot be bound to it.
    pub end_point: Option<Arc<[u8]>>,
    /// Clients may not stay in the clear.
    pub required: bool,
}

impl Acceptor {
    pub(super) fn new(tls: &ClientTls) -> std::io::Result<Self> {
        let certificates = rustls_pemfile::certs(&mut open(&tls.certificate)?).collect::<Result<Vec<_>, _>>()?;
        let none = || Error::new(ErrorKind::InvalidData, format!("no private key in {}", tls.private_key.display()));
        let key = rustls_pemfile::private_key(&mut open(&tls.private_key)?)?.ok_or_else(none)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(Error::other)?;
        let builder = match &tls.client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let mut roots = RootCertStore::empty();
                for certificate in rustls_pemfile::certs(&mut open(file)?) {
                    roots.add(certificate?).map_err(Error::other)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().map_err(Error::other)?)
            }
        };
        let end_point = certificates.first().and_then(|own| binding::end_point(own)).map(Arc::from);
        let config = builder.with_single_cert(certificates, key).map_err(Error::other)?;
        Ok(Self { inner: TlsAcceptor::from(Arc::new(config)), end_point, required: tls.required })
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.inner.accept(stream).await
    }
}

fn open(file: &Path) -> std::io::Result<BufReader<File>> {
    File::open(file)
        .map(BufReader::new)
        .map_err(|cause| Error::new(cause.kind(), format!("{}: {cause}", file.display())))
}
