//! Tests of which bytes pass the strict reader, and that the result does not depend on how the bytes arrive.

mod property;
mod served;
mod table;

use std::collections::VecDeque;
use std::task::Waker;

use http::Request;

use super::*;

/// A client that sends prepared pieces and then closes.
struct Pieces(VecDeque<Vec<u8>>);

impl Pieces {
    /// Splits `bytes` into pieces of at most `size` bytes.
    fn of(bytes: &[u8], size: usize) -> Pieces {
        Pieces(bytes.chunks(size.max(1)).map(<[u8]>::to_vec).collect())
    }
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(mut piece) = self.0.pop_front() {
            let rest = piece.split_off(piece.len().min(buf.remaining()));
            buf.put_slice(&piece);
            if !rest.is_empty() {
                self.0.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The result of reading through a strict reader.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// The client's own bytes that passed.
    passed: Vec<u8>,
    /// Number of heads among them.
    heads: u64,
    violation: Option<Violation>,
}

/// Reads all bytes of `client`, in a buffer of `room` bytes. No request is answered.
fn read(client: Pieces, room: usize) -> Seen {
    let (mut reader, handle) = StrictReader::new(client, Duration::from_mins(1));
    let mut cx = Context::from_waker(Waker::noop());
    let mut seen = Seen { passed: Vec::new(), heads: 0, violation: None };
    let mut room = vec![0; room];
    loop {
        let mut buf = ReadBuf::new(&mut room);
        match Pin::new(&mut reader).poll_read(&mut cx, &mut buf) {
            Poll::Ready(Ok(())) if buf.filled().is_empty() => break,
            Poll::Ready(Ok(())) => seen.passed.extend_from_slice(buf.filled()),
            Poll::Ready(Err(error)) => {
                seen.violation = error.get_ref().and_then(|error| error.downcast_ref()).copied();
                assert!(seen.violation.is_some(), "{error}");
                break;
            }
            Poll::Pending => break,
        }
    }
    seen.heads = reader.heads;
    for number in 0..reader.heads {
        let mut request = Request::new(());
        let _ = handle.arrive(&mut request);
        if let Some(rejected) = RejectedRequest::of(&request) {
            assert_eq!(number + 1, reader.heads, "nothing follows a malformed head");
            let in_place = [IN_PLACE, IN_PLACE_OF_HEAD].into_iter().find(|own| seen.passed.ends_with(own));
            seen.passed.truncate(seen.passed.len() - in_place.unwrap().len());
            seen.heads -= 1;
            seen.violation = Some(rejected.violation);
        }
    }
    seen
}
