//! Whom a certificate names (RFC 5280, section 4.1.2.6).

use x509_cert::Certificate;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::der::{Any, Decode, Tag, Tagged};

/// The subject's common name. `None`: there is none, or several (which of them it is, is nobody's guess), or it is no
/// text.
pub fn common_name(certificate: &[u8]) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let subject = certificate.tbs_certificate.subject;
    let mut names = subject.0.iter().flat_map(|names| names.0.iter()).filter(|name| name.oid == COMMON_NAME);
    let name = names.next().filter(|_| names.next().is_none())?;
    // Whoever stops reading at a zero byte would read another name.
    text(&name.value).filter(|name| !name.is_empty() && !name.contains('\0'))
}

/// The whole subject as RFC 4514 writes it: `CN=app,O=Shop`.
pub fn distinguished_name(certificate: &[u8]) -> Option<String> {
    let name = Certificate::from_der(certificate).ok()?.tbs_certificate.subject.to_string();
    (!name.is_empty()).then_some(name)
}

fn text(value: &Any) -> Option<String> {
    match value.tag() {
        Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok().map(|text| text.to_string()),
        Tag::PrintableString => value.decode_as::<PrintableStringRef<'_>>().ok().map(|text| text.to_string()),
        Tag::Ia5String => value.decode_as::<Ia5StringRef<'_>>().ok().map(|text| text.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    fn certificate(names: &[(DnType, DnValue)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        names.iter().for_each(|(kind, name)| params.distinguished_name.push(kind.clone(), name.clone()));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_subject_is_the_name() {
        let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
        let printable = |text: &str| DnValue::PrintableString(text.try_into().unwrap());
        let (name, unit, firm) = (DnType::CommonName, DnType::OrganizationalUnitName, DnType::OrganizationName);
        for (names, common, whole) in [
            (vec![(name.clone(), utf8("app"))], Some("app"), Some("CN=app")),
            (vec![(name.clone(), printable("app"))], Some("app"), Some("CN=app")),
            (
                vec![(firm.clone(), utf8("Shop, Inc")), (unit, utf8("desk")), (name.clone(), utf8("Ann"))],
                Some("Ann"),
                Some("CN=Ann,OU=desk,O=Shop\\, Inc"),
            ),
            (vec![(firm, utf8("Shop"))], None, Some("O=Shop")),
            (vec![(name.clone(), utf8("app\0evil"))], None, Some("CN=app\\00evil")),
            (vec![(name, utf8(""))], None, Some("CN=")),
            (vec![], None, None),
        ] {
            let certificate = certificate(&names);
            assert_eq!(common_name(&certificate).as_deref(), common, "{names:?}");
            assert_eq!(distinguished_name(&certificate).as_deref(), whole, "{names:?}");
        }
        assert_eq!((common_name(b"no certificate"), distinguished_name(b"")), (None, None));
    }
}
