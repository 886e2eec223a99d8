//! What the machine has: memory, as far as this process may use it.

use std::path::Path;

/// Memory assumed where the system does not tell.
const MEMORY_UNKNOWN: u64 = 4 << 30;

/// Bytes of memory this process may use: the machine's, or less where a control group bounds it.
pub(crate) fn memory_bytes() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_total(&text));
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .into_iter()
        .find_map(|file| bound(Path::new(file)));
    match (machine, group) {
        (Some(machine), Some(group)) => machine.min(group),
        (Some(bytes), None) | (None, Some(bytes)) => bytes,
        (None, None) => MEMORY_UNKNOWN,
    }
}

/// The bound in a file of a control group; `max` is none.
fn bound(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok().filter(|bytes| *bytes > 0)
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        assert_eq!(mem_total("MemTotal:       24689764 kB\nMemFree: 1 kB\n"), Some(24_689_764 << 10));
        assert_eq!(mem_total("MemFree: 1 kB\n"), None);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.max");
        for (text, bytes) in [("max\n", None), ("536870912\n", Some(536_870_912)), ("0\n", None)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(bound(&file), bytes);
        }
        assert!(memory_bytes() > 1 << 20);
    }
}
