//! What a run costs: memory of its process tree, looked at now and then, and processor time at its end.
//!
//! Memory is the largest sum of resident sizes that a look found, or the largest peak of one process, whichever
//! is more: what lives shorter than the distance of two looks is only seen in the latter. Pages that processes
//! share are counted for each.

use std::io;
use std::time::Duration;

/// Distance of two looks: short at first, so that a short run is seen at all, then long enough to cost nothing.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Processes that one look counts.
const MAX_PROCESSES: usize = 10_000;

/// Ticks of processor time in a second, the same on every Linux architecture that Rust supports.
const TICKS_PER_SECOND: u64 = 100;

/// Watches the tree below this process.
#[derive(Debug)]
pub(super) struct Usage {
    peak_memory_bytes: u64,
    wait: Duration,
}

impl Default for Usage {
    fn default() -> Self {
        Self {
            peak_memory_bytes: 0,
            wait: FIRST_WAIT,
        }
    }
}

impl Usage {
    /// Looks again and again; never returns. Safe to drop and call again.
    pub(super) async fn watch(&mut self) {
        loop {
            tokio::time::sleep(self.wait).await;
            self.look();
            self.wait = (self.wait * 2).min(LONGEST_WAIT);
        }
    }

    fn look(&mut self) {
        let mut resident_bytes = 0;
        for pid in descendants() {
            let Some(memory) = Memory::of(pid) else {
                continue;
            };
            resident_bytes += memory.resident_bytes;
            self.peak_memory_bytes = self.peak_memory_bytes.max(memory.peak_bytes);
        }
        self.peak_memory_bytes = self.peak_memory_bytes.max(resident_bytes);
    }

    /// 0: it was over before anybody looked.
    pub(super) fn peak_memory_bytes(&self) -> u64 {
        self.peak_memory_bytes
    }
}

/// Processor time of every process of the tree that ended and was waited for, microseconds; 0 when it is not
/// known.
pub(super) fn cpu_time_us() -> u64 {
    let ticks = || -> io::Result<u64> {
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        // Our own name has no parenthesis; the rest begins with field 3.
        let (_, rest) = stat.rsplit_once(") ").ok_or(io::ErrorKind::InvalidData)?;
        let field = |number: usize| {
            let field = rest.split_ascii_whitespace().nth(number - 3);
            field.and_then(|field| field.parse::<u64>().ok())
        };
        // Fields 16 and 17 of proc_pid_stat(5): user and system time of children that were waited for.
        let (user, system) = field(16).zip(field(17)).ok_or(io::ErrorKind::InvalidData)?;
        Ok(user + system)
    };
    ticks().map_or(0, |ticks| ticks * (1_000_000 / TICKS_PER_SECOND))
}

/// Every process below this one. From the kernel's own lists of children, so that the cost follows the tree and
/// not the host.
fn descendants() -> Vec<i32> {
    let mut found = children_of(rustix::process::getpid().as_raw_nonzero().get());
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        if found.len() >= MAX_PROCESSES {
            break;
        }
        found.extend(children_of(pid));
        next += 1;
    }
    found
}

fn children_of(pid: i32) -> Vec<i32> {
    let mut children = Vec::new();
    // Each thread has the children that it started. A process that is gone by now has none.
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        if let Ok(list) = std::fs::read_to_string(task.path().join("children")) {
            children.extend(
                list.split_ascii_whitespace()
                    .filter_map(|pid| pid.parse::<i32>().ok()),
            );
        }
    }
    children
}

#[derive(Debug)]
struct Memory {
    resident_bytes: u64,
    peak_bytes: u64,
}

impl Memory {
    /// `None`: it is gone, or a kernel thread.
    fn of(pid: i32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let bytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(kib << 10)
        };
        Some(Self {
            resident_bytes: bytes("VmRSS:")?,
            peak_bytes: bytes("VmHWM:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_what_the_kernel_says_of_a_process() {
        let status = "Name:\tcc1\nVmPeak:\t  999 kB\nVmHWM:\t  300 kB\nVmRSS:\t  200 kB\n";
        let memory = Memory::parse(status).unwrap();
        assert_eq!((memory.resident_bytes, memory.peak_bytes), (200 << 10, 300 << 10));
        assert!(Memory::parse("Name:\tkthreadd\n").is_none());
        assert!(Memory::of(rustix::process::getpid().as_raw_nonzero().get()).is_some());
    }

    #[test]
    fn children_and_their_time_are_found() {
        let mut child = std::process::Command::new("sh")
            .args([
                "-c",
                "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; read line",
            ])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(descendants().contains(&pid));
        drop(child.stdin.take());
        child.wait().unwrap();
        // 60,000 turns of a shell are many ticks on any machine.
        assert!(cpu_time_us() > 0);
    }
}
