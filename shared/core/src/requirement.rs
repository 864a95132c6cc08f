//! The requirement of a request: an expression over permissions.
//!
//! ```text
//! list       = any *( "," any )           ; all of them
//! any        = all *( "OR" all )
//! all        = term *( "AND" term )
//! term       = permission / "(" list ")"
//! ```
//!
//! `AND` and `OR` are words of their own and in capitals, as a permission may be called `and`. An expression is parsed to a
//! tree of bounded size and depth, and that is what is evaluated.

use std::collections::BTreeSet;

use crate::permission::{AND, OR, Permission};
use crate::text::InvalidField;

/// The longest expression, in bytes.
const MAX_LENGTH: usize = 2_048;
/// The maximum number of permissions in an expression.
const MAX_PERMISSIONS: usize = 64;
/// The maximum depth of nested parentheses.
const MAX_DEPTH: usize = 16;

/// A parsed expression, with the text that it was parsed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    text: String,
    expression: Expression,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    Held(Permission),
    All(Vec<Expression>),
    Any(Vec<Expression>),
}

impl Requirement {
    /// Parses the entries of the request's field `field`, of which each must hold. Blank entries ask for nothing.
    ///
    /// # Errors
    /// Says which entry is wrong, at which character, counted from 1, and what was expected there.
    pub fn parse_all<S: AsRef<str>>(field: &str, entries: &[S]) -> Result<Vec<Self>, InvalidField> {
        if entries.len() > MAX_PERMISSIONS {
            return Err(InvalidField::new(field, format!("must have at most {MAX_PERMISSIONS} entries")));
        }
        let entries = entries.iter().map(AsRef::as_ref).enumerate();
        let entries = entries.filter(|(_, entry)| !entry.trim().is_empty());
        entries.map(|(index, entry)| Self::parse(&format!("{field}[{index}]"), entry)).collect()
    }

    /// Parses one expression.
    ///
    /// # Errors
    /// As [`Self::parse_all`].
    pub fn parse(field: &str, text: &str) -> Result<Self, InvalidField> {
        if text.len() > MAX_LENGTH {
            return Err(InvalidField::new(field, format!("must be at most {MAX_LENGTH} bytes")));
        }
        let mut parser = Parser { text, at: 0, depth: 0, width: 0 };
        let parsed = parser.list().and_then(|expression| match parser.next() {
            None => Ok(expression),
            Some(_) => Err(parser.expected("'AND', 'OR', ',' or the end")),
        });
        match parsed {
            Ok(expression) => Ok(Self { text: text.trim().to_owned(), expression }),
            Err(Unexpected { at, expected }) => {
                let character = text.get(..at).map_or(0, |before| before.chars().count()) + 1;
                Err(InvalidField::new(field, format!("is wrong at character {character}: {expected}")))
            }
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it holds for who has been granted these permissions.
    pub fn holds(&self, granted: &BTreeSet<&Permission>) -> bool {
        self.expression.holds(granted)
    }
}

impl From<Requirement> for String {
    fn from(requirement: Requirement) -> Self {
        requirement.text
    }
}

impl Expression {
    fn holds(&self, granted: &BTreeSet<&Permission>) -> bool {
        match self {
            Self::Held(required) => granted.iter().any(|one| one.covers(required.as_str())),
            Self::All(parts) => parts.iter().all(|part| part.holds(granted)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(granted)),
        }
    }
}

/// A syntax error, and the byte that it is at.
struct Unexpected {
    at: usize,
    expected: String,
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
    width: usize,
}

impl<'t> Parser<'t> {
    fn list(&mut self) -> Result<Expression, Unexpected> {
        self.series(",", Self::any, Expression::All)
    }

    fn any(&mut self) -> Result<Expression, Unexpected> {
        self.series(OR, Self::all, Expression::Any)
    }

    fn all(&mut self) -> Result<Expression, Unexpected> {
        self.series(AND, Self::term, Expression::All)
    }

    /// One or more parts with a word between them.
    fn series(
        &mut self,
        between: &str,
        part: fn(&mut Self) -> Result<Expression, Unexpected>,
        join: fn(Vec<Expression>) -> Expression,
    ) -> Result<Expression, Unexpected> {
        let first = part(self)?;
        let mut more = Vec::new();
        while self.next() == Some(between) {
            self.take(between);
            more.push(part(self)?);
        }
        if more.is_empty() {
            return Ok(first);
        }
        more.insert(0, first);
        Ok(join(more))
    }

    fn term(&mut self) -> Result<Expression, Unexpected> {
        match self.next() {
            Some("(") => {
                if self.depth == MAX_DEPTH {
                    return Err(self.expected(&format!("at most {MAX_DEPTH} nested parentheses")));
                }
                self.depth += 1;
                self.take("(");
                let inner = self.list()?;
                if self.next() != Some(")") {
                    return Err(self.expected("'AND', 'OR', ',' or ')'"));
                }
                self.take(")");
                self.depth -= 1;
                Ok(inner)
            }
            Some(word) if !matches!(word, ")" | ",") && word != AND && word != OR => {
                let permission = Permission::parse("", word).map_err(|_| self.expected("a permission"))?;
                if self.width == MAX_PERMISSIONS {
                    return Err(self.expected(&format!("at most {MAX_PERMISSIONS} permissions")));
                }
                self.width += 1;
                self.take(word);
                Ok(Expression::Held(permission))
            }
            _ => Err(self.expected("a permission or '('")),
        }
    }

    /// The next sign or word, in front of which white space is passed over.
    fn next(&mut self) -> Option<&'t str> {
        let rest = self.text.get(self.at..)?;
        let trimmed = rest.trim_start();
        self.at += rest.len() - trimmed.len();
        let is_sign = |c: char| matches!(c, '(' | ')' | ',');
        let first = trimmed.chars().next()?;
        let end = if is_sign(first) {
            1
        } else {
            trimmed.find(|c: char| is_sign(c) || c.is_whitespace()).unwrap_or(trimmed.len())
        };
        trimmed.get(..end)
    }

    /// Passes over what [`Self::next`] gave.
    fn take(&mut self, word: &str) {
        self.at += word.len();
    }

    fn expected(&self, what: &str) -> Unexpected {
        Unexpected { at: self.at, expected: format!("expected {what}") }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn granted(texts: &[&str]) -> Vec<Permission> {
        texts.iter().map(|text| Permission::parse("permissions", text).unwrap()).collect()
    }

    fn holds(text: &str, permissions: &[&str]) -> bool {
        Requirement::parse("required", text).unwrap().holds(&granted(permissions).iter().collect())
    }

    fn refused(text: &str) -> String {
        Requirement::parse("required", text).unwrap_err().to_string()
    }

    #[test]
    fn or_is_weaker_than_and_and_a_comma_weaker_than_both() {
        assert!(holds("a OR b AND c", &["a"]));
        assert!(!holds("(a OR b) AND c", &["a"]));
        assert!(holds("a,b", &["a", "b"]) && !holds("a,b", &["a"]));
        assert!(!holds("a OR b, c", &["a"]), "the comma parts the whole list");
        assert!(holds("(a, b) OR c", &["c"]));
        assert!(holds(" ( ( users:read ) ) ", &["users:*"]));
        assert!(holds("and OR or", &["or"]), "words of their own in capitals alone");
        assert!(!holds("users:*", &["users:read"]), "who needs all has one");
    }

    #[test]
    fn an_error_points_at_the_character() {
        for (text, character, expected) in [
            ("a AND", 6, "a permission or '('"),
            ("a AND AND b", 7, "a permission or '('"),
            ("a b", 3, "'AND', 'OR', ',' or the end"),
            ("a and b", 3, "'AND', 'OR', ',' or the end"),
            ("(a", 3, "'AND', 'OR', ',' or ')'"),
            ("a)", 2, "'AND', 'OR', ',' or the end"),
            ("()", 2, "a permission or '('"),
            ("a,,b", 3, "a permission or '('"),
            (",a", 1, "a permission or '('"),
            ("", 1, "a permission or '('"),
            ("a OR b!", 6, "a permission"),
            ("(ä) OR b", 2, "a permission"),
            ("( ä", 3, "a permission"),
            ("a OR NOT b", 10, "'AND', 'OR', ',' or the end"),
        ] {
            assert_eq!(
                refused(text),
                format!("required is wrong at character {character}: expected {expected}")
            );
        }
    }

    #[test]
    fn size_and_depth_are_bounded() {
        let deep = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
        assert!(holds(&deep(MAX_DEPTH), &["a"]));
        assert!(
            refused(&deep(MAX_DEPTH + 1))
                .ends_with("at character 17: expected at most 16 nested parentheses")
        );
        let wide = |width: usize| vec!["a"; width].join(" OR ");
        assert!(holds(&wide(MAX_PERMISSIONS), &["a"]));
        assert!(refused(&wide(MAX_PERMISSIONS + 1)).ends_with("expected at most 64 permissions"));
        let long = |bytes: usize| format!("a{}", " ".repeat(bytes - 1));
        assert!(holds(&long(MAX_LENGTH), &["a"]));
        assert_eq!(refused(&long(MAX_LENGTH + 1)), "required must be at most 2048 bytes");
        // Parentheses beside each other are not in each other.
        assert!(holds(&vec!["(a)"; 40].join(" AND "), &["a"]));
    }

    #[test]
    fn each_entry_must_hold_and_blank_ones_ask_for_nothing() {
        let all = |entries: &[&str]| Requirement::parse_all("required_permissions", entries);
        assert_eq!(all(&["", "  "]).unwrap(), []);
        assert_eq!(all(&["a", " ", "b OR c"]).unwrap().len(), 2);
        let refused = all(&["a", "b OR"]).unwrap_err().to_string();
        assert_eq!(refused, "required_permissions[1] is wrong at character 5: expected a permission or '('");
        assert_eq!(all(&["a"; MAX_PERMISSIONS]).unwrap().len(), MAX_PERMISSIONS);
        let refused = all(&["a"; MAX_PERMISSIONS + 1]).unwrap_err().to_string();
        assert_eq!(refused, "required_permissions must have at most 64 entries");
        let kept = all(&["b OR c"]).unwrap().remove(0);
        assert_eq!((kept.as_str(), String::from(kept.clone())), ("b OR c", "b OR c".to_owned()));
    }

    /// A tree, written down with more or less white space and parentheses than it needs.
    #[derive(Debug, Clone)]
    enum Tree {
        Leaf(usize),
        And(Vec<Tree>),
        Or(Vec<Tree>),
        List(Vec<Tree>),
    }

    const NAMES: [&str; 4] = ["users:read", "users:write", "a/b-c.d", "OR:AND"];

    impl Tree {
        /// As the truth table has it: which names hold is the argument.
        fn holds(&self, held: &[bool; 4]) -> bool {
            match self {
                Self::Leaf(name) => held[*name],
                Self::And(parts) | Self::List(parts) => parts.iter().all(|part| part.holds(held)),
                Self::Or(parts) => parts.iter().any(|part| part.holds(held)),
            }
        }

        /// Every part in parentheses but leaves.
        fn text(&self, space: &str) -> String {
            let join = |parts: &[Self], between: &str| {
                let parts = parts.iter().map(|part| match part {
                    Self::Leaf(_) => part.text(space),
                    _ => format!("({space}{}{space})", part.text(space)),
                });
                parts.collect::<Vec<_>>().join(between)
            };
            match self {
                Self::Leaf(name) => NAMES[*name].to_owned(),
                Self::And(parts) => join(parts, " AND "),
                Self::Or(parts) => join(parts, &format!(" {space}OR ")),
                Self::List(parts) => join(parts, &format!("{space},")),
            }
        }
    }

    fn tree() -> impl Strategy<Value = Tree> {
        (0..NAMES.len()).prop_map(Tree::Leaf).prop_recursive(4, 24, 3, |inner| {
            let parts = prop::collection::vec(inner, 1..4);
            prop_oneof![
                parts.clone().prop_map(Tree::And),
                parts.clone().prop_map(Tree::Or),
                parts.prop_map(Tree::List)
            ]
        })
    }

    proptest! {
        #[test]
        fn it_holds_as_the_truth_table_says(tree in tree(), space in "[ \t]{0,2}") {
            let text = tree.text(&space);
            let requirement = Requirement::parse("required", &text).unwrap();
            for row in 0..1u8 << NAMES.len() {
                let held = [row & 1 != 0, row & 2 != 0, row & 4 != 0, row & 8 != 0];
                let names: Vec<&str> =
                    NAMES.iter().zip(held).filter_map(|(name, held)| held.then_some(*name)).collect();
                let granted = granted(&names);
                prop_assert_eq!(requirement.holds(&granted.iter().collect()), tree.holds(&held), "{} {:?}", text, names);
            }
        }

        #[test]
        fn any_expression_is_parsed_or_rejected_at_a_character(text in "[ab:*(),ANDOR é]{0,40}") {
            if let Err(error) = Requirement::parse("required", &text) {
                let error = error.to_string();
                let at = error.split("character ").nth(1).and_then(|rest| rest.split(':').next());
                let at: usize = at.unwrap().parse().unwrap();
                prop_assert!((1..=text.chars().count() + 1).contains(&at), "{error}");
            }
        }
    }
}
