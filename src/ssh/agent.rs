//! Messages between a client and its agent: draft-ietf-sshm-ssh-agent, and OpenSSH's extension `session-bind`
//! (PROTOCOL.agent).
//!
//! An agent of the broker lists its key and signs. It takes no key, removes none and has no lock.

use super::MAX_PUBLIC_KEY_BYTES;
use super::login::MAX_LOGIN_BYTES;
use super::wire::{Malformed, Reader, put_string};

/// The longest message of a client that is read, in bytes.
pub const MAX_MESSAGE_BYTES: usize = MAX_LOGIN_BYTES + MAX_PUBLIC_KEY_BYTES + 64;

const FAILURE: u8 = 5;
const SUCCESS: u8 = 6;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
const EXTENSION: u8 = 27;

/// A request of a client.
#[derive(Debug, PartialEq, Eq)]
pub enum AgentRequest<'a> {
    /// The client names the session that its connection is for.
    Bind {
        /// True if the connection comes from another host, by ssh -A.
        is_forwarded: bool,
    },
    /// The client asks for the keys.
    Identities,
    /// The client asks for a signature. The data of a login names its key and algorithm, so the message's key and flags say
    /// nothing new.
    Sign {
        /// What is to be signed.
        data: &'a [u8],
    },
    /// Anything else. The agent refuses it.
    Other,
}

impl<'a> AgentRequest<'a> {
    /// Parses a message, without its length.
    ///
    /// # Errors
    /// If a request that is known is of another form.
    pub fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(message);
        let request = match reader.byte()? {
            REQUEST_IDENTITIES => Self::Identities,
            SIGN_REQUEST => {
                let (_public_key, data, _flags) =
                    (reader.string()?, reader.string()?, reader.number()?);
                Self::Sign { data }
            }
            EXTENSION if reader.string()? == b"session-bind@openssh.com" => {
                let (_host_key, _session, _signature) =
                    (reader.string()?, reader.string()?, reader.string()?);
                Self::Bind { is_forwarded: reader.boolean()? }
            }
            _ => return Ok(Self::Other),
        };
        reader.end()?;
        Ok(request)
    }
}

/// A key that an agent lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The public key.
    pub public_key: Vec<u8>,
    /// A text for people.
    pub comment: String,
}

/// The answer that lists keys, with its length.
pub fn identities(keys: &[Identity]) -> Vec<u8> {
    let mut body = vec![IDENTITIES_ANSWER];
    body.extend(u32::try_from(keys.len()).unwrap_or(u32::MAX).to_be_bytes());
    for key in keys {
        put_string(&mut body, &key.public_key);
        put_string(&mut body, key.comment.as_bytes());
    }
    framed(&body)
}

/// The answer with a signature, with its length.
pub fn signed(signature: &[u8]) -> Vec<u8> {
    let mut body = vec![SIGN_RESPONSE];
    put_string(&mut body, signature);
    framed(&body)
}

/// The answer to what is refused, with its length.
pub fn failure() -> Vec<u8> {
    framed(&[FAILURE])
}

/// The answer to what is done, with its length.
pub fn success() -> Vec<u8> {
    framed(&[SUCCESS])
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    put_string(&mut message, body);
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_agent_knows_three_requests_and_refuses_the_others() {
        let mut sign = vec![SIGN_REQUEST];
        put_string(&mut sign, b"key");
        put_string(&mut sign, b"data");
        assert_eq!(AgentRequest::parse(&sign), Err(Malformed));
        sign.extend(4_u32.to_be_bytes());
        assert_eq!(AgentRequest::parse(&sign), Ok(AgentRequest::Sign { data: b"data" }));
        sign.push(0);
        assert_eq!(AgentRequest::parse(&sign), Err(Malformed));
        assert_eq!(AgentRequest::parse(&[REQUEST_IDENTITIES]), Ok(AgentRequest::Identities));
        assert_eq!(AgentRequest::parse(&[]), Err(Malformed));
        // Add, remove, remove all, lock, unlock, smartcard, constrained, extensions.
        let query = [&[EXTENSION][..], &5_u32.to_be_bytes(), b"query"].concat();
        for other in [&[17][..], &[18], &[19], &[22], &[23], &[20], &[25], &[255], &query] {
            assert_eq!(AgentRequest::parse(other), Ok(AgentRequest::Other), "{other:?}");
        }
    }

    #[test]
    fn a_session_tells_whether_it_is_forwarded() {
        for is_forwarded in [false, true] {
            let mut bind = vec![EXTENSION];
            for part in [&b"session-bind@openssh.com"[..], b"host", b"session", b"signature"] {
                put_string(&mut bind, part);
            }
            bind.push(is_forwarded.into());
            assert_eq!(AgentRequest::parse(&bind), Ok(AgentRequest::Bind { is_forwarded }));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_message_is_parsed_without_a_panic(
            kind in prop_oneof![Just(11_u8), Just(13), Just(27), any::<u8>()],
            rest in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let _ = AgentRequest::parse(&[&[kind][..], &rest].concat());
        }
    }
}
