//! Handshakes that our own TLS library does not make, sent by OpenSSL.

use crate::harness::{skipped, succeeded};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Trial;
use super::world::{Door, World};

/// The first bytes of an HTTP/2 client: its preface and empty SETTINGS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A directory of files that openssl makes.
struct Workshop<'a> {
    world: &'a World,
    directory: PathBuf,
}

impl<'a> Workshop<'a> {
    fn new(world: &'a World) -> Self {
        let directory = world.scratch().join("openssl");
        std::fs::create_dir(&directory).unwrap();
        let shop = Self { world, directory };
        for door in Door::BOTH {
            let (certificate, key) = world.member_pem(door.issuer());
            shop.write(&format!("{}.crt", door.issuer()), &certificate);
            shop.write(&format!("{}.key", door.issuer()), &key);
            let extensions = format!(
                "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
                 extendedKeyUsage=clientAuth\nsubjectAltName=URI:spiffe://keyhatch.local/{}\n",
                door.path()
            );
            shop.write(&format!("{}.ext", door.issuer()), &extensions);
        }
        shop
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.join(name), text).unwrap();
    }

    fn run(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        succeeded(
            &command.args(arguments.split(' ')).current_dir(&self.directory).output().unwrap(),
        );
    }

    /// A certificate for a key of this kind, signed with this digest by the door's issuer.
    fn leaf(&self, door: Door, key: &str, digest: &str) -> PathBuf {
        let name = format!("{door:?}-{}", key.replace([' ', ':'], "-"));
        let leaf = self.directory.join(format!("{name}-{digest}"));
        std::fs::create_dir(&leaf).unwrap();
        let (issuer, leaf_name) = (door.issuer(), leaf.display());
        self.run(&format!("genpkey {key} -out {leaf_name}/tls.key"));
        self.run(&format!(
            "req -new -key {leaf_name}/tls.key -subj /CN=forged -out {leaf_name}/csr"
        ));
        self.run(&format!(
            "x509 -req -in {leaf_name}/csr -{digest} -CA {issuer}.crt -CAkey {issuer}.key -days 1 \
             -set_serial 7 -extfile {issuer}.ext -out {leaf_name}/tls.crt"
        ));
        leaf
    }

    /// The number of bytes that a server sends inside TLS to a client with this identity.
    fn said(&self, door: Door, identity: &Path, options: &str) -> usize {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-unix"]).arg(self.world.socket(door));
        command.arg("-CAfile").arg(self.world.home(door).join("ca.crt"));
        command.arg("-cert").arg(identity.join("tls.crt"));
        command.arg("-key").arg(identity.join("tls.key"));
        command.args(options.split_whitespace());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut client = command.spawn().unwrap();
        // The server may refuse the client before it has read everything.
        let mut stdin = client.stdin.take().unwrap();
        let _ = stdin.write_all(PREFACE);
        let _ = stdin.flush();
        // A server that admits the client sends its SETTINGS at once. Otherwise it ends the connection.
        let mut said = [0; 9];
        let count = client.stdout.take().unwrap().read(&mut said).unwrap();
        let _ = client.kill();
        client.wait().unwrap();
        count
    }
}

const USUAL: &str = "-alpn h2 -servername localhost -tls1_3";

/// OpenSSL makes and sends weak certificates only at its lowest security level.
const WEAK: &str = "-alpn h2 -servername localhost -cipher ALL:@SECLEVEL=0";

#[test]
fn another_tls_library_is_admitted_and_refused_like_ours() {
    if !Command::new("openssl").arg("version").output().is_ok_and(|ran| ran.status.success()) {
        skipped("handshakes by openssl", "not installed");
        return;
    }
    let mut trial = Trial::start();
    let (mut refused, mut faults) = (0, Vec::new());
    let shop = Workshop::new(&trial.world);
    for door in Door::BOTH {
        let home = trial.world.home(door);
        assert!(shop.said(door, &home, USUAL) > 0, "the control: {door:?}");
        let mut attempts = Vec::new();
        for options in [
            "-alpn h2 -servername localhost -tls1_2",
            "-alpn h2 -servername localhost -tls1_1 -cipher ALL:@SECLEVEL=0",
            "-alpn h2 -servername localhost -tls1 -cipher ALL:@SECLEVEL=0",
            "-alpn http/1.1 -servername localhost -tls1_3",
            "-servername localhost -tls1_3",
            "-alpn h2 -servername tmp%2Fx.sock -tls1_3",
            "-alpn h2 -servername ../admin.sock -tls1_3",
            "-alpn h2 -servername localhost -tls1_3 -groups X448",
            "-alpn h2 -servername localhost -tls1_3 -sigalgs RSA+SHA1:ECDSA+SHA1",
            "-alpn h2 -servername localhost -tls1_3 -ciphersuites TLS_AES_128_CCM_8_SHA256",
        ] {
            attempts.push((home.clone(), options));
        }
        for (key, digest) in [
            ("-algorithm RSA -pkeyopt rsa_keygen_bits:1024", "sha256"),
            ("-algorithm RSA -pkeyopt rsa_keygen_bits:512", "sha256"),
            ("-algorithm EC -pkeyopt ec_paramgen_curve:P-192", "sha256"),
            ("-algorithm EC -pkeyopt ec_paramgen_curve:P-224", "sha256"),
            ("-algorithm EC -pkeyopt ec_paramgen_curve:secp256k1", "sha256"),
            ("-algorithm ED448", "sha256"),
            ("-algorithm EC -pkeyopt ec_paramgen_curve:P-256", "sha1"),
            ("-algorithm EC -pkeyopt ec_paramgen_curve:P-256", "sha224"),
        ] {
            attempts.push((shop.leaf(door, key, digest), WEAK));
        }
        for (identity, options) in attempts {
            match shop.said(door, &identity, options) {
                0 => refused += 1,
                said => faults.push(format!("{door:?} {} {options}: {said}", identity.display())),
            }
        }
    }
    trial.refused += refused;
    trial.faults.extend(faults);
    trial.end("hostile handshakes: by openssl");
}
