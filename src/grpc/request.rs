//! Requests of the API: how each message becomes a request that cannot be malformed.

use prost::{Message, Name};
use tonic::Status;

use super::convert;
use super::edge::unknown_fields;
use crate::broker::Error;

/// A message that asks for something.
pub trait ApiRequest: Message + Name + Default {
    /// The request in the types of the broker.
    type Parsed;

    /// Parses the message.
    ///
    /// # Errors
    /// The first part of the message that is malformed or over a limit.
    fn parse(self) -> Result<Self::Parsed, Error>;

    /// The id under which the client may send the request again; empty if it gave no id.
    fn request_id(&self) -> &str {
        ""
    }

    /// True if the request is checked and changes nothing.
    fn validate_only(&self) -> bool {
        false
    }
}

/// Implements [`ApiRequest`], a row for each message: `Message [optional fields] -> Parsed = |message| expression;`.
macro_rules! parse_requests {
    (@request_id) => {
        fn request_id(&self) -> &str {
            &self.request_id
        }
    };
    (@validate_only) => {
        fn validate_only(&self) -> bool {
            self.validate_only
        }
    };
    ($($message:ident $([$($field:ident)+])? -> $parsed:ty = |$one:pat_param| $parse:expr;)*) => {$(
        impl $crate::grpc::request::ApiRequest for $crate::grpc::pb::$message {
            type Parsed = $parsed;

            fn parse(self) -> Result<$parsed, $crate::broker::Error> {
                let $one = self;
                $parse
            }

            $($($crate::grpc::request::parse_requests!(@$field);)+)?
        }
    )*};
}
pub(super) use parse_requests;

/// Reads a request from its bytes as its service does. `None` if the bytes are not such a message.
///
/// The fuzzer reads requests by this function, without a connection and without a broker.
pub fn read<T: ApiRequest>(bytes: &[u8]) -> Option<Result<T::Parsed, Status>> {
    if let Err(status) = unknown_fields::check::<T>(bytes) {
        return Some(Err(status));
    }
    let message = T::decode(bytes).ok()?;
    let id = convert::request_id(message.request_id());
    Some(id.and_then(|_| message.parse()).map_err(Status::from))
}
