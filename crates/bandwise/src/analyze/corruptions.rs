//! Accuracy under corruptions by where in the spectrum they do their damage: the trade-off between low-frequency and
//! high-frequency robustness as one image.

use crate::corruption::{Corruption, Family};
use crate::evaluate::corruptions::{by_frequency, centroid, of_corruption};
use crate::evaluate::record::Record;
use crate::formats::csv::{Csv, optional};
use crate::plot::{Axis, Cell, LinePlot, Section, Series, Table};

/// `corruption,family,spectrum_centroid,severity,accuracy,correct,total,ci95_low,ci95_high,official_protocol`, from low to
/// high frequency.
pub fn csv(records: &[Record]) -> String {
    let columns = "corruption,family,spectrum_centroid,severity,accuracy,correct,total,ci95_low,ci95_high,official_protocol";
    let mut csv = Csv::new(&columns.split(',').collect::<Vec<_>>());
    for corruption in by_frequency(records) {
        for record in of_corruption(records, corruption) {
            let [low, high] = record.ci95.unwrap_or([f64::NAN; 2]);
            let centroid = record.extra.get(crate::evaluate::corruptions::CENTROID).and_then(|v| v.as_f64());
            csv.row(&[
                &corruption,
                &corruption.family(),
                &optional(centroid),
                &record.severity.unwrap_or_default(),
                &record.value,
                &record.correct.unwrap_or_default(),
                &record.total.unwrap_or_default(),
                &low,
                &high,
                &is_official(record),
            ]);
        }
    }
    csv.into_text()
}

/// The table from low to high frequency, and accuracy over frequency.
pub fn section(records: &[Record]) -> Section {
    let order = by_frequency(records);
    let mut section = Section::new("Corruptions from low to high frequency").text(
        "A corruption's place in the spectrum is the mean frequency of the change it makes, weighted by power and without \
         the mean itself, as a share of the highest frequency along one axis: near 0 for fog, large for noise.",
    );
    if order.iter().any(|&corruption| of_corruption(records, corruption).iter().any(|r| !is_official(r))) {
        section = section.warning(
            "Corruptions marked with * do not follow the published protocol: frost from other textures than the published \
             ones, or images of another size than the protocol was made for.",
        );
    }
    if order.iter().all(|&corruption| centroid(records, corruption).is_some()) {
        section = section.line_plot(plot(records, &order));
    }
    section.table(table(records, &order))
}

fn plot(records: &[Record], order: &[Corruption]) -> LinePlot {
    let plot = LinePlot::new(
        "Accuracy by place in the spectrum",
        Axis::new("mean frequency of the change (share of the highest)"),
        Axis::percent("accuracy"),
    );
    let plot = Family::ALL.into_iter().map(Family::name).enumerate().fold(plot, |plot, (color, family)| {
        let members = order.iter().filter(|corruption| corruption.family() == family);
        let points: Vec<[f64; 2]> = members
            .filter_map(|&corruption| Some([centroid(records, corruption)?, mean(records, corruption)]))
            .collect();
        match points.is_empty() {
            true => plot,
            false => plot.series(Series::new(family, points).color(color).scatter()),
        }
    });
    plot.caption("One point per corruption, mean over the severities that were measured.").full_width()
}

fn table(records: &[Record], order: &[Corruption]) -> Table {
    let severities: Vec<u8> = (1..=5).filter(|s| records.iter().any(|r| r.severity == Some(*s))).collect();
    let mut columns: Vec<String> = ["corruption", "family", "frequency"].map(str::to_owned).to_vec();
    columns.extend(severities.iter().map(|severity| format!("severity {severity}")));
    columns.push("mean".into());
    let mut table = Table::new("Accuracy from low to high frequency", &columns)
        .caption("Intervals are 95 % Wilson intervals.");
    for &corruption in order {
        let measured = of_corruption(records, corruption);
        let mark = if measured.iter().all(|record| is_official(record)) { "" } else { " *" };
        let mut row = vec![
            Cell::text(format!("{}{mark}", corruption.name().replace('_', " "))),
            Cell::text(corruption.family()),
            centroid(records, corruption).map_or_else(Cell::empty, Cell::number),
        ];
        row.extend(severities.iter().map(|severity| {
            let record = measured.iter().rfind(|record| record.severity == Some(*severity));
            record.map_or_else(Cell::empty, |record| Cell::percent(record.value).with_interval(record.ci95))
        }));
        row.push(Cell::percent(mean(records, corruption)));
        table = table.row(row);
    }
    table
}

/// Mean accuracy over the severities of a corruption.
fn mean(records: &[Record], corruption: Corruption) -> f64 {
    let values: Vec<f64> = of_corruption(records, corruption).iter().map(|record| record.value).collect();
    values.iter().sum::<f64>() / values.len() as f64
}

/// Whether a record's images follow the published protocol.
pub fn is_official(record: &Record) -> bool {
    record.extra.get("official_protocol") != Some(&false.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::corruptions::CENTROID;
    use crate::plot::Block;

    fn record(corruption: Corruption, severity: u8, centroid: f64, official: bool) -> Record {
        let flags: Vec<bool> = (0..10).map(|image| image < 10 - severity).collect();
        let mut record = Record::accuracy(&flags).under_corruption(corruption.name(), severity);
        record.extra.insert(CENTROID.into(), centroid.into());
        record.extra.insert("official_protocol".into(), official.into());
        record
    }

    #[test]
    fn rows_run_from_low_to_high_frequency() {
        let records = [
            record(Corruption::GaussianNoise, 1, 0.8, true),
            record(Corruption::GaussianNoise, 3, 0.9, true),
            record(Corruption::Frost, 1, 0.2, false),
        ];
        let csv = csv(&records);
        let lines: Vec<&str> = csv.lines().collect();
        assert!(
            lines[1].starts_with("frost,weather,0.2,1,0.9,9,10,") && lines[1].ends_with(",false"),
            "{csv}"
        );
        assert!(lines[3].starts_with("gaussian_noise,noise,0.9,3,0.7,7,10,"), "{csv}");
        let section = section(&records);
        assert!(section.blocks.iter().any(|block| matches!(block, Block::Note { warning: true, .. })));
        let table = section.blocks.iter().find_map(|block| match block {
            Block::Table(table) => Some(table),
            _ => None,
        });
        let table = table.unwrap();
        assert_eq!(table.columns[3..], ["severity 1", "severity 3", "mean"]);
        assert_eq!(table.rows[0][0], Cell::text("frost *"));
        assert_eq!(table.rows[1][5].value(), Some(0.8));
    }
}
