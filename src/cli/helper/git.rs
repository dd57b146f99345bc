//! git's credential helpers: gitcredentials(7), git-credential(1).

use super::{Helping, read_stdin};
use crate::cli::failure::Failure;
use crate::cli::format::Login;
use crate::cli::output;

/// Answers one question.
pub async fn run(helping: &Helping<'_>, operation: &str) -> Result<u8, Failure> {
    let question = read_stdin()?;
    // Nothing is kept that could be stored or erased; other operations are to be ignored in silence.
    if operation != "get" {
        return Ok(0);
    }
    let asked =
        |key: &str| question.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let [protocol, host, path] =
        ["protocol", "host", "path"].map(|key| asked(key).unwrap_or_default());
    // Silence lets git ask its next helper.
    let found = helping.answer_for(|whom| is_for(whom, protocol, host, path));
    let Some(reference) = found else { return Ok(0) };
    let credential = helping.resolve(reference).await;
    let answer = credential.and_then(|credential| {
        let login = Login::for_helper(&credential, "helper git")?;
        Ok(format!(
            "username={}\npassword={}\npassword_expiry_utc={}\n",
            login.username,
            login.password,
            credential.expire_epoch()
        ))
    });
    match answer {
        Ok(answer) => output::write(answer.as_bytes()).map(|()| 0),
        Err(failure) => {
            // Or git would ask whoever sits there, and hang where nobody does.
            output::write(b"quit=1\n")?;
            Err(failure)
        }
    }
}

/// Whether `HOST` or `HOST/PATH` is what git asks for; it says the path where credential.useHttpPath is set. Only
/// `http://HOST` is for a connection that everybody on the way can read.
fn is_for(whom: &str, protocol: &str, host: &str, path: &str) -> bool {
    let (wanted_protocol, whom) = whom.split_once("://").unwrap_or(("https", whom));
    let (wanted_host, wanted_path) = whom.split_once('/').unwrap_or((whom, ""));
    let wanted_path = wanted_path.trim_end_matches('/');
    let is_below = path.strip_prefix(wanted_path).is_some_and(|rest| {
        wanted_path.is_empty() || rest.is_empty() || rest.starts_with('/') || rest == ".git"
    });
    wanted_protocol == protocol && wanted_host.eq_ignore_ascii_case(host) && is_below
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_answer_is_for_its_host_and_what_is_below_its_path() {
        let is_for = |whom: &str, host: &str, path: &str| super::is_for(whom, "https", host, path);
        assert!(is_for("github.com", "github.com", ""));
        assert!(is_for("https://github.com", "GitHub.com", "org/repo.git"));
        assert!(is_for("github.com/org", "github.com", "org/repo.git"));
        assert!(is_for("github.com/org/repo", "github.com", "org/repo.git"));
        assert!(!is_for("github.com/org", "github.com", "organisation/repo.git"));
        assert!(!is_for("github.com/org", "github.com", "org.evil/repo.git"));
        assert!(!is_for("github.com/org", "github.com", ""));
        assert!(!is_for("github.com", "github.com.example", ""));
        assert!(!is_for("github.com", "github.com:8443", ""));
        assert!(!is_for("", "github.com", ""));
        assert!(!is_for("http://github.com", "github.com", ""));
        assert!(!super::is_for("github.com", "http", "github.com", ""));
        assert!(super::is_for("http://127.0.0.1:1", "http", "127.0.0.1:1", ""));
    }
}
