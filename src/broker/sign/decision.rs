//! Decides whether a step may use a key: pure, over one snapshot and the public keys that are known.

use std::sync::Arc;

use super::public_keys::PublicKeys;
use super::refusal::SignRefusal;
use crate::access::Purpose;
use crate::broker::resolve::authorize::{Grant, Refusal, authorize_step};
use crate::catalog::{Catalog, ConnectionMetadata, InForce};
use crate::journal::{self, LiveOpening, Outcome, SignLine, SshLogin, Used};
use crate::lease::LeaseTarget;
use crate::model::{Id, Reference, ResourceName};
use crate::ssh::{HostKeys, LoginRequest, fingerprint};

/// The one kind that signs.
const INTEGRATION: &str = "ssh";
const KIND: &str = "private_key";
/// Its fields.
pub(super) const PRIVATE_KEY: &str = "private_key";
const USER: &str = "user";
const KNOWN_HOSTS: &str = "known_hosts";
const HOST_BINDING: &str = "host_binding";
/// The value of `host_binding` with which a login must name its host. Every other value is `offered`.
const REQUIRED: &[u8] = b"required";

/// What a step asks for: a signature of the login, or the public key if there is none.
pub(super) struct Asked<'a> {
    pub(super) target: &'a Reference,
    pub(super) login: Option<&'a LoginRequest>,
}

/// What a connection says of its key, without the key.
pub(super) struct Profile {
    pub(super) user: Vec<u8>,
    pub(super) known_hosts: Vec<u8>,
    /// True if a login must name its host.
    is_host_required: bool,
}

/// A decision that allows the use of a key.
pub(super) struct Allowed {
    pub(super) grant: Grant,
    pub(super) profile: Profile,
    /// The public key, which is that of the login if there is one. `None` if it is not known yet: then the key is used to tell it
    /// and for nothing else.
    pub(super) public_key: Option<Arc<[u8]>>,
}

/// A decision that is not an allowance.
pub(super) enum Refused {
    /// By access, or by what the target names.
    Access(Refusal),
    /// By what is to be signed, or what it is to be signed by.
    Key(ResourceName, SignRefusal),
}

impl Allowed {
    /// The key that is used, by its connection and version.
    pub(super) fn key(&self) -> (Id, u64) {
        (self.grant.values.key.uid, self.grant.version)
    }
}

/// Decides on the snapshot of a catalogue.
pub(super) fn decide(
    rules: InForce<'_>,
    known: &PublicKeys,
    opening: &LiveOpening,
    asked: &Asked<'_>,
) -> Result<Allowed, Refused> {
    let grant = authorize_step(rules, opening.record(), asked.target, Purpose::Use, None)
        .map_err(Refused::Access)?;
    let refuse = |refusal| Refused::Key(grant.name.clone(), refusal);
    let profile =
        Profile::of_target(rules.catalog, &grant.name).ok_or(refuse(SignRefusal::NoKey))?;
    if let Some(login) = asked.login {
        profile.check(login).map_err(refuse)?;
    }
    let public_key = known.find(grant.values.key.uid, grant.version).transpose();
    let public_key = public_key.map_err(|fault| refuse(fault.into()))?;
    if let (Some(login), Some(key)) = (asked.login, &public_key)
        && login.public_key() != &**key
    {
        return Err(refuse(SignRefusal::OtherKey));
    }
    Ok(Allowed { grant, profile, public_key })
}

impl Profile {
    /// What the target says; `None` if it is no connection of the kind that signs.
    fn of_target(catalog: &Catalog, target: &ResourceName) -> Option<Self> {
        let ResourceName::Connection(name) = target else { return None };
        Self::of(&catalog.connection(name)?.metadata)
    }

    fn of(metadata: &ConnectionMetadata) -> Option<Self> {
        let is_it = metadata.integration.as_str() == INTEGRATION
            && metadata.kind.as_str() == KIND
            && metadata.has(PRIVATE_KEY);
        let value = |wanted: &str| {
            let mut fields = metadata.fields.iter();
            let found = fields.find(|(name, _)| name.as_str() == wanted);
            found.map(|(_, field)| field.value.clone()).unwrap_or_default()
        };
        is_it.then(|| Self {
            user: value(USER),
            known_hosts: value(KNOWN_HOSTS),
            is_host_required: value(HOST_BINDING) == REQUIRED,
        })
    }

    /// Checks that a login is one that the connection is for.
    fn check(&self, login: &LoginRequest) -> Result<(), SignRefusal> {
        if !self.user.is_empty() && self.user != login.user().as_bytes() {
            return Err(SignRefusal::OtherUser);
        }
        let is_known = |host_key| HostKeys::parse(&self.known_hosts).accept(host_key);
        let has_hosts = self.is_host_required || !self.known_hosts.is_empty();
        match login.host_key() {
            None if self.is_host_required => Err(SignRefusal::NoHost),
            Some(host_key) if has_hosts && !is_known(host_key) => Err(SignRefusal::UnknownHost),
            _ => Ok(()),
        }
    }
}

/// The line of a decision. A key that is used to tell its public key signs no login yet.
pub(super) fn sign_line(
    opening: &LiveOpening,
    asked: &Asked<'_>,
    decided: &Result<Allowed, Refused>,
) -> SignLine {
    let record = opening.record();
    let outcome = match decided {
        Ok(Allowed { grant, .. }) => Outcome::Allow(Used {
            by: grant.rules(),
            uid: grant.values.key.uid,
            resource: (!matches!(asked.target, Reference::Connection(_)))
                .then(|| grant.name.to_text()),
            version: grant.version,
        }),
        Err(Refused::Access(refusal)) => Outcome::Refuse(journal::Refused {
            reason: refusal.reason().to_owned(),
            by: refusal.by().to_owned(),
            uid: refusal.too_low_on(),
            mint: None,
        }),
        Err(Refused::Key(_, refusal)) => {
            Outcome::Refuse(journal::Refused::because(refusal.reason()))
        }
    };
    let is_reading = decided.as_ref().is_ok_and(|allowed| allowed.public_key.is_none());
    let login = asked.login.filter(|_| !is_reading).map(|login| {
        Box::new(SshLogin {
            user: login.user().to_owned(),
            key: fingerprint(login.public_key()),
            host_key: login.host_key().map(fingerprint),
        })
    });
    SignLine {
        opening: record.id,
        principal: Arc::clone(&opening.principal()),
        run_as: record.run_as.clone(),
        target: LeaseTarget::of(&record.key.workflow, asked.target),
        login,
        outcome,
    }
}
