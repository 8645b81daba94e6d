//! The framing rules that a request can break, and the message that its sender gets.

use std::fmt;

use onecli_model::{Code, Refusal};

/// A rule of HTTP/1 framing that a request broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Not `method SP target SP version` (RFC 9112 section 3).
    RequestLine,
    /// A character in the target that no URI holds (RFC 3986 appendix A).
    TargetCharacter(u8),
    /// A fragment. Clients never send one (RFC 9110 section 7.1).
    Fragment,
    /// None of the four forms of RFC 9112 section 3.2, or one that does not fit the method.
    TargetForm,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    Version,
    /// A line that ends with LF alone (RFC 9112 section 2.2 lets a recipient accept it; the next one may not).
    BareLf,
    /// CR without LF (RFC 9112 section 2.2).
    BareCr,
    /// A field line that begins with white space: obs-fold (RFC 9112 section 5.2).
    Folded,
    /// A field name that is no token, or is not followed by its colon at once (RFC 9112 section 5.1).
    FieldName,
    /// A control character in a field value (RFC 9110 section 5.5).
    FieldValue,
    /// The head is longer than its bound.
    TooLarge,
    /// The trailer section is longer than its bound.
    TrailersTooLarge,
    /// More fields than the bound.
    TooManyFields,
    /// The head took longer than its time limit.
    Slow,
    /// Newer connections from the same address displaced this one before the client identified itself.
    Displaced,
    /// The connection ended inside the head.
    CutOff,
    /// HTTP/1.1 without `Host` (RFC 9112 section 3.2).
    HostMissing,
    /// More than one `Host`.
    HostTwice,
    /// `Content-Length` is not one number (RFC 9110 section 8.6).
    LengthInvalid,
    /// More than one `Content-Length`, equal or not (RFC 9112 section 6.3 lets a recipient refuse equal ones).
    LengthTwice,
    /// `Transfer-Encoding` is not `chunked` (RFC 9112 section 6.1).
    CodingUnknown,
    /// More than one `Transfer-Encoding`.
    CodingTwice,
    /// Both `Content-Length` and `Transfer-Encoding` (RFC 9112 section 6.1: an attempt at smuggling).
    LengthAndCoding,
    /// `Transfer-Encoding` in HTTP/1.0, which does not define it (RFC 9112 section 6.1).
    CodingInHttp10,
    /// CONNECT with content (RFC 9110 section 9.3.6).
    ConnectContent,
    /// TRACE, whose response echoes the request.
    Trace,
    /// A chunk whose size line is not hexadecimal digits (RFC 9112 section 7.1).
    ChunkSize,
    /// Chunk extensions longer than their bound (RFC 9112 section 7.1.1).
    ChunkExtension,
    /// A chunk that is longer than its size.
    ChunkEnd,
    /// A trailer field that frames, routes or authenticates (RFC 9110 section 6.5.1).
    TrailerField,
}

impl Violation {
    /// Code, message and hint.
    fn text(self) -> (Code, &'static str, &'static str) {
        const BAD: Code = Code::BadRequest;
        const SMALLER: &str = "send fewer and shorter fields";
        match self {
            Violation::RequestLine => (
                BAD,
                "the request line is not 'METHOD TARGET HTTP/1.1'",
                "speak HTTP/1.1 (RFC 9112 section 3)",
            ),
            Violation::TargetCharacter(_) => {
                (BAD, "the request target has a character that URIs forbid", "percent-encode it (RFC 3986)")
            }
            Violation::Fragment => (
                BAD,
                "the request target has a fragment",
                "remove '#' and the text after it, or encode it as %23",
            ),
            Violation::TargetForm => (
                BAD,
                "the request target is neither a path, nor a URL, nor the host:port of a CONNECT",
                "send a target in a form of RFC 9112 section 3.2",
            ),
            Violation::Version => (
                Code::VersionUnsupported,
                "the version is neither HTTP/1.1 nor HTTP/1.0",
                "use HTTP/1.1, or HTTP/2 if TLS negotiates it",
            ),
            Violation::BareLf => (BAD, "a line of the request ends with LF alone", "end lines with CR LF"),
            Violation::BareCr => (BAD, "the request has a CR without an LF", "end lines with CR LF"),
            Violation::Folded => (
                BAD,
                "a header field is folded over two lines",
                "send each field on one line (RFC 9112 section 5.2)",
            ),
            Violation::FieldName => (
                BAD,
                "a header field's name is not a token followed by a colon",
                "send 'Name: value', with no space before the colon (RFC 9112 section 5.1)",
            ),
            Violation::FieldValue => (
                BAD,
                "a header field's value contains a control character",
                "send text only (RFC 9110 section 5.5)",
            ),
            Violation::TooLarge => {
                (Code::HeadTooLarge, "the request's header section is larger than 64 KiB", SMALLER)
            }
            Violation::TrailersTooLarge => {
                (Code::HeadTooLarge, "the request's trailer section is larger than 8 KiB", SMALLER)
            }
            Violation::TooManyFields => {
                (Code::HeadTooLarge, "the request has more than 4,096 header fields", SMALLER)
            }
            Violation::Slow => {
                (Code::RequestTimeout, "the request's head did not arrive in time", "send it without pauses")
            }
            Violation::Displaced => (
                Code::TooManyConnections,
                "too many connections from this address are open without having sent a token",
                "send the request as soon as the connection is open, and use fewer connections",
            ),
            Violation::CutOff => {
                (BAD, "the connection ended within the request's head", "send the complete head")
            }
            Violation::HostMissing => {
                (BAD, "the request has no Host field", "send a Host field (RFC 9112 section 3.2)")
            }
            Violation::HostTwice => (BAD, "the request has more than one Host field", "send one"),
            Violation::LengthInvalid => {
                (BAD, "Content-Length is not one decimal number", "send the body's length in bytes")
            }
            Violation::LengthTwice => (BAD, "the request has more than one Content-Length", "send one"),
            Violation::CodingUnknown => {
                (BAD, "Transfer-Encoding is not 'chunked'", "send the body chunked, or with a Content-Length")
            }
            Violation::CodingTwice => (BAD, "the request has more than one Transfer-Encoding", "send one"),
            Violation::LengthAndCoding => (
                BAD,
                "the request has both Content-Length and Transfer-Encoding",
                "send one of them (RFC 9112 section 6.1)",
            ),
            Violation::CodingInHttp10 => {
                (BAD, "HTTP/1.0 has no Transfer-Encoding", "use HTTP/1.1, or send a Content-Length")
            }
            Violation::ConnectContent => (BAD, "CONNECT cannot have content", "send it without a body"),
            Violation::Trace => (Code::MethodNotAllowed, "TRACE is never forwarded", "use another method"),
            Violation::ChunkSize => (
                BAD,
                "a chunk's size is not hexadecimal digits",
                "frame the body as RFC 9112 section 7.1 requires",
            ),
            Violation::ChunkExtension => {
                (BAD, "the chunk extensions are too long", "send chunks without extensions")
            }
            Violation::ChunkEnd => (
                BAD,
                "a chunk does not end where its size says",
                "frame the body as RFC 9112 section 7.1 requires",
            ),
            Violation::TrailerField => (
                BAD,
                "a trailer field would frame, route or authenticate the request",
                "send it in the header section (RFC 9110 section 6.5.1)",
            ),
        }
    }

    /// The refusal that the sender gets.
    pub(crate) fn refusal(self) -> Refusal {
        let (code, message, hint) = self.text();
        match self {
            Violation::TargetCharacter(byte) => {
                let named = byte.escape_ascii();
                Refusal::new(code, format!("the request target has '{named}', which URIs forbid"), hint)
            }
            _ => Refusal::new(code, message, hint),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text().1)
    }
}

impl std::error::Error for Violation {}
