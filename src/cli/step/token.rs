//! `keyhatch token`: a token of the broker's issuer, for scripts.

use std::time::Duration;

use super::get::{TIMEOUT, resolve};
use crate::cli::Common;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{self, Output, print};
use crate::cli::io::time::parse_duration;
use crate::model::Reference;

/// The field of a token.
const FIELD: &str = "token";

/// Arguments of `token`.
#[derive(clap::Args)]
pub struct Token {
    /// A connection of oidc, such as oidc/aws, or another reference to it. The connection says who the token is for.
    #[arg(value_name = "REF")]
    reference: String,
    /// How long the broker may take. The command retries while the broker restarts.
    #[arg(long, value_parser = parse_duration, default_value = TIMEOUT)]
    timeout: Duration,
}

impl Token {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let reference: Reference = self.reference.parse()?;
        let fields = vec![FIELD.to_owned()];
        let resolved = resolve(common, self.timeout, reference, fields, None).await;
        let credential = resolved.map_err(|failure| match failure.reason.as_str() {
            "FIELD_UNKNOWN" => {
                let text = format!(
                    "{} has no token of this broker; give a connection of oidc, or use keyhatch get",
                    self.reference
                );
                Failure { message: text, ..failure }
            }
            _ => failure,
        })?;
        match common.output {
            Output::Table | Output::Name => {
                let (_, token) = credential.values_of(Some(FIELD)).next().unzip();
                output::write(token.map(|token| token.expose()).unwrap_or_default())?;
                output::write(b"\n")
            }
            Output::Json | Output::Yaml => {
                print(common.output, &credential.to_json(), String::new, String::new)
            }
        }
    }
}
