//! Labels that a CI system's environment gives a run: which branch, commit, job and build it is.
//!
//! Only variables that the systems document are read, and only where the system says by its own mark that it is
//! the one. What the user labels wins.

use std::collections::BTreeMap;

use millstream_proto::limits::MAX_LABEL_VALUE_BYTES;

/// One system: a variable that only it sets, and for each label the variables that may hold it, best first.
struct System {
    name: &'static str,
    mark: &'static str,
    labels: &'static [(&'static str, &'static [&'static str])],
}

/// From the systems' own lists of predefined variables. Those that also set another's mark come first.
const SYSTEMS: &[System] = &[
    System {
        name: "github",
        mark: "GITHUB_ACTIONS",
        labels: &[
            ("branch", &["GITHUB_HEAD_REF", "GITHUB_REF_NAME"]),
            ("commit", &["GITHUB_SHA"]),
            ("job", &["GITHUB_JOB"]),
            ("build", &["GITHUB_RUN_ID"]),
            ("repository", &["GITHUB_REPOSITORY"]),
        ],
    },
    System {
        name: "gitlab",
        mark: "GITLAB_CI",
        labels: &[
            ("branch", &["CI_COMMIT_REF_NAME"]),
            ("commit", &["CI_COMMIT_SHA"]),
            ("job", &["CI_JOB_NAME"]),
            ("build", &["CI_PIPELINE_ID"]),
            ("repository", &["CI_PROJECT_PATH"]),
        ],
    },
    System {
        name: "buildkite",
        mark: "BUILDKITE",
        labels: &[
            ("branch", &["BUILDKITE_BRANCH"]),
            ("commit", &["BUILDKITE_COMMIT"]),
            ("job", &["BUILDKITE_STEP_KEY", "BUILDKITE_LABEL"]),
            ("build", &["BUILDKITE_BUILD_NUMBER"]),
            ("repository", &["BUILDKITE_PIPELINE_SLUG"]),
        ],
    },
    System {
        name: "azure",
        mark: "TF_BUILD",
        labels: &[
            ("branch", &["BUILD_SOURCEBRANCHNAME", "BUILD_SOURCEBRANCH"]),
            ("commit", &["BUILD_SOURCEVERSION"]),
            ("job", &["SYSTEM_JOBNAME", "AGENT_JOBNAME"]),
            ("build", &["BUILD_BUILDID"]),
            ("repository", &["BUILD_REPOSITORY_NAME"]),
        ],
    },
    System {
        name: "teamcity",
        mark: "TEAMCITY_VERSION",
        labels: &[
            ("job", &["TEAMCITY_BUILDCONF_NAME"]),
            ("build", &["BUILD_NUMBER"]),
            ("commit", &["BUILD_VCS_NUMBER"]),
            ("repository", &["TEAMCITY_PROJECT_NAME"]),
        ],
    },
    System {
        name: "circleci",
        mark: "CIRCLECI",
        labels: &[
            ("branch", &["CIRCLE_BRANCH"]),
            ("commit", &["CIRCLE_SHA1"]),
            ("job", &["CIRCLE_JOB"]),
            ("build", &["CIRCLE_BUILD_NUM"]),
            ("repository", &["CIRCLE_PROJECT_REPONAME"]),
        ],
    },
    System {
        name: "travis",
        mark: "TRAVIS",
        labels: &[
            ("branch", &["TRAVIS_BRANCH"]),
            ("commit", &["TRAVIS_COMMIT"]),
            ("job", &["TRAVIS_JOB_NAME"]),
            ("build", &["TRAVIS_BUILD_NUMBER"]),
            ("repository", &["TRAVIS_REPO_SLUG"]),
        ],
    },
    System {
        name: "woodpecker",
        mark: "CI_SYSTEM_NAME",
        labels: &[
            ("branch", &["CI_COMMIT_BRANCH"]),
            ("commit", &["CI_COMMIT_SHA"]),
            ("job", &["CI_STEP_NAME", "CI_WORKFLOW_NAME"]),
            ("build", &["CI_PIPELINE_NUMBER"]),
            ("repository", &["CI_REPO"]),
        ],
    },
    System {
        name: "jenkins",
        mark: "JENKINS_URL",
        labels: &[
            ("branch", &["BRANCH_NAME", "GIT_BRANCH"]),
            ("commit", &["GIT_COMMIT"]),
            ("job", &["JOB_NAME"]),
            ("build", &["BUILD_NUMBER"]),
        ],
    },
];

/// Labels of the first system whose mark the environment has; empty without one.
#[must_use]
pub fn labels(variable: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let present = |name: &str| variable(name).filter(|value| !value.is_empty());
    let Some(system) = SYSTEMS.iter().find(|system| present(system.mark).is_some()) else {
        return BTreeMap::new();
    };
    let usable =
        |value: &String| value.len() <= MAX_LABEL_VALUE_BYTES && !value.chars().any(char::is_control);
    let mut labels = BTreeMap::from([("ci".to_owned(), system.name.to_owned())]);
    for (label, variables) in system.labels {
        let value = variables.iter().find_map(|name| present(name));
        if let Some(value) = value.filter(usable) {
            labels.insert((*label).to_owned(), value);
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels_of(environment: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels(|name| {
            let found = environment.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn each_system_is_known_by_its_mark() {
        let labels = labels_of(&[
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_HEAD_REF", ""),
            ("GITHUB_REF_NAME", "main"),
            ("GITHUB_SHA", "0123abcd"),
            ("GITHUB_JOB", "test"),
            ("CI_COMMIT_SHA", "of another system"),
        ]);
        let expected = [
            ("branch", "main"),
            ("ci", "github"),
            ("commit", "0123abcd"),
            ("job", "test"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(labels, expected.into());
    }

    #[test]
    fn outside_of_ci_there_are_none() {
        assert!(labels_of(&[("CI", "true"), ("BRANCH_NAME", "main")]).is_empty());
    }

    #[test]
    fn what_cannot_be_a_label_is_left_out() {
        let labels = labels_of(&[
            ("GITLAB_CI", "true"),
            ("CI_JOB_NAME", "a\nb"),
            ("CI_PIPELINE_ID", "7"),
        ]);
        assert_eq!(labels.get("job"), None);
        assert_eq!(labels["build"], "7");
    }
}
