//! Prometheus text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::Write;

use crate::Core;

pub(super) fn render(core: &Core) -> String {
    let mut text = String::new();
    let disk = (
        "store_disk_bytes",
        "gauge",
        "Bytes that the store takes on disk.",
        core.disk_bytes(),
    );
    for (name, kind, help, value) in core.metrics().snapshot().into_iter().chain([disk]) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "# HELP millstream_{name} {help}\n# TYPE millstream_{name} {kind}\nmillstream_{name} {value}"
        );
    }
    text
}
