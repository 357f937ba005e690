//! Where the web client leads from a place in a source that a log names.

use super::ConfigError;

/// Kinds of addresses that show sources and run nothing in the page.
const SCHEMES: [&str; 12] = [
    "https",
    "http",
    "vscode",
    "vscode-insiders",
    "vscodium",
    "cursor",
    "zed",
    "idea",
    "jetbrains",
    "subl",
    "txmt",
    "mvim",
];

const FIELDS: [&str; 4] = ["path", "line", "column", "cwd"];

/// An address with fields, such as `https://git.example.com/mill/blob/{label.commit}/{path}#L{line}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTemplate(String);

impl LinkTemplate {
    pub(super) fn parse(text: String) -> Result<Self, ConfigError> {
        match fault(&text) {
            None => Ok(Self(text)),
            Some(cure) => Err(ConfigError::Value {
                name: "link_templates",
                value: text,
                cure,
            }),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is wrong, as what to do.
fn fault(text: &str) -> Option<String> {
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    if !SCHEMES.contains(&scheme) {
        return Some(format!("begin it with one of {}", SCHEMES.join(", ")));
    }
    if text
        .chars()
        .any(|character| character.is_whitespace() || character.is_control())
    {
        return Some("it has a space or a control character; write %20 for a space".to_owned());
    }
    let mut rest = text;
    let mut has_path = false;
    while let Some((_, after)) = rest.split_once('{') {
        let Some((field, tail)) = after.split_once('}') else {
            return Some("a `{` has no `}`".to_owned());
        };
        let is_label = field.strip_prefix("label.").is_some_and(|name| !name.is_empty());
        if !is_label && !FIELDS.contains(&field) {
            return Some(format!(
                "{{{field}}} is not known; there are {{path}}, {{line}}, {{column}}, {{cwd}} and {{label.NAME}}"
            ));
        }
        has_path |= field == "path";
        rest = tail;
    }
    (!has_path).then(|| "it leads nowhere without {path}".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_that_lead_to_a_source_are_taken() {
        for text in [
            "https://git.example.com/{label.repo}/blob/{label.commit}/{path}#L{line}",
            "vscode://file{cwd}/{path}:{line}:{column}",
        ] {
            assert_eq!(LinkTemplate::parse(text.to_owned()).unwrap().as_str(), text);
        }
    }

    #[test]
    fn others_are_refused_with_what_to_do() {
        for (text, words) in [
            ("javascript:alert({path})", "begin it with one of https"),
            ("data:text/html,{path}", "begin it with one of https"),
            ("{path}", "begin it with one of https"),
            ("https://git.example.com/", "without {path}"),
            ("https://git.example.com/{path", "has no `}`"),
            ("https://git.example.com/{file}", "{file} is not known"),
            ("https://git.example.com/{label.}/{path}", "{label.} is not known"),
            ("https://git.example.com/a b/{path}", "%20"),
        ] {
            let message = LinkTemplate::parse(text.to_owned()).unwrap_err().to_string();
            assert!(message.contains(words), "{text}: {message}");
        }
    }
}
