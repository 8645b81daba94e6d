//! Parses a ClientHello without answering it, so that the bytes can still be tunnelled.

use rustls::server::Acceptor;

/// The result of parsing a ClientHello (RFC 8446 section 4.1.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientHello {
    /// More bytes are needed.
    Incomplete,
    /// The ClientHello is complete.
    Complete {
        /// The server name (RFC 6066 section 3), as sent.
        server_name: Option<String>,
    },
    /// The bytes are not a valid ClientHello.
    Malformed(String),
}

/// Parses the TLS records in `bytes`, which begin with a client's first byte.
pub fn parse_client_hello(bytes: &[u8]) -> ClientHello {
    // Parses only complete records, so that a client that sends single bytes does not cause a new parse for each.
    if !ends_with_a_record(bytes) {
        return ClientHello::Incomplete;
    }
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    loop {
        match acceptor.read_tls(&mut rest) {
            Ok(0) => return ClientHello::Incomplete,
            Ok(_) => {}
            Err(error) => return ClientHello::Malformed(error.to_string()),
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let server_name = accepted.client_hello().server_name().map(str::to_owned);
                return ClientHello::Complete { server_name };
            }
            Ok(None) => {}
            Err((error, _)) => return ClientHello::Malformed(error.to_string()),
        }
    }
}

/// The longest record that may arrive: 2^14 bytes of plaintext, and the additional bytes that TLS 1.2 allows.
const MAX_RECORD: usize = (1 << 14) + 2048;

/// Returns whether the bytes end at a record boundary, or no further bytes can help (RFC 8446 section 5.1: type,
/// version, two bytes of length).
fn ends_with_a_record(mut bytes: &[u8]) -> bool {
    while let Some(head) = bytes.first_chunk::<5>() {
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        match bytes.get(5 + length..) {
            Some([]) => return true,
            None if length > MAX_RECORD => return true,
            Some(rest) => bytes = rest,
            None => return false,
        }
    }
    false
}

/// A fatal TLS alert in a record of its own (RFC 8446 section 6), for clients that get no handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsAlert {
    /// `access_denied` (49).
    AccessDenied,
    /// `decode_error` (50).
    DecodeError,
}

impl TlsAlert {
    /// Returns the record to send.
    pub fn record(self) -> [u8; 7] {
        let code = match self {
            TlsAlert::AccessDenied => 49,
            TlsAlert::DecodeError => 50,
        };
        [21, 3, 3, 0, 2, 2, code]
    }
}
