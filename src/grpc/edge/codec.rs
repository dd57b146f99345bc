//! Encodes and decodes messages in buffers of fitting sizes.
//!
//! tonic's own codec allocates 8 KiB for every request and 8 KiB for every reply. Most of it stays empty, and all of it
//! is wiped when it is freed (benches/RESULTS.md).

use std::marker::PhantomData;

use prost::bytes::Buf as _;
use prost::{Message, Name};
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

use super::unknown_fields;

/// The initial buffer of a request. Most are smaller, and it grows for a larger one.
const REQUEST_BYTES: usize = 256;
/// The initial buffer of a reply: the smallest padded credential, and its head.
const REPLY_BYTES: usize = 2 * 1024 + 64;
/// When the messages of a stream go to the transport, as in tonic.
const YIELD_BYTES: usize = 32 * 1024;

/// The prost codec that the generated code uses.
pub struct Codec<T, U>(PhantomData<fn(T) -> U>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + 'static,
    U: Message + Name + Default + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = MessageEncoder<T>;
    type Decoder = MessageDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        MessageEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        MessageDecoder(ProstDecoder::new(BufferSettings::new(REQUEST_BYTES, YIELD_BYTES)))
    }
}

/// Decodes requests.
pub struct MessageDecoder<U>(ProstDecoder<U>);

impl<U: Message + Name + Default> Decoder for MessageDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // tonic calls this when the whole message is there, in one piece.
        unknown_fields::check::<U>(buffer.chunk())?;
        self.0.decode(buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// Encodes replies.
pub struct MessageEncoder<T>(PhantomData<fn(T)>);

impl<T: Message> Encoder for MessageEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // A growing buffer would be copied and wiped again and again.
        buffer.reserve(message.encoded_len());
        message.encode_raw(buffer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(REPLY_BYTES, YIELD_BYTES)
    }
}
