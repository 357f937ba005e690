//! A command as a manifest writes it, and the argv that settings make of it.
//!
//! Settings become whole elements of the argv. Nothing is ever put inside a longer text, so no value can be taken
//! for another option, a second argument or a shell's command.

use serde::Deserialize;
use serde_json::Value;

use super::schema::{Schema, SettingType, Values};

/// Name of the place for what resumes.
const RESUME: &str = "resume";
/// Name of the place for an item of `each`.
const ITEM: &str = "item";

/// One part of a command template.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Part {
    /// As it is, or `${setting}`; a list becomes as many elements.
    Element(String),
    Group(Group),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    /// Only when this setting is given, is true, or has items.
    #[serde(rename = "if")]
    when: Option<String>,
    /// Only when that is not so.
    unless: Option<String>,
    /// Once for each item of this list, with `${item}`.
    each: Option<String>,
    args: Vec<String>,
}

/// The name in an element that is a place for a setting.
fn placeholder(element: &str) -> Option<&str> {
    element.strip_prefix("${")?.strip_suffix('}')
}

/// Checks a template against the settings that there are.
///
/// # Errors
/// A sentence for the manifest's author.
pub(super) fn check(parts: &[Part], schema: &Schema, resumes: bool) -> Result<(), String> {
    let known = |name: &str| {
        schema.settings.get(name).ok_or_else(|| {
            let names: Vec<&str> = schema.settings.keys().map(String::as_str).collect();
            format!(
                "there is no setting `{name}`{}",
                crate::config::suggestion(name, &names)
            )
        })
    };
    let check_element = |element: &str, in_each: bool| match placeholder(element) {
        Some(RESUME) if resumes => Ok(()),
        Some(RESUME) => Err("${resume} stands in [resume] args only".to_owned()),
        Some(ITEM) if in_each => Ok(()),
        Some(name) => known(name).map(drop),
        None if element.contains("${") => Err(format!(
            "{element:?}: a setting has to be a whole element of the command, for example \"--since\", \"${{since}}\""
        )),
        None => Ok(()),
    };
    for part in parts {
        match part {
            Part::Element(element) => check_element(element, false)?,
            Part::Group(group) => {
                for name in [&group.when, &group.unless, &group.each].into_iter().flatten() {
                    let spec = known(name)?;
                    if group.each.as_ref() == Some(name) && spec.kind != SettingType::List {
                        return Err(format!("each = \"{name}\": that setting is no list"));
                    }
                }
                for element in &group.args {
                    check_element(element, group.each.is_some())?;
                }
            }
        }
    }
    Ok(())
}

/// The argv for these settings. Places of settings that are not given vanish with their element.
pub(super) fn expand(parts: &[Part], values: &Values, resume: Option<&str>) -> Vec<String> {
    let mut argv = Vec::new();
    for part in parts {
        match part {
            Part::Element(element) => push(&mut argv, element, values, resume, None),
            Part::Group(group) => {
                let wanted = group.when.as_ref().is_none_or(|name| is_on(values.get(name)))
                    && group.unless.as_ref().is_none_or(|name| !is_on(values.get(name)));
                if !wanted {
                    continue;
                }
                let mut push_group = |item: Option<&Value>| {
                    for element in &group.args {
                        push(&mut argv, element, values, resume, item);
                    }
                };
                match &group.each {
                    None => push_group(None),
                    Some(name) => {
                        let items = values.get(name).and_then(Value::as_array);
                        for item in items.into_iter().flatten() {
                            push_group(Some(item));
                        }
                    }
                }
            }
        }
    }
    argv
}

fn push(argv: &mut Vec<String>, element: &str, values: &Values, resume: Option<&str>, item: Option<&Value>) {
    let value = match placeholder(element) {
        None => return argv.push(element.to_owned()),
        Some(RESUME) if resume.is_some() => return argv.extend(resume.map(str::to_owned)),
        Some(ITEM) if item.is_some() => item,
        Some(name) => values.get(name),
    };
    match value {
        Some(Value::Array(items)) => argv.extend(items.iter().map(text)),
        Some(value) => argv.push(text(value)),
        None => {}
    }
}

fn is_on(value: Option<&Value>) -> bool {
    match value {
        None => false,
        Some(Value::Bool(truth)) => *truth,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        Some(_) => true,
    }
}

/// A setting as a command gets it.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Deserialize)]
    struct Template {
        command: Vec<Part>,
        settings: Schema,
    }

    const TEMPLATE: &str = r#"
        command = [
            "tool", { if = "all", args = ["--all"] }, { unless = "all", args = ["--some"] },
            { if = "since", args = ["--since", "${since}"] }, { each = "units", args = ["--unit", "${item}"] },
            "--", "${name}", "${units}",
        ]
        [settings]
        all = { type = "boolean" }
        since = { type = "string" }
        units = { type = "list" }
        name = { type = "string" }
    "#;

    fn argv(settings: &str) -> Vec<String> {
        let template: Template = toml::from_str(TEMPLATE).unwrap();
        check(&template.command, &template.settings, false).unwrap();
        let values = template
            .settings
            .values(&toml::from_str(settings).unwrap())
            .unwrap();
        expand(&template.command, &values, None)
    }

    #[test]
    fn settings_become_whole_elements() {
        assert_eq!(argv("name = 'web'"), ["tool", "--some", "--", "web"]);
        assert_eq!(
            argv("name = 'a; rm -rf $HOME'\nall = true\nsince = '1h'\nunits = ['x y', 'z']"),
            [
                "tool",
                "--all",
                "--since",
                "1h",
                "--unit",
                "x y",
                "--unit",
                "z",
                "--",
                "a; rm -rf $HOME",
                "x y",
                "z"
            ]
        );
    }

    #[test]
    fn an_author_who_splices_or_misspells_is_told() {
        for (part, expected) in [
            ("\"--name=${name}\"", "has to be a whole element"),
            ("\"${nam}\"", "did you mean `name`?"),
            ("\"${resume}\"", "in [resume] args only"),
            ("{ each = \"name\", args = [] }", "is no list"),
            ("{ if = \"nothing\", args = [] }", "there is no setting"),
        ] {
            let text = TEMPLATE.replacen("\"tool\"", part, 1);
            let template: Template = toml::from_str(&text).unwrap();
            let problem = check(&template.command, &template.settings, false).unwrap_err();
            assert!(problem.contains(expected), "{part}: {problem}");
        }
    }

    proptest! {
        /// Whatever a value holds, it is one element and changes no other.
        #[test]
        fn no_value_changes_the_rest_of_the_command(name in "[^\0-][^\0]*") {
            let template: Template = toml::from_str(TEMPLATE).unwrap();
            let values = [("name".to_owned(), Value::from(name.clone()))].into();
            prop_assert_eq!(
                expand(&template.command, &values, None),
                ["tool", "--some", "--", name.as_str()]
            );
        }
    }
}
