//! git's credential helpers: gitcredentials(7), git-credential(1).

use std::collections::BTreeMap;

use super::{Helping, read_stdin};
use crate::cli::failure::{Failure, exit};
use crate::cli::format::Login;
use crate::cli::output;

/// Answers one question.
pub async fn run(helping: &Helping<'_>, operation: &str) -> Result<u8, Failure> {
    let question = read_stdin()?;
    // Nothing is kept that could be stored or erased; other operations are to be ignored in silence.
    if operation != "get" {
        return Ok(0);
    }
    let asked = match attributes(&question) {
        Ok(asked) => asked,
        Err(text) => return quit(Failure::new("QUESTION_REFUSED", text, exit::FAILED)),
    };
    let [protocol, host, path] =
        ["protocol", "host", "path"].map(|key| asked.get(key).copied().unwrap_or_default());
    if !is_plain(path) {
        return refuse(helping, host, path);
    }
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
        Err(failure) => quit(failure),
    }
}

/// The values of a question, by key. git ends lines with LF alone, says each key once, and no control character but in
/// lists (`wwwauth[]`), of which nothing is read. A path has a refusal of its own: [`is_plain`].
///
/// # Errors
/// If git does not ask so: others might read the question otherwise. No value is told.
fn attributes(question: &str) -> Result<BTreeMap<&str, &str>, String> {
    let mut found = BTreeMap::new();
    for line in question.split('\n').take_while(|line| !line.is_empty()) {
        let Some((key, value)) = line.split_once('=') else {
            return Err("a line of git's question has no =; end lines with LF alone".to_owned());
        };
        if key.ends_with("[]") {
            continue;
        }
        if key != "path" && value.contains(char::is_control) {
            return Err(format!(
                "{key:?} of git's question holds a control character; write the URL without, and end lines with LF alone"
            ));
        }
        if found.insert(key, value).is_some() {
            return Err(format!("git's question says {key:?} twice; say every key once"));
        }
    }
    Ok(found)
}

/// Ends git's questions: it would ask whoever sits there, and hang where nobody does.
fn quit(failure: Failure) -> Result<u8, Failure> {
    output::write(b"quit=1\n")?;
    Err(failure)
}

/// Whether a path leads where its text says. Servers and proxies take `..`, `%2e` and `\` for ways out of what an
/// answer is for; git has decoded the path once.
fn is_plain(path: &str) -> bool {
    let is_odd = |c: char| c.is_control() || ['\\', '%', '?', '#', ';'].contains(&c);
    let is_step = |segment: &str| ["", ".", ".."].contains(&segment);
    path.is_empty() || !(path.contains(is_odd) || path.split('/').any(is_step))
}

/// A path that is not plain gets nothing. Of a host that no answer names others may know more.
fn refuse(helping: &Helping<'_>, host: &str, path: &str) -> Result<u8, Failure> {
    let is_ours = |whom: &str| host_of(whom).eq_ignore_ascii_case(host);
    if helping.answer_for(is_ours).is_none() {
        return Ok(0);
    }
    let text = format!(
        "git asks for {path:?} on {host}, and a path that may lead elsewhere gets nothing: write the URL without . \
         and .. and // and \\ and % and ? and # and ;"
    );
    quit(Failure::new("PATH_REFUSED", text, exit::FAILED))
}

fn host_of(whom: &str) -> &str {
    let whom = whom.split_once("://").map_or(whom, |(_, rest)| rest);
    whom.split('/').next().unwrap_or_default()
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

    #[test]
    fn a_path_with_a_way_out_is_not_plain() {
        for path in ["", "org", "org/repo.git", "org/a..b/.github", "gruppe/ä b"] {
            assert!(super::is_plain(path), "{path}");
        }
        for path in
            ["org/../evil", "..", "org/./a", "org//a", "org/", "/org", "org/..;/a", "org\\a"]
        {
            assert!(!super::is_plain(path), "{path}");
        }
        for path in ["org/%2e%2e/evil", "org/%2F", "org?a", "org#a", "org/\u{7f}", "org/\u{85}"] {
            assert!(!super::is_plain(path), "{path}");
        }
    }
}
