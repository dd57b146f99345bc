//! The host keys of a `known_hosts` file: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT.
//!
//! A login names the host's key and not its name, so only keys are compared. ssh itself checks that the key is the named
//! host's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// The keys of hosts, and those that are revoked.
#[derive(Default)]
pub struct HostKeys {
    known: Vec<Vec<u8>>,
    revoked: Vec<Vec<u8>>,
}

impl HostKeys {
    /// Reads a file, or the Base64 of one. Lines that are not understood name no key. The key of a certificate authority
    /// is no host's.
    pub fn parse(file: &[u8]) -> Self {
        let file = decoded(file);
        let mut keys = Self::default();
        for line in String::from_utf8_lossy(&file).lines() {
            let mut words = line.split_whitespace().peekable();
            let marker = words.next_if(|word| word.starts_with('@'));
            let hosts = words.next().filter(|hosts| !hosts.starts_with('#')).unwrap_or_default();
            let names_a_host =
                hosts.split(',').any(|host| !host.is_empty() && !host.starts_with('!'));
            // The type, which the key has in it, and the key.
            let key = words.nth(1).and_then(|key| STANDARD.decode(key).ok());
            match (marker, key) {
                (None, Some(key)) if names_a_host => keys.known.push(key),
                (Some("@revoked"), Some(key)) => keys.revoked.push(key),
                _ => {}
            }
        }
        keys
    }

    /// True if it is the key of a host, and not revoked.
    pub fn accept(&self, host_key: &[u8]) -> bool {
        let has = |keys: &[Vec<u8>]| keys.iter().any(|key| key == host_key);
        has(&self.known) && !has(&self.revoked)
    }
}

/// What a text is the Base64 of, or else the text itself.
pub fn decoded(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let lines: Zeroizing<Vec<u8>> =
        Zeroizing::new(text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect());
    let decoded = STANDARD.decode(&*lines).ok().filter(|decoded| !decoded.is_empty());
    Zeroizing::new(decoded.unwrap_or_else(|| text.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_key_is_accepted_unless_it_is_revoked() {
        let file = "# c x AAAA\n\nhost,[other]:22 ssh-ed25519 AQID a comment\n|1|aa=|bb= ssh-rsa BAUG\n\
                    @cert-authority * ssh-ed25519 BwgJ\n@revoked * ssh-ed25519 Cgss\nhost ssh-ed25519 Cgss\nhost x !\n\
                    \t# ssh-ed25519 DQ4P\n!a,!b ssh-ed25519 EBES\n!a,b ssh-ed25519 ExQV\n";
        for file in [file.to_owned(), STANDARD.encode(file)] {
            let keys = HostKeys::parse(file.as_bytes());
            let accepted = |key: [u8; 3]| keys.accept(&key);
            assert!(accepted([1, 2, 3]) && accepted([4, 5, 6]));
            assert!(accepted([19, 20, 21]));
            assert!(!accepted([13, 14, 15]) && !accepted([16, 17, 18]));
            assert!(!accepted([7, 8, 9]) && !accepted([10, 11, 44]) && !accepted([0, 0, 0]));
        }
        assert!(!HostKeys::parse(b"").accept(b""));
    }
}
