use super::*;
use crate::data::{DataSpec, Split};
use std::io::Write;

fn open_folder(path: &Path, split: Split) -> Result<std::sync::Arc<dyn crate::data::Dataset>> {
    format!("npy:{}", path.display()).parse::<DataSpec>()?.open(split)
}

/// A file with any header text.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

#[test]
fn what_is_written_is_read() {
    let path = Path::new("x.npy");
    let bytes = parse(&encode_bytes(&[2, 3], &[1, 2, 3, 4, 5, 6]), path).unwrap();
    assert_eq!(bytes, Array { shape: vec![2, 3], data: Data::Bytes(vec![1, 2, 3, 4, 5, 6]) });
    let floats = parse(&encode_floats(&[2], &[0.5, -1.5]), path).unwrap();
    assert_eq!(floats, Array { shape: vec![2], data: Data::Floats(vec![0.5, -1.5]) });
    let integers = parse(&encode_integers(&[], &[-7]), path).unwrap();
    assert_eq!(integers, Array { shape: vec![], data: Data::Integers(vec![-7]) });
}

#[test]
fn the_header_is_numpys_own() {
    // numpy 2: np.save(f, np.zeros((2, 3), np.uint8))
    let expected = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }";
    let bytes = encode_bytes(&[2, 3], &[0; 6]);
    assert_eq!(&bytes[10..10 + expected.len()], expected.as_bytes());
    assert_eq!((bytes.len() - 6) % 64, 0);
    assert!(String::from_utf8_lossy(&encode_bytes(&[4], &[0; 4])).contains("'shape': (4,), }"));
}

#[test]
fn orders_and_types_are_understood() {
    let fortran = "{'descr': '>i2', 'fortran_order': True, 'shape': (2L, 3L), }\n";
    // Columns (1, 4), (2, 5), (3, -6), big-endian.
    let data = [0, 1, 0, 4, 0, 2, 0, 5, 0, 3, 0xff, 0xfa];
    let array = parse(&file(fortran, &data), Path::new("x")).unwrap();
    assert_eq!(array.data, Data::Integers(vec![1, 2, 3, 4, 5, -6]));
    let half = "{'shape': (1,), 'descr': '<f2', 'fortran_order': False}";
    let array = parse(&file(half, &[0x00, 0x38]), Path::new("x")).unwrap();
    assert_eq!(array.data, Data::Floats(vec![0.5]));
}

#[test]
fn damaged_files_are_explained() {
    let message = |bytes: &[u8]| parse(bytes, Path::new("x.npy")).unwrap_err().to_string();
    let header = |dtype: &str, shape: &str| {
        format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}")
    };
    assert!(message(b"PK\x03\x04whatever").contains("not a NumPy array"));
    assert!(message(&encode_bytes(&[4], &[0; 4])[..40]).contains("cut off"));
    assert!(message(&file(&header("<f4", "(3,)"), &[0; 8])).contains("does not fit 8 bytes"));
    let absurd = header("<f8", "(18446744073709551615, 4)");
    assert!(message(&file(&absurd, &[0; 8])).contains("does not fit"));
    assert!(message(&file(&header("|O", "(1,)"), &[0])).contains("`|O` are not read"));
    assert!(message(&file("{'descr': [('a', '<f4')]}", &[0])).contains("not understood"));
    assert!(message(&file("{'descr': 'é", &[0])).contains("not understood"));
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
