//! Authorities and certificates, made when a test begins.

use std::{fs, path::Path};

use openssl::{
    asn1::Asn1Time,
    bn::{BigNum, MsbOption},
    ec::{EcGroup, EcKey},
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    x509::{
        X509, X509Name, X509NameBuilder,
        extension::{BasicConstraints, KeyUsage, SubjectAlternativeName},
    },
};

const DAY_S: i64 = 86_400;

/// A certificate and its key.
pub(crate) struct Identity {
    certificate: X509,
    key: PKey<Private>,
}

/// Whom a certificate is made out to, and from when until when it is valid, in days from now.
pub(crate) struct Subject<'a> {
    pub(crate) common_name: &'a str,
    pub(crate) address: Option<&'a str>,
    pub(crate) valid_days: (i64, i64),
}

impl Identity {
    /// Makes an authority.
    pub(crate) fn authority(name: &str) -> Self {
        let subject = Subject {
            common_name: name,
            address: None,
            valid_days: (-2, 30),
        };
        Self::make(&subject, None)
    }

    /// Makes a certificate signed by this authority.
    pub(crate) fn sign(&self, subject: &Subject<'_>) -> Self {
        Self::make(subject, Some(self))
    }

    fn make(subject: &Subject<'_>, issuer: Option<&Self>) -> Self {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        let name = name(subject.common_name);
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        let mut serial = BigNum::new().unwrap();
        serial.rand(64, MsbOption::MAYBE_ZERO, false).unwrap();
        builder
            .set_serial_number(&serial.to_asn1_integer().unwrap())
            .unwrap();
        builder.set_subject_name(&name).unwrap();
        let issuer_name = issuer.map_or(&*name, |it| it.certificate.subject_name());
        builder.set_issuer_name(issuer_name).unwrap();
        let now = logguard::clock::Clock::system().now().timestamp();
        let day = |days: i64| Asn1Time::from_unix(now + days * DAY_S).unwrap();
        builder.set_not_before(&day(subject.valid_days.0)).unwrap();
        builder.set_not_after(&day(subject.valid_days.1)).unwrap();
        builder.set_pubkey(&key).unwrap();
        if issuer.is_none() {
            let constraints = BasicConstraints::new().critical().ca().build().unwrap();
            builder.append_extension(constraints).unwrap();
            let usage = KeyUsage::new().critical().key_cert_sign().build().unwrap();
            builder.append_extension(usage).unwrap();
        }
        if let Some(address) = subject.address {
            let mut names = SubjectAlternativeName::new();
            let names = match address.parse::<std::net::IpAddr>() {
                Ok(_) => names.ip(address),
                Err(_) => names.dns(address),
            };
            let names = names.build(&builder.x509v3_context(None, None)).unwrap();
            builder.append_extension(names).unwrap();
        }
        let signer = issuer.map_or(&key, |it| &it.key);
        builder.sign(signer, MessageDigest::sha256()).unwrap();
        let certificate = builder.build();
        Self { certificate, key }
    }

    /// Writes the certificate in PEM.
    pub(crate) fn write_certificate(&self, file: &Path) {
        fs::write(file, self.certificate.to_pem().unwrap()).unwrap();
    }

    /// Writes the key in PEM, for its owner only.
    pub(crate) fn write_key(&self, file: &Path) {
        use std::os::unix::fs::PermissionsExt;
        fs::write(file, self.key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Writes key and certificate into one file, as Kafka's PEM key stores want it.
    pub(crate) fn write_both(&self, file: &Path) {
        let key = self.key.private_key_to_pem_pkcs8().unwrap();
        fs::write(file, [key, self.certificate.to_pem().unwrap()].concat()).unwrap();
    }
}

fn name(common_name: &str) -> X509Name {
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_nid(Nid::COMMONNAME, common_name)
        .unwrap();
    name.build()
}
