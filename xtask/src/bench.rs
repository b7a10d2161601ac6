//! Figures of the guest's throughput jobs: read from its console, shown as a table.
//!
//! The guest prints one line `bench: {…}` of flat JSON for each job. Under emulation the figures are
//! weather; they are comparable only within one run.

use std::fmt;

use serde_json::Value;

/// What a line of figures starts with.
pub const PREFIX: &str = "bench: {";

/// Figures of one job.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The disk, as the guest calls it.
    pub disk: String,
    /// The operation, in fio's words: `randread`, `randwrite`, `read`, `write`.
    pub rw: String,
    /// Bytes of one I/O; a long one goes as several requests.
    pub block_bytes: u64,
    /// Requests kept in flight.
    pub iodepth: u64,
    /// Requests per second.
    pub iops: f64,
    /// MiB per second.
    pub mib_s: f64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// 99th percentile of latency in microseconds.
    pub p99_us: f64,
    /// Requests per notification that the guest sent.
    pub requests_per_notification: f64,
    /// Requests that were made visible at once.
    pub batch: f64,
    /// I/Os that were done.
    pub ios: f64,
    /// Notifications in both directions.
    pub notifications: f64,
    /// Hypercalls of the guest.
    pub hypercalls: f64,
}

/// A list of figures, to be shown as a table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// One row for each job, in order.
    pub rows: Vec<Row>,
}

impl Table {
    /// Reads all lines of figures out of a guest's console.
    ///
    /// Errors: a line that starts like one and is not; the line is the error.
    pub fn read(console: &str) -> Result<Table, String> {
        let lines = console.lines().filter_map(|line| line.find(PREFIX).map(|at| &line[at..]));
        let row = |line: &str| row(line).ok_or_else(|| format!("not a line of figures: {line}"));
        Ok(Table { rows: lines.map(row).collect::<Result<_, _>>()? })
    }
}

fn row(line: &str) -> Option<Row> {
    let object: Value = serde_json::from_str(line.strip_prefix("bench: ")?.trim_end()).ok()?;
    let text = |key: &str| Some(object.get(key)?.as_str()?.to_owned());
    let number = |key: &str| object.get(key)?.as_f64();
    Some(Row {
        disk: text("disk")?,
        rw: text("rw")?,
        block_bytes: object.get("bs")?.as_u64()?,
        iodepth: object.get("iodepth")?.as_u64()?,
        iops: number("iops")?,
        mib_s: number("mib_s")?,
        p50_us: number("p50_us")?,
        p99_us: number("p99_us")?,
        requests_per_notification: number("requests_per_notification")?,
        batch: number("batch")?,
        ios: number("total_ios")?,
        notifications: number("notifications_sent")? + number("notifications_received")?,
        hypercalls: number("hypercalls")?,
    })
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<5} {:<10} {:>5} {:>5} {:>9} {:>8} {:>9} {:>9} {:>10} {:>6}",
            "disk", "rw", "bs", "depth", "IOPS", "MiB/s", "p50 µs", "p99 µs", "req/notify", "batch"
        )?;
        for row in &self.rows {
            writeln!(
                f,
                "{:<5} {:<10} {:>4}k {:>5} {:>9.0} {:>8.1} {:>9.0} {:>9.0} {:>10.2} {:>6.2}",
                row.disk,
                row.rw,
                row.block_bytes / 1024,
                row.iodepth,
                row.iops,
                row.mib_s,
                row.p50_us,
                row.p99_us,
                row.requests_per_notification,
                row.batch
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = concat!(
        r#"bench: {"disk":"xvda","rw":"randread","bs":4096,"iodepth":32,"iops":4100,"#,
        r#""mib_s":16.01,"p50_us":90.000,"p99_us":800.500,"#,
        r#""requests_per_notification":10.00,"batch":9.50,"total_ios":100,"hypercalls":12,"#,
        r#""notifications_sent":10,"notifications_received":9}"#,
    );

    #[test]
    fn figures_are_read_from_among_other_lines() {
        let console = format!("hello\r\n{LINE}\r\npvblk: exit status 0\r\n");
        let table = Table::read(&console).unwrap();
        assert_eq!(table.rows.len(), 1);
        assert_eq!((table.rows[0].iodepth, table.rows[0].p50_us), (32, 90.0));
        assert_eq!((table.rows[0].notifications, table.rows[0].hypercalls), (19.0, 12.0));
        let shown = table.to_string();
        assert!(
            shown.lines().nth(1).unwrap().starts_with("xvda  randread      4k    32"),
            "{shown}"
        );
        assert!(shown.contains("10.00   9.50"), "{shown}");
    }

    #[test]
    fn a_broken_line_of_figures_is_an_error_not_a_missing_row() {
        for line in ["bench: {", "bench: {\"rw\":\"read\"}", &LINE.replace("32", "-1")] {
            assert!(Table::read(line).is_err(), "{line}");
        }
    }
}
