use std::io::Write;

use super::*;
use crate::data::DataSpec;
use crate::formats::npy::tests::file;
use crate::formats::npy::{encode_bytes, encode_floats, encode_integers};

fn open_folder(path: &Path, split: Split) -> Result<Arc<dyn Dataset>> {
    format!("npy:{}", path.display()).parse::<DataSpec>()?.open(split)
}

#[test]
fn a_folder_of_arrays_is_a_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: Vec<u8>| std::fs::write(folder.path().join(name), bytes).unwrap();
    // Channels first: red plane 0 1 2 3, green 10 .., blue 20 ...
    let planes: Vec<u8> = [0, 10, 20].iter().flat_map(|c| (0..4).map(move |p| c + p)).collect();
    write("test_images.npy", encode_bytes(&[1, 3, 2, 2], &planes));
    write("test_labels.npy", encode_integers(&[1], &[4]));
    let set = open_folder(folder.path(), Split::Test).unwrap();
    let (image, label) = set.get(0).unwrap();
    assert_eq!((image.shape(), label, &image.to_bytes()[..6]), ([2, 2, 3], 4, &[0, 10, 20, 1, 11, 21][..]));
    assert!(open_folder(folder.path(), Split::Train).unwrap_err().to_string().contains("train_images.npy"));
    write("images.npy", encode_floats(&[1, 2, 2], &[0.0, 0.5, 1.0, 128.0]));
    write("labels.npy", encode_integers(&[1], &[-1]));
    let message = || open_folder(folder.path(), Split::Train).unwrap_err().to_string();
    assert!(message().contains("labels.npy: label 0 is -1"), "{}", message());
    let header = "{'descr': '<u8', 'fortran_order': False, 'shape': (1,), }";
    write("labels.npy", file(header, &u64::MAX.to_le_bytes()));
    assert!(message().contains("labels.npy: element 0 is 18446744073709551615"), "{}", message());
    write("labels.npy", encode_integers(&[1], &[0]));
    assert!(open_folder(folder.path(), Split::Train).unwrap_err().to_string().contains("128"));
}

#[test]
fn an_npz_file_is_a_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.npz");
    let mut archive = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    let options = zip::write::SimpleFileOptions::default();
    for (name, bytes) in [
        ("x_test.npy", encode_bytes(&[2, 1, 1, 3], &[1, 2, 3, 4, 5, 6])),
        ("y_test.npy", encode_bytes(&[2], &[1, 0])),
    ] {
        archive.start_file(name, options).unwrap();
        archive.write_all(&bytes).unwrap();
    }
    archive.finish().unwrap();
    for location in [folder.path(), &path] {
        let set = open_folder(location, Split::Test).unwrap();
        assert_eq!(set.get(0).unwrap().0.to_bytes(), [1, 2, 3]);
    }
    std::fs::write(&path, b"PK not an archive").unwrap();
    assert!(open_folder(&path, Split::Test).unwrap_err().to_string().contains("not an .npz file"));
}
