//! Captures of every form: what they give, whole, cut short or damaged.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::captures::{
    Flavor, bare, blocks, conversation, cooked, cooked2, ethernet, legacy,
};
use crate::{Scratch, assert_is_the_reset, code, records, rstscope, stderr};

#[test]
fn the_same_reset_comes_out_of_every_format_and_link_layer() {
    let scratch = Scratch::new("formats");
    let packets = conversation();
    let mut captures: Vec<(String, Vec<u8>)> = Vec::new();
    for flavor in Flavor::ALL {
        captures.push((format!("{flavor:?}"), legacy(flavor, 1, &packets, ethernet)));
    }
    for link_type in [12, 14, 101, 228] {
        captures.push((
            format!("raw {link_type}"),
            legacy(Flavor::LittleMicro, link_type, &packets, bare),
        ));
    }
    let null = |packet: &[u8]| [&[2, 0, 0, 0][..], packet].concat();
    let looped = |packet: &[u8]| [&[0, 0, 0, 2][..], packet].concat();
    captures.push((
        "null".to_owned(),
        legacy(Flavor::BigMicro, 0, &packets, null),
    ));
    captures.push((
        "loop".to_owned(),
        legacy(Flavor::LittleMicro, 108, &packets, looped),
    ));
    captures.push((
        "cooked".to_owned(),
        legacy(Flavor::LittleMicro, 113, &packets, cooked),
    ));
    captures.push((
        "cooked 2".to_owned(),
        legacy(Flavor::LittleNano, 276, &packets, cooked2),
    ));
    for big in [false, true] {
        captures.push((format!("blocks, big-endian: {big}"), blocks(big, &packets)));
    }
    for (name, bytes) in captures {
        let file = scratch.write("capture", &bytes);
        let output = rstscope(&["read", &file]);
        assert_eq!(code(&output), 0, "{name}: {}", stderr(&output));
        let records = records(&output);
        assert_eq!(records.len(), 1, "{name}: {}", stderr(&output));
        assert_is_the_reset(&records[0]);
        let time = records[0]["@timestamp"].as_str().unwrap();
        assert!(
            time.starts_with("2023-11-14T22:13:20.004"),
            "{name}: {time}"
        );
    }
}

#[test]
fn interfaces_of_a_block_capture_keep_their_clocks_and_names() {
    let scratch = Scratch::new("interfaces");
    let file = scratch.write("two.pcapng", &blocks(false, &conversation()));
    let output = rstscope(&["read", &file]);
    let records = records(&output);
    // The reset stands on the second interface, which is raw IP and counts nanoseconds.
    assert_eq!(records[0]["@timestamp"], "2023-11-14T22:13:20.004000007Z");
}

#[test]
fn standard_input_is_a_capture_too_and_ids_are_stable() {
    let scratch = Scratch::new("stdin");
    let file = scratch.write(
        "a",
        &legacy(Flavor::LittleMicro, 1, &conversation(), ethernet),
    );
    let read = || {
        let input = fs::File::open(&file).unwrap();
        let binary = env!("CARGO_BIN_EXE_rstscope");
        let output = Command::new(binary)
            .args(["read", "-"])
            .stdin(input)
            .output()
            .unwrap();
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        records(&output)[0]["event"]["id"].clone()
    };
    assert_eq!(read(), read());
    let ids = |file: &str| records(&rstscope(&["read", file]))[0]["event"]["id"].clone();
    let copy = scratch.path("b");
    fs::copy(&file, &copy).unwrap();
    assert_eq!(ids(&file), ids(&file));
    assert_ne!(ids(&file), ids(&copy), "another file's records are others");
}

#[test]
fn a_capture_cut_anywhere_gives_what_stands_before_the_cut() {
    let scratch = Scratch::new("cut");
    let packets = conversation();
    // The length of the last packet with its headers, and of the one before it (without the
    // unknown block between them in the block capture).
    for (name, whole, last, before) in [
        (
            "cut.pcap",
            legacy(Flavor::LittleMicro, 1, &packets, ethernet),
            70,
            88,
        ),
        ("cut.pcapng", blocks(false, &packets), 72, 3012),
    ] {
        let end = whole.len() - last;
        for len in whole.len() - 110..whole.len() {
            let file = scratch.write(name, &whole[..len]);
            let output = rstscope(&["read", &file]);
            let said = stderr(&output);
            let read = if name == "cut.pcap" && len < end {
                3
            } else {
                4
            };
            assert!(
                said.contains(&format!("{file}: {read} packets, ")),
                "{len}: {said}"
            );
            // Cut right between two, it is a whole capture of fewer packets.
            let cut = if len < end { end - before } else { end };
            let whole = format!("{file}: cut short at byte {cut}: ");
            assert_eq!(said.contains(&whole), len != end, "{len}: {said}");
            assert_eq!(code(&output), i32::from(len != end), "{len}: {said}");
        }
        let file = scratch.write(name, &whole);
        assert_eq!(code(&rstscope(&["read", &file])), 0);
    }
}

#[test]
fn damage_is_named_with_its_byte_and_costs_only_what_follows() {
    let scratch = Scratch::new("damage");
    let mut bytes = legacy(Flavor::LittleMicro, 1, &conversation(), ethernet);
    let at = bytes.len();
    bytes.extend([0xff; 64]);
    let file = scratch.write("damaged.pcap", &bytes);
    let output = rstscope(&["read", &file]);
    assert_eq!(code(&output), 1);
    let said = stderr(&output);
    assert!(
        said.contains(&format!("{file}: damaged at byte {at}: ")),
        "{said}"
    );
    assert_eq!(
        records(&output).len(),
        1,
        "the reset stands before the damage"
    );
}

#[test]
fn what_is_no_capture_is_named_and_the_others_go_on() {
    let scratch = Scratch::new("others");
    let good = scratch.write(
        "good",
        &legacy(Flavor::LittleMicro, 1, &conversation(), ethernet),
    );
    let empty = scratch.write("empty", b"");
    let garbage = scratch.write(
        "garbage",
        b"this is no capture, but it is long enough for one",
    );
    let gzip = scratch.write("gzip", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
    let short = scratch.write("short", &[0xd4, 0xc3, 0xb2, 0xa1, 2]);
    let missing = scratch.path("missing");
    let directory = scratch.path("directory");
    std::fs::create_dir(&directory).unwrap();
    for (file, words) in [
        (&empty, "is empty"),
        (&garbage, "neither pcap nor pcapng"),
        (&gzip, "gzip -dc"),
        (&short, "cut short at byte 0"),
        (&missing, "cannot open"),
        (&directory, "name the captures in it"),
    ] {
        let output = rstscope(&["read", file, &good]);
        assert_eq!(code(&output), 1);
        let said = stderr(&output);
        assert!(
            said.contains(&format!("{file}: ")) && said.contains(words),
            "{said}"
        );
        assert_eq!(
            records(&output).len(),
            1,
            "the good file is judged all the same"
        );
        assert!(
            !said.contains(&format!("{file}: 0 packets")),
            "what could not be read is not summed up: {said}"
        );
    }
}

#[test]
fn garbage_behind_a_good_beginning_never_crashes() {
    let scratch = Scratch::new("fuzz");
    let seeds = [
        legacy(Flavor::LittleMicro, 1, &conversation(), ethernet),
        blocks(true, &conversation()),
    ];
    // xorshift: the same bytes on every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap()
    };
    for round in 0..150 {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..=random() % 8 {
            let at = random() % bytes.len();
            bytes[at] = u8::try_from(random() % 256).unwrap();
        }
        let file = scratch.write("fuzz", &bytes);
        let output = rstscope(&["read", &file, "-q"]);
        assert!(
            matches!(output.status.code(), Some(0 | 1)),
            "round {round}: {output:?}"
        );
        let _ = records(&output);
    }
}

#[test]
fn a_link_type_that_is_not_read_is_named_once_and_is_no_failure() {
    let scratch = Scratch::new("link");
    let file = scratch.write(
        "wifi",
        &legacy(Flavor::LittleMicro, 127, &conversation(), bare),
    );
    let output = rstscope(&["read", &file]);
    assert_eq!(code(&output), 0);
    let said = stderr(&output);
    assert_eq!(said.matches("link type 127").count(), 1, "{said}");
    assert!(said.contains("5 packets passed over"), "{said}");
}

#[test]
fn on_one_terminal_a_files_sum_stands_behind_its_records() {
    let scratch = Scratch::new("order");
    let bytes = legacy(Flavor::LittleMicro, 1, &conversation(), ethernet);
    // One would seldom show it: the writer's thread and this one race.
    let names: Vec<_> = (0..32)
        .map(|n| scratch.write(&format!("{n}.pcap"), &bytes))
        .collect();
    let both = fs::File::create(scratch.path("both")).unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_rstscope"))
        .args(["read", "--verbose"])
        .args(&names)
        .stdin(Stdio::null())
        .stdout(both.try_clone().unwrap())
        .stderr(both)
        .status()
        .unwrap();
    assert!(status.success());
    let text = fs::read_to_string(scratch.path("both")).unwrap();
    let order: Vec<_> = text
        .lines()
        .filter_map(|line| match line {
            _ if line.contains("% 198.51.100.10:443 → ") => Some("record"),
            _ if line.contains(".pcap: ") => Some("sum"),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["record", "sum"].repeat(names.len()), "{text}");
}
