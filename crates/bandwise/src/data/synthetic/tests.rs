use super::*;
use crate::data::spec::DataSpec;

fn split(split: CueSplit) -> SyntheticDataset {
    SyntheticDataset::new(SyntheticConfig::default(), split)
}

#[test]
fn an_image_depends_on_seed_split_and_index_alone() {
    let image = |seed, cues, index| {
        let config = SyntheticConfig { seed, ..Default::default() };
        SyntheticDataset::new(config, cues).get(index).unwrap().0
    };
    assert_eq!(image(1, CueSplit::Train, 5), image(1, CueSplit::Train, 5));
    assert_ne!(image(1, CueSplit::Train, 5), image(2, CueSplit::Train, 5));
    assert_ne!(image(1, CueSplit::Train, 5), image(1, CueSplit::Iid, 5));
    assert_ne!(image(1, CueSplit::Train, 5), image(1, CueSplit::Train, 15));
}

#[test]
fn reliability_is_what_the_parameters_say() {
    let config = SyntheticConfig { shape: 0.9, texture: 0.6, ..Default::default() };
    let set = SyntheticDataset::new(config, CueSplit::Train);
    let count = 5000;
    let cues: Vec<Cues> = (0..count).map(|index| set.cues(index)).collect();
    let share = |hit: &dyn Fn(&Cues) -> bool| cues.iter().filter(|c| hit(c)).count() as f64 / count as f64;
    // Four standard deviations of the larger of the two.
    assert!((share(&|c| c.shape == Some(c.label)) - 0.9).abs() < 0.028);
    assert!((share(&|c| c.texture == Some(c.label)) - 0.6).abs() < 0.028);
}

#[test]
fn conflict_images_show_two_classes() {
    let set = split(CueSplit::Conflict);
    for index in 0..200 {
        let label = set.label(index).unwrap();
        assert_eq!(set.cues(index).shape, Some(label));
        assert_ne!(set.texture_label(index).unwrap(), label);
    }
    assert_eq!(split(CueSplit::Iid).texture_label(0), None);
}

#[test]
fn test_splits_differ_in_their_cues_only() {
    // Without the texture the two images are equal up to noise-free rounding.
    let config = SyntheticConfig { amplitude: 0.0, ..Default::default() };
    let image = |cues| SyntheticDataset::new(config.clone(), cues).get(3).unwrap().0;
    assert_eq!(image(CueSplit::Shape), image(CueSplit::Conflict));
    assert_ne!(image(CueSplit::Shape), image(CueSplit::Texture));
}

#[test]
fn all_textures_have_the_same_power_and_no_mean() {
    for class in 0..CLASSES {
        let (mut mean, mut power) = (0.0, 0.0);
        for seed in 0..50 {
            let texture = textures::render(class, 32, &mut stream(seed, &[]));
            mean += texture.iter().sum::<f32>() / 1024.0 / 50.0;
            power += texture.iter().map(|t| t * t).sum::<f32>() / 1024.0 / 50.0;
        }
        assert!(mean.abs() < 0.02, "{}: mean {mean}", TEXTURES[class as usize]);
        assert!((power - 1.0).abs() < 0.08, "{}: power {power}", TEXTURES[class as usize]);
    }
}

#[test]
fn cues_lie_in_their_bands() {
    // The share of the power below a sixth of the sampling frequency, measured on cue images alone.
    let low_share = |image: &Image| {
        let size = image.width;
        let (mut low, mut all) = (0.0, 0.0);
        for u in 0..size as i32 {
            for v in 0..size as i32 {
                let wrap = |k: i32| if k > size as i32 / 2 { k - size as i32 } else { k };
                let (mut re, mut im) = (0.0f32, 0.0f32);
                for y in 0..size {
                    for x in 0..size {
                        let angle = TAU * (u as f32 * y as f32 + v as f32 * x as f32) / size as f32;
                        let value = image.pixels[image.offset(y, x, 0)];
                        re += value * angle.cos();
                        im += value * angle.sin();
                    }
                }
                let radius = (wrap(u) as f32).hypot(wrap(v) as f32) / size as f32;
                if radius > 0.0 {
                    all += re * re + im * im;
                    low += if radius < 1.0 / 6.0 { re * re + im * im } else { 0.0 };
                }
            }
        }
        low / all
    };
    for class in 0..CLASSES {
        let mut shape = Image::filled(32, 32, 3, 0.0);
        add_shape(&mut shape, class, [1.0; 3], &mut stream(1, &[]));
        assert!(low_share(&shape) > 0.95, "{}: {}", SHAPES[class as usize], low_share(&shape));
        let mut texture = Image::filled(32, 32, 3, 0.0);
        add_texture(&mut texture, class, 1.0, &mut stream(1, &[]));
        assert!(low_share(&texture) < 0.1, "{}: {}", TEXTURES[class as usize], low_share(&texture));
    }
}

#[test]
fn parameters_are_read_and_checked() {
    let mut config = SyntheticConfig::default();
    config.set("amplitude", "8/255").unwrap();
    assert_eq!(config.amplitude, 8.0 / 255.0);
    let changed = SyntheticConfig { noise: 0.1, seed: 3, test: CueSplit::Shape, ..Default::default() };
    let mut read = SyntheticConfig::default();
    changed.options().iter().for_each(|(key, value)| read.set(key, value).unwrap());
    assert_eq!(read, changed);
    let message = |key, value| SyntheticConfig::default().set(key, value).unwrap_err().to_string();
    assert!(message("texure", "1").contains("texture"));
    assert!(message("shape", "1.5").contains("between 0 and 1"));
    assert!(message("noise", "1/0").contains("noise=1/0"));
    assert!(message("test", "iit").contains("conflict"));
    assert!("synthetic:size=0".parse::<DataSpec>().is_err());
}
