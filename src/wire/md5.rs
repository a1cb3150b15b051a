//! MD5 passwords, as PostgreSQL asks for them and keeps them (PostgreSQL documentation, 55.2.1, 20.5).
//!
//! Pure: salts are given by the caller.

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

/// What takes the place of a password: `md5(password || user)` in hexadecimal. Whoever has it can log in.
#[derive(Clone, PartialEq, Eq)]
pub struct Md5Secret(String);

impl Md5Secret {
    pub fn from_password(password: &str, user: &str) -> Self {
        Self(hexadecimal(&[password.as_bytes(), user.as_bytes()]))
    }

    /// Reads `md5` and 32 hexadecimal digits (`pg_authid.rolpassword`).
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("md5")?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (digits.len() == 32 && digits.bytes().all(is_digit)).then(|| Self(digits.to_owned()))
    }

    /// Whether it is this password's.
    pub fn fits(&self, password: &str, user: &str) -> bool {
        Self::from_password(password, user).0.as_bytes().ct_eq(self.0.as_bytes()).into()
    }

    /// The answer to a request with this salt.
    pub fn answer(&self, salt: [u8; 4]) -> String {
        format!("md5{}", hexadecimal(&[self.0.as_bytes(), &salt]))
    }

    pub fn accepts(&self, salt: [u8; 4], answer: &[u8]) -> bool {
        self.answer(salt).as_bytes().ct_eq(answer).into()
    }
}

fn hexadecimal(parts: &[&[u8]]) -> String {
    let mut hash = Md5::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The secret as `SET password_encryption = md5; CREATE ROLE app PASSWORD 'shop'` keeps it.
    #[test]
    fn secrets_are_those_of_postgresql() {
        let secret = Md5Secret::from_password("shop", "app");
        let kept = Md5Secret::parse("md5a2d43ee9f02c7ab1ecdec88b3977ac23").unwrap();
        assert!(secret == kept);
        assert!(kept.accepts(*b"salt", secret.answer(*b"salt").as_bytes()));
        for (salt, answer) in [(*b"tlas", secret.answer(*b"salt")), (*b"salt", String::new()), (*b"salt", "md5".into())]
        {
            assert!(!kept.accepts(salt, answer.as_bytes()), "{answer}");
        }
        for text in ["", "md5", "md5xyz", &"md5".repeat(20), &format!("md5{}", "g".repeat(32))] {
            assert!(Md5Secret::parse(text).is_none(), "{text}");
        }
    }
}
