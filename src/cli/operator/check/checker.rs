//! The result for one thing that a workflow asks for.

use std::collections::BTreeSet;

use super::cache::{BrokerCache, nearest};
use crate::cli::io::failure::Failure;
use crate::cli::io::text::{command_line, short_name};
use crate::cli::operator::bindings::{grant_command, ways_without_values};
use crate::grpc::pb;
use crate::model::{Reference, RunAs, StepName, WorkflowName};
use crate::relay::{SpecScope, UseTarget};

/// The step name for any step, where a file names no step.
pub const ANY_STEP: &str = "any";

/// The outcome that the workflow would get now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckState {
    /// Unknown: its name is computed at run time.
    Computed,
    /// It exists, and this workflow may not resolve it.
    Denied,
    /// It will be resolved.
    Fine,
    /// It is not well formed.
    Malformed,
    /// It does not exist.
    Missing,
    /// It will be refused for another reason.
    Refused,
}

impl CheckState {
    /// For scripts.
    pub fn word(self) -> &'static str {
        match self {
            Self::Computed => "computed",
            Self::Denied => "denied",
            Self::Fine => "fine",
            Self::Malformed => "malformed",
            Self::Missing => "missing",
            Self::Refused => "refused",
        }
    }
}

/// The result of a check, and what to do.
pub struct CheckResult {
    pub state: CheckState,
    /// In a sentence.
    pub sentence: String,
    /// Existing names that are similar, the nearest first.
    pub suggestions: Vec<String>,
    /// Commands that repair it.
    pub commands: Vec<String>,
}

impl CheckResult {
    pub fn fine(sentence: impl Into<String>) -> Self {
        Self::new(CheckState::Fine, sentence)
    }

    pub fn malformed(sentence: impl Into<String>) -> Self {
        Self::new(CheckState::Malformed, sentence)
    }

    pub fn new(state: CheckState, sentence: impl Into<String>) -> Self {
        let sentence = sentence.into();
        Self { state, sentence, suggestions: Vec::new(), commands: Vec::new() }
    }

    pub fn with_command(mut self, words: &[&str]) -> Self {
        self.commands.push(command_line(words));
        self
    }

    /// A missing thing, with existing names that are similar.
    pub fn missing(what: &str, suggestions: Vec<String>) -> Self {
        let sentence = match suggestions.join(", ") {
            none if none.is_empty() => format!("missing: {what}"),
            nearest => format!("missing: {what}; nearest: {nearest}"),
        };
        Self { suggestions, ..Self::new(CheckState::Missing, sentence) }
    }

    pub fn is_fine(&self) -> bool {
        matches!(self.state, CheckState::Fine | CheckState::Computed)
    }
}

/// The thing that is asked for, as people write it.
pub fn shown(wanted: &UseTarget) -> String {
    match wanted {
        UseTarget::Computed(SpecScope::Secrets) => "a secret".to_owned(),
        UseTarget::Computed(_) => "a connection".to_owned(),
        UseTarget::Connection { kind, name } => format!("{kind}/{name}"),
        UseTarget::Group { name, identifiers } => {
            let pair = |(key, value): (&String, &Option<String>)| {
                format!("{key}={}", value.as_deref().unwrap_or("*"))
            };
            let pairs: Vec<_> = identifiers.iter().map(pair).collect();
            format!("group:{name}:{}", pairs.join(","))
        }
        UseTarget::Secret { name } => format!("secret:{name}"),
    }
}

/// The decisions for the steps that ask.
#[derive(Default)]
pub struct StepDecisions {
    /// The decision for the first step that is refused; for the last step if all are allowed.
    pub answer: pb::ExplainResponse,
    /// True if some step is allowed.
    has_allowed: bool,
    /// The steps that are refused.
    refused: Vec<(String, pb::ExplainResponse)>,
}

/// Checks what the steps of one workflow ask for.
pub struct Checker<'a> {
    pub workflow: &'a str,
    /// The steps that ask; empty if the file names no step.
    pub steps: &'a [String],
    pub run_as: &'a [String],
    /// The fields that the steps use of a connection; empty for all.
    pub fields: &'a BTreeSet<String>,
    /// True if the steps need no value: the broker sends their requests.
    pub is_sent_only: bool,
    pub cache: &'a mut BrokerCache,
}

impl Checker<'_> {
    /// Checks one thing. Fails only if the broker cannot be asked.
    pub async fn check(&mut self, wanted: &UseTarget) -> Result<CheckResult, Failure> {
        if let Err(invalid) = WorkflowName::parse(self.workflow) {
            return Ok(CheckResult::malformed(format!("{invalid}; give --workflow NAME")));
        }
        if let Some(invalid) = self.steps.iter().find_map(|step| StepName::parse(step).err()) {
            return Ok(CheckResult::malformed(invalid.to_string()));
        }
        match wanted {
            UseTarget::Computed(_) => {
                Ok(CheckResult::new(CheckState::Computed, "its name is made when it runs"))
            }
            UseTarget::Group { name, identifiers } => self.group(name, identifiers).await,
            UseTarget::Connection { .. } | UseTarget::Secret { .. } => {
                let target = shown(wanted);
                if let Err(invalid) = target.parse::<Reference>() {
                    return Ok(CheckResult::malformed(invalid.to_string()));
                }
                match wanted {
                    UseTarget::Connection { kind, name } => {
                        self.connection(kind, name, &target).await
                    }
                    _ => self.secret(&target).await,
                }
            }
        }
    }

    /// Asks the broker what it would decide for each step, if the step asks for these fields.
    pub async fn explain(
        &mut self,
        target: &str,
        fields: &[String],
    ) -> Result<StepDecisions, Failure> {
        let Self { workflow, run_as, is_sent_only, .. } = *self;
        let any = [ANY_STEP.to_owned()];
        let steps = if self.steps.is_empty() { &any } else { self.steps };
        let mut decisions = StepDecisions::default();
        for step in steps {
            let one =
                self.cache.explain(workflow, step, run_as, target, (fields, is_sent_only)).await?;
            let is_allowed = one.outcome == "ALLOWED";
            decisions.has_allowed |= is_allowed;
            if decisions.refused.is_empty() {
                decisions.answer = one.clone();
            }
            if !is_allowed {
                decisions.refused.push((step.clone(), one));
            }
        }
        Ok(decisions)
    }

    /// True if each step gets a binding of its own; false if one binding of the workflow serves all of several steps.
    fn is_by_step(&self, decisions: &StepDecisions) -> bool {
        self.steps.len() == 1 || decisions.has_allowed
    }

    /// The commands that would allow what was refused.
    pub fn grants(&self, decisions: &StepDecisions) -> Vec<String> {
        let refused = match self.is_by_step(decisions) {
            true => decisions.refused.as_slice(),
            false => decisions.refused.get(..1).unwrap_or_default(),
        };
        let mut grants: Vec<_> = refused
            .iter()
            .flat_map(|(_, one)| self.grants_of(one, self.is_by_step(decisions)))
            .collect();
        let mut seen = BTreeSet::new();
        grants.retain(|grant| seen.insert(grant.clone()));
        grants
    }

    fn grants_of(&self, explained: &pb::ExplainResponse, is_by_step: bool) -> Vec<String> {
        let step = format!("workflow:{}/step:", self.workflow);
        let is_too_narrow = |one: &&String| !is_by_step && one.starts_with(&step);
        let refused =
            explained.resources.iter().filter(|resource| !resource.allowed && resource.exists);
        let grants = refused.flat_map(|resource| {
            let mut principals = resource.would_allow.iter().filter(|one| !is_too_narrow(one));
            // At most one principal of the workflow, and one that the steps run as.
            let workflow = principals.clone().find(|one| one.starts_with("workflow:"));
            let run_as = principals.find(|one| !one.starts_with("workflow:"));
            let principals = workflow.into_iter().chain(run_as);
            principals.map(|one| grant_command(&resource.name, resource.needed(), one))
        });
        grants.collect()
    }

    /// True if the grants would bind a run-as principal for the first time: from then on every step must run as such a
    /// principal.
    fn binds_first_run_as(&self, explained: &pb::ExplainResponse) -> bool {
        let is_run_as = |principal: &String| principal.parse::<RunAs>().is_ok();
        explained.resources.iter().filter(|one| !one.allowed && one.exists).any(|one| {
            let is_named = one.principals.iter().any(|one| is_run_as(&one.principal));
            !is_named && one.would_allow.iter().any(is_run_as)
        })
    }

    async fn connection(
        &mut self,
        integration: &str,
        name: &str,
        target: &str,
    ) -> Result<CheckResult, Failure> {
        let integrations = self.cache.integrations().await?;
        let Some(schema) = integrations.iter().find(|one| short_name(&one.name) == integration)
        else {
            let others = integrations.iter().map(|one| short_name(&one.name).to_owned());
            let nearest = nearest(integration, others.collect());
            let what = format!("there is no integration {integration}");
            return Ok(CheckResult::missing(&what, nearest).with_command(&["integration", "list"]));
        };
        let bind = if self.is_sent_only { "--user" } else { "--resolver" };
        let create = create_command(schema, target, [bind, self.workflow]);
        // A workflow may use a family as a whole.
        let is_family = |name: &str| {
            let mut rules = schema.kinds.iter().flat_map(|kind| &kind.fields);
            rules.any(|rule| rule.name.strip_suffix(".*") == Some(name))
        };
        let fields: Vec<_> = self.fields.iter().filter(|name| !is_family(name)).cloned().collect();
        let decisions = self.explain(target, &fields).await?;
        if decisions.answer.resources.iter().any(|resource| resource.exists) {
            return Ok(self.result_of(&decisions));
        }
        let nearest = self.cache.nearest_connections(integration, name).await?;
        let result = CheckResult::missing("there is no such connection", nearest);
        Ok(CheckResult { commands: vec![create], ..result })
    }

    async fn secret(&mut self, target: &str) -> Result<CheckResult, Failure> {
        let decisions = self.explain(target, &[]).await?;
        if decisions.answer.outcome != "SECRET_NOT_FOUND" {
            return Ok(self.result_of(&decisions));
        }
        let name = target.trim_start_matches("secret:");
        let others = self.cache.secrets(self.workflow).await?.to_vec();
        let what = format!("workflow {} has no such secret", self.workflow);
        // A name that begins as an option does needs the form with =.
        let joined = format!("--workflow={}", self.workflow);
        let of: &[&str] = match self.workflow.starts_with('-') {
            true => &[&joined],
            false => &["--workflow", self.workflow],
        };
        let put = [&["secret", "put"], of, &[name, "--value", "@FILE"]].concat();
        Ok(CheckResult::missing(&what, nearest(name, others)).with_command(&put))
    }

    /// The result for something that exists.
    pub fn result_of(&self, decisions: &StepDecisions) -> CheckResult {
        let answer = &decisions.answer;
        match answer.outcome.as_str() {
            "ALLOWED" => CheckResult::fine("fine"),
            "RESOLVE_DENIED" => {
                let who = match self.run_as {
                    [] => format!("workflow {}", self.workflow),
                    run_as => format!("workflow {}, as {},", self.workflow, run_as.join(", ")),
                };
                let is_user = answer.resources.iter().any(|one| one.held() == pb::Relation::User);
                let mut sentence = match (self.is_sent_only, is_user) {
                    (true, _) => format!("{who} may not use it"),
                    (false, true) => format!("{who} may use it, but not resolve it"),
                    (false, false) => format!("{who} may not resolve it"),
                };
                let mut ways = ways_without_values(answer).into_iter();
                if let Some(way) = ways.find(|way| way.contains(" exec ")) {
                    sentence.push_str(&format!("; without its values it may run {way}"));
                }
                if decisions.has_allowed {
                    let steps = decisions.refused.iter().map(|(step, _)| step.as_str());
                    let steps = steps.collect::<Vec<_>>().join(", ");
                    sentence.push_str(&format!(" in step {steps}; its other steps may"));
                }
                if self.binds_first_run_as(answer) {
                    sentence.push_str(
                        "; the command below also shuts out every step that runs without --run-as",
                    );
                }
                CheckResult {
                    commands: self.grants(decisions),
                    ..CheckResult::new(CheckState::Denied, sentence)
                }
            }
            reason => {
                CheckResult::new(CheckState::Refused, format!("{reason}: {}", answer.explanation))
            }
        }
    }
}

/// The command that creates a connection, with the fields that its first kind requires, and binds the workflow.
fn create_command(schema: &pb::Integration, target: &str, [bind, workflow]: [&str; 2]) -> String {
    let mut words = vec!["connection".to_owned(), "create".to_owned(), target.to_owned()];
    if let Some(kind) = schema.kinds.first() {
        if schema.kinds.len() > 1 {
            words.extend(["--kind".to_owned(), kind.name.clone()]);
        }
        let needed = kind.fields.iter().filter(|field| field.required && !field.generated);
        for field in needed {
            let source = if field.sensitive { "@FILE" } else { "VALUE" };
            words.extend(["--field".to_owned(), format!("{}={source}", field.name)]);
        }
    }
    words.extend([bind.to_owned(), format!("workflow:{workflow}")]);
    command_line(&words.iter().map(String::as_str).collect::<Vec<_>>())
}
