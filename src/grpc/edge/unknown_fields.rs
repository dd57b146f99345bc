//! Finds fields in a request that this version does not know.
//!
//! Decoding drops unknown fields. A request id stands for the whole request, so no field of a request with an id may be
//! dropped: one id would stand for two requests.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{Message as _, Name};
use prost_types::{DescriptorProto, FileDescriptorSet};
use tonic::{Code, Status};

use crate::grpc::convert::status;
use crate::grpc::pb;

/// The package of our messages, left out of their names here.
const PACKAGE: &str = "keyhatch.v1";

/// The fields of a message by number, each with its message type if it has one.
struct Shape {
    fields: HashMap<u32, Option<String>>,
    request_id: Option<u32>,
}

static SHAPES: LazyLock<HashMap<String, Shape>> = LazyLock::new(|| {
    let mut shapes = HashMap::new();
    for file in FileDescriptorSet::decode(pb::DESCRIPTORS).unwrap_or_default().file {
        for message in &file.message_type {
            add_shape(&mut shapes, file.package(), message);
        }
    }
    shapes
});

fn add_shape(shapes: &mut HashMap<String, Shape>, parent: &str, message: &DescriptorProto) {
    let name = format!("{parent}.{}", message.name());
    let number = |number: i32| u32::try_from(number).unwrap_or_default();
    let fields = message.field.iter().map(|field| {
        let message_type = field.type_name.as_deref().map(|name| short(name).to_owned());
        (number(field.number()), message_type)
    });
    let id = message.field.iter().find(|field| field.name() == "request_id");
    let shape =
        Shape { fields: fields.collect(), request_id: id.map(|field| number(field.number())) };
    for nested in &message.nested_type {
        add_shape(shapes, &name, nested);
    }
    shapes.insert(short(&name).to_owned(), shape);
}

/// The name of a message, without the package if it is ours.
fn short(name: &str) -> &str {
    let name = name.trim_start_matches('.');
    let ours = name.strip_prefix(PACKAGE).and_then(|rest| rest.strip_prefix('.'));
    ours.unwrap_or(name)
}

/// Checks that a message with a request id has no unknown field. It says nothing about malformed messages, which
/// decoding refuses.
///
/// # Errors
/// The status to answer with.
pub(crate) fn check<T: Name>(bytes: &[u8]) -> Result<(), Status> {
    let Some(shape) = SHAPES.get(T::NAME).filter(|_| T::PACKAGE == PACKAGE) else { return Ok(()) };
    let Some(request_id) = shape.request_id else { return Ok(()) };
    let has_id = fields(bytes)
        .any(|(number, value)| number == request_id && value.is_some_and(|text| !text.is_empty()));
    if !has_id || is_known(shape, bytes) {
        return Ok(());
    }
    let text = "the request has a request_id and a field that this broker does not know, and an id stands for a whole \
                request; send it without the field or without the id, or upgrade the broker";
    Err(status::refused_early(Code::InvalidArgument, "REQUEST_FIELD_UNKNOWN", text, None))
}

fn is_known(shape: &Shape, bytes: &[u8]) -> bool {
    fields(bytes).all(|(number, value)| {
        let Some(message_type) = shape.fields.get(&number) else { return false };
        let inner = message_type.as_ref().and_then(|name| SHAPES.get(name)).zip(value);
        inner.is_none_or(|(shape, bytes)| is_known(shape, bytes))
    })
}

/// The fields of a message as far as it is well formed: their numbers, and the bytes of length-delimited fields.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u32, Option<&[u8]>)> {
    std::iter::from_fn(move || {
        let (number, wire_type) = decode_key(&mut bytes).ok()?;
        if wire_type == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
            let (value, rest) = bytes.split_at_checked(length)?;
            bytes = rest;
            return Some((number, Some(value)));
        }
        skip_field(wire_type, number, &mut bytes, DecodeContext::default()).ok()?;
        Some((number, None))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> pb::CreateConnectionRequest {
        let fields = [("api_token".to_owned(), Vec::new())].into();
        let connection =
            pb::Connection { fields, expires: Some(Default::default()), ..Default::default() };
        pb::CreateConnectionRequest {
            connection: Some(connection),
            request_id: "r".to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn a_request_with_an_id_has_no_unknown_field_at_any_depth() {
        let check = check::<pb::CreateConnectionRequest>;
        let known = request().encode_to_vec();
        assert!(check(&known).is_ok());
        // Field 99, of each wire type.
        let strangers: [&[u8]; 4] = [
            &[0x98, 6, 1],
            &[0x99, 6, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x9a, 6, 0],
            &[0x9d, 6, 0, 0, 0, 0],
        ];
        for stranger in strangers {
            assert!(check(&[&known[..], stranger].concat()).is_err());
            // In the connection, which is merged.
            let inner = [&[0x0a, u8::try_from(stranger.len()).unwrap()], stranger].concat();
            assert!(check(&[&known[..], &inner].concat()).is_err());
            let without_id = pb::CreateConnectionRequest { request_id: String::new(), ..request() };
            assert!(check(&[&without_id.encode_to_vec()[..], stranger].concat()).is_ok());
        }
    }

    /// A map's entry may say its empty value, as most other implementations do.
    #[test]
    fn every_encoding_of_a_known_field_is_known() {
        let entry = [0x2a, 5, 0x0a, 1, b'a', 0x12, 0];
        let connection = [&[0x0a, u8::try_from(entry.len()).unwrap()], &entry[..]].concat();
        let bytes = [&request().encode_to_vec()[..], &connection].concat();
        assert!(pb::CreateConnectionRequest::decode(&*bytes).is_ok());
        assert!(check::<pb::CreateConnectionRequest>(&bytes).is_ok());
    }
}
