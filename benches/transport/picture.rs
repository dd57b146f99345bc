//! A picture of the rows: the server's CPU for each call, on a logarithmic scale.

use std::path::Path;

use plotters::prelude::*;

use crate::common::results::{Run, middle};

const WIDTH: u32 = 960;
const ROW_HEIGHT: u32 = 44;
const OURS: RGBColor = RGBColor(38, 98, 168);
const BAR: RGBColor = RGBColor(178, 184, 194);

pub fn draw(path: &Path, run: &Run) -> Result<(), Box<dyn std::error::Error>> {
    let rows = &run.rows;
    let caption = format!(
        "CPU of the server a call: keyhatch (blue) and the bar (grey); {}",
        run.machine.label
    );
    let height = ROW_HEIGHT * u32::try_from(rows.len())? + 96;
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let top = rows.len() as f64;
    let mut chart = ChartBuilder::on(&root)
        .caption(caption, ("sans-serif", 18))
        .margin(16)
        .x_label_area_size(32)
        .build_cartesian_2d((1.0..3_000.0).log_scale(), 0.0..top)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_label_formatter(&|micros| format!("{micros} µs"))
        .draw()?;
    for (n, row) in rows.iter().enumerate() {
        let place = top - n as f64;
        let ours = middle(&row.ours.iter().map(|one| one.cpu).collect::<Vec<_>>());
        let bar = middle(&row.bar.iter().map(|one| one.cpu).collect::<Vec<_>>());
        let stripe = |from: f64, to: f64, value: f64, color: RGBColor| {
            Rectangle::new([(1.0, place - from), (value, place - to)], color.filled())
        };
        chart.draw_series([stripe(0.44, 0.68, ours, OURS), stripe(0.68, 0.92, bar, BAR)])?;
        let words = format!("{}: {ours:.1} µs, {bar:.1} µs", row.what);
        let style = ("sans-serif", 13).into_font().color(&BLACK);
        chart.draw_series([Text::new(words, (1.05, place - 0.08), style)])?;
    }
    root.present()?;
    Ok(())
}
