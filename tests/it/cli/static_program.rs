//! The program as one static file needs nothing from the image that it runs in.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use crate::harness::{ServeProcess, by_shell, keyhatch_in, secret, skipped, succeeded, text};

const GROUP: u32 = 54_313;
/// Runs the program in its own root directory, which has the broker's directory at the same path.
const IN_ROOT: &str = "exec unshare --mount sh -c 'mkdir -p \"$ROOT$DIRECTORY\" \"$ROOT/proc\" && \
                       mount --bind \"$DIRECTORY\" \"$ROOT$DIRECTORY\" && \
                       if [ \"$1\" = serve ]; then mount --bind /proc \"$ROOT/proc\"; fi && \
                       exec chroot \"$ROOT\" /keyhatch \"$@\"' sh \"$@\"";

fn in_root(root: &Path, directory: &Path, arguments: &[&str]) -> Command {
    let mut command = by_shell(IN_ROOT, &keyhatch_in(directory, arguments));
    command.env("ROOT", root).env("DIRECTORY", directory);
    command
}

#[test]
fn a_static_program_serves_and_asks_in_an_empty_root() {
    let Some(program) = std::env::var_os("KEYHATCH_TEST_STATIC") else {
        return skipped("the static program", "tests/run --full builds it");
    };
    if !rustix::process::geteuid().is_root() {
        return skipped("the static program", "needs root");
    }
    let (directory, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (directory, root) = (directory.path(), root.path());
    // Another process writes the copy, because a child of this process would hold the file open for writing.
    let copied = Command::new("cp").arg(program).arg(root.join("keyhatch")).status();
    assert!(copied.unwrap().success());
    std::fs::create_dir(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/group"), format!("hatchers:x:{GROUP}:\n")).unwrap();
    // A file that the C library would read.
    std::fs::write(root.join("etc/nsswitch.conf"), "group: sss\n").unwrap();
    succeeded(&in_root(root, directory, &["init"]).output().unwrap());
    // The daemon needs /proc, as containers have it. Its clients do not.
    let serve = in_root(root, directory, &["serve", "--admin-group", "hatchers"]);
    let serving = ServeProcess::spawn(directory, serve);
    assert_eq!(std::fs::metadata(directory.join("run/admin.sock")).unwrap().gid(), GROUP);
    std::fs::write(directory.join("seed.yaml"), secret("token", "hush-hush")).unwrap();
    let run = |arguments: &[&str]| {
        let ran = serving.run(arguments);
        assert!(ran.status.success(), "{}", text(&ran.stderr));
        ran.stdout
    };
    run(&["apply", "-f", directory.join("seed.yaml").to_str().unwrap()]);
    let open = ["step", "open", "--workflow", "w", "--run", "1", "--step", "s"];
    let opened = run(&[&open[..], &["--mount-path", "host", "-o", "json"]].concat());
    let opened: serde_json::Value = serde_json::from_slice(&opened).unwrap();
    std::fs::write(root.join("t"), "token={{ secret:token }}").unwrap();
    for (arguments, expected) in [
        (&["get", "secret:token", "--format", "raw"][..], "hush-hush"),
        (&["inject", "-i", "/t"], "token=hush-hush"),
        (
            &["exec", "--env", "T=secret:token", "--", "/keyhatch", "inject", "-i", "/t"],
            "token=***",
        ),
    ] {
        let mut command = in_root(root, directory, arguments);
        command.env("KEYHATCH_DIR", opened["directory"].as_str().unwrap());
        let ran = command.output().unwrap();
        let stderr = text(&ran.stderr);
        assert_eq!(text(&ran.stdout), expected, "{stderr}");
    }
}
