//! The forms of a credential that tools read. A value that a form cannot hold exactly is refused. No error shows a
//! value.

mod database;
mod docker;
mod login;
mod password_file;
mod picker;
mod shell;
mod token;

use clap::ValueEnum;
use zeroize::Zeroizing;

pub use database::{URI_FIELD, add_uri, may_have_uri};
pub use docker::server_key;
pub use login::Login;
pub use token::{aws_container, exec_info};

use super::credential::Credential;
use crate::cli::io::failure::Failure;
use crate::cli::io::output;
use picker::Picker;

/// The form of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CredentialFormat {
    /// The output of credential_process of an AWS profile.
    AwsCredentialProcess,
    /// Docker's config.json with the login of one registry.
    DockerConfig,
    /// `NAME=value` lines without quotes, as `docker run --env-file` reads them.
    DockerEnv,
    /// `NAME='value'` lines, as dotenv libraries and shells read them; `docker run --env-file` would keep the quotes.
    Dotenv,
    /// `export NAME='value'` lines for a shell to evaluate.
    Env,
    /// The JSON key file of a Google service account.
    GcpKeyFile,
    /// One JSON object.
    Json,
    /// An ExecCredential, as kubectl and client-go take it from a command.
    Kubectl,
    /// A netrc line: machine, login and password.
    Netrc,
    /// A line of PostgreSQL's password file.
    Pgpass,
    /// The bytes of one value, and nothing else. On a terminal a newline follows.
    Raw,
    /// An address with the login in it, as in DATABASE_URL: of PostgreSQL, of MySQL, or the connection's own.
    Uri,
    /// One YAML document.
    Yaml,
}

impl CredentialFormat {
    /// The document, with a final newline if the form has one. Fails if the form is for another integration, or cannot
    /// hold a value.
    pub fn render(self, credential: &Credential) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let name = self.to_possible_value().map(|value| value.get_name().to_owned());
        let picker = Picker::new(credential, name.unwrap_or_default());
        let text = match self {
            Self::AwsCredentialProcess => token::aws_process(&picker)?,
            Self::DockerConfig => docker::config(&picker)?,
            Self::DockerEnv => shell::docker_env(&picker)?,
            Self::Dotenv => shell::dotenv(&picker)?,
            Self::Env => shell::exports(&picker)?,
            Self::GcpKeyFile => token::gcp_key_file(&picker)?,
            Self::Json => output::json(&credential.to_json())? + "\n",
            Self::Kubectl => token::kubectl(&picker, exec_info().as_deref())?,
            Self::Netrc => password_file::netrc(&picker)?,
            Self::Pgpass => password_file::pgpass(&picker)?,
            Self::Raw => {
                let values = credential.fields.values().map(|value| value.expose());
                return Ok(Zeroizing::new(values.collect::<Vec<_>>().concat()));
            }
            Self::Uri => database::uri(&picker)? + "\n",
            Self::Yaml => output::yaml(&credential.to_json())?,
        };
        Ok(Zeroizing::new(text.into_bytes()))
    }
}
