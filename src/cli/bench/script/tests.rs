//! Tests of scenario files: what is read, and how a mistake is told.

use proptest::prelude::*;

use super::*;

const CONNECT: &str = "[connect]\nclients = 2\n";

/// Returns the text of a scenario with one phase, which has these steps from line 6 on.
fn with_steps(steps: &str) -> String {
    format!("{CONNECT}[[phase]]\nname = \"p\"\nrounds = 1\nsteps = [\n{steps}\n]\n")
}

fn mistake(text: &str) -> String {
    Script::parse(text).expect_err(text)
}

#[test]
fn the_example_is_read_as_it_is_meant() {
    let script = Script::parse(include_str!("../../../../examples/bench.toml")).unwrap();
    assert_eq!((script.clients, script.ramp), (20, Some(100.0)));
    let [enter, talk, pictures] = &script.phases[..] else { panic!("{script:?}") };
    assert_eq!((enter.rounds, enter.duration, enter.rate), (Some(1), None, None));
    assert_eq!((talk.duration, talk.rate), (Some(Duration::from_secs(3)), Some(100.0)));
    assert_eq!(talk.flows.iter().map(|flow| flow.weight).collect::<Vec<_>>(), [9, 1]);
    let [Step::Wait(rest), Step::Ack(sending)] = &pictures.flows[0].steps[..] else { panic!("{pictures:?}") };
    assert_eq!((rest.at(0.0), rest.at(1.0)), (Duration::from_millis(100), Duration::from_millis(100)));
    assert_eq!((&sending.args[..], sending.bytes), (&[Arg::Bytes][..], 16_384));
    assert_eq!(script.expected(), ["msg"]);
}

/// Reads texts with one mistake each: the line that it is told with, and words of what is said.
fn assert_told(mistakes: &[(&str, usize, &str)]) {
    for (text, line, words) in mistakes {
        let told = mistake(text);
        // What is wrong with a step as a whole belongs to the line on which the steps begin.
        let is_there = |line: usize| told.starts_with(&format!(":{line}: "));
        assert!(is_there(*line) || (*line == 7 && is_there(6)), "line {line} of\n{text}\n{told}");
        assert!(told.contains(words), "{words:?} is not in {told:?}");
    }
}

#[test]
fn a_mistake_is_told_with_its_line_and_what_is_allowed() {
    assert_told(&[
        ("[connect]\nclients = 0", 2, "1 to 1000000"),
        ("[connect]\nclients = 2\nspeed = 1", 3, "unknown field `speed`, expected `clients` or `per_second`"),
        ("[connect]\nclients = 2\nper_second = 0", 3, "above 0"),
        (&format!("{CONNECT}[[phase]]\nname = 'p'\nsteps = [{{ ack = 'a' }}]"), 3, "`duration`"),
        (&format!("{CONNECT}[[phase]]\nname = 'p'\nrounds = 1"), 3, "either `steps`"),
        (&format!("{CONNECT}[[phase]]\nname = 'p'\nrounds = 1\nflow = []\n"), 3, "at most 32"),
        (
            &format!("{CONNECT}[[phase]]\nname = \"a\\nb\"\nrounds = 1\nsteps = [{{ ack = 'a' }}]"),
            3,
            "one line",
        ),
        ("[connect]\nclients = two", 2, ""),
        ("[connect]\nclients = 2\n\"a\\u001b[2J\" = 1", 3, "unknown field `a[2J`"),
    ]);
}

#[test]
fn a_mistake_in_a_step_is_told_with_its_line_and_what_is_allowed() {
    assert_told(&[
        (
            &with_steps("{ ack = 'a' },\n{ dance = 'a' }"),
            8,
            "unknown field `dance`, expected one of `emit`, `ack`",
        ),
        (&with_steps("{ within = '1s' }"), 7, "one of `emit`, `ack`, `join`, `expect` and `wait`"),
        (&with_steps("{ ack = 'a', emit = 'b' }"), 7, "one of `emit`, `ack`"),
        (
            &with_steps("{ emit = 'a', within = '1s' }"),
            7,
            "`emit` has no `within`; it may have `args`, `bytes`",
        ),
        (&with_steps("{ wait = '1s', bytes = 3 }"), 7, "`wait` has no `bytes`"),
        (&with_steps("{ wait = '1' }"), 7, "with its unit"),
        (&with_steps("{ wait = ['2s', '1s'] }"), 7, "the shorter one"),
        (&with_steps("{ wait = '25h' }"), 7, "at most"),
        (&with_steps("{ ack = 'a', args = ['$text'] }"), 7, "need a size: `bytes`"),
        (&with_steps("{ ack = 'a', args = [1], bytes = 5 }"), 7, "neither"),
        (
            &with_steps("{ ack = 'a', args = ['$name'] }"),
            7,
            "none of `$text`, `$bytes`, `$room` and `$client`",
        ),
        (&with_steps("{ ack = 'a', args = [nan] }"), 7, "no such number"),
        (&with_steps("{ ack = '' }"), 7, "1 to 128 bytes"),
        (&with_steps("{ ack = 'connect' }"), 7, "reserved"),
        (&with_steps("{ join = 'room', event = 'disconnect' }"), 7, "reserved"),
        (&with_steps("{ expect = 'connect_error' }"), 7, "reserved"),
        (&with_steps("{ ack = 'a', bytes = 16_777_217 }"), 7, "1 to 16777216"),
        (
            &with_steps("{ ack = 'a', args = ['$text', '$bytes'], bytes = 8_388_609 }"),
            7,
            "at most 16777216 bytes together",
        ),
        (&with_steps("{ emit = 'a', bytes = 8 },\n{ expect = 'b', own = true }"), 3, "48 `bytes` or more"),
    ]);
}

#[test]
fn an_empty_file_is_told_what_it_lacks() {
    assert!(mistake("").contains("missing field `connect`"), "{}", mistake(""));
}

#[test]
fn what_only_shows_in_several_phases_together_is_told_too() {
    let phase =
        |name: &str, steps: &str| format!("[[phase]]\nname = '{name}'\nrounds = 1\nsteps = [{steps}]\n");
    let nothing = format!("{CONNECT}{}", phase("p", "{ emit = 'a' }"));
    assert!(mistake(&nothing).contains("nothing is measured"));
    let speak = "{ ack = 'a', args = ['$room'] }";
    let outside = format!("{CONNECT}{}", phase("first", speak));
    assert!(mistake(&outside).contains("\"first\"") && mistake(&outside).contains("`join`"));
    let inside = format!("{CONNECT}{}{}", phase("enter", "{ join = 'r' }"), phase("speak", speak));
    assert!(Script::parse(&inside).is_ok());
    let some = "[[phase]]\nname = 'enter'\nrounds = 1\n[[phase.flow]]\nsteps = [{ join = 'r' }]\n[[phase.flow]]\nsteps = [{ wait = '1s' }]\n";
    assert!(mistake(&format!("{CONNECT}{some}{}", phase("speak", speak))).contains("every client does"));
    let many = phase("p", "{ ack = 'a' }").repeat(PHASES_MAX + 1);
    assert!(mistake(&format!("{CONNECT}{many}")).contains("1 to 32"));
}

#[test]
fn a_file_that_is_not_there_or_too_large_is_told_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large.toml");
    let missing = Script::read(&file).unwrap_err();
    assert!(matches!(missing, ImksError::Config(_)) && missing.to_string().contains("large.toml"));
    std::fs::write(&file, [0xff, 0xfe]).unwrap();
    let binary = Script::read(&file).unwrap_err();
    assert!(matches!(binary, ImksError::Config(_)) && binary.to_string().contains("UTF-8"), "{binary}");
    std::fs::write(&file, "#".repeat(FILE_BYTES_MAX as usize + 1)).unwrap();
    assert!(Script::read(&file).unwrap_err().to_string().contains("at most 262144 bytes"));
    std::fs::write(&file, "[connect]\nclients = 'two'\n").unwrap();
    let told = Script::read(&file).unwrap_err().to_string();
    assert!(told.contains("large.toml:2: "), "{told}");
}

fn weighted(weights: &[u64]) -> Phase {
    let flow = |weight: &u64| Flow { weight: *weight, steps: Vec::new() };
    Phase {
        name: "p".into(),
        duration: None,
        rounds: Some(1),
        rate: None,
        think: None,
        flows: weights.iter().map(flow).collect(),
    }
}

proptest! {
    #[test]
    fn flows_are_chosen_as_often_as_their_weights_say(weights in prop::collection::vec(1_u64..20, 1..6)) {
        let phase = weighted(&weights);
        let total: u64 = weights.iter().sum();
        let mut chosen = vec![0; weights.len()];
        for part in 0..total {
            let flow = phase.choose((part as f64 + 0.5) / total as f64).unwrap();
            chosen[phase.flows.iter().position(|it| std::ptr::eq(it, flow)).unwrap()] += 1;
        }
        prop_assert_eq!(chosen, weights);
        prop_assert!(phase.choose(1.0).is_some());
    }

    #[test]
    fn no_file_panics(text in ".{0,200}") {
        let _ = Script::parse(&text);
        let _ = Script::parse(&with_steps(&text));
    }

    #[test]
    fn a_pause_is_within_its_times(from in 1_u64..10_000, more in 0_u64..10_000, chance in 0.0_f64..=1.0) {
        let (from, to) = (Duration::from_millis(from), Duration::from_millis(from + more));
        let pause = Pause { from, to }.at(chance);
        prop_assert!(pause >= from && pause <= to);
    }
}
