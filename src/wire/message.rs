//! Messages of our own making, appended to a buffer. `pgwire` knows their layouts; the few that are sent for every
//! statement are put by hand, and those whose length the other side has a say in: `pgwire` has limits of its own.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::{BufMut, Bytes, BytesMut};
use pgwire::error::ErrorInfo;
use pgwire::messages::Message;
use pgwire::messages::data::{DataRow, FieldDescription, RowDescription};
use pgwire::messages::response::{CommandComplete, ErrorResponse, NoticeResponse};
use pgwire::messages::startup::Authentication;

use super::CancelKey;
use super::frame::{self, client, malformed, put, put_text, server, take_text, take_u32};
use crate::error::Error;

/// Where a session stands, as ReadyForQuery says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Idle,
    InTransaction,
    Failed,
}

impl Status {
    pub fn from_byte(byte: u8) -> Result<Self, Error> {
        match byte {
            b'I' => Ok(Self::Idle),
            b'T' => Ok(Self::InTransaction),
            b'E' => Ok(Self::Failed),
            _ => Err(malformed("an unknown transaction status")),
        }
    }

    pub fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}

/// How bad an ErrorResponse is: FATAL ends the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Fatal,
}

pub fn put_error(out: &mut BytesMut, severity: Severity, error: &Error) {
    let severity = match severity {
        Severity::Error => "ERROR",
        Severity::Fatal => "FATAL",
    };
    encode(&ErrorResponse::from(info(severity, error)), out);
}

/// A NoticeResponse of severity WARNING.
pub fn put_warning(out: &mut BytesMut, warning: &Error) {
    encode(&NoticeResponse::from(info("WARNING", warning)), out);
}

fn info(severity: &str, error: &Error) -> ErrorInfo {
    let mut info = ErrorInfo::new(severity.to_owned(), error.sqlstate.0.to_owned(), plain(&error.message));
    info.severity_nonlocalized = Some(severity.to_owned());
    info.detail = error.detail.as_deref().map(plain);
    info.hint = error.hint.as_deref().map(plain);
    info.where_context = error.context.as_deref().map(plain);
    info.routine = error.routine.map(str::to_owned);
    info
}

/// A zero would end the field early.
fn plain(text: &str) -> String {
    text.replace('\0', "")
}

pub fn put_ready(out: &mut BytesMut, status: Status) {
    out.extend_from_slice(&[server::READY, 0, 0, 0, 5, status.byte()]);
}

/// A message without a body: ParseComplete, Sync, Terminate …
pub fn put_bare(out: &mut BytesMut, kind: u8) {
    out.extend_from_slice(&[kind, 0, 0, 0, 4]);
}

pub fn put_command_complete(out: &mut BytesMut, tag: &str) {
    encode(&CommandComplete::new(tag.to_owned()), out);
}

pub fn put_parameter_status(out: &mut BytesMut, name: &str, value: &str) {
    put(out, server::PARAMETER_STATUS, |body| {
        put_text(body, name);
        put_text(body, value);
    });
}

/// NotificationResponse.
pub fn put_notification(out: &mut BytesMut, process: i32, channel: &str, payload: &str) {
    put(out, server::NOTIFICATION, |body| {
        body.put_i32(process);
        put_text(body, channel);
        put_text(body, payload);
    });
}

pub fn put_key_data(out: &mut BytesMut, key: CancelKey) {
    put(out, server::BACKEND_KEY_DATA, |body| body.extend_from_slice(&key.encode()));
}

/// NegotiateProtocolVersion: the minor version that is spoken, and options that are not known.
pub fn put_negotiate(out: &mut BytesMut, minor: u32, unknown_options: &[String]) {
    put(out, server::NEGOTIATE, |body| {
        body.put_u32((3 << 16) | minor);
        body.put_u32(u32::try_from(unknown_options.len()).expect("a startup packet is short"));
        unknown_options.iter().for_each(|option| put_text(body, option));
    });
}

/// What a client must present, and what servers ask us for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthenticationRequest {
    Ok,
    Cleartext,
    /// With the salt of the answer.
    Md5([u8; 4]),
    Sasl(Vec<String>),
    SaslContinue(Vec<u8>),
    SaslFinal(Vec<u8>),
    /// GSS, SSPI …: the code of the message.
    Other(u32),
}

impl AuthenticationRequest {
    /// From the body of an AuthenticationXXX message.
    pub fn read(mut body: &[u8]) -> Result<Self, Error> {
        let code = take_u32(&mut body)?;
        Ok(match code {
            0 => Self::Ok,
            3 => Self::Cleartext,
            5 => Self::Md5(body.try_into().map_err(|_| malformed("a salt of another length than 4"))?),
            10 => Self::Sasl(Self::mechanisms(body)?),
            11 => Self::SaslContinue(body.to_vec()),
            12 => Self::SaslFinal(body.to_vec()),
            other => Self::Other(other),
        })
    }

    fn mechanisms(mut body: &[u8]) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        while !body.is_empty() && body[0] != 0 {
            names.push(String::from_utf8_lossy(take_text(&mut body)?).into_owned());
        }
        Ok(names)
    }

    pub fn put(self, out: &mut BytesMut) {
        let message = match self {
            Self::Ok => Authentication::Ok,
            Self::Cleartext => Authentication::CleartextPassword,
            Self::Md5(salt) => Authentication::MD5Password(salt.to_vec()),
            Self::Sasl(mechanisms) => Authentication::SASL(mechanisms),
            Self::SaslContinue(data) => Authentication::SASLContinue(Bytes::from(data)),
            Self::SaslFinal(data) => Authentication::SASLFinal(Bytes::from(data)),
            Self::Other(code) => unreachable!("nothing asks clients for authentication {code}"),
        };
        encode(&message, out);
    }
}

/// RowDescription of text columns, as the admin console and EXPLAIN ROUTE answer.
pub fn put_text_columns(out: &mut BytesMut, names: &[&str]) {
    let field = |name: &&str| FieldDescription::new((*name).to_owned(), 0, 0, TEXT_OID, -1, -1, 0);
    encode(&RowDescription::new(names.iter().map(field).collect()), out);
}

pub fn put_text_row(out: &mut BytesMut, values: &[Option<String>]) {
    put_row(out, values);
}

/// RowDescription: name, type, its size and format of each column.
pub fn put_columns(out: &mut BytesMut, columns: &[(&str, u32, i16, i16)]) {
    let field = |&(name, oid, size, format): &(&str, u32, i16, i16)| {
        FieldDescription::new(name.to_owned(), 0, 0, oid, size, -1, format)
    };
    encode(&RowDescription::new(columns.iter().map(field).collect()), out);
}

pub fn put_row(out: &mut BytesMut, values: &[Option<impl AsRef<[u8]>>]) {
    let mut data = BytesMut::new();
    for value in values {
        match value.as_ref().map(AsRef::as_ref) {
            None => data.put_i32(-1),
            Some(value) => {
                data.put_i32(i32::try_from(value.len()).expect("our own rows are short"));
                data.extend_from_slice(value);
            }
        }
    }
    encode(&DataRow::new(data, i16::try_from(values.len()).expect("few columns")), out);
}

pub fn put_query(out: &mut BytesMut, text: &str) {
    put(out, client::QUERY, |body| put_text(body, text));
}

pub fn put_parse(out: &mut BytesMut, name: &str, text: &[u8], types: &[u32]) {
    put(out, client::PARSE, |body| {
        put_text(body, name);
        body.extend_from_slice(text);
        body.put_u8(0);
        body.put_u16(u16::try_from(types.len()).expect("as many as a Parse named"));
        types.iter().for_each(|&oid| body.put_u32(oid));
    });
}

/// Describe or Close of a statement (`b'S'`) or portal (`b'P'`).
pub fn put_named(out: &mut BytesMut, kind: u8, what: u8, name: &str) {
    put(out, kind, |body| {
        body.put_u8(what);
        put_text(body, name);
    });
}

/// The types that the body of a ParameterDescription names.
pub fn types_in(body: &[u8]) -> Vec<u32> {
    let types = body.get(2..).unwrap_or_default().as_chunks::<4>().0;
    types.iter().map(|oid| u32::from_be_bytes(*oid)).collect()
}

pub fn put_execute(out: &mut BytesMut, portal: &str, rows: u32) {
    put(out, client::EXECUTE, |body| {
        put_text(body, portal);
        body.put_u32(rows);
    });
}

pub fn put_password(out: &mut BytesMut, password: &str) {
    put(out, client::PASSWORD, |body| put_text(body, password));
}

pub fn put_sasl_initial(out: &mut BytesMut, mechanism: &str, data: &[u8]) {
    put(out, client::PASSWORD, |body| {
        put_text(body, mechanism);
        body.put_u32(u32::try_from(data.len()).expect("a nonce is short"));
        body.extend_from_slice(data);
    });
}

pub fn put_sasl_response(out: &mut BytesMut, data: &[u8]) {
    put(out, client::PASSWORD, |body| body.extend_from_slice(data));
}

/// A field of an ErrorResponse's body: `b'C'` SQLSTATE, `b'M'` message, `b'V'` severity …
pub fn error_field(mut body: &[u8], field: u8) -> Option<&str> {
    while let Some((&code, rest)) = body.split_first().filter(|(code, _)| **code != 0) {
        body = rest;
        let value = frame::take_text(&mut body).ok()?;
        if code == field {
            return std::str::from_utf8(value).ok();
        }
    }
    None
}

/// The body of an ErrorResponse with more of detail and hint.
pub fn put_error_with(out: &mut BytesMut, body: &[u8], detail: &str, hint: &str) {
    let more = [(b'D', detail), (b'H', hint)];
    put(out, server::ERROR, |out| {
        for field in body.split(|byte| *byte == 0).filter(|field| !field.is_empty()) {
            out.extend_from_slice(field);
            if let Some((_, text)) = more.iter().find(|(code, _)| *code == field[0]) {
                out.extend_from_slice(format!("\n{}", plain(text)).as_bytes());
            }
            out.put_u8(0);
        }
        for (code, text) in more.iter().filter(|(code, _)| error_field(body, *code).is_none()) {
            out.put_u8(*code);
            out.extend_from_slice(plain(text).as_bytes());
            out.put_u8(0);
        }
        out.put_u8(0);
    });
}

/// What a part of a statement's description, ParameterDescription or RowDescription, says about values, mixed with what
/// came before it: types and names, not the tables that columns are of. Never 0.
pub fn mix_description(before: u32, kind: u8, body: &[u8]) -> u32 {
    let mut hasher = DefaultHasher::new();
    (before, kind).hash(&mut hasher);
    if kind == frame::server::ROW_DESCRIPTION {
        let mut rest = body.get(2..).unwrap_or_default();
        // A column is its name, table (4 bytes), number in it (2), type (4), size (2), modifier (4), format (2).
        while let Ok(name) = frame::take_text(&mut rest) {
            let Some((column, tail)) = rest.split_first_chunk::<18>() else { break };
            (name, &column[6..16]).hash(&mut hasher);
            rest = tail;
        }
    } else {
        body.hash(&mut hasher);
    }
    (hasher.finish() as u32).max(1)
}

fn encode(message: &impl Message, out: &mut BytesMut) {
    message.encode(out).expect("messages of our own making can be encoded");
}

pub const TEXT_OID: u32 = 25;
pub const INT8_OID: u32 = 20;
pub const FLOAT8_OID: u32 = 701;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::SqlState;

    #[test]
    fn errors_carry_their_fields() {
        let mut out = BytesMut::new();
        let error = Error::new(SqlState::UNSUPPORTED, "no\0pe").with_detail("why").with_hint("do");
        put_error(&mut out, Severity::Fatal, &error);
        let header = frame::Header::whole(&out).unwrap().unwrap();
        assert_eq!((header.kind, header.length), (b'E', out.len()));
        let field = |code| error_field(&out[5..], code);
        assert_eq!((field(b'S'), field(b'C'), field(b'M')), (Some("FATAL"), Some("0A000"), Some("nope")));
        assert_eq!((field(b'D'), field(b'H'), field(b'x')), (Some("why"), Some("do"), None));
    }

    #[test]
    fn authentication_requests_are_read_as_put() {
        let requests = [
            AuthenticationRequest::Ok,
            AuthenticationRequest::Cleartext,
            AuthenticationRequest::Md5(*b"salt"),
            AuthenticationRequest::Sasl(vec!["SCRAM-SHA-256".to_owned()]),
            AuthenticationRequest::SaslContinue(b"r=1".to_vec()),
            AuthenticationRequest::SaslFinal(b"v=1".to_vec()),
        ];
        for request in requests {
            let mut out = BytesMut::new();
            request.clone().put(&mut out);
            assert_eq!(AuthenticationRequest::read(&out[5..]), Ok(request));
        }
    }

    #[test]
    fn rows_have_lengths_and_nulls() {
        let mut out = BytesMut::new();
        put_text_row(&mut out, &[Some("ab".to_owned()), None]);
        assert_eq!(&out[..], b"D\0\0\0\x10\0\x02\0\0\0\x02ab\xff\xff\xff\xff");
    }
}
