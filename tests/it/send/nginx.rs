//! A real server: nginx, with TLS, basic authentication and client certificates.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use keyhatch::grpc::pb;

use super::{World, head};
use crate::harness::{allowing, not_set_up, temp_dir, wait_until};

/// The size of a large file, in bytes.
const LARGE: usize = 64 * 1024 * 1024;

/// The server. It ends when this is dropped.
struct Nginx {
    _directory: tempfile::TempDir,
    child: Child,
    port: u16,
    /// The issuer of its certificate, and of the clients that it admits below /certified.
    ca_pem: String,
    client: (String, String),
}

impl Nginx {
    /// `None` if nginx is not installed; the test is reported as skipped.
    fn start() -> Option<Self> {
        if !std::path::Path::new("/usr/sbin/nginx").exists() {
            not_set_up("nginx", "the Debian package is missing; run tests/run as root");
            return None;
        }
        let directory = temp_dir();
        let path = directory.path();
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let made = |host: &str| rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
        let (server, client) = (made("127.0.0.1"), made("client.example"));
        // deploy:hunter22-x
        let files = [
            ("server.pem", server.cert.pem()),
            ("server.key", server.signing_key.serialize_pem()),
            ("clients.pem", client.cert.pem()),
            ("users", "deploy:{PLAIN}hunter22-x\n".to_owned()),
            ("nginx.conf", configuration(path.to_str().unwrap(), port)),
        ];
        for (name, text) in files {
            std::fs::write(path.join(name), text).unwrap();
        }
        std::fs::create_dir(path.join("root")).unwrap();
        std::fs::write(path.join("root/large"), vec![b'x'; LARGE]).unwrap();
        let child = Command::new("/usr/sbin/nginx")
            .arg("-c")
            .arg(path.join("nginx.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("nginx listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        let ca_pem = server.cert.pem();
        let client = (client.cert.pem(), client.signing_key.serialize_pem());
        Some(Self { _directory: directory, child, port, ca_pem, client })
    }

    fn world(&self) -> World {
        let mut world = World::start();
        world.broker.config.egress = allowing(&["127.0.0.1"]);
        world.broker.restart();
        world.step = world.broker.open("w", "other");
        world
    }

    fn origin(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The main process ends its workers.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

fn configuration(path: &str, port: u16) -> String {
    format!(
        r#"daemon off; user root; worker_processes 1; pid {path}/pid; error_log {path}/error.log;
events {{}}
http {{
  access_log off; client_max_body_size 0;
  client_body_temp_path {path}/b; proxy_temp_path {path}/p; fastcgi_temp_path {path}/f;
  uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;
  server {{
    listen 127.0.0.1:{port} ssl; root {path}/root;
    ssl_certificate {path}/server.pem; ssl_certificate_key {path}/server.key;
    ssl_client_certificate {path}/clients.pem; ssl_verify_client optional;
    location /basic {{ auth_basic x; auth_basic_user_file {path}/users; return 200 "in: $http_authorization"; }}
    location /certified {{ if ($ssl_client_verify != SUCCESS) {{ return 403; }} return 200 "certified"; }}
    location /large {{ }}
  }}
}}
"#
    )
}

#[test]
fn nginx_lets_the_broker_in_and_the_step_sees_no_secret() {
    let Some(nginx) = Nginx::start() else { return };
    let world = nginx.world();
    let origin = nginx.origin();
    let common = [("base_url", origin.as_str()), ("ca_certificate", nginx.ca_pem.as_str())];
    let basic = [("username", "deploy"), ("password", "hunter22-x")];
    world.create("http/basic", "basic", &[common.as_slice(), &basic].concat());
    let (certificate, key) = &nginx.client;
    let certified = [("certificate", certificate.as_str()), ("private_key", key.as_str())];
    world.create("http/mtls", "mtls", &[common.as_slice(), &certified].concat());
    world.create("http/none", "none", &common);

    // nginx answers a body before it authenticates by "return", so the file decides.
    let sent = world.send(head("http/basic", "GET", "/basic"), &[]).unwrap();
    assert_eq!((sent.status, sent.text()), (200, "in: Basic ***".to_owned()));
    for (reference, status) in [("http/mtls", 200), ("http/none", 403)] {
        let sent = world.send(head(reference, "GET", "/certified"), &[]).unwrap();
        assert_eq!(sent.status, status, "{reference}");
    }
    // Without masks, the length is told and nothing is changed.
    let sent = world.send(head("http/none", "GET", "/large"), &[]).unwrap();
    assert_eq!(sent.header("content-length"), Some(LARGE.to_string().as_str()));
    assert_eq!(sent.body.len(), LARGE);
    let sent = world.send(head("http/basic", "GET", "/large"), &[]).unwrap();
    assert_eq!((sent.body.len(), sent.header("content-length")), (LARGE, None));
    let head = pb::SendHead { content_length: Some(0), ..head("http/basic", "HEAD", "/large") };
    let sent = world.send(head, &[]).unwrap();
    assert_eq!((sent.body.len(), sent.header("content-length")), (0, None));
}
