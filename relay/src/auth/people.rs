//! Which people may what: the rules by which claims about a person become a role and a scope.
//!
//! The claims come from a login provider (`oidc`) or from a proxy that is trusted (`forwarded`); who nobody
//! wrote a rule for is not let in.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Access, Role};
use crate::selector::{Selector, SelectorError};

/// The claim by which rules know the user that a trusted proxy names. A login provider cannot give it: there,
/// people may choose some of their claims themselves.
pub const USER: &str = "user";

/// Longest value that is shown or written to the audit, in characters.
const MAX_SHOWN: usize = 100;

/// Values of one claim that are written to the audit.
const MAX_SHOWN_VALUES: usize = 10;

/// What is said about a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims(Map<String, Value>);

/// Who somebody is, and what is said about them.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    /// For people: the audit, the browser, notices in logs.
    pub(crate) name: String,
    pub(crate) claims: Claims,
}

/// Everybody with these claims gets this role and scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonRule {
    /// All of them have to be there with one of their values; `*` in a value stands for any text.
    claims: Vec<(String, Vec<String>)>,
    role: Role,
    scope: String,
}

/// What is wrong with a rule.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    #[error("it names no claim; {{ sub = \"*\" }} is everybody whom the provider knows")]
    NoClaim,
    #[error("the claim {0:?} has no value; give at least one")]
    NoValue(String),
    #[error("people are viewer, operator or admin; agents have tokens or certificates")]
    Agent,
    #[error("scope: {0}")]
    Scope(#[from] SelectorError),
}

impl PersonRule {
    /// # Errors
    /// It would let in nobody, or nobody who is a person.
    pub fn new(
        claims: Vec<(String, Vec<String>)>,
        role: Role,
        scope: impl Into<String>,
    ) -> Result<Self, RuleError> {
        let scope = scope.into();
        if claims.is_empty() {
            return Err(RuleError::NoClaim);
        }
        for (name, values) in &claims {
            if values.is_empty() || values.iter().any(String::is_empty) {
                return Err(RuleError::NoValue(name.clone()));
            }
        }
        if role == Role::Agent {
            return Err(RuleError::Agent);
        }
        Selector::parse(&scope)?;
        Ok(Self { claims, role, scope })
    }

    fn is_about(&self, claims: &Claims) -> bool {
        self.claims.iter().all(|(name, wanted)| {
            let values = claims.values(name);
            wanted
                .iter()
                .any(|pattern| values.iter().any(|value| matches(pattern, value)))
        })
    }

    /// The rule in words.
    #[must_use]
    pub fn explain(&self) -> String {
        let claims: Vec<_> = self
            .claims
            .iter()
            .map(|(name, values)| format!("{name} {}", values.join(" or ")))
            .collect();
        let scope = if self.scope.is_empty() {
            "every stream"
        } else {
            &self.scope
        };
        format!("{}: {}, sees {scope}", claims.join(" and "), self.role)
    }

    /// Whether the rule is about people whom a trusted proxy names.
    #[must_use]
    pub fn names_a_user(&self) -> bool {
        self.claims.iter().any(|(name, _)| name == USER)
    }
}

/// The rules, in the order in which they are asked; the first one that is about a person decides.
#[derive(Clone, Debug, Default)]
pub(crate) struct People {
    rules: Arc<[PersonRule]>,
}

impl People {
    pub(crate) fn new(rules: Vec<PersonRule>) -> Self {
        Self { rules: rules.into() }
    }

    /// What the person may; `None`: no rule lets them in.
    pub(crate) fn access(&self, person: &Person) -> Option<Arc<Access>> {
        let rule = self.rules.iter().find(|rule| rule.is_about(&person.claims))?;
        // The scope was parsed when the rule was made.
        Access::new(person.name.as_str(), rule.role, &rule.scope).ok()
    }

    /// Names of all claims that the rules ask for.
    pub(crate) fn claim_names(&self) -> impl Iterator<Item = &str> {
        self.rules
            .iter()
            .flat_map(|rule| rule.claims.iter().map(|(name, _)| name.as_str()))
    }

    /// Why nobody was let in, for the audit: what the rules ask for, and what is said about the person.
    pub(crate) fn explain_refusal(&self, person: &Person) -> String {
        let mut names: Vec<_> = self.claim_names().collect();
        names.sort_unstable();
        names.dedup();
        let mut text = "no rule of [[people]] lets them in; said about them:".to_owned();
        for name in names {
            let values = person.claims.values(name);
            let shown: Vec<_> = values
                .iter()
                .take(MAX_SHOWN_VALUES)
                .map(|value| shown(value))
                .collect();
            let shown = if shown.is_empty() {
                "nothing".to_owned()
            } else {
                shown.join(", ")
            };
            // Writing to a String cannot fail.
            let _ = write!(text, " {name}: {shown};");
        }
        text
    }
}

impl Claims {
    pub(crate) fn new(claims: Map<String, Value>) -> Self {
        Self(claims)
    }

    /// What a trusted proxy says.
    pub(crate) fn forwarded(user: &str, groups: Vec<String>) -> Self {
        let mut claims = Map::new();
        claims.insert(USER.to_owned(), user.into());
        claims.insert("groups".to_owned(), groups.into());
        Self(claims)
    }

    /// Whether anything is said under this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The values of a claim as text. An `email` that its provider has not verified is none: everybody can write
    /// down somebody else's.
    pub(crate) fn values(&self, name: &str) -> Vec<String> {
        if name == "email" && self.find("email_verified") != Some(&Value::Bool(true)) {
            return Vec::new();
        }
        match self.find(name) {
            Some(Value::Array(values)) => values.iter().filter_map(text).collect(),
            Some(value) => text(value).into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// The claim of this very name, or else, with dots, the one within others (`realm_access.roles`).
    fn find(&self, name: &str) -> Option<&Value> {
        self.0.get(name).or_else(|| {
            let (first, rest) = name.split_once('.')?;
            rest.split('.')
                .try_fold(self.0.get(first)?, |value, name| value.get(name))
        })
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(bool) => Some(bool.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whether the text is the pattern, in which each `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = pieces.next_back() else {
        return rest.is_empty();
    };
    for piece in pieces {
        let Some(at) = rest.find(piece) else {
            return false;
        };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

/// A value as it is shown to people: short, and without what could be taken for something else than a name.
pub(crate) fn shown(value: &str) -> String {
    value
        .chars()
        .take(MAX_SHOWN)
        .map(|character| {
            let is_plain = character.is_alphanumeric() || "_.@+-:/=|".contains(character);
            if is_plain { character } else { '?' }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn claims(value: &Value) -> Claims {
        Claims::new(value.as_object().unwrap().clone())
    }

    fn rule(wanted: &[(&str, &[&str])], role: Role, scope: &str) -> PersonRule {
        let wanted = wanted.iter().map(|(name, values)| {
            (
                (*name).to_owned(),
                values.iter().map(|value| (*value).to_owned()).collect(),
            )
        });
        PersonRule::new(wanted.collect(), role, scope).unwrap()
    }

    fn role(people: &People, value: &Value) -> Option<Role> {
        let person = Person {
            name: "x".to_owned(),
            claims: claims(value),
        };
        people.access(&person)?.role()
    }

    #[test]
    fn the_first_rule_that_is_about_somebody_decides_and_without_one_nobody_is_let_in() {
        let people = People::new(vec![
            rule(&[("groups", &["ops", "root"])], Role::Admin, ""),
            rule(
                &[("groups", &["ci"]), ("email", &["*@example.com"])],
                Role::Operator,
                "team=ci",
            ),
            rule(&[("sub", &["7"])], Role::Viewer, ""),
        ]);
        for (said, expected) in [
            (json!({ "groups": ["x", "ops"], "sub": "7" }), Some(Role::Admin)),
            (json!({ "groups": "root" }), Some(Role::Admin)),
            (
                json!({ "groups": ["ci"], "email": "a@example.com", "email_verified": true }),
                Some(Role::Operator),
            ),
            (
                json!({ "groups": ["ci"], "email": "a@example.com.evil", "email_verified": true }),
                None,
            ),
            (json!({ "groups": ["ci"] }), None),
            (json!({ "sub": 7 }), Some(Role::Viewer)),
            (json!({ "sub": "77" }), None),
            (
                json!({ "sub": ["7"], "groups": [{ "ops": 1 }] }),
                Some(Role::Viewer),
            ),
            (json!({ "sub": null }), None),
            (json!({}), None),
        ] {
            assert_eq!(role(&people, &said), expected, "{said}");
        }
        assert_eq!(role(&People::default(), &json!({ "sub": "7" })), None);
    }

    #[test]
    fn an_email_counts_once_its_provider_has_verified_it() {
        let people = People::new(vec![rule(&[("email", &["*"])], Role::Viewer, "")]);
        let email = "a@example.com";
        for (said, expected) in [
            (
                json!({ "email": email, "email_verified": true }),
                Some(Role::Viewer),
            ),
            (json!({ "email": email, "email_verified": false }), None),
            (json!({ "email": email, "email_verified": "no" }), None),
            (json!({ "email": email }), None),
        ] {
            assert_eq!(role(&people, &said), expected, "{said}");
        }
    }

    #[test]
    fn a_claim_within_others_is_found_by_dots_and_one_whose_own_name_has_dots_too() {
        let said = claims(&json!({
            "realm_access": { "roles": ["a", "b"] }, "https://example.com/groups": ["c"], "x": "text",
        }));
        assert_eq!(said.values("realm_access.roles"), ["a", "b"]);
        assert_eq!(said.values("https://example.com/groups"), ["c"]);
        assert!(said.values("x.y").is_empty() && !said.has("realm_access.groups"));
    }

    #[test]
    fn a_rule_that_lets_in_nobody_is_none() {
        let claim = |name: &str, values: &[&str]| {
            vec![(
                name.to_owned(),
                values.iter().map(|value| (*value).to_owned()).collect(),
            )]
        };
        for (claims, role, scope, words) in [
            (vec![], Role::Viewer, "", "names no claim"),
            (claim("sub", &[]), Role::Viewer, "", "no value"),
            (claim("sub", &[""]), Role::Viewer, "", "no value"),
            (claim("sub", &["x"]), Role::Agent, "", "tokens or certificates"),
            (claim("sub", &["x"]), Role::Viewer, "=", "scope"),
        ] {
            let error = PersonRule::new(claims, role, scope).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn what_is_shown_of_somebody_is_short_and_a_name() {
        assert_eq!(
            shown("ann@example.com\u{1b}[31m (admin)"),
            "ann@example.com??31m??admin?"
        );
        assert_eq!(shown(&"é".repeat(500)).chars().count(), MAX_SHOWN);
        let people = People::new(vec![rule(&[("groups", &["ops"])], Role::Admin, "")]);
        let person = Person {
            name: "x".to_owned(),
            claims: claims(&json!({ "groups": vec!["g"; 1000], "secret": "never" })),
        };
        let why = people.explain_refusal(&person);
        assert!(
            why.contains("groups: g, g") && !why.contains("never") && why.len() < 200,
            "{why}"
        );
    }

    proptest! {
        /// As a regular expression would say.
        #[test]
        fn a_star_stands_for_any_text(pattern in "[ab*]{0,8}", text in "[ab]{0,12}") {
            let pieces: Vec<_> = pattern.split('*').map(regex::escape).collect();
            let expected = regex::Regex::new(&format!("^{}$", pieces.join(".*"))).unwrap().is_match(&text);
            prop_assert_eq!(matches(&pattern, &text), expected);
        }
    }
}
