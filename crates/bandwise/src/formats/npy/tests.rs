use super::*;

/// A file with any header text.
pub(crate) fn file(header: &str, data: &[u8]) -> Vec<u8> {
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
