//! The plugins that exist, with their settings and what they mean: what `sources` prints and what the
//! configuration accepts.

/// One setting of a plugin.
#[derive(Debug, Clone, Copy)]
pub struct SettingDoc {
    pub name: &'static str,
    /// What to write: `"text"`, `["list"]`, `true`…
    pub form: &'static str,
    pub default: &'static str,
    pub doc: &'static str,
}

/// One plugin.
#[derive(Debug, Clone, Copy)]
pub struct PluginDoc {
    pub name: &'static str,
    pub doc: &'static str,
    pub settings: &'static [SettingDoc],
}

const fn setting(
    name: &'static str,
    form: &'static str,
    default: &'static str,
    doc: &'static str,
) -> SettingDoc {
    SettingDoc {
        name,
        form,
        default,
        doc,
    }
}

/// Settings that every plugin has.
pub const COMMON_SETTINGS: &[SettingDoc] = &[
    setting(
        "plugin",
        "\"file\" | \"tail\" | \"exec\" | a plugin's name",
        "",
        "Which plugin; required.",
    ),
    setting(
        "labels",
        "{ key = \"value\" }",
        "{}",
        "Labels of every stream of this source.",
    ),
    setting(
        "mask",
        "{ env = [\"*_TOKEN\"], files = [], patterns = [], commands = true }",
        "{}",
        "Secrets of this source, beside those of [mask]: values of variables, contents of files, what matches.",
    ),
    setting(
        "join",
        "{ start = \"^\\\\d{4}-\", indent = false, timeout = \"500ms\", separator = \" ⏎ \", max_lines = 1000 }",
        "no joining",
        "Makes one line of the lines of a record: it begins with a line that matches, or indented lines continue it.",
    ),
    setting(
        "drop",
        "[{ pattern = \"GET /healthz\", keep_one_in = 100 }]",
        "[]",
        "Leaves out what matches, or all but one of each so many; how much is said in the stream.",
    ),
    setting(
        "severity",
        "\"auto\" | { error = [\"^E \"], warning = [\"^W \"], none = [], otherwise = \"auto\" }",
        "nothing is said",
        "Says of each line how bad it is: as its text looks, or by patterns. Readers need not guess then.",
    ),
    setting(
        "json_labels",
        "[\"service\"] | { pod = \"kubernetes.pod\" }",
        "[]",
        "Fields of JSON lines that become labels of a new stream: the first value of each in its first lines.",
    ),
];

/// Settings of every plugin that is a manifest or speaks the plugin protocol, beside its own.
pub const PLUGIN_SETTINGS: &[SettingDoc] = &[
    setting(
        "restart",
        "\"never\" | \"on-failure\" | \"always\"",
        "the plugin's, mostly \"always\"",
        "When to start it again.",
    ),
    setting(
        "memory_max_bytes",
        "536870912",
        "512 MiB",
        "Private memory of each of its processes; beyond it the system refuses more.",
    ),
    setting(
        "max_bytes_per_second",
        "16777216",
        "16 MiB",
        "Output that is read in a second; beyond it the plugin has to wait. 0: no bound.",
    ),
    setting(
        "stall_timeout",
        "\"5m\"",
        "never",
        "Start it again when it prints nothing for so long.",
    ),
];

/// Every plugin of the agent itself, by name.
/// Settings of plugins whose output goes through a spool.
const SPOOL_MAX_BYTES: SettingDoc = setting(
    "spool_max_bytes",
    "1073741824",
    "1 GiB",
    "Disk for output that the relay has not stored.",
);
const SPOOL_WHEN_FULL: SettingDoc = setting(
    "spool_when_full",
    "\"block\" | \"drop-oldest\"",
    "\"block\"",
    "When that is full: the command has to wait, or the oldest output goes and a notice says how much.",
);

/// Every plugin of the agent itself, by name.
pub const PLUGINS: &[PluginDoc] = &[
    PluginDoc {
        name: "file",
        doc: "Follows files natively. Goes on exactly where the relay's store ends after any restart; follows \
              rotation by rename, truncation (said in the stream) and deletion.",
        settings: &[
            setting(
                "paths",
                "[\"/var/log/*.log\"]",
                "",
                "Paths and globs (*, ?, [a-z], {a,b}, **); required.",
            ),
            setting(
                "exclude",
                "[\"*.gz\"]",
                "[]",
                "Globs of files not to follow, on the path or its last part.",
            ),
            setting(
                "start",
                "\"beginning\" | \"end\"",
                "\"beginning\"",
                "Where to begin in files that exist at the first start; later ones are read whole.",
            ),
            setting(
                "watch",
                "\"auto\" | \"poll\"",
                "\"auto\"",
                "\"poll\" never uses inotify.",
            ),
            setting(
                "poll_interval",
                "\"1s\"",
                "\"1s\"",
                "How often to look where inotify does not work.",
            ),
            setting(
                "rotate_wait",
                "\"500ms\"",
                "\"500ms\"",
                "How long a rotated file has to be quiet before the new one is read.",
            ),
            setting(
                "forget_after",
                "\"1m\"",
                "\"1m\"",
                "How long a path that a glob has found and that is gone is waited for; it is found again later.",
            ),
        ],
    },
    PluginDoc {
        name: "tail",
        doc: "Runs `tail -F PATH`. What it printed waits on disk until the relay has it; a killed agent finds it \
              still running. But it cannot resume: started again it begins at the end, and a notice in the stream \
              says that lines written meanwhile were skipped. Prefer `file`.",
        settings: &[
            setting("path", "\"/var/log/app.log\"", "", "The file; required."),
            setting(
                "start",
                "\"beginning\" | \"end\"",
                "\"beginning\"",
                "Where the very first start begins.",
            ),
            SPOOL_MAX_BYTES,
            SPOOL_WHEN_FULL,
        ],
    },
    PluginDoc {
        name: "exec",
        doc: "Runs a command, never through a shell. Every execution is a run: a stream of its own with argv, \
              start, end and exit status. A run is held by a process of its own: it and its output survive the \
              agent's end, and the next agent goes on with it.",
        settings: &[
            setting(
                "command",
                "[\"make\", \"-j4\"]",
                "",
                "The command and its arguments; required.",
            ),
            setting("cwd", "\"/src/project\"", "the agent's", "Working directory."),
            setting(
                "env",
                "{ CI = \"1\" }",
                "{}",
                "Environment variables added to the agent's own.",
            ),
            setting(
                "pty",
                "true | false",
                "false",
                "Give it a terminal, so that it keeps its colours.",
            ),
            setting(
                "run_at_start",
                "true | false",
                "true without schedule and on_change",
                "Run once when the agent starts. With false, and without the two, only people start it.",
            ),
            setting(
                "schedule",
                "\"every 10m\" | \"30 3 * * 1-5\"",
                "none",
                "Run by the clock: an interval, or five fields of cron in the host's time zone. Skipped, and said in \
                 the log, while it still runs.",
            ),
            setting(
                "on_change",
                "[\"src/**\", \"Makefile\"]",
                "[]",
                "Run when one of these files changes; once more afterwards when one changes during a run.",
            ),
            setting(
                "on_change_delay",
                "\"500ms\"",
                "\"500ms\"",
                "How long the files have to be quiet before.",
            ),
            setting("max_runs", "1", "1", "Runs at once."),
            setting(
                "time_limit",
                "\"2h\" | \"never\"",
                "\"never\"",
                "Stop a run that takes longer.",
            ),
            setting(
                "quiet_notice",
                "\"60s\" | \"never\"",
                "\"60s\"",
                "Say in the log that nothing was written for this long.",
            ),
            setting(
                "record_env",
                "[\"RUSTFLAGS\"]",
                "[]",
                "Environment variables to show with the run. They are stored as they are: name no secrets.",
            ),
            setting(
                "restart",
                "\"never\" | \"on-failure\" | \"always\"",
                "\"never\"",
                "When to run it again. What a person has stopped stays stopped.",
            ),
            setting(
                "restart_delay",
                "\"1s\"",
                "\"1s\"",
                "Wait before the first restart; doubles for short runs.",
            ),
            setting(
                "restart_limit",
                "\"1m\"",
                "\"1m\"",
                "Longest wait between restarts.",
            ),
            SPOOL_MAX_BYTES,
            SPOOL_WHEN_FULL,
            setting(
                "stop_with_agent",
                "true | false",
                "false",
                "Stop the run when the agent is stopped; otherwise the next agent adopts it.",
            ),
        ],
    },
];

/// The plugin of that name.
#[must_use]
pub fn plugin(name: &str) -> Option<&'static PluginDoc> {
    PLUGINS.iter().find(|plugin| plugin.name == name)
}
