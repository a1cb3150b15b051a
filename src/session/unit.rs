//! Finds the next unit of work in what a client has sent: what PostgreSQL takes as one implicit transaction.

use smallvec::SmallVec;

use crate::error::Error;
use crate::wire::frame::{Header, client};

/// Frames at the front of a client's input that are handled together.
#[derive(Debug, PartialEq)]
pub(super) enum Unit {
    /// More must be read first.
    Incomplete,
    /// The client leaves.
    Terminate,
    /// A frame without a meaning here, to be dropped: copy data after a failed copy, Flush between units.
    Stray(Header),
    /// A Query of this length; `whole`: all of it is there.
    Query {
        header: Header,
        whole: bool,
    },
    FunctionCall(Header),
    /// Messages of the extended protocol.
    Extended(Extended),
    /// No client sends this.
    Unknown(u8),
}

#[derive(Debug, PartialEq)]
pub(super) struct Extended {
    pub frames: Frames,
    /// The last frame is a Sync. Else a Flush, or so much that it must be sent on.
    pub complete: bool,
}

/// Whole frames, by kind and place in the input, headers included.
pub(super) type Frames = SmallVec<[Frame; 5]>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub kind: u8,
    start: u32,
    end: u32,
}

impl Frame {
    pub(super) fn body(self, input: &[u8]) -> &[u8] {
        &input[self.start as usize + Header::BYTES..self.end()]
    }

    pub(super) fn end(self) -> usize {
        self.end as usize
    }

    fn new(kind: u8, start: usize, end: usize) -> Self {
        let place = |at| u32::try_from(at).expect("a unit is cut long before 4 GiB");
        Self { kind, start: place(start), end: place(end) }
    }
}

/// Looks at `input`, takes nothing.
pub(super) fn next(input: &[u8]) -> Result<Unit, Error> {
    let Some(header) = Header::read(input)? else { return Ok(Unit::Incomplete) };
    let whole = header.length <= input.len();
    Ok(match header.kind {
        client::TERMINATE => Unit::Terminate,
        client::QUERY if whole || header.length > STATEMENT_BYTES => Unit::Query { header, whole },
        client::FUNCTION_CALL if whole => Unit::FunctionCall(header),
        client::QUERY => Unit::Incomplete,
        client::FUNCTION_CALL if header.length > STATEMENT_BYTES => {
            return Err(crate::wire::frame::malformed("a function call longer than 16 MiB"));
        }
        client::FUNCTION_CALL => Unit::Incomplete,
        client::FLUSH | client::COPY_DATA | client::COPY_DONE | client::COPY_FAIL => Unit::Stray(header),
        client::PARSE | client::BIND | client::DESCRIBE | client::EXECUTE | client::CLOSE | client::SYNC => {
            extended(input)?
        }
        other => Unit::Unknown(other),
    })
}

fn extended(input: &[u8]) -> Result<Unit, Error> {
    let mut frames = Frames::new();
    let mut start = 0;
    while let Some(header) = Header::read(&input[start..])? {
        let end = start + header.length;
        match header.kind {
            client::PARSE | client::BIND | client::DESCRIBE | client::EXECUTE | client::CLOSE => {}
            client::SYNC | client::FLUSH => {}
            // What it means depends on how those before it end: they are sent on first.
            client::QUERY | client::FUNCTION_CALL | client::TERMINATE => return Ok(unfinished(frames)),
            client::COPY_DATA | client::COPY_DONE | client::COPY_FAIL => return Ok(unfinished(frames)),
            other => return Ok(Unit::Unknown(other)),
        }
        if end > input.len() {
            // Parameters longer than this are sent on as they come.
            if header.length > STATEMENT_BYTES {
                return Ok(unfinished(frames));
            }
            break;
        }
        frames.push(Frame::new(header.kind, start, end));
        start = end;
        match header.kind {
            client::SYNC => return Ok(Unit::Extended(Extended { frames, complete: true })),
            client::FLUSH => return Ok(unfinished(frames)),
            _ => {}
        }
    }
    if start >= UNIT_BYTES { Ok(unfinished(frames)) } else { Ok(Unit::Incomplete) }
}

/// What has come of an incomplete unit, if something of it is to be executed: its client may wait for an error before it
/// says more. `timed`: whatever it is; a server is to count how long the client takes.
pub(super) fn as_it_stands(input: &[u8], timed: bool) -> Option<Unit> {
    let mut frames = Frames::new();
    let mut start = 0;
    while let Ok(Some(header)) = Header::whole(&input[start..]) {
        frames.push(Frame::new(header.kind, start, start + header.length));
        start += header.length;
    }
    frames.iter().any(|frame| timed || frame.kind == client::EXECUTE).then(|| unfinished(frames))
}

fn unfinished(frames: Frames) -> Unit {
    Unit::Extended(Extended { frames, complete: false })
}

/// A statement or its parameters up to this are read whole before anything is decided.
pub(super) const STATEMENT_BYTES: usize = 16 * 1024 * 1024;
/// So much of a unit is looked at before it is sent on without its end.
const UNIT_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind][..], &length.to_be_bytes(), body].concat()
    }

    fn kinds(unit: Unit) -> (String, bool) {
        let Unit::Extended(extended) = unit else { panic!("{unit:?}") };
        (extended.frames.iter().map(|frame| frame.kind as char).collect(), extended.complete)
    }

    #[test]
    fn a_unit_ends_at_its_sync() {
        let pipeline = [frame(b'P', b"\0\0"), frame(b'B', b""), frame(b'S', b""), frame(b'B', b"")].concat();
        assert_eq!(kinds(next(&pipeline).unwrap()), ("PBS".to_owned(), true));
        for end in 0..pipeline.len() - 5 {
            assert_eq!(next(&pipeline[..end]), Ok(Unit::Incomplete), "{end} bytes");
        }
        for other in [frame(b'Q', b"\0"), frame(b'F', b""), frame(b'd', b"1"), frame(b'X', b"")] {
            assert_eq!(kinds(next(&[frame(b'P', b"\0\0"), other].concat()).unwrap()), ("P".to_owned(), false));
        }
        assert_eq!(next(&[frame(b'P', b"\0\0"), frame(b'?', b"")].concat()), Ok(Unit::Unknown(b'?')));
        let flushed = [frame(b'P', b"\0\0"), frame(b'H', b"")].concat();
        assert_eq!(kinds(next(&flushed).unwrap()), ("PH".to_owned(), false));
    }

    #[test]
    fn much_is_sent_on_before_its_end() {
        let many = frame(b'B', &[0; 1000]).repeat(66);
        let (frames, complete) = kinds(next(&many).unwrap());
        assert_eq!((frames.len(), complete), (66, false));
        let long = [&b"B"[..], &0x2000_0000u32.to_be_bytes(), b"x"].concat();
        assert_eq!(kinds(next(&long).unwrap()), (String::new(), false));
    }

    #[test]
    fn single_frames() {
        let header = |kind, length| Header { kind, length };
        assert_eq!(next(&frame(b'X', b"")), Ok(Unit::Terminate));
        assert_eq!(next(&frame(b'Q', b"a\0")), Ok(Unit::Query { header: header(b'Q', 7), whole: true }));
        assert_eq!(next(&frame(b'd', b"a")), Ok(Unit::Stray(header(b'd', 6))));
        assert_eq!(next(&frame(b'?', b"a")), Ok(Unit::Unknown(b'?')));
        assert!(next(b"Q\0\0\0\x01").is_err());
    }
}
