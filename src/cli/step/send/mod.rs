//! `keyhatch send`: one HTTP request with a credential that the step does not get.

mod body;
mod exchange;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::StatusCode;

pub use exchange::{Broken, Exchange, SendTarget, pieces};

use super::get::TIMEOUT;
use crate::cli::Common;
use crate::cli::identity::session::Session;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::write_if_open;
use crate::cli::io::private_file::NewFile;
use crate::cli::io::time::parse_duration;
use crate::grpc::pb;
use crate::model::Reference;
use body::RequestBody;

/// Arguments of `send`.
#[derive(clap::Args)]
pub struct Send {
    /// The connection: INTEGRATION/NAME, such as github/main; group:NAME:KEY=VALUE,… for a member of a group;
    /// default:INTEGRATION for its default connection. The step needs to be a user of it.
    #[arg(value_name = "REF")]
    reference: String,
    /// The method of the request, such as GET.
    #[arg(value_name = "METHOD")]
    method: String,
    /// The path below the connection's address, with the query, such as /repos/acme/site?page=2.
    #[arg(value_name = "PATH")]
    path: String,
    /// A header; may be given more than once. The headers of the connection win over it.
    #[arg(short = 'H', long, value_name = "NAME: VALUE", value_parser = parse_header)]
    header: Vec<pb::HttpHeader>,
    /// The body: a text, @FILE for a file or - for stdin. Set its type with -H 'Content-Type: …'.
    #[arg(short, long, value_name = "TEXT|@FILE|-", allow_hyphen_values = true)]
    data: Option<String>,
    /// The service of an upstream that has several: git for the repositories of GitHub and GitLab.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service: String,
    /// Print the status and the headers of the answer, too.
    #[arg(short, long)]
    include: bool,
    /// Fail if the status of the answer is 400 or above, and print nothing of such an answer.
    #[arg(short, long)]
    fail: bool,
    /// Write to this file instead of stdout (-). The file is replaced as a whole, and only by a whole answer.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How long the broker may take to take the request. The answer may take longer.
    #[arg(long, value_parser = parse_duration, default_value = TIMEOUT)]
    timeout: Duration,
}

impl Send {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let reference: Reference = self.reference.parse()?;
        let target = SendTarget::new(&reference, &self.service)?;
        let (length, body) = RequestBody::parse(self.data).open()?;
        let head = target.head((&self.method, &self.path), self.header, length);
        let mut sink = Sink::open(self.out.as_deref())?;
        let session = Session::open(common, self.timeout).await?;
        let (body, mut broken) = pieces(body);
        let channel = session.channel().await.channel;
        let exchanging = async {
            let mut exchange = Exchange::begin(channel, head, body).await?;
            if self.fail && exchange.status() >= 400 {
                return Err(failed(exchange.status()));
            }
            if self.include && !sink.write(&printed_head(&exchange.answer))? {
                return Ok(());
            }
            while let Some(piece) = exchange.next().await? {
                // Nobody reads the rest.
                if !sink.write(&piece)? {
                    return Ok(());
                }
            }
            sink.finish()
        };
        tokio::select! {
            biased;
            outcome = exchanging => outcome,
            error = broken.wait() => {
                Err(Failure::new("IO", format!("the body cannot be read: {error}"), exit::FAILED))
            }
        }
    }
}

/// Parses `NAME: VALUE`. The broker checks both.
fn parse_header(text: &str) -> Result<pb::HttpHeader, String> {
    let (name, value) = text.split_once(':').ok_or("write NAME: VALUE")?;
    let value = value.trim_matches([' ', '\t']).into();
    Ok(pb::HttpHeader { name: name.to_owned(), value })
}

/// The status and the headers, as curl prints them.
fn printed_head(answer: &pb::SendAnswer) -> Vec<u8> {
    let status = u16::try_from(answer.status).ok().and_then(|code| StatusCode::from_u16(code).ok());
    let reason = status.and_then(|status| status.canonical_reason()).unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", answer.status).into_bytes();
    for header in &answer.headers {
        head.extend_from_slice(header.name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(&header.value);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

fn failed(status: u16) -> Failure {
    let text = format!("the upstream answered {status}; without --fail its answer is printed");
    Failure::new("HTTP_STATUS", text, exit::FAILED)
}

/// The destination of an answer: a file, or the output of the command.
struct Sink(Option<NewFile>);

impl Sink {
    fn open(out: Option<&Path>) -> Result<Self, Failure> {
        let file = out.filter(|path| *path != Path::new("-"));
        Ok(Self(file.map(NewFile::create).transpose()?))
    }

    /// Returns false if nobody reads any more.
    fn write(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        match &mut self.0 {
            None => write_if_open(bytes),
            Some(file) => file.write(bytes).map(|()| true),
        }
    }

    fn finish(self) -> Result<(), Failure> {
        self.0.map_or(Ok(()), NewFile::finish)
    }
}
