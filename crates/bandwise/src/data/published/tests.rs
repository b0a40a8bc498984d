use super::super::{DataSpec, Dataset, Image, Split};
use super::*;
use crate::formats::mat::writer;
use std::sync::Arc;

/// A folder under construction.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn text(&self, name: &str, text: &str) {
        files::write_atomic(&self.0.path().join(name), text.as_bytes()).unwrap();
    }

    fn bytes(&self, name: &str, parts: &[Vec<u8>]) {
        files::write_atomic(&self.0.path().join(name), &parts.concat()).unwrap();
    }

    /// A one-color image, told apart by its brightness.
    fn image(&self, name: &str, brightness: u8) {
        let png = Image::from_bytes(2, 2, 3, &[brightness; 12]).to_png().unwrap();
        files::write_atomic(&self.0.path().join(name), &png).unwrap();
    }

    fn open(&self, format: &str, options: &str, split: Split) -> Result<Arc<dyn Dataset>> {
        format!("{format}:{}{options}", self.0.path().display()).parse::<DataSpec>()?.open(split)
    }
}

/// Brightness and class name of every image.
fn content(set: Arc<dyn Dataset>) -> Vec<(u8, String)> {
    (0..set.len())
        .map(|index| {
            let (image, label) = set.get(index).unwrap();
            (image.to_bytes()[0], set.class_names()[label as usize].clone())
        })
        .collect()
}

fn pairs(expected: &[(u8, &str)]) -> Vec<(u8, String)> {
    expected.iter().map(|(brightness, name)| (*brightness, (*name).to_owned())).collect()
}

#[test]
fn svhn_images_are_turned_and_ten_means_zero() {
    let folder = Folder::new();
    // Two images of 2 × 1 pixels: [row 0, row 1] for red, green, blue.
    let pixels = [1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16];
    let images = writer::compressed(&writer::matrix("X", &[2, 1, 3, 2], 9, 2, &pixels));
    let labels = writer::matrix("y", &[2, 1], 9, 2, &[10, 3]);
    folder.bytes("test_32x32.mat", &[writer::header(), images.clone(), labels]);
    let set = folder.open("svhn", "", Split::Test).unwrap();
    let (image, label) = set.get(0).unwrap();
    assert_eq!((image.shape(), image.to_bytes(), label), ([2, 1, 3], vec![1, 3, 5, 2, 4, 6], 0));
    assert_eq!(set.label(1).unwrap(), 3);
    let labels = writer::matrix("y", &[2, 1], 9, 2, &[11, 3]);
    folder.bytes("test_32x32.mat", &[writer::header(), images, labels]);
    assert!(folder.open("svhn", "", Split::Test).unwrap_err().to_string().contains("from 1 to 10"));
    assert!(folder.open("svhn", "", Split::Train).unwrap_err().to_string().contains("train_32x32.mat"));
}

#[test]
fn tiny_imagenet_reads_its_annotations() {
    let folder = Folder::new();
    folder.image("tiny-imagenet-200/train/n02/images/n02_0.JPEG", 2);
    folder.image("tiny-imagenet-200/train/n01/images/n01_0.JPEG", 1);
    folder.image("tiny-imagenet-200/val/images/val_0.JPEG", 3);
    folder.image("tiny-imagenet-200/val/images/val_1.JPEG", 4);
    folder.text("tiny-imagenet-200/words.txt", "n01\tgoldfish, Carassius\nn02\tEgyptian cat\n");
    let annotations = "tiny-imagenet-200/val/val_annotations.txt";
    folder.text(annotations, "val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n");
    let train = content(folder.open("tinyimagenet", "", Split::Train).unwrap());
    assert_eq!(train, pairs(&[(1, "goldfish"), (2, "Egyptian cat")]));
    let test = content(folder.open("tinyimagenet", "", Split::Test).unwrap());
    assert_eq!(test, pairs(&[(3, "Egyptian cat"), (4, "goldfish")]));
    folder.text(annotations, "val_0.JPEG\tn99\n");
    assert!(folder.open("tinyimagenet", "", Split::Test).unwrap_err().to_string().contains("line 1"));
    folder.text(annotations, "../../../etc/passwd\tn01\n");
    assert!(folder.open("tinyimagenet", "", Split::Test).unwrap_err().to_string().contains("line 1"));
}

#[test]
fn flowers_follow_their_matlab_lists() {
    let folder = Folder::new();
    (1..=3).for_each(|n| folder.image(&format!("jpg/image_0000{n}.jpg"), n));
    folder
        .bytes("imagelabels.mat", &[writer::header(), writer::matrix("labels", &[1, 3], 9, 2, &[102, 1, 2])]);
    let part = |name, image| writer::matrix(name, &[1, 1], 9, 2, &[image]);
    folder.bytes("setid.mat", &[writer::header(), part("trnid", 2), part("valid", 3), part("tstid", 1)]);
    assert_eq!(content(folder.open("flowers102", "", Split::Test).unwrap()), pairs(&[(1, "flower 102")]));
    let both = folder.open("flowers102", ",part=trainval", Split::Train).unwrap();
    assert_eq!(content(both), pairs(&[(2, "flower 1"), (3, "flower 2")]));
    let validation = folder.open("flowers102", ",test_part=val", Split::Test).unwrap();
    assert_eq!(content(validation), pairs(&[(3, "flower 2")]));
    assert!(
        folder.open("flowers102", ",test_part=x", Split::Test).unwrap_err().to_string().contains("`val`")
    );
    assert!(folder.open("flowers102", ",part=x", Split::Train).unwrap_err().to_string().contains("trainval"));
}

#[test]
fn pets_are_named_after_their_files() {
    let folder = Folder::new();
    folder.image("images/Egyptian_Mau_7.jpg", 5);
    folder.text("annotations/test.txt", "# comment\nEgyptian_Mau_7 12 1 6\n");
    let set = folder.open("pets", "", Split::Test).unwrap();
    assert_eq!((content(set.clone()), set.label(0).unwrap()), (pairs(&[(5, "Egyptian Mau")]), 11));
    folder.text("annotations/test.txt", "Egyptian_Mau_7 38 1 6\n");
    assert!(folder.open("pets", "", Split::Test).unwrap_err().to_string().contains("line 1"));
}

#[test]
fn dtd_and_sun_have_partitions() {
    let folder = Folder::new();
    folder.image("images/banded/a.jpg", 1);
    folder.image("images/dotted/b.jpg", 2);
    folder.text("labels/test1.txt", "banded/a.jpg\n");
    folder.text("labels/test2.txt", "dotted/b.jpg\n");
    assert_eq!(content(folder.open("dtd", "", Split::Test).unwrap()), pairs(&[(1, "banded")]));
    assert_eq!(content(folder.open("dtd", ",partition=2", Split::Test).unwrap()), pairs(&[(2, "dotted")]));
    folder.text("labels/val1.txt", "dotted/b.jpg\n");
    assert_eq!(content(folder.open("dtd", ",test_part=val", Split::Test).unwrap()), pairs(&[(2, "dotted")]));
    assert!(folder.open("dtd", ",partition=0", Split::Test).is_err());

    folder.image("a/abbey/sun_1.jpg", 3);
    folder.image("a/arch/outdoor/sun_2.jpg", 4);
    folder.text("ClassName.txt", "/a/abbey\n/a/arch/outdoor\n");
    folder.text("Testing_01.txt", "/a/arch/outdoor/sun_2.jpg\n/a/abbey/sun_1.jpg\n");
    let set = folder.open("sun397", "", Split::Test).unwrap();
    assert_eq!(content(set), pairs(&[(4, "arch/outdoor"), (3, "abbey")]));
    assert!(folder.open("sun397", "", Split::Train).unwrap_err().to_string().contains("Training_01.txt"));
}

#[test]
fn groceries_are_fine_or_coarse() {
    let folder = Folder::new();
    folder.image("dataset/test/Fruit/x.jpg", 9);
    folder.text("dataset/test.txt", "test/Fruit/x.jpg, 1, 0\n");
    folder.text("dataset/classes.csv", "Name,ID,Coarse,ID,…\nFuji,0,Apple,0,a,b\nPink-Lady,1,Apple,0,a,b\n");
    assert_eq!(content(folder.open("grocery", "", Split::Test).unwrap()), pairs(&[(9, "Pink-Lady")]));
    let coarse = folder.open("grocery", ",labels=coarse", Split::Test).unwrap();
    assert_eq!(content(coarse), pairs(&[(9, "Apple")]));
    folder.image("dataset/val/Fruit/y.jpg", 10);
    folder.text("dataset/val.txt", "val/Fruit/y.jpg, 0, 0\n");
    let validation = folder.open("grocery", ",test_part=val", Split::Test).unwrap();
    assert_eq!(content(validation), pairs(&[(10, "Fuji")]));
}

#[test]
fn all_of_sun_can_be_divided_at_random() {
    let folder = Folder::new();
    (0..20).for_each(|n| folder.image(&format!("a/abbey/sun_{n:02}.jpg"), n));
    (20..40).for_each(|n| folder.image(&format!("a/arch/outdoor/sun_{n}.jpg"), n));
    folder.text("ClassName.txt", "/a/abbey\n/a/arch/outdoor\n");
    let open = |split| content(folder.open("sun397", ",holdout=0.15", split).unwrap());
    let (train, test) = (open(Split::Train), open(Split::Test));
    assert_eq!((train.len(), test.len()), (34, 6));
    let mut all: Vec<u8> = train.iter().chain(&test).map(|(brightness, _)| *brightness).collect();
    all.sort_unstable();
    assert_eq!(all, (0..40).collect::<Vec<u8>>());
    assert_eq!(test, open(Split::Test));
    for (brightness, name) in &test {
        assert_eq!(name, if *brightness < 20 { "abbey" } else { "arch/outdoor" });
    }
    assert!(folder.open("sun397", ",holdout=1.5", Split::Test).is_err());
}

#[test]
fn imagenette_gets_its_names() {
    let folder = Folder::new();
    folder.image("imagenette2-160/val/n03394916/x.JPEG", 8);
    assert_eq!(content(folder.open("imagenette", "", Split::Test).unwrap()), pairs(&[(8, "French horn")]));
}

/// As in FPCM's official code: training crops at random, the test images are cut to one size.
#[test]
fn training_images_may_keep_their_size() {
    let folder = Folder::new();
    folder.image("train/n03394916/x.png", 8);
    folder.image("val/n03394916/x.png", 8);
    for (split, options, side) in [
        (Split::Train, "size_of=test", 2),
        (Split::Test, "size_of=test", 5),
        (Split::Train, "size_of=all", 5),
    ] {
        let set = folder.open("imagenette", &format!(",size=5,{options}"), split).unwrap();
        assert_eq!(set.get(0).unwrap().0.shape(), [side, side, 3], "{split}: {options}");
    }
    assert!(folder.open("imagenette", ",size=5,size_of=none", Split::Train).is_err());
}
