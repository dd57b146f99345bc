//! A step uses credentials that it does not get: `keyhatch send`, and `exec --serve http` and `git` with unmodified tools.
//! The upstream is nginx with TLS, and git's own server behind it.

mod bad_days;
mod command;
mod git;
mod streams;
mod tools;

use std::fmt::Write as _;
use std::process::{Command, Output};

use crate::harness::{
    Nginx, ServeProcess, Steps, UPSTREAM_TOKEN, init_in, keyhatch_in, temp_dir, text,
};

/// An upstream, and a broker whose steps of `w` are users of http/api and http/repositories there, and resolve nothing.
pub struct World {
    pub nginx: Nginx,
    pub steps: Steps,
}

impl World {
    /// `None` if nginx is not installed; the test is reported as skipped.
    pub fn start() -> Option<Self> {
        let nginx = Nginx::start()?;
        let directory = temp_dir();
        init_in(directory.path());
        let path = directory.path().join("keyhatch.toml");
        let configuration = "[egress]\nallow = [\"127.0.0.1\"]\n[limits]\nstep_requests_per_second = 1000000\n\
                             step_request_burst = 1000000\n";
        std::fs::write(&path, configuration).unwrap();
        let serve = keyhatch_in(directory.path(), &["serve", "--config", path.to_str().unwrap()]);
        let serving = ServeProcess::spawn(directory.path(), serve);
        let steps = Steps { directory, serving };
        let [api, git] = ["api", "git"].map(|path| format!("{}/{path}", nginx.origin()));
        let token = [
            ("base_url", api.as_str()),
            ("tokens.key", UPSTREAM_TOKEN),
            ("headers.Authorization", "Bearer {{ key }}"),
            ("ca_certificate", &nginx.ca_pem),
        ];
        let login = [
            ("base_url", git.as_str()),
            ("username", "bot"),
            ("password", UPSTREAM_TOKEN),
            ("ca_certificate", &nginx.ca_pem),
        ];
        let seed = [used("api", "token", &token), used("repositories", "basic", &login)];
        steps.apply(&seed.concat());
        Some(Self { nginx, steps })
    }

    /// A command as a step, under `exec` with this `--serve`.
    pub fn command(&self, serve: &str, script: &str) -> Command {
        let exec = ["exec", "--serve", serve, "--", "sh", "-euc", script];
        self.steps.command("keyhatch", &exec)
    }

    pub fn run(&self, serve: &str, script: &str) -> Output {
        self.command(serve, script).output().unwrap()
    }

    /// The stdout of a script that must succeed, with a shell's `$KEYHATCH_HTTP_URL` of http/api.
    #[track_caller]
    pub fn api(&self, script: &str) -> String {
        let ran = self.run("http=http/api", script);
        let stderr = text(&ran.stderr);
        assert!(ran.status.success(), "{stderr}{}", text(&ran.stdout));
        text(&ran.stdout)
    }
}

/// A seed document of an http connection that steps of `w` are users of.
fn used(name: &str, kind: &str, fields: &[(&str, &str)]) -> String {
    let mut document = format!(
        "---\napiVersion: keyhatch/v1\nkind: Connection\nmetadata: {{name: {name}}}\nspec:\n  integration: http\n  \
         kind: {kind}\n  access: {{user: ['workflow:w']}}\n  fields:\n"
    );
    for (name, value) in fields {
        writeln!(document, "    {name}: {}", serde_json::Value::from(*value)).unwrap();
    }
    document
}
