use std::io::Cursor;
use std::path::Path;

use super::script::Script;
use super::*;

fn read(text: &[u8], format: Format) -> Result<Vec<Line>, Error> {
    Reader::new(Cursor::new(text), format).collect()
}

fn fixture(name: &str) -> Vec<Line> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name);
    open(&path).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn both_formats_of_one_talk_give_the_same_lines() {
    let mut lines = fixture("talk.jsonl");
    let plain = fixture("talk.txt");
    assert_eq!(plain.len(), 12);
    for line in &mut lines {
        line.reply_to.clear(); // plain text does not say what answers what
    }
    assert_eq!(lines, plain);
}

#[test]
fn the_fixture_has_every_kind_and_its_script_knows_its_three_users() {
    let lines = fixture("talk.jsonl");
    for kind in [
        Kind::Message,
        Kind::Action,
        Kind::Join,
        Kind::Part,
        Kind::Quit,
        Kind::Nick,
    ] {
        assert!(lines.iter().any(|line| line.kind == kind), "{kind:?}");
    }
    let script = Script::read(lines.into_iter().map(Ok)).unwrap();
    let users: Vec<_> = script
        .users
        .iter()
        .map(|user| (user.first_name.as_str(), user.from_start))
        .collect();
    assert_eq!(users, [("mira", true), ("tobi", false), ("zoë", false)]);
    assert_eq!(script.spoken().count(), 6);
    assert_eq!(script.replies_left_out, 0);
    let answered: Vec<_> = script.steps.iter().map(|step| step.replies.len()).collect();
    assert_eq!(answered.iter().sum::<usize>(), 3);
}

#[test]
fn text_is_kept_byte_for_byte() {
    let lines = read(
        b"[07:05] <ann>  two  spaces, a tab\tand the end  \n",
        Format::Irc,
    )
    .unwrap();
    assert_eq!(lines[0].body, " two  spaces, a tab\tand the end  ");
    assert_eq!(lines[0].time.to_string(), "07:05");
}

#[test]
fn irc_lines_about_nobody_are_passed_over_and_numbers_go_on() {
    let lines = read(
        b"=== Topic for #x: hello\n[09:00] <@ann> hi\n\n=== bob [~b@h] has joined #x\r\n\
          [09:01:59] * bob waves\n=== ann [h] has left #x [off]\n=== bob has quit [ping]\n",
        Format::Irc,
    )
    .unwrap();
    let seen: Vec<_> = lines
        .iter()
        .map(|line| (line.i, line.kind, line.who.as_str(), line.body.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            (1, Kind::Message, "ann", "hi"),
            (3, Kind::Join, "bob", ""),
            (4, Kind::Action, "bob", "waves"),
            (5, Kind::Part, "ann", "off"),
            (6, Kind::Quit, "bob", "ping"),
        ]
    );
    assert_eq!(lines[1].time.to_string(), "09:00");
}

#[test]
fn an_error_names_its_line_and_ends_the_reading() {
    let good = br#"{"i":0,"time":"09:00","kind":"message","who":"a","body":"x"}"#;
    let bad: &[&[u8]] = &[
        br#"{"i":0,"time":"09:00","kind":"message","who":"a","body":"same number"}"#,
        br#"{"i":1,"time":"24:00","kind":"message","who":"a","body":"x"}"#,
        br#"{"i":1,"time":"9:00","kind":"message","who":"a","body":"x"}"#,
        br#"{"i":1,"time":"09:00","kind":"shout","who":"a","body":"x"}"#,
        br#"{"i":1,"time":"09:00","kind":"message","who":"a"}"#,
        br#"{"i":1,"time":"09:00","kind":"nick","who":"a","body":""}"#,
        br#"{"i":1,"time":"09:00","kind":"message","who":"","body":"x"}"#,
        br#"{"i":1,"time":"09:00","kind":"message","who":"a","body":"x","reply_to":[1]}"#,
        br#"{"i":1,"time":"09:00","kind":"message","who":"a","body":"x","more":1}"#,
        br#"{"i":1,"time":"09:00","#,
        b"{\"i\":1,\"time\":\"09:00\",\"kind\":\"message\",\"who\":\"a\",\"body\":\"\xff\"}",
    ];
    for line in bad {
        let text = [good.as_slice(), b"\n", line, b"\n", good].concat();
        let mut reader = Reader::new(Cursor::new(text), Format::JsonLines);
        assert!(reader.next().unwrap().is_ok());
        let error = reader.next().unwrap().unwrap_err().to_string();
        assert!(error.starts_with("line 2: "), "{error}");
        assert!(reader.next().is_none());
    }
    for line in ["no stamp", "[09:00] nobody", "[09:00] <ann hi"] {
        let error = read(line.as_bytes(), Format::Irc).unwrap_err().to_string();
        assert!(error.starts_with("line 1: "), "{error}");
    }
}

#[test]
fn a_line_over_the_limit_is_refused_and_one_at_the_limit_is_read() {
    let start = "[09:00] <a> ";
    let at = format!("{start}{}\n", "x".repeat(LINE_BYTES_MAX - start.len()));
    assert_eq!(read(at.as_bytes(), Format::Irc).unwrap().len(), 1);
    let over = format!("{start}{}\n", "x".repeat(LINE_BYTES_MAX - start.len() + 1));
    assert!(matches!(
        read(over.as_bytes(), Format::Irc),
        Err(Error::TooLong { line: 1 })
    ));
    // A line that never ends is not read into memory.
    let endless = BufReader::new(io::repeat(b'x'));
    let error = Reader::new(endless, Format::JsonLines).next().unwrap();
    assert!(matches!(error, Err(Error::TooLong { line: 1 })));
}

#[test]
fn a_missing_file_is_named() {
    let error = open(Path::new("no/such/log.jsonl")).unwrap_err();
    assert!(error.to_string().contains("no/such/log.jsonl"));
}
