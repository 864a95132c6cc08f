//! Cursors: the beginning of the next page of a list, as a text that programs send back.
//!
//! A cursor is bound to its list: to the deployment, the app, and every filter that says what is in the list. For another
//! list, cut or altered, it is invalid, since it would give a page that is not the next one. It contains nothing that is not in
//! the page, and grants nothing: its user has only their own access.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::digest::{Context, SHA256};

/// The length of the SHA-256 prefix that a cursor carries, in bytes.
const BINDING: usize = 16;

/// A text is not a cursor of this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid cursor: it does not come from a page of this list with these filters; start again without it"
)]
pub struct InvalidCursor;

/// A list, as its cursors know it.
#[derive(Clone)]
pub struct List(Context);

impl List {
    /// The list of this name and of all that says what is in it, in an order of its own.
    pub fn new<'a>(name: &'a str, of: impl IntoIterator<Item = &'a str>) -> Self {
        let mut context = Context::new(&SHA256);
        for part in [name].into_iter().chain(of) {
            // With its length, so that no two lists of parts are the same bytes.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        Self(context)
    }

    /// The cursor of this position.
    pub fn cursor(&self, position: &str) -> String {
        let mut bytes = self.binding(position.as_bytes()).to_vec();
        bytes.extend_from_slice(position.as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The position that a cursor of this list stands for.
    ///
    /// # Errors
    /// It is no cursor of this list.
    pub fn position(&self, cursor: &str) -> Result<String, InvalidCursor> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).map_err(|_| InvalidCursor)?;
        let (binding, position) = bytes.split_first_chunk().ok_or(InvalidCursor)?;
        if *binding != self.binding(position) {
            return Err(InvalidCursor);
        }
        String::from_utf8(position.to_vec()).map_err(|_| InvalidCursor)
    }

    fn binding(&self, position: &[u8]) -> [u8; BINDING] {
        let mut context = self.0.clone();
        context.update(position);
        let digest = context.finish();
        digest.as_ref().first_chunk().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_binding_is_a_digest() {
        let of = |list: &List| list.binding(b"1");
        let lists = [List::new("keys", ["1"]), List::new("keys", ["2"]), List::new("logs", ["1"])];
        assert!(lists.iter().all(|list| of(list) != [0; BINDING]));
        assert_ne!(of(&lists[0]), lists[0].binding(b"2"));
    }

    proptest! {
        #[test]
        fn a_cursor_is_read_by_its_own_list_alone(
            parts in prop::collection::vec("[a-c]{0,2}", 0..4),
            others in prop::collection::vec("[a-c]{0,2}", 0..4),
            position in "\\PC{0,30}",
        ) {
            let list = |parts: &[String]| List::new("list", parts.iter().map(String::as_str));
            let cursor = list(&parts).cursor(&position);
            prop_assert!(cursor.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            prop_assert_eq!(list(&parts).position(&cursor), Ok(position.clone()));
            let elsewhere = list(&others).position(&cursor);
            prop_assert_eq!(elsewhere, if parts == others { Ok(position) } else { Err(InvalidCursor) });
        }

        #[test]
        fn a_cursor_that_was_cut_or_altered_is_none(
            position in "[0-9]{1,19}", at in any::<prop::sample::Index>(), sign in "[A-Za-z0-9_=.-]", length in any::<prop::sample::Index>(),
        ) {
            let list = List::new("keys", ["7"]);
            let cursor = list.cursor(&position);
            let cut = &cursor[..length.index(cursor.len())];
            prop_assert_eq!(list.position(cut), Err(InvalidCursor));
            prop_assert_eq!(list.position(&format!("{cursor}{sign}")), Err(InvalidCursor));
            let at = at.index(cursor.len());
            let mut altered = cursor.clone();
            altered.replace_range(at..=at, &sign);
            let read = list.position(&altered);
            prop_assert_eq!(read, if altered == cursor { Ok(position) } else { Err(InvalidCursor) });
        }
    }
}
