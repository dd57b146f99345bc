//! Installation tokens of a GitHub App. They come from a door that is as strict as GitHub, and GitHub's own client and git
//! use them.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use keyhatch::egress::Egress;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::integration::Source;
use serde_json::{Value as Json, json};

use super::end_alone;
use crate::harness::{
    TestBroker, TestStep, Upstream, allowing, keyhatch, node, path_with_binary, reason, text,
};

/// A door, and a broker that may ask it.
struct GitHub {
    broker: TestBroker,
    door: Upstream,
}

impl GitHub {
    fn start() -> Option<Self> {
        let door = Upstream::github()?;
        let mut broker = TestBroker::start();
        broker.config.egress = allowing(&[&door.origin()]);
        broker.restart();
        Some(Self { broker, door })
    }

    fn api(&self) -> String {
        format!("{}/api/v3", self.door.origin())
    }

    /// The fields of the App's installation, with these changes.
    fn fields(&self, changes: &[(&str, &str)]) -> Vec<(String, String)> {
        let (door, api) = (&self.door, self.api());
        let own = [
            ("app_id", door.told("app.id")),
            ("installation_id", door.told("installation")),
            ("private_key", door.told("key")),
            ("api_url", &api),
        ];
        let kept = own.into_iter().filter(|(own, _)| !changes.iter().any(|(name, _)| name == own));
        let all = kept.chain(changes.iter().copied());
        all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Creates github/NAME, which steps of workflow w may resolve.
    fn create(&self, name: &str, changes: &[(&str, &str)]) {
        let fields = self.fields(changes);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        self.broker.create_connection(&format!("github/{name}"), &fields, &["workflow:w"]).unwrap();
    }

    /// The token that a step gets of github/main.
    fn token(&self, step: &TestStep) -> String {
        self.broker.resolve(step, "github/main").unwrap().fields["access_token"].clone()
    }

    fn end(&self, token: &str) {
        let egress = Egress::new(allowing(&[&self.door.origin()]));
        end_alone(&egress, Source::GithubApp, &[("api_url", &self.api()), ("token", token)]);
    }

    /// How many tokens the door has made, and how many of them it accepts.
    fn tokens(&self) -> (u64, u64) {
        let told = self.door.ask("GET", "/tokens");
        (told["made"].as_u64().unwrap(), told["live"].as_u64().unwrap())
    }

    /// Octokit as a command of a step, with the token of github/main in its variable.
    fn octokit(&self, step: &TestStep) -> Octokit {
        let script = node("github", "octokit.js").unwrap();
        let mut exec = keyhatch(&["exec", "--env", "github/main", "--no-mask", "--"]);
        exec.arg(script.get_program()).args(script.get_args()).arg("step").arg(self.api());
        exec.envs(&step.opened.env).env("PATH", path_with_binary());
        exec.envs(script.get_envs().filter_map(|(name, value)| Some((name, value?))));
        for name in ["GITHUB_TOKEN", "GH_TOKEN"] {
            exec.env_remove(name);
        }
        Octokit::start(exec)
    }
}

/// A running octokit.js.
struct Octokit {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Octokit {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { stdin: child.stdin.take().unwrap(), lines, child }
    }

    fn ask(&mut self, line: &Json) -> Json {
        writeln!(self.stdin, "{line}").unwrap();
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }
}

impl Drop for Octokit {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn octokit_can_do_what_the_connection_says_and_no_more() {
    let Some(github) = GitHub::start() else { return };
    github.create("main", &[("permissions", "issues=write"), ("repositories", "website")]);
    let step = github.broker.open("w", "s");
    let used = github.octokit(&step).ask(&Json::Null);
    assert_eq!(used, json!({"repositories": ["website"], "issue": 201, "handbook": 404}));
    let line = github.broker.journaled("minted").pop().unwrap();
    assert_eq!(line["handle"].as_str().unwrap().len(), 44, "as hashed_token of the audit log");
    let got = github.broker.resolve(&step, "github/main").unwrap();
    let names: Vec<_> = got.fields.keys().map(String::as_str).collect();
    assert_eq!(names, ["access_token", "api_url", "app_id", "installation_id"]);
    let lease = got.lease;
    let life = lease.credential_expire_time.unwrap().seconds - lease.issue_time.unwrap().seconds;
    assert!((3595..=3665).contains(&life), "{life}");
    assert_eq!(github.tokens(), (1, 1), "the processes of a step share its token");
    github.broker.resolve(&github.broker.open("w", "other"), "github/main").unwrap();
    assert_eq!(github.tokens(), (2, 2));
}

#[test]
fn a_token_ends_with_its_step_and_takes_no_other_along() {
    let Some(github) = GitHub::start() else { return };
    github.create("main", &[]);
    let (step, other) = (github.broker.open("w", "s"), github.broker.open("w", "t"));
    let [mut octokit, mut neighbour] = [&step, &other].map(|step| github.octokit(step));
    assert_eq!(octokit.ask(&Json::Null)["issue"], 201);
    assert_eq!(neighbour.ask(&Json::Null)["issue"], 201);
    let closed = github.broker.close(&step);
    assert!(closed.pending_endings.is_empty());
    assert_eq!(github.tokens(), (2, 1));
    assert_eq!(
        octokit.ask(&Json::Null),
        json!({"repositories": 401, "issue": 401, "handbook": 401})
    );
    assert_eq!(neighbour.ask(&Json::Null)["issue"], 201);
    let line = github.broker.journaled("ended_upstream").pop().unwrap();
    let minted = github.broker.journaled("minted");
    assert_eq!(
        line["handle"],
        minted.iter().find(|made| made["mint"] == line["mint"]).unwrap()["handle"]
    );
    // GitHub has ended the other already.
    github.door.ask("POST", "/expire");
    assert!(github.broker.close(&other).pending_endings.is_empty());
    assert_eq!(github.broker.journaled("ended_upstream").len(), 2);
}

#[test]
fn a_test_that_mints_leaves_no_token() {
    let Some(github) = GitHub::start() else { return };
    github.create("main", &[]);
    let name = "connections/github/main".to_owned();
    let request = pb::TestConnectionRequest { name, mint: true };
    let mut client = ConnectionServiceClient::new(github.broker.operator());
    let tested = github.broker.block_on(client.test_connection(request)).unwrap().into_inner();
    assert_eq!(tested.mint_failure, "");
    assert_eq!(github.tokens(), (1, 0));
}

#[test]
fn a_token_for_many_repositories_is_read_whole() {
    let Some(github) = GitHub::start() else { return };
    let names: Vec<_> = (0..20).map(|n| format!("service-{n}")).collect();
    github.create("main", &[("repositories", &names.join(","))]);
    // The door tells as much about each of them as GitHub does.
    github.token(&github.broker.open("w", "s"));
    assert_eq!(github.tokens(), (1, 1));
}

#[test]
fn a_token_is_ended_once_and_may_be_ended_again() {
    let Some(github) = GitHub::start() else { return };
    github.create("main", &[]);
    let token = github.token(&github.broker.open("w", "s"));
    assert_eq!(github.tokens(), (1, 1));
    for _ in 0..2 {
        github.end(&token);
        assert_eq!(github.tokens(), (1, 0));
    }
    let expired = github.token(&github.broker.open("w", "t"));
    github.door.ask("POST", "/expire");
    github.end(&expired);
}

#[test]
fn a_clock_that_is_ten_minutes_off_does_not_matter() {
    let Some(github) = GitHub::start() else { return };
    github.create("main", &[]);
    github.broker.advance(600);
    let step = github.broker.open("w", "s");
    let lease = github.broker.resolve(&step, "github/main").unwrap().lease;
    let life = lease.credential_expire_time.unwrap().seconds - lease.issue_time.unwrap().seconds;
    assert!((3595..=3665).contains(&life), "by the broker's clock: {life}");
}

/// GitHub's own client is refused in the same cases.
#[test]
fn a_refusal_is_told_by_githubs_own_text_and_a_next_step() {
    let Some(github) = GitHub::start() else { return };
    let Some(mut script) = node("github", "octokit.js") else { return };
    script.arg("app").arg(github.api());
    let mut octokit = Octokit::start(script);
    let client = github.door.told("app.client").to_owned();
    let suspended = github.door.told("suspended").to_owned();
    let other = include_str!("../../fixtures/mint/key.pkcs1.pem");
    let step = github.broker.open("w", "s");
    for (n, (changes, status, next)) in [
        (("app_id", client.as_str()), 201, ""),
        (
            ("private_key", other),
            401,
            "(A JSON web token could not be decoded); GitHub does not accept the App's signature",
        ),
        (("app_id", "99"), 404, "(Integration not found); GitHub knows no App with app_id"),
        (("installation_id", &suspended), 403, "(This installation has been suspended); unsuspend"),
        (("installation_id", "1003"), 404, "(Not Found); the App has no such installation"),
        (
            ("permissions", "contents=write"),
            422,
            "not granted to this installation); grant the App",
        ),
        (("permissions", "nonsense=read"), 422, "HTTP 422; check permissions and repositories"),
        (("repositories", "elsewhere"), 422, "parent installation); let the installation have"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("c{n}");
        github.create(&name, &[changes]);
        assert_eq!(octokit.ask(&github.as_octokit(changes))["made"], status, "{changes:?}");
        let resolved = github.broker.resolve(&step, &format!("github/{name}"));
        if status == 201 {
            resolved.unwrap();
            continue;
        }
        assert_eq!(reason(resolved), "UPSTREAM_REFUSED", "{changes:?}");
        let failed = github.broker.journaled("mint_failed").pop().unwrap();
        let detail = failed["detail"].as_str().unwrap();
        assert!(detail.contains(next), "{detail}");
        assert!(failed["upstream_request"].as_str().unwrap().contains(':'), "{failed}");
    }
}

impl GitHub {
    /// The same installation in octokit's words.
    fn as_octokit(&self, change: (&str, &str)) -> Json {
        let fields = self.fields(&[change]);
        let find = |name: &str| {
            fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
        };
        let permissions = find("permissions").map(|text| {
            let (name, level) = text.split_once('=').unwrap();
            json!({name: level})
        });
        let mut words = json!({
            "appId": find("app_id"),
            "privateKey": find("private_key"),
            "installationId": find("installation_id"),
            "permissions": permissions,
            "repositoryNames": find("repositories").map(|name| vec![name]),
        });
        words.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        words
    }

    /// `git` in a step, with the helper for the door.
    fn git(&self, step: &TestStep, words: &[&str]) -> std::process::Output {
        let helper = format!(
            "credential.helper=!keyhatch helper git --answer {}=github/main",
            self.door.origin()
        );
        let mut git = Command::new("git");
        git.args(["-c", &helper]).args(words).envs(&step.opened.env);
        git.env("PATH", path_with_binary()).env("GIT_TERMINAL_PROMPT", "0");
        git.envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_SYSTEM", "/dev/null")]);
        git.current_dir(self.broker.scratch()).output().unwrap()
    }

    fn clone_into(&self, step: &TestStep, name: &str, into: &Path) -> bool {
        let url = format!("{}/octo/{name}.git", self.door.origin());
        let cloned = self.git(step, &["clone", "--quiet", &url, into.to_str().unwrap()]);
        cloned.status.success()
    }
}

#[test]
fn git_clones_through_the_helper_while_the_token_is_live() {
    let Some(github) = GitHub::start() else { return };
    let changes = [("permissions", "contents=read"), ("repositories", "website")];
    github.create("main", &changes);
    let step = github.broker.open("w", "s");
    let scratch = github.broker.scratch();
    assert!(github.clone_into(&step, "website", &scratch.join("website")));
    let log = github.git(&step, &["-C", "website", "log", "--format=%s"]);
    assert_eq!(text(&log.stdout), "first\n");
    assert!(!github.clone_into(&step, "handbook", &scratch.join("handbook")));
    let push = github.git(&step, &["-C", "website", "push", "origin", "HEAD:refs/heads/other"]);
    assert!(!push.status.success(), "its permission is to read");
    assert_eq!(github.tokens(), (1, 1));
    github.door.ask("POST", "/expire");
    assert!(!github.clone_into(&step, "website", &scratch.join("late")));
}
