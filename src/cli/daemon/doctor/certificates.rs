//! Certificates: their issuer, and how long they last.

use std::path::Path;

use super::diagnosis::{Diagnosis, Remedy, quoted};
use super::site::Site;
use crate::cli::identity::identity_files;
use crate::daemon::{CERTIFICATE, EXECUTOR_DIRECTORY, OPERATOR_DIRECTORY};
use crate::identity::{
    CertificateRole, PemFault, Validity, check_issued, check_pair, check_private_key,
};
use crate::model::Timestamp;

const CA: &str = "CA's certificate";

/// The advice about a clock that is wrong.
pub(super) const SET_CLOCK: &str = "set the clock, for example with: timedatectl set-ntp true";

pub(super) fn check(site: &Site) -> Vec<Diagnosis> {
    let root = site.state.join("ca.crt");
    let certificate = |what, path: &str, role, replace: &Remedy, renew: &Remedy| {
        let path = site.state.join(path);
        Certificate { what, path: &path, role, replace, renew }.check(&root, site.now)
    };
    let restart = Remedy::from("restart the daemon, which then issues itself a new one");
    let mut diagnoses = vec![
        ca(&root, site.now),
        certificate(
            "daemon's certificate",
            CERTIFICATE,
            CertificateRole::Daemon,
            &restart,
            &restart,
        ),
    ];
    let identities = [
        ("operator's certificate", "operator", OPERATOR_DIRECTORY),
        ("executor's certificate", "executor", EXECUTOR_DIRECTORY),
    ];
    // An identity may have been moved away. Its owner checks it there.
    for (what, command, directory) in identities {
        let path = site.state.join(directory);
        if path.is_dir() {
            let reissue = site.keyhatch("init --reissue-admin");
            let renew = format!("KEYHATCH_DIR={} keyhatch {command} renew", quoted(&path));
            let file = format!("{directory}/tls.crt");
            diagnoses.push(certificate(
                what,
                &file,
                CertificateRole::Client,
                &reissue,
                &Remedy::Run(renew),
            ));
            diagnoses.extend(key(what, &path, &reissue));
        }
    }
    diagnoses
}

/// Checks the private key of an identity. None if nothing is wrong.
fn key(what: &'static str, directory: &Path, reissue: &Remedy) -> Option<Diagnosis> {
    let path = directory.join("tls.key");
    let refused = |why: String| {
        let text = format!("{}: {why}; stop the daemon for what follows", path.display());
        Some(Diagnosis::fail(what, text, reissue.clone()))
    };
    let Ok(key) = identity_files::read(&path) else {
        return refused("the private key cannot be read".to_owned());
    };
    let certificate = identity_files::read(&directory.join("tls.crt")).ok()?;
    let fault = check_private_key(key.as_bytes())
        .and_then(|()| check_pair(certificate.as_bytes(), key.as_bytes()));
    match fault {
        Err(fault @ (PemFault::PrivateKey | PemFault::Mismatch)) => refused(fault.to_string()),
        Err(PemFault::Certificate) | Ok(()) => None,
    }
}

fn ca(path: &Path, now: Timestamp) -> Diagnosis {
    let replace = Remedy::from("make a new broker with keyhatch init, and seed it again");
    // Every identity has a copy.
    let copy = path.with_file_name(OPERATOR_DIRECTORY).join("ca.crt");
    let restore = match copy.is_file() {
        true => Remedy::run("cp", [copy.as_path(), path]),
        false => Remedy::from("restore ca.crt from a backup"),
    };
    match read(path).and_then(|pem| validity(path, &pem)) {
        Err(why) => Diagnosis::fail(CA, why, restore),
        Ok(validity) => in_force(CA, validity, now, &replace, &replace).unwrap_or_else(|bad| bad),
    }
}

/// A certificate to check, and its remedies.
pub(super) struct Certificate<'a> {
    pub(super) what: &'static str,
    pub(super) path: &'a Path,
    pub(super) role: CertificateRole,
    /// For a certificate that is not valid.
    pub(super) replace: &'a Remedy,
    /// For a certificate that ends soon.
    pub(super) renew: &'a Remedy,
}

impl Certificate<'_> {
    /// Checks it as a client or server does that trusts this root.
    pub(super) fn check(&self, root: &Path, now: Timestamp) -> Diagnosis {
        let refused = |why: String| Diagnosis::fail(self.what, why, self.replace.clone());
        let checked = || {
            let pem = read(self.path).map_err(refused)?;
            let validity = validity(self.path, &pem).map_err(refused)?;
            let diagnosis = in_force(self.what, validity, now, self.replace, self.renew)?;
            let issued = check_issued(&pem, &read(root).map_err(refused)?, self.role, now);
            issued.map_err(|error| refused(format!("{}: {error}", self.path.display())))?;
            Ok(diagnosis)
        };
        checked().unwrap_or_else(|bad: Diagnosis| bad)
    }
}

fn in_force(
    what: &'static str,
    Validity { not_before, not_after }: Validity,
    now: Timestamp,
    replace: &Remedy,
    renew: &Remedy,
) -> Result<Diagnosis, Diagnosis> {
    if now < not_before {
        let text = format!("begins at {not_before}, and by this clock it is {now}");
        return Err(Diagnosis::fail(what, text, SET_CLOCK));
    }
    if now >= not_after {
        return Err(Diagnosis::fail(what, format!("ended at {not_after}"), replace.clone()));
    }
    Ok(match now < not_before.two_thirds_to(not_after) {
        true => Diagnosis::ok(what, format!("until {not_after}")),
        false => {
            let text = format!("ends at {not_after}: less than a third of its life is left");
            Diagnosis::warn(what, text, renew.clone())
        }
    })
}

fn read(path: &Path) -> Result<String, String> {
    let text = identity_files::read(path);
    text.map(|text| text.to_string()).map_err(|error| format!("{}: {error}", path.display()))
}

fn validity(path: &Path, pem: &str) -> Result<Validity, String> {
    Validity::of_pem(pem).map_err(|error| format!("{}: {error}", path.display()))
}
