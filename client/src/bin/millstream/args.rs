//! What the command line says: flags, their help, and what they exclude.

use clap::{Parser, Subcommand, ValueEnum};
use millstream_client::{Client, ClientOptions, CredentialFlags, DEFAULT_RELAY_URL};

use crate::explain::Failure;
use crate::when::Moment;

/// Reads logs and acts on builds through a Millstream relay.
///
/// Exit status: 0 done, 1 failure (of search: also nothing found), 2 wrong usage (also a selector, address or regular expression that
/// does not parse), 130 after Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "millstream", version, max_term_width = 100)]
pub(crate) struct Args {
    /// Address of the relay.
    #[arg(long, global = true, env = "MILLSTREAM_RELAY", default_value = DEFAULT_RELAY_URL, value_name = "URL")]
    pub(crate) relay: String,
    /// Token that tells the relay who is asking; other users of this machine can see it in the list of processes, but not
    /// in --token-file or the environment.
    #[arg(
        long,
        global = true,
        env = "MILLSTREAM_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub(crate) token: Option<String>,
    #[command(flatten)]
    credentials: CredentialFlags,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        let flags = self.credentials.clone();
        let options = ClientOptions {
            url: self.relay.clone(),
            credentials: flags.over(CredentialFlags::default(), self.token.clone()),
        };
        Ok(Client::connect(options).await?)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Tail(TailArgs),
    Ls(LsArgs),
    Cat(CatArgs),
    Search(SearchArgs),
    /// Start a source's command on its agent.
    Start(SourceArgs),
    /// Stop a run and everything that it started: SIGINT, 7.5 s, SIGTERM, 2.5 s, SIGKILL.
    Stop(TargetArgs),
    /// Stop a run, then start it again.
    Restart(TargetArgs),
    #[command(name = "set-command")]
    SetArgv(SetArgvArgs),
    /// Print the completion script for a shell.
    Completions {
        shell: clap_complete::Shell,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people: control characters are shown, not obeyed.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// The bytes as they were produced.
    Raw,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// On for a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    Always,
    Never,
}

/// How many lines before the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineCount {
    Last(u64),
    All,
}

impl std::str::FromStr for LineCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        text.parse()
            .map(Self::Last)
            .map_err(|_| "give a number of lines, or `all`".to_owned())
    }
}

/// Print the lines of streams, and follow them with -f.
///
/// Starts with the last 10 lines of each stream, like tail(1). With --grep or --until, and no -n or
/// --since, it starts with the oldest stored line instead, because what is looked for may be anywhere.
/// A stream that appears while following is shown from its first line. Lines of one stream are in
/// order; streams are interleaved as their lines arrive. When the relay goes away, tail goes on where it
/// stopped, without repeating or losing a line.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct TailArgs {
    /// Which streams, by label: `host=build-*,source in (cargo,npm),branch!=main,job`. All when left out.
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) selector: String,
    /// Start this many lines before the end of each stream, or at its beginning with `all`.
    #[arg(short = 'n', long, value_name = "N|all", conflicts_with_all = ["since", "from_sequence", "until"])]
    pub(crate) lines: Option<LineCount>,
    /// Stay and print what comes.
    #[arg(short, long, conflicts_with = "until")]
    pub(crate) follow: bool,
    /// Start with lines captured at or after this: a duration ago (5m, 1h30m, 2d) or a time (RFC 3339).
    #[arg(long, value_name = "TIME", conflicts_with = "from_sequence")]
    pub(crate) since: Option<Moment>,
    /// Leave out lines captured after this; as --since.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<Moment>,
    /// Start with this line; for one stream.
    #[arg(long, value_name = "SEQUENCE", requires = "stream")]
    pub(crate) from_sequence: Option<u64>,
    /// Only this stream; `millstream ls streams` shows the ids.
    #[arg(long, value_name = "ID")]
    pub(crate) stream: Option<u64>,
    /// Only lines that match this regular expression (syntax of Rust's regex crate).
    #[arg(long, value_name = "REGEX")]
    pub(crate) grep: Option<String>,
    /// Match without regard to case.
    #[arg(short, long, requires = "grep")]
    pub(crate) ignore_case: bool,
    /// Only lines that do not match.
    #[arg(short = 'v', long, requires = "grep")]
    pub(crate) invert: bool,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
    /// Colours, those of the lines included.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) color: Switch,
    /// Put each line's capture time (UTC) before it.
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Put `host/source` before each line; auto: when there are several streams.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) prefix: Switch,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ListKind {
    Streams,
    /// Streams that are the output of one execution of a command.
    Runs,
    Agents,
}

/// List streams, runs or agents.
#[derive(Debug, clap::Args)]
pub(crate) struct LsArgs {
    pub(crate) what: ListKind,
    /// Which streams, as for tail; for agents: those that have a stream which it selects.
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) selector: String,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: ListOutput,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListOutput {
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Print one stream from its store, exactly as it was produced.
///
/// The bytes are those of the source: Millstream's own notices are left out, and a last line without a
/// newline stays without. On a terminal they are shown as text with control characters made visible; -o
/// raw sends them as they are.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct CatArgs {
    /// Id of the stream; `millstream ls streams` shows them.
    pub(crate) stream: u64,
    /// First line wanted.
    #[arg(long, value_name = "SEQUENCE")]
    pub(crate) from_sequence: Option<u64>,
    /// First line not wanted.
    #[arg(long, value_name = "SEQUENCE")]
    pub(crate) to_sequence: Option<u64>,
    /// raw unless standard output is a terminal; json has notices too.
    #[arg(short, long, value_enum)]
    pub(crate) output: Option<Output>,
    /// Colours, those of the lines included.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) color: Switch,
    /// Put each line's capture time (UTC) before it; with -o text.
    #[arg(short, long)]
    pub(crate) timestamps: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SearchSeverity {
    Warning,
    Error,
}

/// Search stored lines on the relay, newest first.
///
/// Nothing but the hits is sent here. Exit status: 0 when a line was found, 1 when none was or the search
/// failed (then a message says so), 2 for wrong usage. With -C, lines around a hit are shown in order, as by
/// grep(1), and groups of lines are set apart by `--`.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct SearchArgs {
    /// Regular expression (syntax of Rust's regex crate); '' for every line.
    pub(crate) pattern: String,
    /// Which streams, as for tail.
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) selector: String,
    /// Take the pattern as plain text.
    #[arg(short = 'F', long)]
    pub(crate) fixed_string: bool,
    /// Match without regard to case.
    #[arg(short, long)]
    pub(crate) ignore_case: bool,
    /// Only lines that do not match.
    #[arg(short = 'v', long)]
    pub(crate) invert: bool,
    /// Only lines that look like warnings or errors; several are allowed.
    #[arg(long, value_name = "SEVERITY", value_delimiter = ',')]
    pub(crate) severity: Vec<SearchSeverity>,
    /// Print this many lines before and after each hit, at most 100.
    #[arg(short = 'C', long, default_value_t = 0, value_name = "N")]
    pub(crate) context: u32,
    /// Only lines captured at or after this: a duration ago (5m, 1h30m, 2d) or a time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Moment>,
    /// Leave out lines captured after this; as --since.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<Moment>,
    /// Only this stream; `millstream ls streams` shows the ids.
    #[arg(long, value_name = "ID")]
    pub(crate) stream: Option<u64>,
    /// Begin with the oldest lines.
    #[arg(long)]
    pub(crate) oldest_first: bool,
    /// Stop after this many hits [default: the relay's limit, 10,000]
    #[arg(short, long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub(crate) max_hits: u32,
    /// Put each line's sequence before it, with `:` for a hit and `-` for a line around one.
    #[arg(short = 'n', long)]
    pub(crate) line_number: bool,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
    /// Colours, those of the lines included.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) color: Switch,
    /// Put each line's capture time (UTC) before it.
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Put `host/source` before each line; auto: when there are several streams.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) prefix: Switch,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SourceArgs {
    /// The agent's host (or its id, where a host has several agents) and the source's name.
    #[arg(value_name = "HOST/SOURCE")]
    pub(crate) target: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TargetArgs {
    /// A source of an agent, or one run; `millstream ls runs` shows the ids.
    #[arg(value_name = "HOST/SOURCE|RUN")]
    pub(crate) target: String,
}

/// Change the command that a source runs from its next start on.
#[derive(Debug, clap::Args)]
pub(crate) struct SetArgvArgs {
    /// The agent's host or id, and the source's name.
    #[arg(value_name = "HOST/SOURCE")]
    pub(crate) target: String,
    /// What the command is believed to be now, once for each word; refused when it is another.
    #[arg(long, value_name = "WORD")]
    pub(crate) expect: Vec<String>,
    /// The new command, after `--`; nothing: back to the agent's configuration.
    #[arg(last = true, value_name = "CMD")]
    pub(crate) argv: Vec<String>,
}
