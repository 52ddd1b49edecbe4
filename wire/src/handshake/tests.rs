use super::*;
use proptest::prelude::*;

fn hello(node: u64) -> Hello {
    let identity = Identity {
        cluster: ClusterId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100),
        node: NodeId(node),
        incarnation: Incarnation(0x1112_1314_1516_1718),
    };
    let first = Life::default().next(StartId(0x2122_2324_2526_2728));
    Hello::of(identity, first.next(StartId(0x3132_3334_3536_3738)))
}

/// The bytes again with a sum that fits them.
fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = crc32c::crc32c(&bytes[SUMMED_FROM..]);
    bytes[4..SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn the_bytes_of_a_hello_are_these() {
    let bytes = hello(3).encode();
    assert!(
        bytes[88..].iter().all(|b| *b == 0),
        "no more than one start before it"
    );
    let hex: String = bytes[..88].iter().map(|b| format!("{b:02x}")).collect();
    let golden = concat!(
        "4b544b48",
        "3220b59f",
        "5001",
        "0100",
        "0100",
        "0000",
        "0000000000000000",
        "0000000000000000",
        "000102030405060708090a0b0c0d0e0f",
        "0300000000000000",
        "1817161514131211",
        "0200000000000000",
        "3837363534333231",
        "2827262524232221",
    );
    assert_eq!(hex, golden);
}

#[test]
fn a_longer_hello_of_a_later_version_is_understood() {
    let mut bytes = hello(3).encode().to_vec();
    bytes.extend_from_slice(&[7; 16]);
    bytes[8..10].copy_from_slice(&(Hello::BYTES as u16 + 16).to_le_bytes());
    assert_eq!(Hello::decode(&summed(bytes)), Ok(hello(3)));
}

#[test]
fn versions_meet_at_the_newest_both_know() {
    let range = |min, max| Versions { min, max };
    assert_eq!(range(1, 3).common(range(2, 5)), Some(3));
    assert_eq!(range(1, 1).common(range(1, 1)), Some(1));
    assert_eq!(range(1, 2).common(range(3, 4)), None);
    assert_eq!(range(3, 4).common(range(1, 2)), None);
}

#[test]
fn a_version_that_does_not_overlap_is_refused_in_words() {
    let mut theirs = hello(2);
    theirs.versions = Versions { min: 7, max: 9 };
    let refused = hello(1).agree(&theirs, None).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "it speaks versions 7 to 9 of the peer protocol, this node 1 to 1: upgrade the older one"
    );
}

#[test]
fn a_required_feature_that_is_missing_is_refused_and_an_offered_one_is_not() {
    let mut theirs = hello(2);
    theirs.features = 0b100;
    assert_eq!(hello(1).agree(&theirs, None).map(|a| a.features), Ok(0));
    theirs.required = 0b100;
    assert_eq!(
        hello(1).agree(&theirs, None),
        Err(HandshakeError::Features { missing: 0b100 })
    );
}

#[test]
fn another_cluster_another_node_and_a_namesake_are_refused() {
    let mut foreign = hello(2);
    foreign.identity.cluster = ClusterId(9);
    assert!(matches!(
        hello(1).agree(&foreign, None),
        Err(HandshakeError::Cluster { .. })
    ));
    assert!(matches!(
        hello(1).agree(&hello(2), Some(NodeId(3))),
        Err(HandshakeError::Node { .. })
    ));
    assert_eq!(
        hello(1).agree(&hello(1), None),
        Err(HandshakeError::Namesake(NodeId(1)))
    );
    let agreed = hello(1).agree(&hello(2), Some(NodeId(2))).unwrap();
    assert_eq!((agreed.version, agreed.peer), (1, hello(2).identity));
}

#[test]
fn no_flipped_bit_and_no_truncation_goes_unseen() {
    let bytes = hello(3).encode();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            Hello::decode(&flipped),
            Err(HandshakeError::NotAHello),
            "bit {bit}"
        );
    }
    for len in 0..bytes.len() {
        assert_eq!(
            Hello::decode(&bytes[..len]),
            Err(HandshakeError::NotAHello),
            "length {len}"
        );
    }
}

proptest! {
    #[test]
    fn every_hello_comes_back(
        (min, max, required, features) in any::<(u16, u16, u64, u64)>(),
        (cluster, node, incarnation) in any::<(u128, u64, u64)>(),
        (number, start, earlier) in any::<(u64, u64, [u64; EARLIER_STARTS])>(),
    ) {
        let hello = Hello {
            versions: Versions { min, max },
            required,
            features,
            identity: Identity {
                cluster: ClusterId(cluster),
                node: NodeId(node),
                incarnation: Incarnation(incarnation),
            },
            life: Life { number, start: StartId(start), earlier: earlier.map(StartId) },
        };
        prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        let _ = Hello::decode(&bytes);
    }
}
