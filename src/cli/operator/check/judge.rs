//! What is said of one thing that a workflow asks for.

use std::collections::BTreeSet;

use super::known::Known;
use crate::cli::io::failure::Failure;
use crate::cli::operator::connection::view::{argument_of, relation_name};
use crate::cli::operator::integration::name_of;
use crate::grpc::pb;
use crate::model::{Reference, RunAs, StepName, WorkflowName};
use crate::relay::{SpecScope, UseTarget};

/// Stands for any step, where a file does not say which.
pub const ANY_STEP: &str = "any";
/// How many names are suggested.
const MAX_SUGGESTIONS: usize = 3;

/// How it will go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its name is made at run time.
    Computed,
    /// It exists, and this workflow may not have it.
    Denied,
    /// It will be given.
    Fine,
    /// It is not well formed.
    Malformed,
    /// There is none of that name.
    Missing,
    /// It will be refused for another reason.
    Refused,
}

impl State {
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

/// What is said of it, and what to do.
pub struct Verdict {
    pub state: State,
    /// In a sentence.
    pub sentence: String,
    /// Names that may have been meant, the nearest first.
    pub suggestions: Vec<String>,
    /// Commands that mend it.
    pub commands: Vec<String>,
}

impl Verdict {
    pub fn fine(sentence: impl Into<String>) -> Self {
        Self::new(State::Fine, sentence)
    }

    pub fn malformed(sentence: impl Into<String>) -> Self {
        Self::new(State::Malformed, sentence)
    }

    pub fn new(state: State, sentence: impl Into<String>) -> Self {
        let sentence = sentence.into();
        Self { state, sentence, suggestions: Vec::new(), commands: Vec::new() }
    }

    pub fn with_command(mut self, words: &[&str]) -> Self {
        self.commands.push(command(words));
        self
    }

    /// What is missing, with names that may have been meant.
    pub fn missing(what: &str, suggestions: Vec<String>) -> Self {
        let sentence = match suggestions.join(", ") {
            none if none.is_empty() => format!("missing: {what}"),
            nearest => format!("missing: {what}; nearest: {nearest}"),
        };
        Self { suggestions, ..Self::new(State::Missing, sentence) }
    }

    pub fn is_fine(&self) -> bool {
        matches!(self.state, State::Fine | State::Computed)
    }
}

/// Words as a shell takes them.
pub fn command(words: &[&str]) -> String {
    // More than needs it is put in quotes otherwise.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+".contains(c);
    let word = |word: &&str| match word.chars().all(is_plain) && !word.is_empty() {
        true => (*word).to_owned(),
        false => shell_words::quote(word).into_owned(),
    };
    format!("keyhatch {}", words.iter().map(word).collect::<Vec<_>>().join(" "))
}

/// What is asked for, as people write it.
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

/// What is decided for the steps that ask.
#[derive(Default)]
pub struct Told {
    /// For the first that does not get it; if they all do, for the last.
    pub answer: pb::ExplainResponse,
    /// Whether some get it.
    has_allowed: bool,
    /// Those that do not.
    refused: Vec<(String, pb::ExplainResponse)>,
}

/// Whoever says how it will go.
pub struct Judge<'a> {
    pub workflow: &'a str,
    /// Those that ask; none if the file does not say.
    pub steps: &'a [String],
    pub run_as: &'a [String],
    pub known: &'a mut Known,
}

impl Judge<'_> {
    /// How it will go for what is asked for.
    ///
    /// # Errors
    /// If the broker cannot be asked.
    pub async fn judge(&mut self, wanted: &UseTarget) -> Result<Verdict, Failure> {
        if let Err(invalid) = WorkflowName::parse(self.workflow) {
            return Ok(Verdict::malformed(format!("{invalid}; say --workflow NAME")));
        }
        if let Some(invalid) = self.steps.iter().find_map(|step| StepName::parse(step).err()) {
            return Ok(Verdict::malformed(invalid.to_string()));
        }
        match wanted {
            UseTarget::Computed(_) => {
                Ok(Verdict::new(State::Computed, "its name is made when it runs"))
            }
            UseTarget::Group { name, identifiers } => self.group(name, identifiers).await,
            UseTarget::Connection { .. } | UseTarget::Secret { .. } => {
                let target = shown(wanted);
                if let Err(invalid) = target.parse::<Reference>() {
                    return Ok(Verdict::malformed(invalid.to_string()));
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

    /// What is decided for each step.
    pub async fn explain(&mut self, target: &str) -> Result<Told, Failure> {
        let Self { workflow, run_as, .. } = *self;
        let any = [ANY_STEP.to_owned()];
        let steps = if self.steps.is_empty() { &any } else { self.steps };
        let mut told = Told::default();
        for step in steps {
            let one = self.known.explain(workflow, step, run_as, target).await?;
            let is_allowed = one.outcome == "ALLOWED";
            told.has_allowed |= is_allowed;
            if told.refused.is_empty() {
                told.answer = one.clone();
            }
            if !is_allowed {
                told.refused.push((step.clone(), one));
            }
        }
        Ok(told)
    }

    /// Whether bindings are for single steps: where all of several steps ask in vain, one for the workflow does.
    fn is_by_step(&self, told: &Told) -> bool {
        self.steps.len() == 1 || told.has_allowed
    }

    /// Whom to bind, so that what was refused is allowed.
    pub fn grants(&self, told: &Told) -> Vec<String> {
        let refused = match self.is_by_step(told) {
            true => told.refused.as_slice(),
            false => told.refused.get(..1).unwrap_or_default(),
        };
        let mut grants: Vec<_> = refused
            .iter()
            .flat_map(|(_, one)| self.grants_of(one, self.is_by_step(told)))
            .collect();
        let mut seen = BTreeSet::new();
        grants.retain(|grant| seen.insert(grant.clone()));
        grants
    }

    fn grants_of(&self, told: &pb::ExplainResponse, is_by_step: bool) -> Vec<String> {
        let step = format!("workflow:{}/step:", self.workflow);
        let is_too_narrow = |one: &&String| !is_by_step && one.starts_with(&step);
        let refused = told.resources.iter().filter(|resource| !resource.allowed && resource.exists);
        let grants = refused.flat_map(|resource| {
            let reference = argument_of(&resource.name);
            let relation = relation_name(resource.needed());
            let mut principals = resource.would_allow.iter().filter(|one| !is_too_narrow(one));
            // One of the workflow's and one of those it runs as, as far as they are needed.
            let workflow = principals.clone().find(|one| one.starts_with("workflow:"));
            let run_as = principals.find(|one| !one.starts_with("workflow:"));
            workflow.into_iter().chain(run_as).map(move |principal| {
                let words = ["access", "add", &reference, "--relation", relation];
                command(&[&words[..], &["--principal", principal]].concat())
            })
        });
        grants.collect()
    }

    /// Whether the first of those on whose behalf steps run would be bound: from then on all must.
    fn binds_first_run_as(&self, told: &pb::ExplainResponse) -> bool {
        let is_run_as = |principal: &String| principal.parse::<RunAs>().is_ok();
        told.resources.iter().filter(|one| !one.allowed && one.exists).any(|one| {
            let is_named = one.principals.iter().any(|one| is_run_as(&one.principal));
            !is_named && one.would_allow.iter().any(is_run_as)
        })
    }

    async fn connection(
        &mut self,
        integration: &str,
        name: &str,
        target: &str,
    ) -> Result<Verdict, Failure> {
        let integrations = self.known.integrations().await?;
        let Some(schema) = integrations.iter().find(|one| name_of(one) == integration) else {
            let nearest = nearest(integration, integrations.iter().map(name_of).collect());
            let what = format!("there is no integration {integration}");
            return Ok(Verdict::missing(&what, nearest).with_command(&["integration", "list"]));
        };
        let create = create_command(schema, target, self.workflow);
        let told = self.explain(target).await?;
        if told.answer.resources.iter().any(|resource| resource.exists) {
            return Ok(self.verdict(&told));
        }
        let nearest = self.known.nearest_connections(integration, name).await?;
        let verdict = Verdict::missing("there is no such connection", nearest);
        Ok(Verdict { commands: vec![create], ..verdict })
    }

    async fn secret(&mut self, target: &str) -> Result<Verdict, Failure> {
        let told = self.explain(target).await?;
        if told.answer.outcome != "SECRET_NOT_FOUND" {
            return Ok(self.verdict(&told));
        }
        let name = target.trim_start_matches("secret:");
        let others = self.known.secrets(self.workflow).await?.to_vec();
        let what = format!("workflow {} has no such secret", self.workflow);
        // In one word where the name begins as an option does.
        let joined = format!("--workflow={}", self.workflow);
        let of: &[&str] = match self.workflow.starts_with('-') {
            true => &[&joined],
            false => &["--workflow", self.workflow],
        };
        let put = [&["secret", "put"], of, &[name, "--value", "@FILE"]].concat();
        Ok(Verdict::missing(&what, nearest(name, others)).with_command(&put))
    }

    /// What the broker would say of something that exists.
    pub fn verdict(&self, told: &Told) -> Verdict {
        let answer = &told.answer;
        match answer.outcome.as_str() {
            "ALLOWED" => Verdict::fine("fine"),
            "RESOLVE_DENIED" => {
                let who = match self.run_as {
                    [] => format!("workflow {}", self.workflow),
                    run_as => format!("workflow {}, as {},", self.workflow, run_as.join(", ")),
                };
                let mut sentence = format!("{who} may not resolve it");
                if told.has_allowed {
                    let steps = told.refused.iter().map(|(step, _)| step.as_str());
                    let steps = steps.collect::<Vec<_>>().join(", ");
                    sentence.push_str(&format!(" in step {steps}; its other steps may"));
                }
                if self.binds_first_run_as(answer) {
                    sentence.push_str(
                        "; the command below also shuts out every step that runs on nobody's behalf",
                    );
                }
                Verdict { commands: self.grants(told), ..Verdict::new(State::Denied, sentence) }
            }
            reason => Verdict::new(State::Refused, format!("{reason}: {}", answer.explanation)),
        }
    }
}

/// How to create a connection, with what its kind cannot do without.
fn create_command(schema: &pb::Integration, target: &str, workflow: &str) -> String {
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
    words.extend(["--resolver".to_owned(), format!("workflow:{workflow}")]);
    command(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Those that come nearest to a name, the nearest first.
pub fn nearest(name: &str, mut others: Vec<String>) -> Vec<String> {
    others.sort_by_cached_key(|other| (strsim::damerau_levenshtein(name, other), other.clone()));
    others.truncate(MAX_SUGGESTIONS);
    others
}
