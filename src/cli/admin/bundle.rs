//! The bundle of an operator who works from another machine: what `operator add --remote` answers, and `context add`
//! takes. It holds no key.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::fingerprint::Fingerprint;
use crate::cli::io::text::file_label;
use crate::identity::{CertificateRole, Svid, TlsError, certificates_alone, check_issued};
use crate::model::{BrokerId, HostPort, OperatorName, SpiffeId, Timestamp};
use crate::sys::input;

/// More than any bundle takes.
const MAX_BYTES: usize = 256 * 1024;
/// The format of bundles that this version writes and takes.
const FORMAT: u32 = 1;

/// A bundle.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bundle {
    /// The format.
    keyhatch_bundle: u32,
    /// The operator that the certificate is for.
    pub(super) operator: OperatorName,
    /// Where the broker is.
    pub(super) address: HostPort,
    /// The broker, as its certificate must name it.
    pub(super) broker: BrokerId,
    /// The operator's certificate and its issuer, PEM.
    pub(super) certificate_chain: String,
    /// The only root certificate that the operator trusts, PEM.
    pub(super) ca_certificate: String,
}

impl Bundle {
    pub(super) fn new(
        operator: OperatorName,
        (address, broker): (HostPort, BrokerId),
        certificate_chain: String,
        ca_certificate: String,
    ) -> Self {
        let keyhatch_bundle = FORMAT;
        Self { keyhatch_bundle, operator, address, broker, certificate_chain, ca_certificate }
    }

    /// The fingerprint of the root. None if it is no certificate, as in no bundle that was read.
    pub(super) fn root(&self) -> Option<Fingerprint> {
        Fingerprint::of_root(&self.ca_certificate)
    }

    /// Reads a bundle of a file, or of stdin for `-`, and checks that its parts belong together and are valid now. Its PEM
    /// texts then hold nothing but certificates, and exactly one root. Returns it with the operator's certificate.
    pub(super) fn read(path: &Path, now: Timestamp) -> Result<(Self, Svid), Failure> {
        let label = file_label(path);
        let invalid = |why: &str| {
            let text = format!(
                "{label} {why}; take the answer of keyhatch operator add NAME --role ROLE --csr FILE --remote as it is"
            );
            Failure::new("BUNDLE_INVALID", text, exit::USAGE)
        };
        let bytes = input::named(path, MAX_BYTES);
        let bytes = bytes.map_err(|error| Failure::usage(format!("{label}: {error}")))?;
        #[derive(Deserialize)]
        struct Format {
            keyhatch_bundle: u32,
        }
        let format: Format =
            serde_json::from_slice(&bytes).map_err(|_| invalid("is no bundle of keyhatch"))?;
        if format.keyhatch_bundle != FORMAT {
            return Err(invalid("is a bundle of a newer keyhatch, which this version cannot take"));
        }
        let mut bundle: Self =
            serde_json::from_slice(&bytes).map_err(|_| invalid("is a damaged bundle"))?;
        let alone = |pem: &str| certificates_alone(pem).unwrap_or_default();
        let [root] = <[String; 1]>::try_from(alone(&bundle.ca_certificate)).map_err(|roots| {
            invalid(&format!("holds {} CA certificates instead of one", roots.len()))
        })?;
        bundle.ca_certificate = root;
        bundle.certificate_chain = alone(&bundle.certificate_chain).concat();
        let svid = Svid::parse_pem(&bundle.certificate_chain, &bundle.broker.domain);
        let svid =
            svid.map_err(|_| invalid("holds no certificate of that broker's trust domain"))?;
        if !matches!(&svid.id, SpiffeId::Operator(name) if *name == bundle.operator) {
            return Err(invalid("holds another operator's certificate"));
        }
        if now >= svid.not_after {
            return Err(too_old(&label, &bundle.operator, svid.not_after));
        }
        bundle.check_issued(now).map_err(|error| invalid(&format!("cannot be used ({error})")))?;
        Ok((bundle, svid))
    }

    fn check_issued(&self, now: Timestamp) -> Result<(), TlsError> {
        let (chain, root) = (&self.certificate_chain, &self.ca_certificate);
        check_issued(chain, root, CertificateRole::Client, now)
    }
}

/// The failure of a bundle whose certificate has ended.
fn too_old(label: &str, operator: &OperatorName, end: Timestamp) -> Failure {
    let name = shell_words::quote(operator.as_str());
    let text = format!(
        "{label} is too old: its certificate ended at {end}. An administrator makes another from the same tls.csr: \
         keyhatch operator remove {name}, then keyhatch operator add {name} --role ROLE --csr FILE --remote"
    );
    Failure::new("BUNDLE_TOO_OLD", text, exit::FAILED)
}
