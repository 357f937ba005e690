//! A TCP proxy that is as bad as networks are: what passes through it can be cut, held up, slowed down or refused
//! while it runs. It knows nothing of what passes.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes that are passed on at a time.
const PIECE_BYTES: usize = 16 << 10;

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Clear,
    /// Connections stay, and nothing passes.
    Stalled,
    /// New connections are closed at once; those that are there go on.
    Refusing,
    /// At most about so many bytes a second each way of each connection.
    Slow(u32),
    /// Each connection is reset after so many more bytes from the client, in the middle of whatever that is.
    ResetAfter(u64),
}

#[derive(Debug, Clone, Copy)]
struct State {
    weather: Weather,
    /// Connections that began under an earlier number are reset.
    cuts: u64,
}

/// A running proxy; gone with its connections when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port and passes everything on to `upstream` (host and port).
    pub async fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (state, watched) = watch::channel(State {
            weather: Weather::Clear,
            cuts: 0,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, upstream.to_owned(), watched));
        Self {
            address,
            state,
            _tasks: tasks,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set(&self, weather: Weather) {
        self.state.send_modify(|state| state.weather = weather);
    }

    /// Resets every connection.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }
}

async fn accept(listener: TcpListener, upstream: String, state: watch::Receiver<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                if state.borrow().weather == Weather::Refusing {
                    reset(&client);
                    continue;
                }
                connections.spawn(pass(client, upstream.clone(), state.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn pass(client: TcpStream, upstream: String, state: watch::Receiver<State>) {
    let Ok(server) = TcpStream::connect(upstream).await else {
        reset(&client);
        return;
    };
    // Nagle would hide what was sent together.
    for socket in [&client, &server] {
        let _ = socket.set_nodelay(true);
        reset_on_close(socket);
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // The first that ends takes the other with it: half a connection is of no use to HTTP/2.
    tokio::select! {
        () = one_way(from_client, to_server, state.clone(), true) => {}
        () = one_way(from_server, to_client, state, false) => {}
    }
}

async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    is_from_client: bool,
) {
    let cuts = state.borrow_and_update().cuts;
    let mut buffer = vec![0; PIECE_BYTES];
    // Counted from when the weather began.
    let mut budget = None;
    loop {
        let now = *state.borrow_and_update();
        if now.cuts != cuts {
            return;
        }
        let mut wanted = buffer.len();
        match now.weather {
            Weather::Stalled => {
                if state.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Weather::ResetAfter(bytes) if is_from_client => {
                let left: &mut u64 = budget.get_or_insert(bytes);
                if *left == 0 {
                    return;
                }
                wanted = wanted.min(usize::try_from(*left).unwrap_or(wanted));
            }
            Weather::Slow(bytes_per_second) => {
                wanted = wanted.min(usize::try_from(bytes_per_second / 20).unwrap_or(wanted).max(1));
            }
            _ => budget = None,
        }
        let read = tokio::select! {
            read = from.read(&mut buffer[..wanted]) => read,
            changed = state.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let Ok(read @ 1..) = read else { return };
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        if let Some(left) = &mut budget {
            *left = left.saturating_sub(read as u64);
        }
        if matches!(now.weather, Weather::Slow(_)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Closing the socket sends RST and drops what was not sent.
fn reset_on_close(socket: &TcpStream) {
    // Without it the connection ends with FIN, which is a cut as well.
    let _ = socket.set_zero_linger();
}

fn reset(socket: &TcpStream) {
    reset_on_close(socket);
}
