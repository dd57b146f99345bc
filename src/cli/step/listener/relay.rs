//! The spec of a step, evaluated with credentials of the broker.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value as Json};

use super::answer::RelayError;
use super::broker::MaskedBroker;
use super::outputs::StepOutputs;
use crate::cli::identity::session::{MAX_READS, Versions, changes_too_often};
use crate::cli::io::failure::{Failure, exit};
use crate::cli::step::credential::Credential;
use crate::grpc::pb;
use crate::grpc::pb::step_service_client::StepServiceClient;
use crate::model::{ConnectionName, ConnectionRef, IntegrationName, Reference, SecretName};
use crate::relay::{
    self, Evaluated, EvaluationProgress, KnownValues, LookedUp, Need, Query, StepSpec, Tree,
};
use crate::sys::input;

/// The longest spec, in bytes.
const MAX_SPEC_BYTES: usize = 1024 * 1024;
/// The reasons of refusals that look like a missing resource to the step.
const REFUSALS: [&str; 4] =
    ["RESOLVE_DENIED", "SECRET_NOT_FOUND", "CONNECTION_DISABLED", "CONNECTION_NOT_FOUND"];

/// The arguments `--spec` and `--parameter`.
pub struct RelayInput {
    step: StepSpec,
    parameters: BTreeMap<String, Json>,
}

impl RelayInput {
    /// Reads the arguments. None if Relay's API is not served. An error in the spec has line and column.
    pub fn read(
        is_served: bool,
        spec: Option<&Path>,
        parameters: &[String],
    ) -> Result<Option<Self>, Failure> {
        let spec = match (is_served, spec) {
            (false, None) => return Ok(None),
            (true, Some(spec)) => spec,
            (true, None) => {
                return Err(Failure::usage("--serve relay needs the step's spec: --spec FILE"));
            }
            (false, Some(_)) => return Err(Failure::usage("--spec is for --serve relay")),
        };
        let shown = spec.display();
        let wrong = |problem: String| Failure::new("SPEC_INVALID", problem, exit::USAGE);
        let read = input::named(spec, MAX_SPEC_BYTES).and_then(input::text);
        let text = read.map_err(|error| wrong(format!("{shown}: {error}")))?;
        let step = StepSpec::parse(&text).map_err(|error| wrong(format!("{shown}:{error}")))?;
        let parameters = parameters.iter().map(|text| parameter(text)).collect::<Result<_, _>>()?;
        Ok(Some(Self { step, parameters }))
    }
}

/// Parses `NAME=VALUE`, where the value is JSON or else a text.
fn parameter(text: &str) -> Result<(String, Json), Failure> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| Failure::usage(format!("--parameter {text}: write NAME=VALUE")))?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Json::from(value));
    Ok((name.to_owned(), value))
}

/// The spec of one step, and its outputs.
pub struct Relay {
    input: RelayInput,
    broker: Arc<MaskedBroker>,
    pub step: String,
    pub outputs: StepOutputs,
    /// References whose refusal the user knows.
    reported: Mutex<BTreeSet<String>>,
}

impl Relay {
    /// Asks the broker for the name of this step.
    pub(super) async fn open(
        input: RelayInput,
        broker: Arc<MaskedBroker>,
    ) -> Result<Self, Failure> {
        let mut client = StepServiceClient::new(broker.session.channel().await.channel);
        let step = client.who_am_i(pb::WhoAmIRequest {}).await?.into_inner().step;
        let (outputs, reported) = (StepOutputs::default(), Mutex::default());
        Ok(Self { input, broker, step, outputs, reported })
    }

    /// A part of the spec.
    pub fn tree(&self, part: fn(&StepSpec) -> &Tree) -> &Tree {
        part(&self.input.step)
    }

    /// Evaluates a part of the spec, and resolves what it needs.
    pub async fn evaluate(&self, tree: &Tree, query: &Query) -> Result<Evaluated, RelayError> {
        let outputs = self.outputs.all().into_iter();
        let mut known = KnownValues {
            parameters: self.input.parameters.clone(),
            outputs: outputs.map(|(name, value)| ((self.step.clone(), name), value)).collect(),
            ..KnownValues::default()
        };
        for _ in 0..MAX_READS {
            let mut versions = Versions::default();
            known.looked_up.clear();
            if let Some(evaluated) =
                self.evaluate_once(tree, query, &mut known, &mut versions).await?
            {
                return Ok(evaluated);
            }
        }
        Err(RelayError::read(changes_too_often().message))
    }

    /// None if the parts of one connection are of two versions.
    async fn evaluate_once(
        &self,
        tree: &Tree,
        query: &Query,
        known: &mut KnownValues,
        versions: &mut Versions,
    ) -> Result<Option<Evaluated>, RelayError> {
        loop {
            let progress = tree.evaluate(query, known);
            match progress.map_err(|error| RelayError::evaluation(error.to_string()))? {
                EvaluationProgress::Done(evaluated) => return Ok(Some(evaluated)),
                EvaluationProgress::Needs(needs) => {
                    for need in needs {
                        let Some(found) = self.look_up(&need, versions).await? else {
                            return Ok(None);
                        };
                        known.looked_up.insert(need, found);
                    }
                }
            }
        }
    }

    /// A secret of the workflow.
    pub async fn secret(&self, name: &str) -> Result<Json, RelayError> {
        let need = Need::Secret { name: name.to_owned() };
        match self.look_up(&need, &mut Versions::default()).await? {
            Some(LookedUp::Value(value)) => Ok(value),
            _ => Err(RelayError::not_found("no such secret")),
        }
    }

    /// None if the version differs from an earlier lookup of the same connection.
    async fn look_up(
        &self,
        need: &Need,
        versions: &mut Versions,
    ) -> Result<Option<LookedUp>, RelayError> {
        let (reference, field) = match need {
            Need::Connection { kind, name, field } => {
                let names = IntegrationName::parse(kind).ok().zip(ConnectionName::parse(name).ok());
                let reference = names.map(|(integration, name)| {
                    Reference::Connection(ConnectionRef { integration, name })
                });
                (reference, field.clone())
            }
            Need::Secret { name } => (SecretName::parse(name).ok().map(Reference::Secret), None),
        };
        // An invalid name is the name of nothing.
        let Some(reference) = reference else { return Ok(Some(LookedUp::Nothing)) };
        let resolved = self.broker.resolve(&reference, field.clone().into_iter().collect()).await;
        match resolved {
            Ok(credential) => {
                let is_consistent = versions.agree(&credential);
                Ok(is_consistent.then(|| found(&credential, field.is_none())))
            }
            Err(failure) if failure.reason == "FIELD_UNKNOWN" => Ok(Some(LookedUp::NoSuchField)),
            Err(failure) if REFUSALS.contains(&failure.reason.as_str()) => {
                if self.reported.lock().insert(reference.to_string()) {
                    let text = format!("{reference}: {}: {}", failure.reason, failure.message);
                    self.broker.say(&text);
                }
                Ok(Some(LookedUp::Nothing))
            }
            Err(failure) => {
                Err(RelayError::read(format!("{}: {}", failure.reason, failure.message)))
            }
        }
    }
}

/// A secret or one field by itself, or a connection with Relay's names for its fields.
fn found(credential: &Credential, is_whole: bool) -> LookedUp {
    let is_secret = matches!(credential.reference, Reference::Secret(_));
    if is_secret || !is_whole {
        let mut values = credential.fields.values();
        let value = values.next().map(|value| relay::json_of(value.expose()));
        return value.map_or(LookedUp::NoSuchField, LookedUp::Value);
    }
    let mut map = Map::new();
    for (name, value) in &credential.fields {
        let value = relay::json_of(value.expose());
        let aliases = credential.rule(name).map(|rule| rule.aliases.as_slice()).unwrap_or_default();
        for alias in aliases {
            map.insert(alias.clone(), value.clone());
        }
        if aliases.is_empty() {
            map.insert(name.to_string(), value);
        }
    }
    LookedUp::Value(Json::Object(map))
}
