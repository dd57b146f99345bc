//! Messages on their way in and out of buffers that fit them.
//!
//! tonic's own codec takes 8 KiB for every request and 8 KiB for every reply, of which most stay empty, and all of which
//! are wiped when they are freed (benches/README.md).

use std::marker::PhantomData;

use prost::bytes::{Buf as _, BufMut as _};
use prost::{Message, Name};
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

use super::unknown_fields;

/// What a request is read into; most are smaller, and a larger one gets what it needs.
const REQUEST_BYTES: usize = 256;
/// What a reply is written into: the least size of one with a credential, and its head.
const REPLY_BYTES: usize = 2 * 1024 + 64;
/// When a stream's messages go to the transport; tonic's own.
const YIELD_BYTES: usize = 32 * 1024;

/// prost's messages, as tonic's generated code wants them.
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

/// Reads messages.
pub struct MessageDecoder<U>(ProstDecoder<U>);

impl<U: Message + Name + Default> Decoder for MessageDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // A message is read when it is there as a whole, in one piece.
        unknown_fields::check::<U>(buffer.chunk())?;
        self.0.decode(buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// Writes messages.
pub struct MessageEncoder<T>(PhantomData<fn(T)>);

impl<T: Message> Encoder for MessageEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // Into a vector, which takes a byte without a call, and from there at once: a buffer that grows is copied, and
        // what it was is wiped, time and again. The vector is wiped when it is freed, as all are.
        buffer.put_slice(&message.encode_to_vec());
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(REPLY_BYTES, YIELD_BYTES)
    }
}
