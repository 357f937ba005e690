//! Aligned columns for people. Every cell is made harmless first.

use std::io::{self, Write};

use unicode_width::UnicodeWidthStr;

use crate::sanitise;

/// A longer cell pushes only its own row to the right.
const MAX_ALIGNED_COLUMNS: usize = 48;

/// Writes a header and rows, each as wide as the header; the last column is not padded.
pub(crate) fn write(out: &mut impl Write, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let header: Vec<String> = header.iter().map(|title| (*title).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(&header)
        .chain(rows)
        .map(|row| row.iter().map(|cell| sanitise::plain(cell)).collect())
        .collect();
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].width());
            cells
                .filter(|width| *width <= MAX_ALIGNED_COLUMNS)
                .max()
                .unwrap_or(0)
        })
        .collect();
    for row in &rows {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(cell);
            text.push_str(&" ".repeat(width.saturating_sub(cell.width()) + 2));
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

/// A size that people can compare at a glance.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths, in integers; beyond 2^60 nobody minds the rounding.
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// How long ago, in one unit.
pub(crate) fn age(unix_us: i64, now_unix_us: i64) -> String {
    if unix_us == 0 {
        return "-".to_owned();
    }
    let seconds = now_unix_us.saturating_sub(unix_us).max(0) / 1_000_000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_cells_are_harmless() {
        let rows = [
            vec!["1".to_owned(), "b\x1b[2J".to_owned(), "x".to_owned()],
            vec!["20".to_owned(), "日本".to_owned(), "y".to_owned()],
        ];
        let mut out = Vec::new();
        write(&mut out, &["ID", "HOST", "SOURCE"], &rows).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "ID  HOST    SOURCE\n1   b^[[2J  x\n20  日本    y\n"
        );
    }

    #[test]
    fn sizes_and_ages_have_one_unit() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(5 << 30), "5.0 GiB");
        assert_eq!(age(0, 5), "-");
        assert_eq!(age(1_000_000, 91_000_000), "90s");
        assert_eq!(age(1, 3 * 86_400_000_000), "2d");
    }
}
