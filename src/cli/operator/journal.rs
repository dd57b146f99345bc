//! `keyhatch journal`: what happened, and the proof that the record of it is unchanged.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::fingerprint::Fingerprint;
use crate::cli::io::output::{Output, line, print, say, yaml};
use crate::cli::io::text::{printable, properties};
use crate::cli::io::time;
use crate::cli::io::time::moment;
use crate::cli::{Common, block_on};
use crate::config::{Config, Given};
use crate::grpc::pb;
use crate::grpc::pb::system_service_client::SystemServiceClient;
use crate::identity::RootKey;
use crate::journal::{Proof, ProofError, verify};
use crate::sys::input;

/// The limit of a root certificate.
const MAX_CA_BYTES: usize = 64 * 1024;

#[derive(Subcommand)]
pub enum JournalCommand {
    /// Show the newest lines, and with -f new lines as they come
    Tail(JournalTailArgs),
    /// Prove, without the daemon and without keys, that no line was changed, removed or inserted
    Verify(JournalVerifyArgs),
}

#[derive(clap::Args)]
pub struct JournalTailArgs {
    /// Show new lines as they are written, too.
    #[arg(short, long)]
    follow: bool,
    /// The number of newest lines to start with.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 10)]
    last: i32,
    /// Start with the first line since then instead: 2026-01-31T12:00:00Z, or so long ago: 2h.
    #[arg(long, value_name = "TIME", conflicts_with = "last", value_parser = time::since)]
    since: Option<prost_types::Timestamp>,
    /// Only refusals: of decisions, of requests of operators, of requests over the rate limit, and mints that have
    /// failed.
    #[arg(long)]
    denied: bool,
    /// Only these events: resolve, intent, opened, closed …
    #[arg(long = "event", value_name = "EVENT")]
    events: Vec<String>,
    /// Only by this principal: operator:NAME, executor:NAME, workflow:NAME, workflow:NAME/run:NAME or
    /// workflow:NAME/run:NAME/step:NAME.
    #[arg(long, value_name = "PRINCIPAL")]
    principal: Option<String>,
    /// Only on this resource, such as aws/prod or group:NAME.
    #[arg(long, value_name = "RESOURCE")]
    resource: Option<String>,
    /// Only of this workflow's steps.
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    /// Only of this run's steps.
    #[arg(long, value_name = "NAME")]
    run: Option<String>,
}

#[derive(clap::Args)]
pub struct JournalVerifyArgs {
    /// The directory of the journal's files; by default that in the state directory.
    directory: Option<PathBuf>,
    /// A copy of the root certificate that is kept elsewhere. Without it or --ca-fingerprint, verify trusts the ca.crt
    /// beside the journal's directory, and exits with 4.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The SHA-256 of the root certificate, in hexadecimal, as init and status print it.
    #[arg(long, value_name = "HEX")]
    ca_fingerprint: Option<Fingerprint>,
    /// The last line of an earlier proof: verify fails if the journal no longer has it, as when it was cut back.
    #[arg(long, value_name = "LINE:HASH")]
    expect: Option<String>,
    /// The number of the first file, where older files are kept elsewhere.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    from: u64,
}

impl JournalCommand {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        match self {
            Self::Tail(tail) => block_on(tail.run(common)),
            Self::Verify(verify) => verify.run(common),
        }
    }
}

impl JournalTailArgs {
    async fn run(self, common: &Common) -> Result<(), Failure> {
        let channel = common.operator().await?;
        let request = pb::TailJournalRequest {
            last: self.last,
            since: self.since,
            denied: self.denied,
            follow: self.follow,
            events: self.events,
            principal: self.principal.unwrap_or_default(),
            resource: self.resource.unwrap_or_default(),
            workflow: self.workflow.unwrap_or_default(),
            run: self.run.unwrap_or_default(),
        };
        let mut lines = SystemServiceClient::new(channel).tail_journal(request).await?.into_inner();
        while let Some(entry) = lines.message().await? {
            if entry.stopped {
                stopped(&entry, self.since.is_some())?;
                continue;
            }
            let text = match common.output {
                Output::Table => for_people(&entry),
                Output::Json => entry.json,
                Output::Yaml => format!("---\n{}", yaml(&parsed(&entry))?.trim_end()),
                Output::Name => entry.id,
            };
            line(&text)?;
        }
        Ok(())
    }
}

/// Reports that the broker has stopped reading. At the beginning that is a note: older lines can be asked for. At the end
/// it is a failure: the answer is not complete.
pub(crate) fn stopped(entry: &pb::JournalLine, is_end: bool) -> Result<(), Failure> {
    let (id, time) = (&entry.id, moment(entry.time.as_ref()));
    if !is_end {
        say(&format!(
            "the lines before {id} were not read; to see some of them, give --since a time before {time}"
        ));
        return Ok(());
    }
    let text =
        format!("stopped at line {id}, the limit of one request; continue with --since {time}");
    Err(Failure::new("TAIL_STOPPED", text, exit::FAILED))
}

fn parsed(entry: &pb::JournalLine) -> Value {
    serde_json::from_str(&entry.json).unwrap_or_default()
}

/// A line of the journal, for people.
fn for_people(entry: &pb::JournalLine) -> String {
    let body = parsed(entry);
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut words = vec![text("principal")];
    for change in body.get("changes").and_then(Value::as_array).into_iter().flatten() {
        let of = |name: &str| change.get(name).and_then(Value::as_str).unwrap_or_default();
        words.push(format!("{} {} {}", of("principal"), of("action"), of("resource")));
    }
    let compared = body.get("resources").and_then(Value::as_array);
    words.extend(compared.into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned));
    if matches!(entry.event.as_str(), "opened") {
        let key = ["workflow", "run", "step"].map(|name| format!("{name}:{}", text(name)));
        words.push(format!("{} by executor:{}", key.join("/"), text("executor")));
    }
    words.extend(
        ["target", "resource", "method", "decision", "reason", "detail", "source", "handle", "key"]
            .map(text),
    );
    words.extend(["old", "new", "opening", "restored_as"].map(text));
    let end = text("credential_expire_time");
    words.extend((!end.is_empty()).then(|| format!("until {end}")));
    words.extend(["file", "line", "batch", "requests"].iter().filter_map(|name| {
        body.get(name).and_then(Value::as_u64).map(|number| format!("{name} {number}"))
    }));
    let methods = body.get("methods").and_then(Value::as_object);
    words.extend(methods.into_iter().flatten().map(|(name, count)| format!("{name} {count}")));
    words.retain(|word| !word.is_empty());
    let time = moment(entry.time.as_ref());
    printable(
        format!("{time:<24}  {:<9} {:<19} {}", entry.id, entry.event, words.join("  ")).trim_end(),
    )
}

impl JournalVerifyArgs {
    fn run(self, common: &Common) -> Result<(), Failure> {
        let state = Config::load(Given { state: common.state.clone(), ..Given::default() })
            .map_err(|error| Failure::usage(error.to_string()))?
            .state;
        let directory = self.directory.unwrap_or_else(|| state.join("journal"));
        let is_given = self.ca.is_some() || self.ca_fingerprint.is_some();
        let ca = self.ca.unwrap_or_else(|| directory.join("../ca.crt"));
        let root = read_root(&ca, self.ca_fingerprint)?;
        let expected = self.expect.as_deref().map(parse_expected).transpose()?;
        let proof = verify(&directory, &root, self.from, expected);
        let proof = proof.map_err(|error| not_proven(&error))?;
        print_proof(common, &directory, &root, is_given, &proof)?;
        match is_given {
            true => Ok(()),
            false => Err(Failure::new(
                "CA_NOT_COMPARED",
                format!(
                    "the lines are a chain, but {} is beside the journal, and anybody who can write the journal can \
                     write it: compare its SHA-256 with the one that init or status printed, or give \
                     --ca-fingerprint or --ca",
                    ca.display()
                ),
                exit::NO_PROOF,
            )),
        }
    }
}

/// The root that the proof trusts. Fails if it does not have the fingerprint that was given.
fn read_root(ca: &Path, given: Option<Fingerprint>) -> Result<RootKey, Failure> {
    let pem = input::file(ca, MAX_CA_BYTES).and_then(input::text).map_err(|error| {
        Failure::usage(format!("{}: {error}; name ca.crt with --ca", ca.display()))
    })?;
    let root = RootKey::from_pem(&pem)
        .ok_or_else(|| Failure::usage(format!("{} holds no certificate in PEM", ca.display())))?;
    match given {
        Some(Fingerprint(sha256)) if sha256 != root.sha256() => Err(Failure::new(
            "CA_MISMATCH",
            format!(
                "the root certificate {} has the SHA-256 {}, not the one that was given: the journal is that of another \
                 broker",
                ca.display(),
                hex::encode(root.sha256())
            ),
            exit::FAILED,
        )),
        _ => Ok(root),
    }
}

fn print_proof(
    common: &Common,
    directory: &Path,
    root: &RootKey,
    is_given: bool,
    proof: &Proof,
) -> Result<(), Failure> {
    let sha256 = hex::encode(root.sha256());
    let last = format!("{}:{}", proof.last_line, hex::encode(proof.last_hash));
    let signed = proof.signed.map(|(line, time)| (line, time.to_string()));
    let answer = json!({
        "directory": directory,
        "ca_sha256": sha256,
        "ca_compared": is_given,
        "first_file": proof.first_file,
        "files": proof.files,
        "last": last,
        "signed_line": signed.as_ref().map(|(line, _)| line),
        "signed_time": signed.as_ref().map(|(_, time)| time),
        "unproven_lines": proof.unproven,
    });
    let table = || {
        let signed = signed
            .as_ref()
            .map_or("nothing".to_owned(), |(line, time)| format!("up to line {line}, at {time}"));
        properties(&[
            ("journal", directory.display().to_string()),
            ("files", format!("{}, from {:06}", proof.files, proof.first_file)),
            ("last line", last.clone()),
            ("signed", signed),
            ("lines after that", proof.unproven.to_string()),
            ("CA's SHA-256", sha256.clone()),
        ])
    };
    print(common.output, &answer, table, || last.clone())?;
    if proof.unproven > 1 {
        say(
            "the lines that are not signed yet are a chain, but only the broker can prove that they are its own",
        );
    }
    Ok(())
}

fn not_proven(error: &ProofError) -> Failure {
    let reason = match error {
        ProofError::Newer { .. } => "FORMAT_NEWER",
        _ => "JOURNAL_DAMAGED",
    };
    Failure::new(reason, error.to_string(), exit::FAILED)
}

fn parse_expected(text: &str) -> Result<(u64, [u8; 32]), Failure> {
    let parsed = || {
        let (number, digits) = text.split_once(':')?;
        let mut hash = [0; 32];
        hex::decode_to_slice(digits, &mut hash).ok()?;
        Some((number.parse().ok()?, hash))
    };
    parsed().ok_or_else(|| {
        Failure::usage(format!("--expect {text}: write LINE:HASH, as verify prints its last line"))
    })
}
