//! Rows for people and for spreadsheets.

use super::line;
use crate::error::CliResult;

/// A table with aligned columns.
pub(crate) fn table(columns: &[String], rows: &[Vec<Option<String>>]) {
    let text = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "NULL".to_owned());
    let mut widths: Vec<usize> = columns.iter().map(|name| name.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(text(cell).chars().count());
        }
    }
    let join = |cells: Vec<String>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| {
            let gap = width.saturating_sub(cell.chars().count());
            format!("{cell}{}", " ".repeat(gap))
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    line(&join(columns.to_vec()));
    line(&join(widths.iter().map(|width| "-".repeat(*width)).collect()));
    for row in rows {
        line(&join(row.iter().map(text).collect()));
    }
}

/// Comma-separated values; NULL is empty.
pub(crate) fn csv(columns: &[String], rows: &[Vec<Option<String>>]) -> CliResult {
    let field = |text: &str| {
        if text.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text.to_owned()
        }
    };
    line(&columns.iter().map(|name| field(name)).collect::<Vec<_>>().join(","));
    for row in rows {
        let cells: Vec<String> =
            row.iter().map(|cell| cell.as_deref().map(field).unwrap_or_default()).collect();
        line(&cells.join(","));
    }
    Ok(())
}
