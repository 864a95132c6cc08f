//! The credentials of a request, where HTTP has them: the field `Authorization` (RFC 9110, 11.6.2).

use crate::text::InvalidField;

/// The credentials in the field `Authorization`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization<'a> {
    /// A token of the scheme `Bearer` (RFC 6750, 2.1).
    Bearer(&'a str),
    /// Credentials of another scheme.
    Other,
}

impl<'a> Authorization<'a> {
    /// Parses the values of the field; nothing where it was not sent. The name of a scheme has no case (RFC 9110, 11.1).
    ///
    /// # Errors
    /// As [`single_value`].
    pub fn parse(values: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<Self>, InvalidField> {
        let value = single_value("authorization", values)?;
        Ok(value.map(|credentials| bearer(credentials).map_or(Self::Other, Self::Bearer)))
    }
}

/// The one value of a field that is sent at most once: of several, each reader could take another.
///
/// # Errors
/// It was sent more than once, or is not of visible ASCII characters and spaces.
pub fn single_value<'a>(
    name: &str,
    values: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Option<&'a str>, InvalidField> {
    let mut values = values.into_iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(InvalidField::new(name, "must be sent once"));
    }
    let text = str::from_utf8(value).ok().map(str::trim);
    text.filter(|text| text.bytes().all(|byte| (b' '..=b'~').contains(&byte)))
        .map(Some)
        .ok_or_else(|| InvalidField::new(name, "must contain visible ASCII characters only"))
}

/// The token of credentials of the scheme `Bearer`.
pub fn bearer(credentials: &str) -> Option<&str> {
    let (scheme, token) = credentials.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed<'a>(values: &[&'a str]) -> Result<Option<Authorization<'a>>, String> {
        Authorization::parse(values.iter().map(|value| value.as_bytes())).map_err(|error| error.to_string())
    }

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        for (value, expected) in [
            ("Bearer abc", Authorization::Bearer("abc")),
            ("bEARER  abc ", Authorization::Bearer("abc")),
            ("bearer a b", Authorization::Bearer("a b")),
            ("Basic abc", Authorization::Other),
            ("AWS4-HMAC-SHA256 Credential=a/b, Signature=c", Authorization::Other),
            ("Bearerabc", Authorization::Other),
            ("abc", Authorization::Other),
            ("Bearer", Authorization::Other),
            ("", Authorization::Other),
        ] {
            assert_eq!(parsed(&[value]), Ok(Some(expected)), "{value}");
        }
        assert_eq!(parsed(&[]), Ok(None));
    }

    #[test]
    fn a_field_is_sent_once_and_is_text() {
        for same in [["Bearer a", "Bearer a"], ["Bearer a", "Basic b"]] {
            assert_eq!(parsed(&same), Err("authorization must be sent once".to_owned()));
        }
        for wrong in ["Bearer é", "Bearer a\tb", "Bearer a\u{7f}"] {
            assert_eq!(
                parsed(&[wrong]),
                Err("authorization must contain visible ASCII characters only".to_owned())
            );
        }
        assert!(single_value("x", [&[0xff][..]]).is_err());
        assert_eq!(single_value("x", [&b" a "[..]]), Ok(Some("a")));
        assert_eq!(single_value("x", [&b"!~"[..]]), Ok(Some("!~")));
    }

    proptest! {
        #[test]
        fn a_bearer_token_is_read_whatever_the_case_and_the_spaces(
            upper in prop::collection::vec(any::<bool>(), 6), spaces in 1..4_usize, token in "[!-~]{1,64}",
        ) {
            let scheme: String = "bearer"
                .chars()
                .zip(upper)
                .map(|(letter, upper)| if upper { letter.to_ascii_uppercase() } else { letter })
                .collect();
            let value = format!("{scheme}{}{token}", " ".repeat(spaces));
            prop_assert_eq!(parsed(&[&value]), Ok(Some(Authorization::Bearer(&token))));
        }

        #[test]
        fn any_field_is_parsed_or_rejected(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..3)) {
            let sent = values.iter().map(Vec::as_slice);
            if let Ok(Some(Authorization::Bearer(token))) = Authorization::parse(sent) {
                prop_assert_eq!(values.len(), 1);
                prop_assert!(token.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            }
        }
    }
}
