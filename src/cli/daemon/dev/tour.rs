//! The tour: a step gets a credential, is refused one, sees a rotation, and is closed; then a forged journal is found.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use tokio::time::Instant;
use tonic::transport::Channel;

use super::arguments::{Dev, SAMPLE};
use crate::cli::executor::open_step::close;
use crate::cli::executor::run::describe;
use crate::cli::identity::endpoint::Endpoint;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{line, say};
use crate::cli::operator::apply::apply;
use crate::cli::operator::plan::action_name;
use crate::cli::operator::seed::Seed;
use crate::cli::step::credential::Credential;
use crate::config::Config;
use crate::daemon::{Daemon, Hangup, Initialised};
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;
use crate::grpc::pb::executor_service_client::ExecutorServiceClient;
use crate::grpc::pb::step_service_client::StepServiceClient;
use crate::identity::RootKey;
use crate::journal::verify;
use crate::model::Reference;

/// A connection that no step of the tour may resolve.
const REFUSED: &str = "slack/somebody-elses";
/// The part of the sample's secret that a rotation replaces, and its replacement.
const OLD_AND_NEW: [&str; 2] = ["not-a-real-secret", "nor-the-next"];
/// The journal's first file.
const JOURNAL: &str = "journal/000001.jsonl";

/// A tour of a broker that serves.
pub(super) struct Tour<'a> {
    pub(super) dev: &'a Dev,
    pub(super) config: &'a Config,
    pub(super) made: &'a Initialised,
}

impl Tour<'_> {
    /// Gives the tour, and serves until a signal to end.
    ///
    /// # Errors
    /// If the broker refuses what the tour needs.
    pub(super) fn run(&self, daemon: &Daemon, documents: Vec<Seed>) -> Result<u8, Failure> {
        let signals = Hangup::catch()?.catch_termination()?;
        let state = self.config.state.display();
        line(&format!("A broker, made as `keyhatch init --state {state}` would:"))?;
        line(&format!("  state     {state}"))?;
        line(&format!("  operator  {}", self.made.operator.display()))?;
        line(&format!("  executor  {}", self.made.executor.display()))?;
        line(&format!("  serving   {}", daemon.admin_socket().display()))?;
        let opened = crate::cli::block_on(self.show(documents))?;
        self.show_forgery()?;
        self.propose(&opened)?;
        signals.wait(|| ControlFlow::Break(()));
        say("stopping");
        Ok(0)
    }

    /// Shows a life of a step, and opens the step again for the user.
    async fn show(&self, documents: Vec<Seed>) -> Result<pb::OpenedStep, Failure> {
        let operator = Endpoint::in_directory(&self.made.operator)?.connect().await?;
        let references: Vec<Reference> =
            documents.iter().filter_map(|seed| reference_of(&seed.document)).collect();
        self.seed(operator.clone(), documents).await?;
        let executor = Endpoint::in_directory(&self.made.executor)?.connect().await?;
        let opened = self.dev.open(executor.clone()).await?;
        line("\nThe executor opens a step, and would mount its directory into the container:")?;
        line(&format!("  {}", opened.spiffe_id))?;
        line(&format!("  {}", opened.directory))?;
        let directory = Path::new(&opened.directory);
        let step = Endpoint::in_directory(directory)?.connect().await?;
        show_resolves(&step, &references).await?;
        if self.dev.file.is_empty()
            && let Some(reference) = references.first()
        {
            self.show_rotation(operator, &step, reference).await?;
        }
        self.show_close(executor.clone(), &opened, &step).await?;
        self.dev.open(executor).await
    }

    async fn seed(&self, operator: Channel, documents: Vec<Seed>) -> Result<(), Failure> {
        line("\nThe operator seeds it (no operator can read a sensitive value back):")?;
        let granted = self.dev.granted(&documents);
        for result in apply(operator, documents).await? {
            line(&format!("  {} {}", result.name, action_name(result.action())))?;
        }
        granted.map_or(Ok(()), |granted| line(&format!("  {granted}")))
    }

    /// Rotates the sample's secret while a Watch of the step is open.
    async fn show_rotation(
        &self,
        operator: Channel,
        step: &Channel,
        reference: &Reference,
    ) -> Result<(), Failure> {
        line(&format!("\nThe step watches {reference} while the operator rotates its secret:"))?;
        let request = Some(Credential::request(reference, Vec::new(), None));
        let mut client = StepServiceClient::new(step.clone());
        let mut watch = client.watch(pb::WatchRequest { request }).await?.into_inner();
        watch.message().await?;
        let [old, new] = OLD_AND_NEW;
        let rotated = self.dev.documents(&SAMPLE.replace(old, new))?;
        let sent = Instant::now();
        let delivery = async {
            let delivery = watch.message().await?;
            Ok((delivery, sent.elapsed()))
        };
        let (_, (delivery, elapsed)) = tokio::try_join!(apply(operator, rotated), delivery)?;
        let credential = delivery.and_then(|delivery| delivery.credential).unwrap_or_default();
        let millis = elapsed.as_secs_f64() * 1000.0;
        line(&format!(
            "  {reference} version {} reached the step {millis:.1} ms after the operator sent it",
            credential.version
        ))
    }

    async fn show_close(
        &self,
        executor: Channel,
        opened: &pb::OpenedStep,
        step: &Channel,
    ) -> Result<(), Failure> {
        line("\nThe executor closes the step. The step's next call is refused:")?;
        let request = pb::CloseStepRequest { name: opened.name.clone(), ..Default::default() };
        let closed = close(executor.clone(), request).await?;
        line(&format!("  closed; {} lease(s) revoked", closed.revoked_leases))?;
        let me = StepServiceClient::new(step.clone()).who_am_i(pb::WhoAmIRequest {}).await;
        match me {
            Err(status) => {
                let Failure { reason, message, .. } = Failure::from(status);
                line(&format!("  whoami: {reason}: {message}"))?;
            }
            Ok(_) => line("  whoami was answered, which is a fault of keyhatch: please report it")?,
        }
        line(
            "\n`keyhatch run show` lists what the run received, and so what to rotate if it leaked:",
        )?;
        let workflow = self.dev.workflow.clone();
        let request = pb::GetRunRequest { workflow, run: "1".to_owned() };
        let run = ExecutorServiceClient::new(executor).get_run(request).await?.into_inner();
        for text in describe(&run).lines().filter(|text| !text.is_empty()) {
            line(&format!("  {text}"))?;
        }
        Ok(())
    }

    /// Changes one byte in a copy of the journal, and has the copy verified.
    fn show_forgery(&self) -> Result<(), Failure> {
        let state = &self.config.state;
        let mut journal = std::fs::read(state.join(JOURNAL))?;
        let Some(version) = version_of_first_resolve(&mut journal) else { return Ok(()) };
        *version = b'9';
        line(
            "\nIn a copy of the journal, one byte is changed: the first version that was handed out:",
        )?;
        let copy = state.with_file_name("forged");
        std::fs::create_dir(&copy)?;
        std::fs::write(copy.join("000001.jsonl"), journal)?;
        let root = std::fs::read_to_string(state.join("ca.crt"))?;
        let Some(root) = RootKey::from_pem(&root) else { return Ok(()) };
        match verify(&copy, &root, 1, None) {
            Err(found) => line(&format!("  journal verify: {found}")),
            Ok(_) => line(
                "  journal verify found nothing, which is a fault of keyhatch: please report it",
            ),
        }
    }

    /// Prints commands for the user to try.
    fn propose(&self, opened: &pb::OpenedStep) -> Result<(), Failure> {
        let (operator, program) = (self.made.operator.display(), program());
        let journal = self.config.state.join(JOURNAL);
        line("\nThe step is open again. To be it, in another terminal:")?;
        line(&format!("  export KEYHATCH_DIR={}", opened.directory))?;
        for command in ["whoami", "get REF", "exec --env REF -- env"] {
            line(&format!("  {program} {command}"))?;
        }
        line("\nTo be the operator:")?;
        for command in ["status", "connection list", "step list", "run show 1", "journal tail -n 5"]
        {
            line(&format!("  KEYHATCH_DIR={operator} {program} {command}"))?;
        }
        line(&format!("\nThe journal is {}", journal.display()))?;
        line("Serving until Ctrl-C; then all of it is removed.")
    }
}

/// Resolves what was seeded, and one connection that the step may not have.
async fn show_resolves(step: &Channel, references: &[Reference]) -> Result<(), Failure> {
    line("\nThe step resolves over mutual TLS on its own socket:")?;
    for reference in references {
        match Credential::resolve(step.clone(), reference.clone(), Vec::new(), None).await {
            Ok(credential) => {
                line(&format!("  {reference}"))?;
                for (name, value) in &credential.fields {
                    line(&format!("    {name} = {} ({} bytes)", "*".repeat(8), value.len()))?;
                }
                line(&format!("    lease until {}", credential.expire_time()))?;
            }
            Err(failure) => {
                line(&format!("  {reference}: {}: {}", failure.reason, failure.message))?;
            }
        }
    }
    line(
        "\nA connection that it may not have is refused in the same words as one that does not exist:",
    )?;
    match Credential::resolve(step.clone(), REFUSED.parse()?, Vec::new(), None).await {
        Err(failure) => line(&format!("  {REFUSED}: {}: {}", failure.reason, failure.message)),
        Ok(_) => line(&format!("  {REFUSED} was not refused: your seed file allows it")),
    }
}

/// The digit in the journal's first line of a resolve that says which version was handed out.
fn version_of_first_resolve(journal: &mut [u8]) -> Option<&mut u8> {
    let after = |from: usize, word: &[u8], journal: &[u8]| {
        let rest = journal.get(from..)?;
        let at = rest.windows(word.len()).position(|window| window == word)?;
        Some(from + at + word.len())
    };
    let resolve = after(0, b"\"event\":\"resolve\"", journal)?;
    let version = after(resolve, b"\"version\":", journal)?;
    journal.get_mut(version)
}

fn reference_of(document: &Document) -> Option<Reference> {
    let text = match document {
        Document::Connection(connection) => {
            format!("{}/{}", connection.integration, connection.name)
        }
        Document::Secret(secret) => format!("secret:{}", secret.name),
        // A step resolves a group by its members' tags, and nothing of an integration.
        Document::Group(_) | Document::Integration(_) => return None,
    };
    text.parse().ok()
}

/// The path of this program, for commands to copy.
fn program() -> String {
    let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("keyhatch"));
    path.display().to_string()
}
