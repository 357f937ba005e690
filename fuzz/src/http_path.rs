//! A method and a path with its query, asked of the relay's plain HTTP side.

use std::cell::RefCell;
use std::sync::Arc;

use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use millstream_proto::block::BlockBuilder;
use millstream_proto::v1::Channel;
use millstream_relay::auth::{Role, Rule, rules};
use millstream_relay::config::{Config, Settings};
use millstream_relay::server::HttpSide;
use millstream_relay::{Core, CoreOptions};
use millstream_store::memory::MemoryStore;
use millstream_store::{AppendOp, LogStore, StreamRecord, WriteOp};
use tonic::body::Body;

/// The lines of stream 1, the only one.
const LINES: [&str; 3] = ["one\n", "two\n", "three\n"];

/// Two relays over the same lines.
struct World {
    runtime: tokio::runtime::Runtime,
    /// Asks everybody for a token, and there is none.
    asking: HttpSide,
    /// Asks nobody.
    open: HttpSide,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

/// One byte of choices (method, which relay), then path and query. Whoever is nobody gets what is open to all and
/// nothing else, whatever the path looks like; and what is downloaded is the lines that were asked for.
pub fn http_path(data: &[u8]) {
    let Some((choices, rest)) = data.split_first() else {
        return;
    };
    let method = [Method::GET, Method::HEAD, Method::POST, Method::DELETE][usize::from(choices & 3)].clone();
    let request = Request::builder()
        .method(method.clone())
        .uri(rest)
        .header(header::HOST, "127.0.0.1")
        .body(Body::empty());
    let Ok(request) = request else { return };
    let uri = request.uri().clone();
    // What is in the request's target before the path is the caller's word for the host.
    if uri.authority().is_some() {
        return;
    }
    let rule = rules::of_http(&method, uri.path());
    WORLD.with_borrow_mut(|world| {
        if choices & 4 == 0 {
            world.ask_as_nobody(request, rule);
        } else {
            world.ask(request, &method, &uri, rule);
        }
    });
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let _inside = runtime.enter();
        let store: Arc<dyn LogStore> = Arc::new(MemoryStore::new());
        store.commit(stored()).expect("it is kept in memory");
        let (core, _work) =
            Core::build(store, CoreOptions::default()).expect("a store in memory can be read");
        let side = |asks| {
            let settings = Settings {
                // It is never made; so there is no token.
                data_dir: Some("no-such-directory".into()),
                auth: Some(asks),
                ..Settings::default()
            };
            let config = Config::load(settings, None).expect("the settings are good");
            HttpSide::without_port(core.clone(), &config).expect("there is no token file to be wrong")
        };
        let (asking, open) = (side(true), side(false));
        drop(_inside);
        Self {
            runtime,
            asking,
            open,
        }
    }

    /// Somebody without a token asks a relay that wants one.
    fn ask_as_nobody(&mut self, request: Request<Body>, rule: Option<Rule>) {
        let answer = self.runtime.block_on(self.asking.answer(request));
        let status = answer.status();
        match rule {
            None => assert!(
                matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED),
                "what is in no table does not exist: {status}"
            ),
            Some(Rule::Needs(_) | Rule::NeedsWithoutScope(_)) => {
                assert_eq!(status, StatusCode::UNAUTHORIZED);
            }
            Some(Rule::Open | Rule::OpenToOwnPages) => {
                assert!(!is_download(&answer), "a download is open to nobody");
                // A relay with trouble says 503 to its probe; this one has none.
                assert!(!status.is_server_error(), "{status}");
            }
        }
    }

    fn ask(&mut self, request: Request<Body>, method: &Method, uri: &http::Uri, rule: Option<Rule>) {
        let answer = self.runtime.block_on(self.open.answer(request));
        let status = answer.status();
        assert!(!status.is_server_error(), "{status}");
        if !is_download(&answer) {
            return;
        }
        assert_eq!(
            rule,
            Some(Rule::Needs(Role::Viewer)),
            "a download is what its rule is for"
        );
        let body = self.runtime.block_on(answer.into_body().collect());
        let body = body.expect("the lines can be read").to_bytes();
        if method == Method::HEAD {
            return;
        }
        let is_range = |from: usize, to: usize| LINES[from..to].concat().as_bytes() == body;
        let any = (0..=LINES.len()).any(|from| (from..=LINES.len()).any(|to| is_range(from, to)));
        assert!(any, "only lines of the stream, in order: {body:?}");
        if let Some((from, to)) = plain_range(uri.query()) {
            let to = to.min(LINES.len());
            assert!(
                is_range(from.min(to), to),
                "the lines that were asked for: {body:?}"
            );
        }
    }
}

fn is_download<B>(answer: &http::Response<B>) -> bool {
    answer.headers().contains_key(header::CONTENT_DISPOSITION)
}

/// The range of a query in its plainest form; `None`: it has another one.
fn plain_range(query: Option<&str>) -> Option<(usize, usize)> {
    let Some(query) = query else {
        return Some((0, usize::MAX));
    };
    let (from, to) = query.strip_prefix("from=")?.split_once("&to=")?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

/// Stream 1 with its lines.
fn stored() -> Vec<WriteOp> {
    let record = StreamRecord {
        stream_id: 1,
        agent_id: "a".to_owned(),
        source: "file".to_owned(),
        instance: "/log".to_owned(),
        labels: [("host".to_owned(), "build-7".to_owned())].into(),
        created_unix_us: 1,
        first_sequence: 0,
        next_sequence: 0,
        text_bytes: 0,
        last_line_unix_us: 0,
        checkpoint: bytes::Bytes::new(),
        run: None,
        end: None,
    };
    // A block a line, so that ranges end at blocks, within a page of them.
    let appends = (0..).zip(LINES).map(|(sequence, line)| {
        let mut builder = BlockBuilder::new();
        let is_kept = builder.push_line(line.trim_end().as_bytes(), 1, Channel::Stdout, false);
        assert!(is_kept, "a short line fits into a block");
        WriteOp::Append(AppendOp {
            stream_id: 1,
            block: builder.finish(sequence).expect("there is a line"),
            checkpoint: bytes::Bytes::new(),
            last_line_unix_us: 1,
        })
    });
    std::iter::once(WriteOp::PutStream(record))
        .chain(appends)
        .collect()
}
