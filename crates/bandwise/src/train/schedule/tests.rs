use super::*;

/// Rates of a base of 0.4, one per step.
fn rates(config: &str, steps_per_epoch: u64, epochs: u64) -> Vec<f64> {
    let schedule: Schedule = toml::from_str(config).unwrap();
    schedule.check().unwrap();
    let position = |step| Position { step, steps_per_epoch, epochs };
    (0..steps_per_epoch * epochs).map(|step| schedule.rate(0.4, position(step))).collect()
}

fn assert_rates(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-9, "{found} for {expected}");
    }
}

/// Values of torch 2.15's schedulers with lr 0.4, one step per epoch.
#[test]
fn rates_are_those_of_torch() {
    // OneCycleLR(max_lr=0.4, total_steps=20, pct_start=0.3)
    assert_rates(
        &rates("name = \"one_cycle\"", 4, 5),
        &[
            0.016,
            0.05266873708,
            0.1486687371,
            0.2673312629,
            0.3633312629,
            0.4,
            0.3949856025,
            0.3801938528,
            0.356366471,
            0.3246982616,
            0.2867772007,
            0.2445048088,
            0.2000008,
            0.1554967912,
            0.1132243993,
            0.07530333842,
            0.04363512897,
            0.01980774719,
            0.005015997506,
            1.6e-06,
        ],
    );
    // OneCycleLR(max_lr=0.4, total_steps=30, pct_start=0.1), the first four and the last
    let one_cycle = rates("name = \"one_cycle\"\nwarmup = 0.1", 3, 10);
    assert_rates(&one_cycle[..4], &[0.016, 0.208, 0.4, 0.398647677]);
    assert_rates(&one_cycle[29..], &[1.6e-06]);
    // CosineAnnealingLR(T_max=8, eta_min=0.004)
    let cosine =
        [0.4, 0.3849281474, 0.3420071427, 0.2777713196, 0.202, 0.1262286804, 0.06199285733, 0.01907185256];
    assert_rates(&rates("name = \"cosine\"\nfloor = 0.01\nper = \"epoch\"", 1, 8), &cosine);
    assert_rates(&rates("name = \"cosine\"\nfloor = 0.01", 2, 4), &cosine);
    // StepLR(3, 0.1); MultiStepLR([2, 5], 0.1); LinearLR(1, 0, 8)
    assert_rates(
        &rates("name = \"step\"\nevery = 3", 1, 8),
        &[0.4, 0.4, 0.4, 0.04, 0.04, 0.04, 0.004, 0.004],
    );
    assert_rates(
        &rates("name = \"multistep\"\nmilestones = [2, 5]", 1, 8),
        &[0.4, 0.4, 0.04, 0.04, 0.04, 0.004, 0.004, 0.004],
    );
    assert_rates(&rates("name = \"linear\"", 1, 8), &[0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05]);
    // SequentialLR([LinearLR(0.01, 1, 3), CosineAnnealingLR(7)], [3])
    assert_rates(
        &rates("name = \"linear_cosine\"\nwarmup = 0.3\nper = \"epoch\"", 1, 10),
        &[
            0.004,
            0.136,
            0.268,
            0.4,
            0.3801937736,
            0.3246979604,
            0.2445041868,
            0.1554958132,
            0.07530203963,
            0.01980622642,
        ],
    );
}

/// `WarmupCosineLR.get_lr` of filter frequency regularization's official code, step by step, with a base of 0.4.
fn official_warmup_cosine(epochs: u64) -> Vec<f64> {
    let (base, floor, all) = (0.4, 1e-8, epochs as f64);
    let warmup = all * 0.3;
    let mut rate = 0.0;
    (0..epochs)
        .map(|epoch| {
            let epoch = epoch as f64;
            let bell = |epoch: f64| 1.0 + (PI * (epoch - warmup) / (all - warmup)).cos();
            rate = if epoch == 0.0 {
                floor
            } else if epoch < warmup {
                rate + (base - floor) / (warmup - 1.0)
            } else if epoch == warmup {
                base
            } else {
                bell(epoch) / bell(epoch - 1.0) * (rate - floor) + floor
            };
            rate
        })
        .collect()
}

#[test]
fn the_warm_up_of_filter_frequency_regularization() {
    let ten = rates("name = \"warmup_cosine\"", 1, 10);
    let cosine = |t: f64| 0.5 + 0.5 * (PI * t / 7.0).cos();
    let expected = [0.0, 0.5, 1.0, 1.0, cosine(1.0), cosine(2.0), cosine(3.0)].map(|factor| 0.4 * factor);
    assert!(ten.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 2e-8), "{ten:?}");
    assert!((ten[4] / 0.4 - 0.95).abs() < 1e-3 && ten[0] == 1e-8);
    // w = 37.5: the warm-up ends above the base rate.
    let long = rates("name = \"warmup_cosine\"", 1, 125);
    let highest = long.iter().fold(0.0f64, |a, &b| a.max(b));
    assert!((highest / 0.4 - 1.0137).abs() < 5e-5, "{}", highest / 0.4);
    for epochs in [1, 2, 4, 7, 10, 20, 33, 125, 300] {
        assert_rates(&rates("name = \"warmup_cosine\"", 1, epochs), &official_warmup_cosine(epochs));
    }
    let within = rates("name = \"warmup_cosine\"", 3, 10);
    assert!(within.chunks(3).zip(&ten).all(|(epoch, rate)| epoch.iter().all(|found| found == rate)));
}

#[test]
fn the_triangle_rises_to_its_peak_and_ends_at_zero() {
    let found = rates("name = \"cyclic\"", 2, 5);
    assert_rates(&found, &[0.1, 0.2, 0.3, 0.4, 1. / 3., 0.8 / 3., 0.2, 0.4 / 3., 0.2 / 3., 0.0]);
}

#[test]
fn the_schedules_of_fpcm() {
    let multistep = rates("name = \"fpcm_multistep\"", 1, 120);
    assert_rates(&multistep[..6], &[0.04, 0.112, 0.184, 0.256, 0.328, 0.4]);
    assert_rates(&[multistep[83], multistep[84], multistep[107], multistep[108]], &[0.4, 0.04, 0.04, 0.004]);
    // int(0.7 · 15) = 10, int(0.9 · 15) = 13
    let short = rates("name = \"fpcm_multistep\"", 1, 15);
    assert_rates(&short[9..14], &[0.4, 0.04, 0.04, 0.04, 0.004]);
    let cosine = rates("name = \"fpcm_cosine\"", 1, 120);
    assert_rates(&cosine[..6], &multistep[..6]);
    assert!(cosine[119] > 0.004 && cosine[119] < 0.0041);
}

#[test]
fn piecewise_is_linear_between_its_points() {
    let found = rates("name = \"piecewise\"\nepochs = [0, 2, 4]\nfactors = [0, 1, 0.5]", 2, 5);
    assert_rates(&found, &[0.0, 0.1, 0.2, 0.3, 0.4, 0.35, 0.3, 0.25, 0.2, 0.2]);
}

#[test]
fn per_epoch_schedules_hold_within_an_epoch() {
    let found = rates("name = \"fpcm_multistep\"", 3, 2);
    assert_rates(&found, &[0.04, 0.04, 0.04, 0.112, 0.112, 0.112]);
}

#[test]
fn settings_out_of_range_and_unknown_ones_are_refused() {
    for (text, reason) in [
        ("name = \"step\"\nevery = 0", "at least 1"),
        ("name = \"multistep\"\nmilestones = [5, 2]", "ascending"),
        ("name = \"warmup_cosine\"\nwarmup = 1.5", "share of the training"),
        ("name = \"linear_cosine\"\nwarmup = 1.5", "share of the training"),
        ("name = \"piecewise\"\nepochs = [1]\nfactors = []", "same length"),
        ("name = \"cyclic\"\npeak = 0", "between 0 and 1"),
    ] {
        let error = toml::from_str::<Schedule>(text).unwrap().check().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    assert!(toml::from_str::<Schedule>("name = \"cosine\"\nflor = 0.1").is_err());
    assert!(toml::from_str::<Schedule>("name = \"cosine_annealing\"").is_err());
}
