//! What runs that were killed have left.

use std::{fs, path::Path};

use super::{NAMES, PREFIX, ip};

/// Removes the namespaces of runs whose process is gone. What cannot be removed stays: it is in
/// nobody's way, since names are not used twice.
pub fn remove_stale() {
    let Ok(names) = fs::read_dir(NAMES) else {
        return;
    };
    for entry in names.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let alive = |pid: u32| Path::new("/proc").join(pid.to_string()).exists();
        if is_stale(name, alive) {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

/// Whether a namespace's name is one of ours, of a process that does not run.
fn is_stale(name: &str, alive: impl Fn(u32) -> bool) -> bool {
    let mut parts = name.strip_prefix(PREFIX).unwrap_or_default().splitn(3, '-');
    let pid = parts.next().and_then(|pid| pid.parse().ok());
    let number: Option<u32> = parts.next().and_then(|number| number.parse().ok());
    match (pid, number, parts.next()) {
        (Some(pid), Some(_), Some(_)) => !alive(pid),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ours_with_a_dead_process_are_stale() {
        let alive = |pid| pid == 12;
        assert!(is_stale("comity-11-0-eu", alive));
        assert!(is_stale("comity-11-3-eu-gate", alive));
        assert!(!is_stale("comity-12-0-eu", alive));
        for other in [
            "comity",
            "comity-",
            "comity-11",
            "comity-11-eu",
            "comity-x-0-eu",
            "eu-11-0",
        ] {
            assert!(!is_stale(other, alive), "{other}");
        }
    }
}
