use proptest::prelude::*;

use super::writer::Writer;
use super::*;

/// `pickle.dumps(v, protocol)` of Python 3.11 for protocols 0 to 5, with
/// `v = OrderedDict([("a", [1, -2, 300, 70000, 2**40, 2**70, -5000000000]),
///                   ("b", (1.5, None, True, b"\x00\xff")), ("c", {"k": {"x"}})])`.
#[rustfmt::skip]
const OBJECTS: [&[u8]; 6] = [
    b"ccollections\x0aOrderedDict\x0ap0\x0a(tRp1\x0aVa\x0ap2\x0a(lp3\x0aI1\x0aaI-2\x0aaI300\x0aaI70000\x0aaL1099511627776L\x0aaL1180591620717411303424L\x0aaL-5000000000L\x0aasVb\x0ap4\x0a(F1.5\x0aNI01\x0ac_codecs\x0aencode\x0ap5\x0a(V\x5cu0000\xff\x0ap6\x0aVlatin1\x0ap7\x0atp8\x0aRp9\x0atp10\x0asVc\x0ap11\x0a(dp12\x0aVk\x0ap13\x0ac__builtin__\x0aset\x0ap14\x0a((lp15\x0aVx\x0ap16\x0aatp17\x0aRp18\x0ass.",
    b"ccollections\x0aOrderedDict\x0aq\x00)Rq\x01(X\x01\x00\x00\x00aq\x02]q\x03(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\x00L1099511627776L\x0aL1180591620717411303424L\x0aL-5000000000L\x0aeX\x01\x00\x00\x00bq\x04(G?\xf8\x00\x00\x00\x00\x00\x00NI01\x0ac_codecs\x0aencode\x0aq\x05(X\x03\x00\x00\x00\x00\xc3\xbfq\x06X\x06\x00\x00\x00latin1q\x07tq\x08Rq\x09tq\x0aX\x01\x00\x00\x00cq\x0b}q\x0cX\x01\x00\x00\x00kq\x0dc__builtin__\x0aset\x0aq\x0e(]q\x0fX\x01\x00\x00\x00xq\x10atq\x11Rq\x12su.",
    b"\x80\x02ccollections\x0aOrderedDict\x0aq\x00)Rq\x01(X\x01\x00\x00\x00aq\x02]q\x03(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\x00\x8a\x06\x00\x00\x00\x00\x00\x01\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00@\x8a\x05\x00\x0e\xfa\xd5\xfeeX\x01\x00\x00\x00bq\x04(G?\xf8\x00\x00\x00\x00\x00\x00N\x88c_codecs\x0aencode\x0aq\x05X\x03\x00\x00\x00\x00\xc3\xbfq\x06X\x06\x00\x00\x00latin1q\x07\x86q\x08Rq\x09tq\x0aX\x01\x00\x00\x00cq\x0b}q\x0cX\x01\x00\x00\x00kq\x0dc__builtin__\x0aset\x0aq\x0e]q\x0fX\x01\x00\x00\x00xq\x10a\x85q\x11Rq\x12su.",
    b"\x80\x03ccollections\x0aOrderedDict\x0aq\x00)Rq\x01(X\x01\x00\x00\x00aq\x02]q\x03(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\x00\x8a\x06\x00\x00\x00\x00\x00\x01\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00@\x8a\x05\x00\x0e\xfa\xd5\xfeeX\x01\x00\x00\x00bq\x04(G?\xf8\x00\x00\x00\x00\x00\x00N\x88C\x02\x00\xffq\x05tq\x06X\x01\x00\x00\x00cq\x07}q\x08X\x01\x00\x00\x00kq\x09cbuiltins\x0aset\x0aq\x0a]q\x0bX\x01\x00\x00\x00xq\x0ca\x85q\x0dRq\x0esu.",
    b"\x80\x04\x95\x7f\x00\x00\x00\x00\x00\x00\x00\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\x94(\x8c\x01a\x94]\x94(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\x00\x8a\x06\x00\x00\x00\x00\x00\x01\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00@\x8a\x05\x00\x0e\xfa\xd5\xfee\x8c\x01b\x94(G?\xf8\x00\x00\x00\x00\x00\x00N\x88C\x02\x00\xff\x94t\x94\x8c\x01c\x94}\x94\x8c\x01k\x94\x8f\x94(\x8c\x01x\x94\x90su.",
    b"\x80\x05\x95\x7f\x00\x00\x00\x00\x00\x00\x00\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\x94(\x8c\x01a\x94]\x94(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\x00\x8a\x06\x00\x00\x00\x00\x00\x01\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00@\x8a\x05\x00\x0e\xfa\xd5\xfee\x8c\x01b\x94(G?\xf8\x00\x00\x00\x00\x00\x00N\x88C\x02\x00\xff\x94t\x94\x8c\x01c\x94}\x94\x8c\x01k\x94\x8f\x94(\x8c\x01x\x94\x90su.",
];

/// `np.asarray([[1.5, 2, 3], [4, 5, -6]], "<f4")` pickled by NumPy 2.4 with protocols 0, 2, 4 and 5, and in
/// Fortran order with protocol 4.
#[rustfmt::skip]
const ARRAYS: [&[u8]; 5] = [
    b"cnumpy._core.multiarray\x0a_reconstruct\x0ap0\x0a(cnumpy\x0andarray\x0ap1\x0a(I0\x0atp2\x0ac_codecs\x0aencode\x0ap3\x0a(Vb\x0ap4\x0aVlatin1\x0ap5\x0atp6\x0aRp7\x0atp8\x0aRp9\x0a(I1\x0a(I2\x0aI3\x0atp10\x0acnumpy\x0adtype\x0ap11\x0a(Vf4\x0ap12\x0aI00\x0aI01\x0atp13\x0aRp14\x0a(I3\x0aV<\x0ap15\x0aNNNI-1\x0aI-1\x0aI0\x0atp16\x0abI00\x0ag3\x0a(V\x5cu0000\x5cu0000\xc0?\x5cu0000\x5cu0000\x5cu0000@\x5cu0000\x5cu0000@@\x5cu0000\x5cu0000\x80@\x5cu0000\x5cu0000\xa0@\x5cu0000\x5cu0000\xc0\xc0\x0ap17\x0ag5\x0atp18\x0aRp19\x0atp20\x0ab.",
    b"\x80\x02cnumpy._core.multiarray\x0a_reconstruct\x0aq\x00cnumpy\x0andarray\x0aq\x01K\x00\x85q\x02c_codecs\x0aencode\x0aq\x03X\x01\x00\x00\x00bq\x04X\x06\x00\x00\x00latin1q\x05\x86q\x06Rq\x07\x87q\x08Rq\x09(K\x01K\x02K\x03\x86q\x0acnumpy\x0adtype\x0aq\x0bX\x02\x00\x00\x00f4q\x0c\x89\x88\x87q\x0dRq\x0e(K\x03X\x01\x00\x00\x00<q\x0fNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x10b\x89h\x03X\x1d\x00\x00\x00\x00\x00\xc3\x80?\x00\x00\x00@\x00\x00@@\x00\x00\xc2\x80@\x00\x00\xc2\xa0@\x00\x00\xc3\x80\xc3\x80q\x11h\x05\x86q\x12Rq\x13tq\x14b.",
    b"\x80\x04\x95\xa3\x00\x00\x00\x00\x00\x00\x00\x8c\x16numpy._core.multiarray\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R\x94(K\x01K\x02K\x03\x86\x94h\x03\x8c\x05dtype\x94\x93\x94\x8c\x02f4\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01<\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94b\x89C\x18\x00\x00\xc0?\x00\x00\x00@\x00\x00@@\x00\x00\x80@\x00\x00\xa0@\x00\x00\xc0\xc0\x94t\x94b.",
    b"\x80\x05\x95\x8e\x00\x00\x00\x00\x00\x00\x00\x8c\x13numpy._core.numeric\x94\x8c\x0b_frombuffer\x94\x93\x94(\x96\x18\x00\x00\x00\x00\x00\x00\x00\x00\x00\xc0?\x00\x00\x00@\x00\x00@@\x00\x00\x80@\x00\x00\xa0@\x00\x00\xc0\xc0\x94\x8c\x05numpy\x94\x8c\x05dtype\x94\x93\x94\x8c\x02f4\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01<\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bK\x02K\x03\x86\x94\x8c\x01C\x94t\x94R\x94.",
    b"\x80\x04\x95\xa3\x00\x00\x00\x00\x00\x00\x00\x8c\x16numpy._core.multiarray\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R\x94(K\x01K\x02K\x03\x86\x94h\x03\x8c\x05dtype\x94\x93\x94\x8c\x02f4\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01<\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94b\x88C\x18\x00\x00\xc0?\x00\x00\x80@\x00\x00\x00@\x00\x00\xa0@\x00\x00@@\x00\x00\xc0\xc0\x94t\x94b.",
];

#[test]
fn every_protocol_gives_the_same_values() {
    for (protocol, bytes) in OBJECTS.iter().enumerate() {
        let (value, consumed) = read_prefix(bytes).unwrap_or_else(|e| panic!("protocol {protocol}: {e}"));
        assert_eq!(consumed, bytes.len());
        let keys: Vec<_> =
            value.as_dict().unwrap().iter().map(|(k, _)| k.as_str().unwrap().to_owned()).collect();
        assert_eq!(keys, ["a", "b", "c"]);
        let Some(Value::List(a)) = value.get("a") else { panic!("protocol {protocol}") };
        let small: Vec<_> = [0, 1, 2, 3, 4, 6].iter().map(|&i| a[i].as_int().unwrap()).collect();
        assert_eq!(small, [1, -2, 300, 70000, 1 << 40, -5_000_000_000]);
        assert_eq!(a[5], Value::LargeInt((1i128 << 70).to_le_bytes()[..9].into()));
        let b = value.get("b").and_then(Value::as_sequence).unwrap();
        assert_eq!(b[..3], [Value::Float(1.5), Value::None, Value::Bool(true)]);
        assert_eq!(b[3].as_bytes().as_deref(), Some(&b"\x00\xff"[..]));
        assert!(value.get("c").unwrap().get("k").is_some());
    }
}

#[test]
fn numpy_arrays_of_every_protocol_and_order() {
    let expected: Vec<u8> = [1.5f32, 2., 3., 4., 5., -6.].iter().flat_map(|v| v.to_le_bytes()).collect();
    for bytes in ARRAYS {
        let array = read(bytes).unwrap().as_ndarray().unwrap();
        assert_eq!((array.shape.as_slice(), array.dtype.as_str()), (&[2, 3][..], "<f4"));
        assert_eq!(*array.row_major(), expected);
    }
}

#[test]
fn cifar_pickles_of_python_2() {
    let bytes = Writer::default()
        .op(b'}')
        .op(b'(')
        .old_text(b"data")
        .old_uint8_array(&[2, 3], &[1, 2, 3, 250, 251, 252])
        .old_text(b"labels")
        .op(b']')
        .op(b'(')
        .int(7)
        .int(3)
        .op(b'e')
        .old_text(b"batch_label")
        .old_text(b"training \xff")
        .op(b'u')
        .stop();
    let value = read(&bytes).unwrap();
    let data = value.get("data").unwrap().as_ndarray().unwrap();
    assert_eq!((data.shape.as_slice(), data.dtype.as_str()), (&[2, 3][..], "|u1"));
    assert_eq!(*data.row_major(), [1, 2, 3, 250, 251, 252]);
    let labels = value.get("labels").and_then(Value::as_sequence).unwrap();
    assert_eq!(labels, [Value::Int(7), Value::Int(3)]);
}

#[test]
fn a_shape_that_does_not_fit_its_data_is_refused() {
    for shape in [&[2, 4][..], &[usize::MAX >> 33, 1 << 20, 1 << 30, 1 << 30]] {
        let error =
            read(&Writer::new().old_uint8_array(shape, &[0; 6]).stop()).unwrap().as_ndarray().unwrap_err();
        assert!(error.to_string().contains("cannot have 6 bytes"), "{error}");
    }
}

#[test]
fn calls_are_recorded_not_made() {
    let bytes = Writer::new().global("os", "system").text("rm -rf /").op(0x85).op(b'R').stop();
    let Value::Object(call) = read(&bytes).unwrap() else { panic!() };
    assert_eq!(call.name(), "os.system");
    assert_eq!(call.positional()[0].as_str(), Some("rm -rf /"));
}

#[test]
fn a_list_remembered_before_it_is_filled_is_full_everywhere() {
    // a = []; memo; t = (a, a); a.append(5)
    let bytes = Writer::new().op(b']').op(b'q').op(0).int(5).op(b'a').op(b'h').op(0).op(0x86).stop();
    let five = || Value::List(vec![Value::Int(5)]);
    assert_eq!(read(&bytes).unwrap(), Value::Tuple(vec![five(), five()]));
}

#[test]
fn several_pickles_in_a_row_are_read_one_by_one() {
    let mut bytes = Writer::new().int(1).stop();
    let first = bytes.len();
    bytes.extend(Writer::new().text("two").stop());
    let (value, consumed) = read_prefix(&bytes).unwrap();
    assert_eq!((value, consumed), (Value::Int(1), first));
    assert_eq!(read(&bytes[consumed..]).unwrap().as_str(), Some("two"));
}

#[test]
fn cycles_depth_and_expansion_are_bounded() {
    // a = []; a.append(a)
    let cycle = Writer::new().op(b']').op(b'q').op(0).op(b'h').op(0).op(b'a').stop();
    assert_eq!(read(&cycle).unwrap(), Value::List(vec![Value::Recursive]));

    let deep = (0..100_000).fold(Writer::new().op(b'N'), |w, _| w.op(0x85)).stop();
    assert!(read(&deep).unwrap_err().to_string().contains("nested deeper"));

    // Each level holds the one below twice: 2^60 values out of a few hundred bytes.
    let laughs = (0..60).fold(Writer::new().int(1), |w, _| w.op(b'2').op(0x86)).stop();
    assert!(read(&laughs).unwrap_err().to_string().contains("expand to more"));

    let many = vec![b'N'; MAX_VALUES + 1];
    assert!(read(&many).unwrap_err().to_string().contains("more than"));
}

#[test]
fn damaged_pickles_say_what_is_wrong() {
    for (bytes, reason) in [
        (&b""[..], "it ends where 1 more bytes"),
        (b"\x80\x09N.", "protocol 9"),
        (b"\x80\x02X\xff\xff\xff\xffabc", "it ends where 4294967295"),
        (b"\x80\x02h\x05.", "no memo 5"),
        (b"\x80\x02e.", "no mark"),
        (b"\x80\x02(K\x01d.", "a key without a value"),
        (b"<!DOCTYPE html>", "opcode 0x3c is unknown"),
        (b"S'abc\n.", "a badly quoted string"),
    ] {
        let error = read(bytes).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn truncation_anywhere_is_an_error() {
    for bytes in OBJECTS.iter().chain(&ARRAYS) {
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_err(), "cut at {end}");
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&bytes).map(|value| (value.as_ndarray(), value.describe()));
    }

    /// Only bytes that are opcodes, so that more of the machine is reached.
    #[test]
    fn any_opcodes_are_survived(bytes in prop::collection::vec(
        prop::sample::select(&b"(.012pqrghj]})aesulltdcRiobPQNIKJMFGSVUTCXB\x80\x81\x85\x86\x87\x88\x8c\x8f\x90\x91\x92\x93\x94\x01\x00\n"[..]),
        0..400,
    )) {
        let _ = read(&bytes).map(|value| (value.as_ndarray(), value.describe()));
    }

    #[test]
    fn mutated_pickles_are_survived(
        which in 0usize..11,
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = OBJECTS.iter().chain(&ARRAYS).nth(which).unwrap().to_vec();
        for (index, byte) in mutations {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let _ = read(&bytes).map(|value| (value.as_ndarray(), value.describe()));
    }
}
