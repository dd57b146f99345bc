//! git's credential helpers: gitcredentials(7), git-credential(1).

use std::collections::BTreeMap;

use super::address::{Address, HTTPS, is_same_host};
use super::{HelperAnswer, Helping, read_stdin};
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output;
use crate::cli::io::output::say;
use crate::cli::step::format::Login;
use crate::model::Reference;

/// Integrations whose connections have a token as the password.
const TOKEN_INTEGRATIONS: [&str; 2] = ["github", "gitlab"];

/// A request of git.
struct GitQuestion<'a> {
    protocol: &'a str,
    host: &'a str,
    path: &'a str,
    /// The user, if git knows it from the URL or from credential.username.
    username: Option<&'a str>,
}

/// Answers one request of git.
pub async fn run(helping: &Helping<'_>, operation: &str) -> Result<u8, Failure> {
    let question = read_stdin()?;
    // There is nothing to store or erase, and unknown operations must be ignored.
    if operation != "get" {
        return Ok(0);
    }
    let asked = match attributes(&question) {
        Ok(asked) => asked,
        Err(text) => return quit(Failure::new("QUESTION_REFUSED", text, exit::FAILED)),
    };
    let value = |key| asked.get(key).copied().unwrap_or_default();
    let question = GitQuestion {
        protocol: value("protocol"),
        host: value("host"),
        path: value("path"),
        username: asked.get("username").copied().filter(|name| !name.is_empty()),
    };
    if !is_plain(question.path) {
        return refuse(helping, &question);
    }
    match answer(helping, &question).await {
        // After an empty answer git asks its next helper.
        Ok(answer) => output::write(answer.unwrap_or_default().as_bytes()).map(|()| 0),
        Err(failure) => quit(failure),
    }
}

/// The nearest answer. If git names a user and answers do not, the nearest answer with a login of that user.
async fn answer(
    helping: &Helping<'_>,
    question: &GitQuestion<'_>,
) -> Result<Option<String>, Failure> {
    let is_for = |answer: &&HelperAnswer| question.is_answered_by(&answer.whom);
    let mut answers: Vec<&HelperAnswer> = helping.answers.iter().filter(is_for).collect();
    // The sort is stable: the first of equally near answers wins.
    answers.sort_by_key(|answer| std::cmp::Reverse(nearness(&answer.whom)));
    let (mut others, mut failed) = (Vec::new(), None);
    for answer in &answers {
        match login(helping, answer, question.username).await {
            Ok(Some(found)) => {
                let rival = answers.iter().find(|other| found.is_token && is_rival(answer, other));
                return match rival {
                    Some(rival) => Err(ambiguous(question, answer, rival)),
                    None => Ok(Some(found.text)),
                };
            }
            Ok(None) => others.push(&answer.reference),
            // The user of this answer is unknown.
            Err(failure) if question.username.is_some() => failed = failed.or(Some(failure)),
            Err(failure) => return Err(failure),
        }
    }
    if let (Some(asked), [reference, ..]) = (question.username, others.as_slice()) {
        let host = question.host;
        say(&format!(
            "note: git asks for the login of {asked:?} on {host}, and {reference} is another user's; to use it, \
             give --answer {asked}@{host}={reference}"
        ));
    }
    failed.map_or(Ok(None), Err)
}

/// A login as git reads it, and whether its password is a token.
struct GitLogin {
    text: String,
    is_token: bool,
}

/// The login of an answer. None if git asks for another user.
async fn login(
    helping: &Helping<'_>,
    answer: &HelperAnswer,
    asked: Option<&str>,
) -> Result<Option<GitLogin>, Failure> {
    let credential = helping.resolve(&answer.reference).await?;
    let Login { username, password, is_token, .. } = Login::for_helper(&credential, "helper git")?;
    let is_named = Address::parse(&answer.whom).user().is_some();
    let is_asked = asked.is_none_or(|asked| is_named || asked == username);
    // Servers accept any name with a token, and git stores the name of the answer.
    let username = asked.filter(|_| is_token && is_named).unwrap_or(username);
    let end = credential.end_epoch_for_tools();
    let text = format!("username={username}\npassword={password}\npassword_expiry_utc={end}\n");
    Ok(is_asked.then_some(GitLogin { text, is_token }))
}

/// Whether another answer is as near as that of a token, and may be a token, too.
fn is_rival(answer: &HelperAnswer, other: &HelperAnswer) -> bool {
    let is_of_logins = match &other.reference {
        Reference::Connection(one) => !TOKEN_INTEGRATIONS.contains(&one.integration.as_str()),
        Reference::Default(one) => !TOKEN_INTEGRATIONS.contains(&one.as_str()),
        Reference::Group(_) | Reference::Secret(_) => false,
    };
    !is_of_logins
        && other.reference != answer.reference
        && nearness(&other.whom) == nearness(&answer.whom)
}

/// The failure that two tokens are equally near. A token names no user, so the order of answers would decide silently.
fn ambiguous(question: &GitQuestion<'_>, answer: &HelperAnswer, rival: &HelperAnswer) -> Failure {
    let (host, one, other) = (question.host, &answer.reference, &rival.reference);
    let text = format!(
        "{one} and {other} both answer for {host}; give each its user, as in --answer USER@{host}={one}, or its path"
    );
    Failure::new("ANSWERS_AMBIGUOUS", text, exit::FAILED)
}

/// The values of a request, by key. git ends lines with LF alone, sends each key once, and sends control characters
/// only in lists (`wwwauth[]`), which are ignored. Anything else is refused, because git may read it differently.
/// Errors show no value. [`is_plain`] checks the path.
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
            return Err(format!("git's request has {key:?} twice; send every key once"));
        }
    }
    Ok(found)
}

/// Stops git's search for a login. Otherwise git would ask at the terminal, and hang if nobody is there.
fn quit(failure: Failure) -> Result<u8, Failure> {
    output::write(b"quit=1\n")?;
    Err(failure)
}

/// Whether a path leads where its text says. Servers and proxies may follow `..`, `%2e` and `\` out of the path of an
/// answer. git has decoded the path once.
fn is_plain(path: &str) -> bool {
    let is_odd = |c: char| c.is_control() || ['\\', '%', '?', '#', ';'].contains(&c);
    let is_step = |segment: &str| ["", ".", ".."].contains(&segment);
    path.is_empty() || !(path.contains(is_odd) || path.split('/').any(is_step))
}

/// Refuses a path that is not plain. For a host without an answer, git may ask its next helper.
fn refuse(helping: &Helping<'_>, question: &GitQuestion<'_>) -> Result<u8, Failure> {
    let GitQuestion { protocol, host, path, .. } = question;
    let is_ours = |whom: &str| is_same_host(Address::parse(whom).host(), host, protocol);
    if helping.answer_for(is_ours).is_none() {
        return Ok(0);
    }
    let text = format!(
        "git asks for {path:?} on {host}, and a path that may lead elsewhere is refused: write the URL without . \
         and .. and // and \\ and % and ? and # and ;"
    );
    quit(Failure::new("PATH_REFUSED", text, exit::FAILED))
}

impl GitQuestion<'_> {
    /// Whether an answer for `[PROTOCOL://][USER@]HOST[/PATH]` matches, as in gitcredentials(7): git must ask for every
    /// part that the answer names. git sends the path if credential.useHttpPath is set.
    fn is_answered_by(&self, whom: &str) -> bool {
        let answer = Address::parse(whom);
        let base = repository(&answer);
        let is_below = self.path.strip_prefix(base).is_some_and(|rest| {
            base.is_empty() || rest.is_empty() || rest.starts_with('/') || rest == ".git"
        });
        answer.protocol().unwrap_or(HTTPS) == self.protocol
            && is_same_host(answer.host(), self.host, self.protocol)
            && answer.user().is_none_or(|user| self.username == Some(user))
            && is_below
    }
}

/// The path of an answer without `.git`, which servers accept with a repository's name.
fn repository<'a>(answer: &Address<'a>) -> &'a str {
    let path = answer.path();
    path.strip_suffix(".git").unwrap_or(path)
}

/// How specific an answer is: the longer path is nearer, and of two equal paths the one with a user.
fn nearness(whom: &str) -> (usize, bool) {
    let answer = Address::parse(whom);
    (repository(&answer).len(), answer.user().is_some())
}

#[cfg(test)]
mod tests {
    use super::{GitQuestion, nearness};

    #[test]
    fn an_answer_is_for_its_host_and_what_is_below_its_path() {
        let is_for = |whom: &str, host: &str, path: &str| {
            let question = GitQuestion { protocol: "https", host, path, username: None };
            question.is_answered_by(whom)
        };
        assert!(is_for("github.com", "github.com", ""));
        assert!(is_for("https://github.com", "GitHub.com", "org/repo.git"));
        assert!(is_for("github.com:443", "github.com", ""));
        assert!(is_for("github.com", "github.com:443", ""));
        assert!(is_for("github.com:8443", "GitHub.com:8443", ""));
        assert!(is_for("github.com/org", "github.com", "org/repo.git"));
        assert!(is_for("github.com/org/repo", "github.com", "org/repo.git"));
        assert!(is_for("github.com/org/repo.git/", "github.com", "org/repo"));
        assert!(!is_for("github.com/org", "github.com", "organisation/repo.git"));
        assert!(!is_for("github.com/org", "github.com", "org.evil/repo.git"));
        assert!(!is_for("github.com/org", "github.com", "Org/repo.git"));
        assert!(!is_for("github.com/org", "github.com", ""));
        assert!(!is_for("github.com", "github.com.example", ""));
        assert!(!is_for("github.com", "github.com:8443", ""));
        assert!(!is_for("github.com", "github.com:80", ""));
        assert!(!is_for("alice@github.com", "github.com", ""));
        assert!(!is_for("", "github.com", ""));
        assert!(!is_for("http://github.com", "github.com", ""));
        let asked = |whom: &str, protocol, host, username| {
            GitQuestion { protocol, host, path: "", username }.is_answered_by(whom)
        };
        assert!(!asked("github.com", "http", "github.com", None));
        assert!(asked("http://127.0.0.1:1", "http", "127.0.0.1:1", None));
        assert!(asked("http://h", "http", "h:80", None));
        assert!(asked("alice@h", "https", "h", Some("alice")));
        assert!(asked("a%40b@h", "https", "h", Some("a@b")));
        assert!(!asked("alice@h", "https", "h", Some("Alice")));
        assert!(asked("h", "https", "h", Some("alice")));
    }

    #[test]
    fn what_says_more_is_nearer() {
        for (near, far) in [("h/a/b", "h/a"), ("h/a", "u@h"), ("u@h/a", "h/a"), ("u@h", "h")] {
            assert!(nearness(near) > nearness(far), "{near} {far}");
        }
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
