//! A broker and steps of one workflow, as processes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{ServeProcess, keyhatch_in, path_with_binary, succeeded, temp_dir, text};

/// A broker as a process. Commands run as step `s` of workflow `w`.
pub struct Steps {
    pub directory: tempfile::TempDir,
    pub serving: ServeProcess,
}

impl Steps {
    /// Serves a new broker.
    pub fn start() -> Self {
        let directory = temp_dir();
        let serving = ServeProcess::start(directory.path());
        Self { directory, serving }
    }

    /// Serves a new broker, and applies a seed.
    pub fn seeded(seed: &str) -> Self {
        let steps = Self::start();
        steps.apply(seed);
        steps
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Applies a seed, which must succeed. Returns what the command writes to stderr.
    pub fn apply(&self, seed: &str) -> String {
        let path = self.path("seed.yaml");
        std::fs::write(&path, seed).unwrap();
        let applied = self.serving.run(&["apply", "-f", path.to_str().unwrap()]);
        succeeded(&applied);
        text(&applied.stderr)
    }

    /// A command as step `s` of workflow `w`, in the broker's directory.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        self.command_of(["w", "1", "s"], program, arguments)
    }

    /// A command as the step that this workflow, run and step name.
    pub fn command_of(&self, step: [&str; 3], program: &str, arguments: &[&str]) -> Command {
        let mut command = keyhatch_in(self.directory.path(), &["step", "run"]);
        for (option, name) in ["workflow", "run", "step"].iter().zip(step) {
            command.arg(format!("--{option}={name}"));
        }
        command.args(["--", program]).args(arguments).env("PATH", path_with_binary());
        command.current_dir(self.directory.path());
        command
    }

    /// The output of a command as a step.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program, arguments).output().unwrap()
    }

    /// The stdout of the program as a step. It must succeed and print nothing to stderr.
    pub fn answer(&self, arguments: &[&str]) -> Vec<u8> {
        let ran = self.run("keyhatch", arguments);
        let stderr = text(&ran.stderr);
        assert!(ran.status.success() && stderr.is_empty(), "{arguments:?}: {stderr}");
        ran.stdout
    }

    /// The stdout of the program as a step, as text.
    pub fn text(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.answer(arguments)).unwrap()
    }

    /// The exit code and the last line of stderr of the program as a step. Its stdout must be empty.
    pub fn refusal(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let ran = self.run("keyhatch", arguments);
        assert!(ran.stdout.is_empty(), "{arguments:?}: {}", text(&ran.stdout));
        let stderr = text(&ran.stderr);
        (ran.status.code(), stderr.lines().last().unwrap_or_default().to_owned())
    }
}

/// A seed document of a connection that steps of `w` may resolve.
pub fn connection(integration: &str, name: &str, fields: &[(&str, &str)]) -> String {
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| format!("    {name}: {}\n", serde_json::Value::from(*value)))
        .collect();
    format!(
        "---\napiVersion: keyhatch/v1\nkind: Connection\nmetadata: {{name: {name}}}\nspec:\n  \
         integration: {integration}\n  access: {{resolver: ['workflow:w']}}\n  fields:\n{}",
        fields.concat()
    )
}

/// A seed document of a secret of `w`.
pub fn secret(name: &str, value: &str) -> String {
    let value = serde_json::Value::from(value);
    format!(
        "---\napiVersion: keyhatch/v1\nkind: Secret\nmetadata: {{name: {name}, workflow: w}}\nspec: {{value: {value}}}\n"
    )
}

/// The path of a file of this repository.
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
