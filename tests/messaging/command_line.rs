//! The commands of an operator, as they are typed.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

pub fn imks(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imks"));
    command.args(arguments).env_clear().envs(environment.iter().copied()).output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_wrong_configuration_is_told_in_whole_and_ends_with_78() {
    let environment =
        [("IMKS_LISTEN", "here"), ("DATABASE_URL", "oracle://me:hunter2@db"), ("IMKS_LIMIT_SENDS", "fast")];
    let output = imks(&["check-config"], &environment);
    let complaint = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78));
    for part in ["IMKS_LISTEN", "DATABASE_URL", "IMKS_LIMIT_SENDS"] {
        assert!(complaint.contains(part), "{part} is missing in {complaint}");
    }
    assert!(!complaint.contains("hunter2"), "{complaint}");
}

#[test]
fn a_configuration_is_shown_without_its_secrets() {
    let database = [("DATABASE_URL", "postgres://im:hunter2@db/imks")];
    let output = imks(&["check-config", "--no-environment", "--data-dir", "/x"], &database);
    let shown = text(&output.stdout);
    let row = |name: &str| {
        shown.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().collect::<Vec<_>>()
    };
    assert!(output.status.success(), "{shown}");
    assert_eq!(row("DATABASE_URL"), ["DATABASE_URL", "postgres://***@db/imks", "DATABASE_URL"]);
    assert_eq!(row("IMKS_DATA_DIR"), ["IMKS_DATA_DIR", "/x", "--data-dir"]);
    assert_eq!(row("IMKS_LISTEN"), ["IMKS_LISTEN", "127.0.0.1:3000", "default"]);
}

#[test]
fn what_a_configuration_names_is_tried_and_nothing_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let fine = imks(&["check-config", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()], &[]);
    assert!(fine.status.success() && !data.exists(), "{}", text(&fine.stderr));
    let url = format!("sqlite:{}", directory.path().join("new/a.db").display());
    let fine = imks(&["check-config", "--listen", "127.0.0.1:0"], &[("DATABASE_URL", &url)]);
    assert!(fine.status.success(), "{}", text(&fine.stderr));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    let environment = [
        ("IMKS_LISTEN", "203.0.113.1:3000"),
        ("IMKS_DATA_DIR", "/proc/nope"),
        ("IMKS_CLIENT_BUNDLE_DIR", "/"),
        ("IMKS_ATTACHMENTS_DIR", "/proc/nope"),
        ("IMKS_ADMIN_UI_DIR", "/nope"),
        ("IMKS_CORE_URL", "http://127.0.0.1:1"),
        ("IMKS_CORE_DEADLINE", "200ms"),
    ];
    let wrong = imks(&["check-config"], &environment);
    let told = text(&wrong.stderr);
    assert_eq!(wrong.status.code(), Some(78), "{told}");
    for (variable, _) in environment.iter().filter(|(name, _)| *name != "IMKS_CORE_DEADLINE") {
        assert!(told.contains(variable), "{variable} is missing in {told}");
    }
    let keys = imks(&["check-config"], &[("IMKS_TOKEN_JWKS_URL", "http://127.0.0.1:1/jwks")]);
    let told = text(&keys.stderr);
    assert!(keys.status.code() == Some(78) && told.contains("IMKS_TOKEN_JWKS_URL: "), "{told}");
    let away = imks(
        &["check-config"],
        &[
            ("DATABASE_URL", "postgres://im:hunter2@127.0.0.1:1/imks"),
            ("IMKS_DATABASE_ACQUIRE_TIMEOUT", "200ms"),
        ],
    );
    let told = text(&away.stderr);
    assert!(
        away.status.code() == Some(78) && told.contains("DATABASE_URL") && !told.contains("hunter2"),
        "{told}"
    );
}

#[test]
fn a_database_with_which_no_server_starts_is_told_before_one_is_started() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let told = |expected: &str| {
        let output = imks(&["check-config", "--listen", "127.0.0.1:0", "--data-dir", data], &[]);
        let told = text(&output.stderr);
        assert!(output.status.code() == Some(78) && told.contains(expected), "{told}");
        assert!(told.contains("IMKS_DATA_DIR: ") && told.contains("imks.db"), "{told}");
    };
    assert!(imks(&["migrate", "--data-dir", data], &[]).status.success());
    let file = directory.path().join("imks.db");
    let later = "UPDATE _sqlx_migrations SET version = 999999 WHERE version = (SELECT MAX(version) FROM _sqlx_migrations)";
    let changed = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut database = SqliteConnectOptions::new().filename(&file).connect().await?;
        sqlx::query(later).execute(&mut database).await?;
        database.close().await
    });
    changed.unwrap();
    told("a newer version of imks");
    let url = format!("sqlite:{}", file.display());
    let listing: [&[&str]; 4] = [
        &["directory", "list", "--data-dir", data],
        &["directory", "user", "list", "--data-dir", data],
        &["directory", "member", "list", "general", "--data-dir", data],
        &["doctor", "--database", &url],
    ];
    for command in listing {
        let output = imks(command, &[]);
        let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(!output.status.success() && told.contains("newer version"), "{command:?}: {told}");
        assert!(!told.contains("imks migrate"), "{command:?}: {told}");
    }
    std::fs::write(&file, [7; 4096]).unwrap();
    told("not a database");
}

#[test]
fn an_address_that_another_program_has_is_told_and_one_of_a_running_imks_is_not() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    // Whoever asks it is hung up on.
    std::thread::spawn(move || other.incoming().for_each(drop));
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let checked = imks(&["check-config", "--listen", &address, "--data-dir", data], &[]);
    let told = text(&checked.stderr);
    assert!(checked.status.success() && told.contains("IMKS_LISTEN: another program than imks"), "{told}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let options = ["--listen", &*free, "--data-dir", data];
    let mut server = Command::new(env!("CARGO_BIN_EXE_imks"));
    let mut server = server.arg("serve").args(options).env_clear().stderr(Stdio::null()).spawn().unwrap();
    let begun = std::time::Instant::now();
    while !imks(&[&["healthcheck"], &options[..]].concat(), &[]).status.success() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "the server does not start");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let checked = imks(&[&["check-config"], &options[..]].concat(), &[]);
    server.kill().unwrap();
    server.wait().unwrap();
    let told = text(&checked.stderr);
    assert!(checked.status.success() && !told.contains("another program"), "{told}");
}

#[test]
fn a_wrong_address_of_a_broker_is_told_by_its_own_name() {
    for (variable, url) in [("REDIS_URL", "redis://host:port"), ("NATS_URL", "ws://host:4222")] {
        let output = imks(&["check-config", "--listen", "127.0.0.1:0"], &[(variable, url)]);
        let told = text(&output.stderr);
        assert!(output.status.code() == Some(78) && told.contains(variable), "{told}");
        assert!(!told.contains("IMKS_ADAPTER"), "{told}");
    }
}

#[test]
fn a_file_to_begin_with_is_printed_and_can_be_used_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("imks.toml");
    std::fs::write(&file, imks(&["config", "init"], &[]).stdout).unwrap();
    let output = imks(&["--config", file.to_str().unwrap(), "check-config", "--no-environment"], &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for flag in ["--version", "-V", "version"] {
        assert_eq!(text(&imks(&[flag], &[]).stdout).trim(), concat!("imks ", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn no_output_shows_a_secret_whatever_its_url_looks_like() {
    for database in [
        "postgres://im:hun/ter2@127.0.0.1:1/imks",
        "postgres://im:hun?ter2@127.0.0.1:1/imks",
        "postgres://im:hun@ter2@127.0.0.1:1/imks",
        "postgres://im:hunter2",
        "postgres://127.0.0.1:1/imks?user=im&password=hunter2",
        "hunter2",
    ] {
        let environment = [
            ("DATABASE_URL", database),
            ("IMKS_CORE_URL", "http://hun:ter2@127.0.0.1:1"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://hun:ter2@127.0.0.1:1"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hunter2"),
            ("IMKS_ADMIN_PASSWORD_HASH", "hunter2"),
            ("IMKS_DATABASE_ACQUIRE_TIMEOUT", "200ms"),
            ("IMKS_CORE_DEADLINE", "200ms"),
            ("RUST_LOG", "trace"),
        ];
        for command in ["check-config", "migrate", "token"] {
            let arguments: &[&str] = if command == "token" { &[command, "alice"] } else { &[command] };
            let output = imks(arguments, &environment);
            let told = text(&output.stdout) + &text(&output.stderr);
            assert!(!told.contains("hun") && !told.contains("ter2"), "{command} with {database}: {told}");
        }
    }
}

#[test]
fn a_token_is_printed_alone_so_that_a_shell_can_take_it() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let output = imks(&["token", "alice", "--data-dir", data], &[]);
    let token = text(&output.stdout);
    assert!(output.status.success());
    assert_eq!((token.trim_end().split('.').count(), token.lines().count()), (3, 1), "{token}");
}

#[test]
fn the_database_of_a_standalone_server_is_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let output = imks(&["token", "alice", "--data-dir", data.to_str().unwrap()], &[]);
    assert!(output.status.success());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&data), mode(&data.join("imks.db"))), (0o700, 0o600));
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    let output = imks(&["token", "alice", "--data-dir", "/proc/imks"], &[]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("/proc/imks"), "{}", text(&output.stderr));
}

#[test]
fn a_server_uses_as_many_open_files_as_the_system_lets_it() {
    let directory = tempfile::tempdir().unwrap();
    let serve = format!("ulimit -S -n 256; exec {} serve --listen 127.0.0.1:0", env!("CARGO_BIN_EXE_imks"));
    let mut server = Command::new("sh")
        .args(["-c", &serve])
        .env("IMKS_DATA_DIR", directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("is ready")));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let [soft, hard] = [0, 1].map(|column| files.split_whitespace().nth(column).unwrap());
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(soft, hard);
    assert_ne!(hard, "256");
}

#[test]
fn a_server_that_is_not_there_is_not_healthy() {
    let output = imks(&["healthcheck", "--listen", "127.0.0.1:1"], &[]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn the_version_is_printed() {
    assert_eq!(text(&imks(&["version"], &[]).stdout), concat!("imks ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn who_demands_tls_gets_no_server_without_where_others_can_reach_it() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let demands = [("IMKS_REQUIRE_TLS", "true"), ("IMKS_DATA_DIR", data)];
    for command in ["serve", "check-config"] {
        let output = imks(&[command, "--listen", "0.0.0.0:0"], &demands);
        assert_eq!(output.status.code(), Some(78), "{command}");
        assert!(
            text(&output.stderr).contains("set IMKS_TLS_CERT and IMKS_TLS_KEY"),
            "{}",
            text(&output.stderr)
        );
    }
}

/// Runs a command on a database of its own.
fn on(directory: &Path, arguments: &[&str]) -> Output {
    imks(&[arguments, &["--data-dir", directory.to_str().unwrap()]].concat(), &[])
}

#[test]
fn a_core_listens_where_it_is_told_even_if_that_is_the_default_of_a_server() {
    let directory = tempfile::tempdir().unwrap();
    // Whoever holds the port, here or elsewhere: the complaint names it.
    let _taken = std::net::TcpListener::bind("127.0.0.1:3000");
    let output = on(directory.path(), &["core", "--listen", "127.0.0.1:3000"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("listening on 127.0.0.1:3000"), "{}", text(&output.stderr));
}

#[test]
fn what_is_wrong_is_repeated_and_a_wrong_command_line_ends_with_2() {
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = on(directory.path(), arguments);
        (output.status.code(), text(&output.stderr))
    };
    assert_eq!(run(&["directory", "user", "add", "alice"]).0, Some(0));
    assert_eq!(run(&["directory", "channel", "add", "team"]).0, Some(0));
    for (arguments, code, parts) in [
        (&["user", "add", "alice"][..], 1, &["user", "alice", "exists"][..]),
        (&["user", "add", "al ice"], 1, &["al ice", "letters"]),
        (&["user", "remove", "bob"], 1, &["no user", "bob"]),
        (&["channel", "archive", "club"], 1, &["no channel", "club"]),
        (&["member", "add", "team", "bob"], 1, &["no user", "bob"]),
        (&["member", "remove", "team", "alice"], 1, &["no member", "alice"]),
        (
            &["member", "add", "team", "alice", "--role", "king"],
            1,
            &["king", "guest, member, moderator, owner"],
        ),
        (&["channel", "set", "team", "--kind", "secret"], 2, &["secret", "public, private, announcement"]),
        (&["role", "add", "king", "--permissions", "FLY"], 1, &["FLY", "SEND_MESSAGES"]),
        (&["override", "set", "team", "--deny", "VIEW_CHANNEL"], 2, &["--role", "--user"]),
        (&["ban", "add", "nowhere/", "alice"], 1, &["no workspace", "nowhere"]),
    ] {
        let (status, complaint) = run(&[&["directory"], arguments].concat());
        assert_eq!(status, Some(code), "{arguments:?}: {complaint}");
        assert!(parts.iter().all(|part| complaint.contains(part)), "{arguments:?}: {complaint}");
    }
}

#[test]
fn an_import_says_what_it_made_and_what_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let seed = directory.path().join("seed.toml");
    let channel = "[[channel]]\nname = \"team\"\nowners = [\"alice\"]\nmembers = [\"bob\"]\n";
    std::fs::write(&seed, format!("[[user]]\nname = \"alice\"\n{channel}")).unwrap();
    let import = || text(&on(directory.path(), &["directory", "import", seed.to_str().unwrap()]).stdout);
    let counts = |users, channels, memberships| {
        format!("users: {users}\nchannels: {channels}\nmemberships: {memberships}\n")
    };
    let there = "0 made, 2 there already";
    assert_eq!(
        import(),
        counts("2 made, 0 there already", "1 made, 0 there already", "2 made, 0 there already")
    );
    assert_eq!(import(), counts(there, "0 made, 1 there already", there));
}

#[test]
fn a_command_that_reads_makes_no_database_and_the_others_say_which_they_use() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("elsewhere");
    let reading: &[&[&str]] = &[
        &["list"],
        &["workspace", "list"],
        &["user", "list"],
        &["channel", "list"],
        &["member", "list", "general"],
        &["role", "list"],
        &["override", "list", "general"],
        &["ban", "list", "main/"],
        &["token", "list", "alice"],
        &["key", "list"],
        &["permissions", "general", "alice"],
    ];
    let removing: &[&[&str]] = &[&["user", "remove", "alice"], &["key", "revoke", "x"]];
    for arguments in reading.iter().chain(removing) {
        let output = on(&data, &[&["directory"], *arguments].concat());
        assert_eq!(output.status.code(), Some(78), "{arguments:?}");
        assert!(text(&output.stderr).contains(data.to_str().unwrap()), "{}", text(&output.stderr));
        assert!(!data.exists());
    }
    let output = on(&data, &["webhook", "list"]);
    assert_eq!((output.status.code(), data.exists()), (Some(78), false));
    // The database of something else is left as it is.
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("imks.db"), b"").unwrap();
    let output = on(&data, &["directory", "user", "list"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("no directory of this version"), "{}", text(&output.stderr));
    std::fs::remove_dir_all(&data).unwrap();
    let output = on(&data, &["token", "alice"]);
    assert!(text(&output.stderr).contains(data.to_str().unwrap()), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("made now"), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).lines().count(), 1);
    let again = text(&on(&data, &["token", "alice"]).stderr);
    assert!(again.contains(data.to_str().unwrap()) && !again.contains("made now"), "{again}");
    let listed = text(&on(&data, &["directory", "list"]).stdout);
    for part in ["workspace\tmain/\t", "channel\tmain/general\t", "user\talice\t"] {
        assert!(listed.contains(part), "{part} in {listed}");
    }
    for arguments in reading {
        assert!(on(&data, &[&["directory"], *arguments].concat()).status.success(), "{arguments:?}");
    }
}

const MADE: [&str; 12] = [
    "workspace add acme",
    "user add alice",
    "user add bob --bot",
    "channel add acme/team --private --slow-mode 3",
    "channel set acme/team --name crew --retention 30",
    "role add pinner --workspace acme --permissions PIN_MESSAGES,view-channel",
    "role set pinner --workspace acme --name fixer",
    "member add acme/ alice",
    "member add acme/crew alice --role member --role fixer",
    "member set acme/crew alice --notify mentions --mute-until 2100-01-01T00:00:00Z",
    "override set acme/crew --role fixer --deny PIN_MESSAGES",
    "ban add acme/ bob --for 24h --reason loops",
];
const UNDONE: [&str; 10] = [
    "ban remove acme/ bob",
    "override remove acme/crew --role fixer",
    "role remove fixer --workspace acme",
    "member remove acme/ alice",
    "channel remove acme/crew",
    "workspace set acme --name gone",
    "workspace remove gone",
    "user set bob --name robert",
    "user revoke robert",
    "user remove robert",
];

#[test]
fn a_team_is_made_looked_at_and_undone_with_commands() {
    let directory = tempfile::tempdir().unwrap();
    let run = |line: &str| {
        let arguments: Vec<&str> = ["directory"].into_iter().chain(line.split_whitespace()).collect();
        let output = on(directory.path(), &arguments);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout).trim_end().to_owned()
    };
    for line in MADE {
        run(line);
    }
    assert!(
        run("member list acme/crew").ends_with("\tfixer,member,member"),
        "{}",
        run("member list acme/crew")
    );
    let permissions = run("permissions acme/crew alice");
    assert!(permissions.contains("SEND_MESSAGES") && !permissions.contains("PIN_MESSAGES"), "{permissions}");
    assert_eq!(run("override list acme/crew"), "role\tfixer\t+\t-PIN_MESSAGES");
    assert!(run("ban list acme/").ends_with("\tloops"));
    let channels: serde_json::Value = serde_json::from_str(&run("channel list acme --json")).unwrap();
    assert_eq!((&channels[0]["name"], &channels[0]["kind"]), (&"crew".into(), &"private".into()));
    assert_eq!(channels[0]["retention_days"], 30);
    assert_eq!(run("channel direct alice bob"), run("channel direct bob alice"));
    let tokens = run("token add alice");
    assert_eq!(tokens.lines().count(), 2);
    let session = run("token list alice").split('\t').next().unwrap().to_owned();
    run(&format!("token remove {session}"));
    assert_eq!(run("token list alice"), "");
    run("key rotate");
    assert_eq!(run("key list").lines().count(), 2);
    for line in UNDONE {
        run(line);
    }
    assert_eq!(run("workspace list").lines().count(), 1);
}

#[test]
fn a_hold_is_set_listed_and_released_with_commands() {
    let directory = tempfile::tempdir().unwrap();
    let channel = "01909a00-0000-7000-8000-000000000001";
    let run = |arguments: &[&str]| {
        let output = on(directory.path(), arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout).trim_end().to_owned()
    };
    run(&["migrate"]);
    run(&["hold", "set", "--channel", channel, "--reason", "case 7"]);
    let listed = run(&["hold", "list"]);
    assert!(listed.starts_with(&format!("channel\t{channel}\tset ")), "{listed}");
    assert!(listed.ends_with(" by imks hold\tcase 7"), "{listed}");
    run(&["hold", "release", "--channel", channel]);
    assert_eq!(run(&["hold", "list"]), "");
    let all: serde_json::Value = serde_json::from_str(&run(&["hold", "list", "--all", "--json"])).unwrap();
    assert_eq!((&all[0]["on"], &all[0]["released_by"]), (&"channel".into(), &"imks hold".into()));
    assert!(!on(directory.path(), &["hold", "set"]).status.success(), "on what?");
}

#[test]
fn a_damaged_database_is_named_once_and_an_empty_one_is_told_loudly() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("imks.db");
    std::fs::write(&file, b"this is not a database, however long you look at it").unwrap();
    let complaint = text(&on(directory.path(), &["token", "alice"]).stderr);
    assert!(complaint.contains(file.to_str().unwrap()), "{complaint}");
    assert_eq!(complaint.matches("file is not a database").count(), 1, "{complaint}");
    std::fs::write(&file, b"").unwrap();
    let output = on(directory.path(), &["token", "alice"]);
    let told = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success() && told.contains("the database file is empty"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_start_on_postgresql_says_nothing_about_tables_that_exist() {
    let url = crate::postgres::create().await;
    for _ in 0..2 {
        let output = imks(&["migrate"], &[("DATABASE_URL", &url), ("RUST_LOG", "info")]);
        let told = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success() && !told.contains("already exists"), "{told}");
    }
}

#[test]
fn a_server_that_is_told_to_stop_while_it_starts_stops_at_once() {
    // A database that takes the connection and never says a word.
    let database = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://im@{}/imks", database.local_addr().unwrap());
    for arguments in
        [&["--listen", "127.0.0.1:0"][..], &["serve", "--end-with-input", "--listen", "127.0.0.1:0"]]
    {
        let mut child = Command::new(env!("CARGO_BIN_EXE_imks"))
            .args(arguments)
            .env_clear()
            .env("DATABASE_URL", &url)
            .env("IMKS_DATABASE_ACQUIRE_TIMEOUT", "10m")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (_silent, _) = database.accept().unwrap();
        match arguments[0] {
            "serve" => drop(child.stdin.take()),
            _ => {
                let pid = rustix::process::Pid::from_child(&child);
                rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            }
        }
        assert_eq!(child.wait().unwrap().code(), Some(0), "{arguments:?}");
    }
}
