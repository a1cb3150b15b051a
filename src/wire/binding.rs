//! What SCRAM binds to the encryption below it: `tls-server-end-point`, the hash of the server's certificate (RFC 5929,
//! section 4).

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::rfc5912::{
    ECDSA_WITH_SHA_224, ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ECDSA_WITH_SHA_512, SHA_1_WITH_RSA_ENCRYPTION,
    SHA_224_WITH_RSA_ENCRYPTION, SHA_256_WITH_RSA_ENCRYPTION, SHA_384_WITH_RSA_ENCRYPTION, SHA_512_WITH_RSA_ENCRYPTION,
};

/// Of a certificate in DER, by the hash of its signature. `None`: it has none, or one that has no name here, as Ed25519
/// and RSA-PSS; then nothing can be bound.
pub fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = Certificate::from_der(certificate).ok()?.signature_algorithm.oid;
    hash(algorithm).map(|hash| hash(certificate))
}

type Hash = fn(&[u8]) -> Vec<u8>;

fn hash(algorithm: ObjectIdentifier) -> Option<Hash> {
    Some(match algorithm {
        ECDSA_WITH_SHA_224 | SHA_224_WITH_RSA_ENCRYPTION => |bytes| Sha224::digest(bytes).to_vec(),
        // The RFC takes SHA-256 for what is weaker.
        ECDSA_WITH_SHA_256
        | SHA_256_WITH_RSA_ENCRYPTION
        | SHA_1_WITH_RSA_ENCRYPTION
        | ECDSA_WITH_SHA_1
        | MD5_WITH_RSA_ENCRYPTION => |bytes| Sha256::digest(bytes).to_vec(),
        ECDSA_WITH_SHA_384 | SHA_384_WITH_RSA_ENCRYPTION => |bytes| Sha384::digest(bytes).to_vec(),
        ECDSA_WITH_SHA_512 | SHA_512_WITH_RSA_ENCRYPTION => |bytes| Sha512::digest(bytes).to_vec(),
        _ => return None,
    })
}

const ECDSA_WITH_SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.1");
const MD5_WITH_RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.4");

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;

    #[test]
    fn the_signature_names_the_hash() {
        for (algorithm, length) in
            [(&PKCS_ECDSA_P256_SHA256, Some(32)), (&PKCS_ECDSA_P384_SHA384, Some(48)), (&PKCS_ED25519, None)]
        {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let certificate = CertificateParams::new(["db".to_owned()]).unwrap().self_signed(&key).unwrap();
            assert_eq!(end_point(certificate.der()).map(|hash| hash.len()), length);
        }
        assert_eq!(end_point(b"no certificate"), None);
    }
}
