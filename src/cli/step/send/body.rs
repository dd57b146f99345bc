//! The body of a request, from the command line, a file or stdin.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use futures_util::future::Either;
use futures_util::{Stream, stream};
use hyper::body::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::exchange::MAX_PIECE_BYTES;
use crate::cli::io::failure::{Failure, exit};

/// The body of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum RequestBody {
    Nothing,
    Text(String),
    File(PathBuf),
    Stdin,
}

impl RequestBody {
    /// Parses `TEXT`, `@FILE` or `-`. `@-` is stdin, too.
    pub fn parse(text: Option<String>) -> Self {
        match text {
            None => Self::Nothing,
            Some(text) if text == "-" || text == "@-" => Self::Stdin,
            Some(text) => match text.strip_prefix('@') {
                Some(file) => Self::File(PathBuf::from(file)),
                None => Self::Text(text),
            },
        }
    }

    /// The length in bytes, and the bytes. The length of a pipe is not known.
    pub fn open(
        self,
    ) -> Result<(Option<u64>, impl Stream<Item = io::Result<Bytes>> + Send + 'static), Failure>
    {
        Ok(match self {
            Self::Nothing => (Some(0), Either::Left(stream::iter(None))),
            Self::Text(text) => {
                let bytes = Bytes::from(text);
                (u64::try_from(bytes.len()).ok(), Either::Left(stream::iter(Some(Ok(bytes)))))
            }
            Self::File(path) => {
                let unreadable = |error: io::Error| {
                    let text = format!("--data @{}: {error}", path.display());
                    Failure::new("FILE", text, exit::USAGE)
                };
                let file = File::open(&path).map_err(unreadable)?;
                let metadata = file.metadata().map_err(unreadable)?;
                let length = metadata.is_file().then_some(metadata.len());
                (length, Either::Right(read(Box::new(file))))
            }
            Self::Stdin => (None, Either::Right(read(Box::new(io::stdin())))),
        })
    }
}

/// Reads in a thread of its own, a piece ahead. The thread ends with the process: a read of a terminal cannot be ended.
fn read(mut source: Box<dyn Read + Send>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut buffer = vec![0; MAX_PIECE_BYTES];
        loop {
            let piece = match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => Ok(Bytes::copy_from_slice(buffer.get(..read).unwrap_or_default())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let is_last = piece.is_err();
            if sender.blocking_send(piece).is_err() || is_last {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;

    use super::*;

    #[tokio::test]
    async fn every_form_of_data_is_understood() {
        let parse = |text: &str| RequestBody::parse(Some(text.to_owned()));
        assert_eq!(RequestBody::parse(None), RequestBody::Nothing);
        assert_eq!(parse("a=b"), RequestBody::Text("a=b".to_owned()));
        assert_eq!(parse("@a/b"), RequestBody::File(PathBuf::from("a/b")));
        assert_eq!((parse("-"), parse("@-")), (RequestBody::Stdin, RequestBody::Stdin));
        assert!(parse("@/does/not/exist").open().is_err());
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let content = vec![7; 3 * MAX_PIECE_BYTES + 1];
        io::Write::write_all(&mut file, &content).unwrap();
        let (length, bytes) = RequestBody::File(file.path().to_owned()).open().unwrap();
        assert_eq!(length, u64::try_from(content.len()).ok());
        assert_eq!(bytes.try_collect::<Vec<Bytes>>().await.unwrap().concat(), content);
    }
}
