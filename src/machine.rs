//! What the machine has: memory, as far as this process may use it.

use std::path::Path;

/// Memory assumed where the system does not tell.
const MEMORY_UNKNOWN: u64 = 4 << 30;

/// Bytes of memory this process may use: the machine's, or less where a control group bounds it.
pub(crate) fn memory_bytes() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_total(&text));
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = group_bound(Path::new("/sys/fs/cgroup"), &own);
    match (machine, group) {
        (Some(machine), Some(group)) => machine.min(group),
        (Some(bytes), None) | (None, Some(bytes)) => bytes,
        (None, None) => MEMORY_UNKNOWN,
    }
}

/// The least bound of the control groups this process is in (`own`: what the kernel says of them) and of those around them.
fn group_bound(root: &Path, own: &str) -> Option<u64> {
    // Within a container, the group's own folder may be mounted as the root.
    let mut bounds = vec![bound(&root.join("memory.max")), bound(&root.join("memory/memory.limit_in_bytes"))];
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (top, file) = if controllers.is_empty() {
            (root.to_owned(), "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (root.join("memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        let path = Path::new(path.trim_start_matches('/'));
        bounds.extend(path.ancestors().map(|group| bound(&top.join(group).join(file))));
    }
    bounds.into_iter().flatten().min()
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

    /// systemd's `MemoryMax` stands in the service's own group, or in a slice around it.
    #[test]
    fn the_least_bound_of_all_groups_around_counts() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let file = dir.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        let own = "4:memory:/a/b\n0::/system.slice/nilometer.service\n";
        assert_eq!(group_bound(dir.path(), own), None);
        put("system.slice/nilometer.service/memory.max", "max\n");
        put("system.slice/memory.max", "3000\n");
        assert_eq!(group_bound(dir.path(), own), Some(3000));
        put("system.slice/nilometer.service/memory.max", "2000\n");
        assert_eq!(group_bound(dir.path(), own), Some(2000));
        put("memory/a/memory.limit_in_bytes", "1000\n");
        assert_eq!(group_bound(dir.path(), own), Some(1000));
        put("memory.max", "500\n");
        assert_eq!(group_bound(dir.path(), "1:cpu:/\nnonsense\n"), Some(500));
    }
}
