//! The `process_*` metrics that every Prometheus dashboard knows, from `/proc/self` (proc(5)). Where there is no
//! `/proc` they are absent rather than wrong.

use std::fs;

use crate::registry::Registry;
use crate::render::Emitter;

/// Clock ticks a second in `/proc`; fixed by the kernel's user interface (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Adds the process metrics to a registry.
pub fn process_collector(registry: &Registry) {
    registry.collector(collect);
}

fn collect(e: &mut Emitter) {
    if let Some((cpu, started)) = stat() {
        e.counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", &[], cpu);
        if let Some(boot) = boot_time() {
            let help = "Start time of the process since unix epoch in seconds.";
            e.gauge("process_start_time_seconds", help, &[], boot + started);
        }
    }
    if let Ok(dir) = fs::read_dir("/proc/self/fd") {
        // Reading the directory holds one descriptor itself.
        let open = dir.count().saturating_sub(1);
        e.gauge("process_open_fds", "Number of open file descriptors.", &[], open as f64);
    }
    if let Some(max) = limit("Max open files") {
        e.gauge("process_max_fds", "Maximum number of open file descriptors.", &[], max);
    }
    if let Some(max) = limit("Max address space") {
        let help = "Maximum amount of virtual memory available in bytes.";
        e.gauge("process_virtual_memory_max_bytes", help, &[], max);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(bytes) = kilobytes(&status, "VmSize:") {
        e.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", &[], bytes);
    }
    if let Some(bytes) = kilobytes(&status, "VmRSS:") {
        e.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", &[], bytes);
    }
}

/// CPU seconds, and seconds between boot and the start of the process.
fn stat() -> Option<(f64, f64)> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The command may hold spaces and parentheses; fields count from after its last one.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |i: usize| fields.get(i)?.parse::<f64>().ok();
    Some(((ticks(11)? + ticks(12)?) / TICKS, ticks(19)? / TICKS))
}

fn boot_time() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()
}

fn limit(name: &str) -> Option<f64> {
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let soft = text.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next()?;
    // Go's client reports "no limit" as the largest value.
    if soft == "unlimited" { Some(u64::MAX as f64) } else { soft.parse().ok() }
}

fn kilobytes(status: &str, name: &str) -> Option<f64> {
    let value = status.lines().find_map(|l| l.strip_prefix(name))?;
    Some(value.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_plausible() {
        let r = Registry::new();
        process_collector(&r);
        let text = r.render_text();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|l| l.starts_with(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("{name} is missing in {text}"))
                .rsplit_once(' ')
                .unwrap()
                .1
                .parse()
                .unwrap()
        };
        let now = koios_model::SystemClock::shared();
        let age = now.now_ms() as f64 / 1000.0 - value("process_start_time_seconds");
        assert!((-2.0..3600.0).contains(&age), "{age}");
        assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") > 3.0);
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_cpu_seconds_total") >= 0.0);
    }
}
