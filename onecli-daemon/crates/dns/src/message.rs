//! Queries and answers in wire format (RFC 1035 section 4, EDNS by RFC 6891).

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, Metadata, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use onecli_model::Host;

/// The largest accepted query, in bytes.
pub(super) const MAX_QUERY: usize = 4096;
/// The largest answer in a datagram, in bytes. A larger size offered by EDNS is not used.
const MAX_DATAGRAM: u16 = 4096;
/// The largest answer without EDNS (RFC 1035 section 4.2.1).
const PLAIN_DATAGRAM: u16 = 512;
/// The length of a header.
const HEADER: usize = 12;

/// The transport of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Datagram,
    Stream,
}

/// The record type of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ipv4,
    Ipv6,
    /// Any other type, including HTTPS and SVCB. The answer never has data.
    Other,
}

/// A query with its one question.
#[derive(Debug)]
pub(super) struct Question {
    request: Message,
    question: Query,
}

/// A message without a question that the daemon can answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum QuestionError {
    /// Not a query, for example an answer. It is never answered, because two servers could otherwise answer each
    /// other endlessly.
    Ignore,
    /// The error answer to send.
    Answer(Vec<u8>),
}

impl Question {
    /// Parses a message.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub(super) fn read(bytes: &[u8]) -> Result<Question, QuestionError> {
        let Some(header) = bytes.first_chunk::<HEADER>() else { return Err(QuestionError::Ignore) };
        if header[2] & 0x80 != 0 {
            return Err(QuestionError::Ignore);
        }
        if header[2] & 0x78 != 0 {
            return Err(QuestionError::Answer(bare(header, ResponseCode::NotImp)));
        }
        let malformed = || QuestionError::Answer(bare(header, ResponseCode::FormErr));
        let request = Message::from_vec(bytes).map_err(|_| malformed())?;
        let [question] = request.queries.as_slice() else { return Err(malformed()) };
        let question = question.clone();
        let read = Question { request, question };
        if read.request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Err(read.reject(ResponseCode::BADVERS));
        }
        if read.question.query_class() != DNSClass::IN {
            return Err(read.reject(ResponseCode::Refused));
        }
        Ok(read)
    }

    fn reject(&self, code: ResponseCode) -> QuestionError {
        self.answer(code, &[], 0, Transport::Datagram).map_or(QuestionError::Ignore, QuestionError::Answer)
    }

    /// Returns the record type of the question.
    pub(super) fn kind(&self) -> Kind {
        match self.question.query_type() {
            RecordType::A => Kind::Ipv4,
            RecordType::AAAA => Kind::Ipv6,
            _ => Kind::Other,
        }
    }

    /// Returns the name if it is a valid host name.
    pub(super) fn host(&self) -> Option<Host> {
        let mut text = String::new();
        for label in self.question.name() {
            // A dot inside a label would change the label boundaries.
            if !label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
                return None;
            }
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(str::from_utf8(label).ok()?);
        }
        let host: Host = text.parse().ok()?;
        host.as_name().is_some().then_some(host)
    }

    /// Returns the name in a printable form, valid or not.
    pub(super) fn shown(&self) -> String {
        self.question.name().to_ascii()
    }

    /// Builds the answer with those of `addresses` that belong to the requested family. If it is larger than the
    /// client accepts, it has only the question and TC set. `None` if it cannot be encoded.
    pub(super) fn answer(
        &self,
        code: ResponseCode,
        addresses: &[IpAddr],
        ttl: u32,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let mut message = Message::response(self.request.metadata.id, self.request.metadata.op_code);
        message.metadata = Metadata::response_from_request(&self.request.metadata);
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        message.add_query(self.question.clone());
        if let Some(theirs) = &self.request.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_DATAGRAM).set_dnssec_ok(theirs.flags().dnssec_ok);
            message.set_edns(edns);
        }
        let name = self.question.name();
        message.add_answers(addresses.iter().filter_map(|ip| self.record(name, *ip, ttl)));
        let bytes = message.to_vec().ok()?;
        if bytes.len() <= self.room(transport) { Some(bytes) } else { message.truncate().to_vec().ok() }
    }

    fn record(&self, name: &Name, ip: IpAddr, ttl: u32) -> Option<Record> {
        let wanted = match ip {
            IpAddr::V4(_) => Kind::Ipv4,
            IpAddr::V6(_) => Kind::Ipv6,
        };
        (self.kind() == wanted).then(|| Record::from_rdata(name.clone(), ttl, RData::from(ip)))
    }

    fn room(&self, transport: Transport) -> usize {
        match (transport, &self.request.edns) {
            (Transport::Stream, _) => usize::from(u16::MAX),
            (Transport::Datagram, Some(edns)) => {
                usize::from(edns.max_payload().clamp(PLAIN_DATAGRAM, MAX_DATAGRAM))
            }
            (Transport::Datagram, None) => usize::from(PLAIN_DATAGRAM),
        }
    }
}

/// Builds an answer that is only a header: id, opcode and RD as received.
fn bare(header: &[u8; HEADER], code: ResponseCode) -> Vec<u8> {
    let mut answer = vec![0; HEADER];
    answer[..2].copy_from_slice(&header[..2]);
    answer[2] = 0x80 | (header[2] & 0x79);
    answer[3] = 0x80 | code.low();
    answer
}
