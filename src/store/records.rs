//! A reader of the store's records, one after the other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::key::NoRecord;
use super::{StoreError, key};
use crate::seal::{RecordKey, Sealed};

/// One in so many chunks is looked up a second time. sled evicts pages only after 64 accesses in one of its 256 shards:
/// a reader that accesses each page once would keep 16,000 pages, 80 MB, whatever the cache's limit.
const CHUNKS_PER_LOOKUP: usize = 3;

/// Records, in the order of their keys. Few are in memory at a time: memory may not have room for a store twice.
pub(super) struct Records<'a> {
    db: &'a sled::Db,
    chunks: sled::Iter,
    /// The number of chunks read so far.
    read: usize,
    path: &'a Path,
    /// The record whose chunks are being joined: its key, the first chunk, and the later chunks.
    joined: Option<(RecordKey, sled::IVec, Vec<u8>)>,
}

impl<'a> Records<'a> {
    /// All records.
    pub(super) fn of(db: &'a sled::Db, path: &'a Path) -> Self {
        Self { db, chunks: db.iter(), read: 0, path, joined: None }
    }

    /// All records, the values of each resource right before its metadata.
    pub(super) fn by_resource(
        db: &'a sled::Db,
        path: &'a Path,
    ) -> impl Iterator<Item = <Self as Iterator>::Item> {
        let in_range = |chunks| Self { chunks, ..Self::of(db, path) };
        let mut values = in_range(db.range(..key::AFTER_VALUES)).peekable();
        let mut others = in_range(db.range(key::AFTER_VALUES..)).peekable();
        std::iter::from_fn(move || match (values.peek(), others.peek()) {
            (Some(Ok((one, _))), Some(Ok((other, _)))) if key::owner(*one) > key::owner(*other) => {
                others.next()
            }
            (Some(_), _) => values.next(),
            (None, _) => others.next(),
        })
    }

    fn damaged(&self, what: &str) -> StoreError {
        StoreError::Damaged { path: self.path.to_owned(), what: what.to_owned() }
    }

    /// The next chunk; sled panics on some kinds of damage.
    fn chunk(&mut self) -> Result<Option<(sled::IVec, sled::IVec)>, StoreError> {
        let chunk = catch_unwind(AssertUnwindSafe(|| {
            let chunk = self.chunks.next().transpose()?;
            self.read += 1;
            if let Some((key, _)) =
                chunk.as_ref().filter(|_| self.read.is_multiple_of(CHUNKS_PER_LOOKUP))
            {
                self.db.contains_key(key)?;
            }
            Ok::<_, sled::Error>(chunk)
        }));
        let chunk = chunk.map_err(|_| self.damaged("its pages cannot be read"))?;
        chunk.map_err(|error| self.damaged(&error.to_string()))
    }

    fn record(&mut self) -> Result<Option<(RecordKey, Sealed)>, StoreError> {
        loop {
            let Some((stored, chunk)) = self.chunk()? else { break };
            let (key, number) = key::parse(&stored).map_err(|fault| match fault {
                NoRecord::Malformed => self.damaged("an unknown record"),
                NoRecord::Newer => StoreError::Newer(self.path.to_owned()),
            })?;
            match &mut self.joined {
                Some((same, _, rest)) if *same == key && number > 0 => {
                    rest.extend_from_slice(&chunk);
                }
                joined => {
                    if let Some(whole) = joined.replace((key, chunk, Vec::new())) {
                        return self.parse(whole).map(Some);
                    }
                }
            }
        }
        self.joined.take().map(|whole| self.parse(whole)).transpose()
    }

    fn parse(
        &self,
        (key, first, rest): (RecordKey, sled::IVec, Vec<u8>),
    ) -> Result<(RecordKey, Sealed), StoreError> {
        let sealed = match rest.as_slice() {
            // Most records have one chunk, which is copied once.
            [] => Sealed::parse(&first),
            rest => Sealed::parse(&[&first, rest].concat()),
        };
        let sealed = sealed.map_err(|_| self.damaged("a malformed record"))?;
        Ok((key, sealed))
    }
}

impl Iterator for Records<'_> {
    type Item = Result<(RecordKey, Sealed), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.record().transpose()
    }
}
