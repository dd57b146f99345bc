//! A process under measurement: its CPU time and memory, from proc(5).

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::Read as _;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A process, killed when dropped.
pub struct Process {
    child: Child,
    /// The CPU time of each thread at the last count, in nanoseconds.
    threads: Mutex<HashMap<OsString, u64>>,
}

impl Process {
    pub fn spawn(command: &mut Command) -> Self {
        Self { child: command.spawn().unwrap(), threads: Mutex::default() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The CPU time of all its threads, from the kernel's accounting. An ended thread counts with its time at the last
    /// call. Processes that it has started count, too.
    pub fn cpu(&self) -> Duration {
        self.of_threads() + self.of_children()
    }

    fn of_children(&self) -> Duration {
        let own = format!("/proc/{}", self.id());
        let read = |path: String| std::fs::read_to_string(path).unwrap_or_default();
        let children = read(format!("{own}/task/{}/children", self.id()));
        let running = children.split_whitespace().filter_map(|child| {
            read(format!("/proc/{child}/schedstat")).split_whitespace().next()?.parse::<u64>().ok()
        });
        // The time of ended children, as cutime and cstime of proc_pid_stat(5): in ticks of 10 ms.
        let stat = read(format!("{own}/stat"));
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ended: u64 =
            fields.skip(13).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Duration::from_nanos(running.sum()) + Duration::from_millis(10 * ended)
    }

    fn of_threads(&self) -> Duration {
        let mut seen = self.threads.lock().unwrap();
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        for task in tasks.filter_map(Result::ok) {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            if let Some(nanos) = text.split_whitespace().next().and_then(|had| had.parse().ok()) {
                seen.insert(task.file_name(), nanos);
            }
        }
        Duration::from_nanos(seen.values().sum())
    }

    /// The names of the threads that took a hundredth of the CPU or more, with the number of those of each name.
    pub fn busy_threads(&self) -> String {
        let all = self.of_threads().as_secs_f64() * 1e9;
        let mut names = BTreeMap::<String, usize>::new();
        for (thread, nanos) in self.threads.lock().unwrap().iter() {
            let comm = format!("/proc/{}/task/{}/comm", self.id(), thread.display());
            let name = std::fs::read_to_string(comm).unwrap_or_default();
            if *nanos as f64 >= all / 100.0 {
                *names.entry(name.trim().to_owned()).or_default() += 1;
            }
        }
        let names: Vec<_> = names.iter().map(|(name, count)| format!("{count} {name}")).collect();
        names.join(", ")
    }

    /// The ids of the threads whose names begin so.
    pub fn threads_named(&self, begin: &str) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.id())).unwrap().flatten();
        let name = |task: &std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
        let named = tasks.filter(|task| name(task).is_ok_and(|name| name.starts_with(begin)));
        named.map(|task| task.file_name().to_string_lossy().into_owned()).collect()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The memory of the process, in KiB: VmRSS of proc(5).
    pub fn memory(&self) -> f64 {
        self.status("VmRSS:")
    }

    /// The pages that are only this process's own, in KiB: RssAnon of proc(5). The others are pages of files, which the
    /// kernel shares and takes back.
    pub fn own_memory(&self) -> f64 {
        self.status("RssAnon:")
    }

    /// The most memory since [`Process::forget_most_memory`], in KiB: VmHWM of proc(5).
    pub fn most_memory(&self) -> f64 {
        self.status("VmHWM:")
    }

    /// Resets the maximum of [`Process::most_memory`].
    pub fn forget_most_memory(&self) {
        // Without the right to reset, the maximum counts from the start.
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
    }

    fn status(&self, field: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Ends the process with SIGINT, and waits for its end.
    pub fn interrupt(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
        self.wait();
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) {
        self.child.wait().unwrap();
    }

    /// Waits for the end of the process. Returns its stdout.
    pub fn said(mut self) -> String {
        let mut said = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
