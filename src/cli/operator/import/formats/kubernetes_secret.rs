//! `--from kubernetes-secret`: Secret objects, as `kubectl get secret -o yaml` or `-o json` prints them.
//!
//! Their types: <https://kubernetes.io/docs/concepts/configuration/secret/#secret-types>. A type defines its keys,
//! but seldom the address that they are for; without the address there is no connection.

use super::docker_config;
use super::kubernetes_object::{KubernetesObject, objects};
use crate::cli::operator::import::assign::{SourceObject, assign};
use crate::cli::operator::import::extracted::{Entry, Extracted, connection};
use crate::cli::operator::import::fit::{MatchBy, NamedValue};
use crate::cli::operator::import::options::ImportOptions;

/// The keys of the Secrets of a type.
struct SecretType {
    of: &'static str,
    integration: &'static str,
    kind: &'static str,
    /// Required keys, and their fields.
    needed: &'static [(&'static str, &'static str)],
    /// Optional keys, and their fields.
    optional: &'static [(&'static str, &'static str)],
}

const TYPES: [SecretType; 4] = [
    SecretType {
        of: "kubernetes.io/basic-auth",
        integration: "http",
        kind: "basic",
        needed: &[("base_url", "base_url"), ("username", "username"), ("password", "password")],
        optional: &[],
    },
    SecretType {
        of: "kubernetes.io/service-account-token",
        integration: "kubernetes",
        kind: "token",
        needed: &[("server", "server"), ("ca.crt", "certificate_authority"), ("token", "token")],
        optional: &[],
    },
    SecretType {
        of: "kubernetes.io/ssh-auth",
        integration: "ssh",
        kind: "private_key",
        needed: &[("ssh-privatekey", "private_key")],
        optional: &[("known_hosts", "known_hosts")],
    },
    SecretType {
        of: "kubernetes.io/tls",
        integration: "http",
        kind: "mtls",
        needed: &[("base_url", "base_url"), ("tls.crt", "certificate"), ("tls.key", "private_key")],
        optional: &[],
    },
];

/// Reads a file.
pub fn read(bytes: &[u8], wanted: &ImportOptions) -> Extracted {
    let objects = match objects(bytes) {
        Ok(objects) => objects,
        Err(problem) => return Extracted::problem(problem),
    };
    let mut found = Extracted::default();
    let is_called = |only: &String| objects.iter().any(|object| object.called().contains(only));
    for absent in wanted.only.iter().filter(|only| !is_called(only)) {
        found.problems.push(format!("there is no Secret {absent}"));
    }
    for object in objects {
        let (shown, called) = (object.shown(), object.called());
        if !wanted.takes(&called.iter().map(String::as_str).collect::<Vec<_>>()) {
            continue;
        }
        match object.is_secret() {
            true => found.add(secret(object, wanted).within(&shown)),
            false => found.skip(shown, "it is no Secret of v1"),
        }
    }
    found
}

fn secret(object: KubernetesObject, wanted: &ImportOptions) -> Extracted {
    let origin = SourceObject { name: object.name().to_owned(), called: object.called() };
    let of = object.of().to_owned();
    let values = match object.values() {
        Ok(values) => values,
        Err(problems) => return Extracted { problems, ..Extracted::default() },
    };
    if wanted.integration.is_some() {
        return assign(values, MatchBy::AnyName, Some(&origin), wanted);
    }
    if let Some(form) = docker_config::DockerSecretForm::of(&of) {
        return docker_config::of_secret(&origin, form, values, wanted);
    }
    match TYPES.iter().find(|secret_type| secret_type.of == of) {
        Some(secret_type) => secret_type.assign(&origin, values, wanted),
        None => assign(values, MatchBy::AnyName, Some(&origin), wanted),
    }
}

impl SecretType {
    /// The connection of the object if it has all required keys, and its other values.
    fn assign(
        &self,
        origin: &SourceObject,
        values: Vec<NamedValue>,
        wanted: &ImportOptions,
    ) -> Extracted {
        let has = |key: &str| values.iter().any(|one| one.name == key && !one.value.is_empty());
        let missing: Vec<_> =
            self.needed.iter().map(|(key, _)| *key).filter(|key| !has(key)).collect();
        if !missing.is_empty() {
            if wanted.workflow.is_some() {
                return assign(values, MatchBy::AnyName, Some(origin), wanted);
            }
            let mut found = Extracted::default();
            let (of, integration, kind) = (self.of, self.integration, self.kind);
            let why = format!(
                "{of} is {integration}/{kind}, which also needs {}; give --integration NAME or --workflow NAME \
                 to make something else of it",
                missing.join(", ")
            );
            found.skip("all of it", why);
            return found;
        }
        let known: Vec<_> = self.needed.iter().chain(self.optional).collect();
        let (mut fields, mut rest, mut from) = (Vec::new(), Vec::new(), Vec::new());
        for value in values {
            match known.iter().find(|(key, _)| *key == value.name) {
                Some((key, field)) if !value.value.is_empty() => {
                    from.push(*key);
                    fields.push(((*field).to_owned(), value.value));
                }
                _ => rest.push(value),
            }
        }
        let mut found = assign(rest, MatchBy::AnyName, Some(origin), wanted);
        let reference = (self.integration, origin.name.as_str());
        let document = connection(reference, self.kind, fields, wanted.access());
        let called = origin.called.clone();
        found.entries.push(Entry { from: from.join(", "), called, document });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::document_name;

    fn one(of: &str, data: &str, workflow: Option<&str>) -> (Vec<String>, Vec<String>) {
        let text = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: app, namespace: n}}\ntype: {of}\nstringData: {data}\n"
        );
        let wanted =
            ImportOptions { workflow: workflow.map(str::to_owned), ..ImportOptions::default() };
        let found = read(text.as_bytes(), &wanted);
        assert!(found.problems.is_empty(), "{:?}", found.problems);
        let becomes = found.entries.iter().map(|entry| document_name(&entry.document)).collect();
        let skipped =
            found.skipped.iter().map(|one| format!("{}: {}", one.what, one.why)).collect();
        (becomes, skipped)
    }

    #[test]
    fn a_type_is_a_connection_if_it_says_where_it_belongs() {
        let basic = "{username: u, password: p}";
        let (becomes, skipped) = one("kubernetes.io/basic-auth", basic, None);
        assert!(becomes.is_empty());
        assert!(
            skipped[0].starts_with("Secret n/app: all of it") && skipped[0].contains("base_url")
        );
        let (becomes, _) = one("kubernetes.io/basic-auth", basic, Some("w"));
        assert_eq!(becomes, ["workflows/w/secrets/password", "workflows/w/secrets/username"]);
        let whole = "{username: u, password: p, base_url: 'https://a.example', more: m}";
        let (becomes, skipped) = one("kubernetes.io/basic-auth", whole, None);
        assert_eq!(becomes, ["connections/http/app"]);
        assert!(skipped[0].starts_with("Secret n/app: more: "), "{skipped:?}");
        let ssh = "{ssh-privatekey: k, known_hosts: h}";
        assert_eq!(one("kubernetes.io/ssh-auth", ssh, None).0, ["connections/ssh/app"]);
        let tls = "{tls.crt: c, tls.key: k}";
        assert_eq!(one("kubernetes.io/tls", tls, Some("w")).0.len(), 2);
    }

    #[test]
    fn registries_are_connections_of_their_own() {
        let config = r#"{.dockerconfigjson: '{"auths": {
            "https://a.example:5000/v1/": {"auth": "dTpwOnE="},
            "b.example": {"username": "u", "password": "p"},
            "c.example": {"identitytoken": "t"}, "d.example": {}}}'}"#;
        let (becomes, skipped) = one("kubernetes.io/dockerconfigjson", config, None);
        let expected = [
            "connections/docker-registry/app-b.example",
            "connections/docker-registry/app-a.example-5000",
        ];
        assert_eq!(becomes, expected);
        assert_eq!(skipped.len(), 2, "{skipped:?}");
        let old = "{.dockercfg: '{\"a.example\": {\"auth\": \"dTpwOnE=\"}}'}";
        assert_eq!(
            one("kubernetes.io/dockercfg", old, None).0,
            ["connections/docker-registry/app"]
        );
    }

    #[test]
    fn other_objects_are_left_out() {
        let text = b"apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: a}\n";
        let found = read(text, &ImportOptions::default());
        assert_eq!(found.skipped[0].what, "SealedSecret a");
    }
}
