//! SSH, as far as a signature for a login needs it (pure): keys, login requests, host keys, and the agent protocol.
//!
//! | file | |
//! |---|---|
//! | `wire` | the data types (RFC 4251, section 5) |
//! | `private_key` | private keys in OpenSSH's format, PKCS#8, PKCS#1 and SEC1; signatures (RFC 4253, 5656, 8332, 8709) |
//! | `remainder` | the numbers that OpenSSH's format of an RSA key leaves out |
//! | `login` | what a client signs to log in (RFC 4252, section 7) |
//! | `host_keys` | the host keys of a `known_hosts` file |
//! | `agent` | messages of an agent (draft-ietf-sshm-ssh-agent) |

mod agent;
mod host_keys;
mod login;
mod private_key;
mod remainder;
pub mod wire;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

pub use agent::{AgentRequest, Identity, MAX_MESSAGE_BYTES, failure, identities, signed, success};
pub use host_keys::{HostKeys, decoded};
pub use login::{Algorithm, LoginRequest, MAX_LOGIN_BYTES, NotALogin};
pub use private_key::{KeyFault, SigningKey};

/// The longest public key, in bytes. RSA keys of 8192 bits have some 1,050.
pub const MAX_PUBLIC_KEY_BYTES: usize = 2048;

/// The fingerprint of a public key, as ssh prints it: `SHA256:` and the hash without padding.
pub fn fingerprint(public_key: &[u8]) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, public_key);
    format!("SHA256:{}", STANDARD_NO_PAD.encode(hash))
}
