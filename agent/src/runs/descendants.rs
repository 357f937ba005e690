//! The processes below this one, from `/proc`. Complete for a child subreaper: what its children leave behind
//! becomes its own child, whatever session or group it went to.

use std::collections::HashSet;
use std::io;

use rustix::process::Pid;

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) pid: Pid,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) zombie: bool,
    pub(super) start_ticks: u64,
}

impl Facts {
    pub(super) fn of(pid: Pid) -> io::Result<Self> {
        let stat = std::fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero()))?;
        let stat = String::from_utf8_lossy(&stat);
        let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "cannot understand /proc/PID/stat");
        // The name stands in parentheses and may hold anything; the rest begins after the last one.
        let (_, rest) = stat.rsplit_once(") ").ok_or_else(unreadable)?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied().ok_or_else(unreadable);
        Ok(Self {
            pid,
            zombie: field(3)? == "Z",
            parent: field(4)?.parse().map_err(|_| unreadable())?,
            group: field(5)?.parse().map_err(|_| unreadable())?,
            start_ticks: field(22)?.parse().map_err(|_| unreadable())?,
        })
    }
}

/// Every descendant of this process that is there now, zombies included.
pub(super) fn all() -> io::Result<Vec<Facts>> {
    let mut others = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.parse().ok())
            .and_then(Pid::from_raw);
        // A process may end between the two looks.
        others.extend(pid.and_then(|pid| Facts::of(pid).ok()));
    }
    let mut known = HashSet::from([rustix::process::getpid().as_raw_nonzero().get()]);
    let mut found = Vec::new();
    loop {
        let (below, rest): (Vec<Facts>, Vec<Facts>) = others
            .into_iter()
            .partition(|facts| known.contains(&facts.parent));
        if below.is_empty() {
            return Ok(found);
        }
        known.extend(below.iter().map(|facts| facts.pid.as_raw_nonzero().get()));
        found.extend(below);
        others = rest;
    }
}
