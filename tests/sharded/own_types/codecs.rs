//! What an application gives a driver for types of its own: they look at the numbers inside.

use std::collections::HashMap;
use std::error::Error;

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};

/// A value as its bytes, whatever it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl<'a> FromSql<'a> for Bytes {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl ToSql for Bytes {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mood(pub(super) &'static str);

impl<'a> FromSql<'a> for Mood {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let known = ["sad", "happy"].into_iter().find(|mood| mood.as_bytes() == raw);
        known.map(Self).ok_or_else(|| format!("{raw:?} is no mood").into())
    }

    fn accepts(kind: &Type) -> bool {
        kind.name() == "mood"
    }
}

impl ToSql for Mood {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        kind.name() == "mood"
    }

    to_sql_checked!();
}

/// As `#[derive(FromSql, ToSql)]` has it: a column of another number is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pet {
    name: Option<String>,
    age: Option<i32>,
    mood: Option<Mood>,
    past: Option<Vec<Mood>>,
}

impl Pet {
    pub(super) fn rex() -> Self {
        let past = Some(vec![Mood("happy"), Mood("sad")]);
        Self { name: Some("Rex".to_owned()), age: Some(3), mood: Some(Mood("sad")), past }
    }

    pub(super) fn nobody() -> Self {
        Self { name: None, age: None, mood: None, past: Some(Vec::new()) }
    }
}

impl<'a> FromSql<'a> for Pet {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let Kind::Composite(fields) = kind.kind() else { return Err("no composite".into()) };
        let (mut rest, mut found) = (&raw[4..], HashMap::new());
        for field in fields {
            let (number, tail) = rest.split_first_chunk::<4>().ok_or("short")?;
            if u32::from_be_bytes(*number) != field.type_().oid() {
                return Err(format!("field {} has number {number:?}", field.name()).into());
            }
            let (length, tail) = tail.split_first_chunk::<4>().ok_or("short")?;
            let length = usize::try_from(i32::from_be_bytes(*length)).ok();
            let (value, tail) = tail.split_at(length.unwrap_or(0));
            found.insert(field.name().to_owned(), (field.type_().clone(), length.map(|_| value)));
            rest = tail;
        }
        let mut take = |name: &str| found.remove(name).ok_or("a field is missing");
        let (name, age, mood, past) = (take("name")?, take("age")?, take("mood")?, take("past")?);
        if let Some(value) = past.1 {
            let Kind::Array(element) = past.0.kind() else { return Err("no array".into()) };
            check_array(element, value)?;
        }
        Ok(Self {
            name: name.1.map(|value| String::from_utf8(value.to_vec())).transpose()?,
            age: FromSql::from_sql_nullable(&age.0, age.1)?,
            mood: FromSql::from_sql_nullable(&mood.0, mood.1)?,
            past: FromSql::from_sql_nullable(&past.0, past.1)?,
        })
    }

    fn accepts(kind: &Type) -> bool {
        kind.name() == "pet"
    }
}

impl ToSql for Pet {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let Kind::Composite(fields) = kind.kind() else { return Err("no composite".into()) };
        let values: [&dyn ToSql; 4] =
            [&self.name.as_ref().map(|name| Bytes(name.clone().into())), &self.age, &self.mood, &self.past];
        out.extend_from_slice(&u32::try_from(fields.len())?.to_be_bytes());
        for (field, value) in fields.iter().zip(values) {
            let mut bytes = BytesMut::new();
            let is_null = value.to_sql_checked(field.type_(), &mut bytes)?;
            let length = if matches!(is_null, IsNull::Yes) { -1 } else { i32::try_from(bytes.len())? };
            out.extend_from_slice(&field.type_().oid().to_be_bytes());
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&bytes);
        }
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        kind.name() == "pet"
    }

    to_sql_checked!();
}

/// The driver's own arrays do not look, those of others do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Checked<T>(pub(super) Vec<T>);

impl<'a, T: FromSql<'a>> FromSql<'a> for Checked<T> {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let Kind::Array(element) = kind.kind() else { return Err("no array".into()) };
        check_array(element, raw)?;
        Vec::from_sql(kind, raw).map(Self)
    }

    fn accepts(kind: &Type) -> bool {
        Vec::<T>::accepts(kind)
    }
}

fn check_array(element: &Type, raw: &[u8]) -> Result<(), String> {
    let number = raw.get(8..12).unwrap_or_default();
    if number == element.oid().to_be_bytes() { Ok(()) } else { Err(format!("elements of number {number:?}")) }
}
