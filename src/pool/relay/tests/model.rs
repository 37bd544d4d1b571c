//! PostgreSQL as far as its messages go: a state machine of statements, portals, transactions, COPY and settings, after
//! postgres.c (`PostgresMain`, `exec_*_message`) and copyfromparse.c (`CopyGetData`). Its SQL is a handful of words.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::pool::wire::{
    backend::{self, Report, Severity, TxStatus},
    frame,
    read::{ParseBody, Reader, Target},
    tag::frontend as tag,
};

pub const NO_LIMIT: u32 = i32::MAX as u32;

/// Stands for a portal that has run and is no query.
const RUN: &str = "run";

type Failure = (&'static str, String);

#[derive(Clone, Default)]
struct World {
    rows: BTreeMap<String, usize>,
    settings: BTreeMap<String, String>,
}

/// One backend.
pub struct Model {
    input: Vec<u8>,
    pub output: Vec<u8>,
    pub tx: TxStatus,
    world: World,
    /// The world to go back to when the transaction, implicit ones too, fails.
    saved: Option<World>,
    defaults: BTreeMap<String, String>,
    reported: BTreeMap<String, String>,
    pub statements: HashMap<Vec<u8>, Statement>,
    portals: HashMap<Vec<u8>, String>,
    ignore_till_sync: bool,
    copy: Option<Copy>,
    /// Commands of a simple Query that are still to run.
    pending: VecDeque<String>,
    /// Most statements it ever had.
    pub statements_max: usize,
    pub parses: usize,
    /// It says something of its own before each setting it is given.
    pub noisy: bool,
    /// How often somebody has changed the tables. What was prepared before returns other columns than it did then.
    pub schema: usize,
    /// Rows say under which tables they were read, and their column's name does.
    pub telling: bool,
    /// Plans that no longer held, and were asked for.
    pub refused: usize,
    /// What was prepared before names types that are gone.
    pub types_gone: bool,
    /// No plan ever holds.
    pub stubborn: bool,
    /// Something temporary was made.
    pub temp: bool,
    listening: bool,
    /// Names given by SQL.
    from_sql: Vec<Vec<u8>>,
    /// It does not say what is left on it.
    pub secretive: bool,
    /// Statements of its own queries that the relay sent to ask what is left.
    pub asked: usize,
}

pub struct Statement {
    pub definition: Vec<u8>,
    schema: usize,
}

struct Copy {
    simple: bool,
    kind: String,
}

impl Model {
    pub fn new() -> Self {
        let defaults: BTreeMap<String, String> =
            [("TimeZone", "UTC"), ("application_name", ""), ("statement_timeout", "0")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        let world = World { rows: BTreeMap::new(), settings: defaults.clone() };
        let mut reported = defaults.clone();
        reported.remove("statement_timeout");
        Self {
            input: Vec::new(),
            output: Vec::new(),
            tx: TxStatus::Idle,
            world,
            saved: None,
            defaults,
            reported,
            statements: HashMap::new(),
            portals: HashMap::new(),
            ignore_till_sync: false,
            copy: None,
            pending: VecDeque::new(),
            statements_max: 0,
            parses: 0,
            noisy: false,
            schema: 0,
            telling: false,
            refused: 0,
            types_gone: false,
            stubborn: false,
            temp: false,
            listening: false,
            from_sql: Vec::new(),
            secretive: false,
            asked: 0,
        }
    }

    /// Changes the tables; returns false when a transaction holds them.
    pub fn alter(&mut self) -> bool {
        let free = self.tx == TxStatus::Idle && self.saved.is_none() && self.pending.is_empty();
        self.schema += usize::from(free);
        free
    }

    /// A connection that asked for settings when it began.
    pub fn asked(requested: &[(&str, &str)]) -> Self {
        let mut model = Self::new();
        for (name, value) in requested {
            model.set(name, value).unwrap();
        }
        model.defaults = model.world.settings.clone();
        for (name, value) in &mut model.reported {
            value.clone_from(&model.world.settings[name]);
        }
        model
    }

    /// What it reports at login.
    pub fn reports(&self) -> Vec<(String, String)> {
        self.reported.clone().into_iter().collect()
    }

    /// Says something nobody asked for.
    pub fn say(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.output);
    }

    /// Reads what a frontend sends.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Some(message) = frame::whole(rest, NO_LIMIT).expect("the relay sends sound lengths") {
            rest = &rest[message.total_len()..];
            self.message(message.tag, message.body);
        }
        self.input = rest.to_vec();
    }

    fn message(&mut self, tag: u8, body: &[u8]) {
        if self.copy.is_some() {
            return self.in_copy(tag, body);
        }
        if self.ignore_till_sync && tag != tag::SYNC {
            return;
        }
        let result = match tag {
            tag::QUERY => return self.query(body),
            tag::SYNC => {
                self.ignore_till_sync = false;
                self.end_implicit();
                return self.ready();
            }
            tag::FLUSH | tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL => return,
            tag::PARSE => self.parse(body),
            tag::BIND => self.bind(body),
            tag::DESCRIBE => self.describe(body),
            tag::CLOSE => self.close(body),
            tag::EXECUTE => self.execute(body),
            other => panic!("unexpected message {other}"),
        };
        if let Err(failure) = result {
            self.fail(failure);
            self.ignore_till_sync = true;
        }
    }

    fn query(&mut self, body: &[u8]) {
        self.statements.remove(&b""[..]);
        let text = String::from_utf8(body[..body.len() - 1].to_vec()).unwrap();
        self.pending = text.split(';').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect();
        if self.pending.is_empty() {
            backend::empty_query_response(&mut self.output);
        }
        self.go_on();
    }

    /// Runs what is left of a simple Query.
    fn go_on(&mut self) {
        while let Some(command) = self.pending.pop_front() {
            match self.run(&command, true) {
                Ok(()) if self.copy.is_some() => return self.early_failure(),
                Ok(()) => {}
                Err(failure) => {
                    self.pending.clear();
                    self.fail(failure);
                }
            }
        }
        self.end_implicit();
        self.ready();
    }

    fn parse(&mut self, body: &[u8]) -> Result<(), Failure> {
        let parse = ParseBody::parse(body).unwrap();
        self.parses += 1;
        if parse.name.is_empty() {
            self.statements.remove(parse.name); // before anything can go wrong (`exec_parse_message`)
        }
        self.start();
        let text = text_of(parse.definition);
        if text.starts_with("syntax") {
            return Err(("42601", format!("syntax error at or near \"{text}\"")));
        }
        self.check_sound(&text)?;
        if !parse.name.is_empty() && self.statements.contains_key(parse.name) {
            let name = String::from_utf8_lossy(parse.name);
            return Err(("42P05", format!("prepared statement \"{name}\" already exists")));
        }
        let statement = Statement { definition: parse.definition.to_vec(), schema: self.schema };
        self.statements.insert(parse.name.to_vec(), statement);
        self.statements_max = self.statements_max.max(self.statements.len());
        backend::parse_complete(&mut self.output);
        Ok(())
    }

    fn statement(&self, name: &[u8]) -> Result<String, Failure> {
        match self.statements.get(name) {
            Some(statement) => Ok(text_of(&statement.definition)),
            None if name.is_empty() => Err(("26000", "unnamed prepared statement does not exist".to_owned())),
            None => {
                let name = String::from_utf8_lossy(name);
                Err(("26000", format!("prepared statement \"{name}\" does not exist")))
            }
        }
    }

    /// As `RevalidateCachedQuery`: a statement's columns are fixed when it is parsed.
    fn revalidate(&mut self, name: &[u8]) -> Result<(), Failure> {
        let Some(statement) = self.statements.get(name) else { return Ok(()) };
        if (statement.schema != self.schema || self.stubborn) && text_of(&statement.definition).starts_with("select") {
            self.refused += 1;
            if self.types_gone {
                return Err(("XX000", "cache lookup failed for type 7".to_owned()));
            }
            return Err(("0A000", "cached plan must not change result type".to_owned()));
        }
        Ok(())
    }

    fn bind(&mut self, body: &[u8]) -> Result<(), Failure> {
        let mut reader = Reader::new(body);
        let portal = reader.cstr().unwrap();
        let name = reader.cstr().unwrap();
        let text = self.statement(name)?;
        self.start();
        self.check_sound(&text)?;
        let _formats = reader.i16().unwrap();
        let values = reader.i16().unwrap();
        if values != 0 {
            let name = String::from_utf8_lossy(name);
            let message =
                format!("bind message supplies {values} parameters, but prepared statement \"{name}\" requires 0");
            return Err(("08P01", message));
        }
        self.revalidate(name)?;
        if !portal.is_empty() && self.portals.contains_key(portal) {
            return Err(("42P03", format!("cursor \"{}\" already exists", String::from_utf8_lossy(portal))));
        }
        self.portals.insert(portal.to_vec(), text);
        frame::write(&mut self.output, b'2', |_| {});
        Ok(())
    }

    fn describe(&mut self, body: &[u8]) -> Result<(), Failure> {
        self.start();
        let text = match Target::parse(body).unwrap() {
            Target::Statement(name) => {
                let text = self.statement(name)?;
                self.check_described(&text)?;
                frame::write(&mut self.output, b't', |out| out.extend_from_slice(&[0, 0]));
                self.revalidate(name)?;
                text
            }
            Target::Portal(name) => {
                let text = self.portal(name)?;
                self.check_described(&text)?;
                text
            }
        };
        if text.starts_with("select") {
            let column = format!("column of {}", self.schema);
            backend::row_description(&mut self.output, [(column.as_str(), backend::oid::TEXT)].into_iter());
        } else if text.starts_with("rows") || text.starts_with("show") {
            backend::row_description(&mut self.output, [("value", backend::oid::TEXT)].into_iter());
        } else {
            frame::write(&mut self.output, b'n', |_| {});
        }
        Ok(())
    }

    /// In a failed transaction what returns no rows can be described (`exec_describe_statement_message`).
    fn check_described(&self, text: &str) -> Result<(), Failure> {
        if is_query(text) { self.check_sound(text) } else { Ok(()) }
    }

    fn portal(&self, name: &[u8]) -> Result<String, Failure> {
        let missing = || ("34000", format!("portal \"{}\" does not exist", String::from_utf8_lossy(name)));
        self.portals.get(name).cloned().ok_or_else(missing)
    }

    fn close(&mut self, body: &[u8]) -> Result<(), Failure> {
        match Target::parse(body).unwrap() {
            Target::Statement(name) => drop(self.statements.remove(name)),
            Target::Portal(name) => drop(self.portals.remove(name)),
        }
        backend::close_complete(&mut self.output);
        Ok(())
    }

    fn execute(&mut self, body: &[u8]) -> Result<(), Failure> {
        let name = Reader::new(body).cstr().unwrap();
        let text = self.portal(name)?;
        self.start();
        self.check_sound(&text)?;
        if text == RUN {
            return Err(("55000", format!("portal \"{}\" cannot be run", String::from_utf8_lossy(name))));
        }
        self.run(&text, false)?;
        if !is_query(&text)
            && let Some(text) = self.portals.get_mut(name)
        {
            // It runs once (`PortalRun`).
            RUN.clone_into(text);
        }
        if self.copy.is_some() {
            self.early_failure();
        }
        Ok(())
    }

    fn run(&mut self, command: &str, simple: bool) -> Result<(), Failure> {
        self.start();
        self.check_sound(command)?;
        let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
        let done = match word {
            "select" if self.telling => {
                self.row(&format!("{rest} of {}", self.schema), simple);
                "SELECT 1"
            }
            "select" => {
                self.row(rest, simple);
                "SELECT 1"
            }
            "SELECT" if rest.starts_with('\'') => return self.census(rest),
            "SELECT" => {
                if self.noisy {
                    let (severity, sqlstate) = (Severity::Notice, "00000");
                    let report = Report { severity, sqlstate, message: "noise", detail: None, hint: None };
                    backend::notice_response(&mut self.output, &report);
                }
                for (name, value) in set_configs(rest) {
                    self.set(&name, &value)?;
                }
                self.row("set", simple);
                "SELECT 1"
            }
            "rows" => {
                let count = self.world.rows.get(rest).copied().unwrap_or(0).to_string();
                self.row(&count, simple);
                "SELECT 1"
            }
            "show" => {
                let value = self.world.settings[rest].clone();
                self.row(&value, simple);
                "SHOW"
            }
            "insert" => {
                *self.world.rows.entry(rest.to_owned()).or_default() += 1;
                "INSERT 0 1"
            }
            "error" => return Err(("22012", "division by zero".to_owned())),
            "set" => {
                let (name, value) = rest.split_once(' ').unwrap();
                self.set(name, value.trim_start_matches("= "))?;
                "SET"
            }
            "RESET" if rest == "ALL" => {
                self.world.settings.clone_from(&self.defaults);
                "RESET"
            }
            "RESET" if matches!(rest, "SESSION AUTHORIZATION" | "ROLE") => "RESET",
            "RESET" => {
                let name = rest.trim_matches('"');
                let value = self.defaults[name].clone();
                self.set(name, &value)?;
                "RESET"
            }
            "begin" => {
                if self.tx == TxStatus::Idle {
                    self.tx = TxStatus::InTransaction;
                }
                "BEGIN"
            }
            "commit" if self.tx != TxStatus::Failed => {
                self.finish();
                "COMMIT"
            }
            "commit" | "rollback" | "ROLLBACK" => {
                self.roll_back();
                self.finish();
                "ROLLBACK"
            }
            "PREPARE" => {
                let statement = Statement { definition: b"\0\0\0".to_vec(), schema: self.schema };
                if self.statements.insert(rest.as_bytes().to_vec(), statement).is_some() {
                    return Err(("42P05", format!("prepared statement \"{rest}\" already exists")));
                }
                self.from_sql.push(rest.as_bytes().to_vec());
                "PREPARE"
            }
            "deallocate" | "DEALLOCATE" if rest.eq_ignore_ascii_case("all") => {
                self.statements.retain(|name, _| name.is_empty());
                self.from_sql.clear();
                "DEALLOCATE ALL"
            }
            "DEALLOCATE" => {
                let name = rest.trim_matches('"').as_bytes();
                self.from_sql.retain(|known| known != name);
                if self.statements.remove(name).is_none() {
                    return Err(("26000", format!("prepared statement {rest} does not exist")));
                }
                "DEALLOCATE"
            }
            "CREATE" => {
                self.temp = true;
                "CREATE TABLE"
            }
            "DROP" => {
                self.temp = false;
                "DROP TABLE"
            }
            "DISCARD" => {
                self.statements.clear();
                self.from_sql.clear();
                (self.temp, self.listening) = (false, false);
                self.world.settings.clone_from(&self.defaults);
                "DISCARD ALL"
            }
            "listen" => {
                self.listening = true;
                "LISTEN"
            }
            "UNLISTEN" => {
                self.listening = false;
                "UNLISTEN"
            }
            "copy" => {
                self.copy = Some(Copy { simple, kind: rest.to_owned() });
                frame::write(&mut self.output, b'G', |out| out.extend_from_slice(&[0, 0, 0]));
                return Ok(());
            }
            "out" => {
                frame::write(&mut self.output, b'H', |out| out.extend_from_slice(&[0, 0, 0]));
                frame::write(&mut self.output, b'd', |out| out.extend_from_slice(rest.as_bytes()));
                frame::write(&mut self.output, b'c', |_| {});
                "COPY 1"
            }
            other => panic!("not understood: {other}"),
        };
        backend::command_complete(&mut self.output, done);
        Ok(())
    }

    /// Answers one question about what is left, told apart by its first letter.
    fn census(&mut self, question: &str) -> Result<(), Failure> {
        self.asked += 1;
        if self.secretive {
            return Err(("57014", "canceling statement due to statement timeout".to_owned()));
        }
        let (letter, question) = (question[1..2].to_owned(), question.to_owned());
        let names = question.split("current_setting('").skip(1).filter_map(|rest| rest.split('\'').next());
        let value = |name: &str| {
            self.world
                .settings
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.clone())
        };
        let values: Vec<_> = names.map(value).collect();
        let rows = match letter.as_str() {
            "s" => vec![std::iter::once(Some(letter)).chain(values).collect()],
            "t" if self.temp => vec![vec![Some(letter)]],
            "l" if self.listening => vec![vec![Some(letter), Some("news".to_owned())]],
            "p" if !self.from_sql.is_empty() => vec![vec![Some(letter)]],
            _ => Vec::<Vec<Option<String>>>::new(),
        };
        backend::row_description(&mut self.output, [("value", backend::oid::TEXT)].into_iter());
        for row in &rows {
            backend::data_row(&mut self.output, row.iter().map(|value| value.as_deref().map(str::as_bytes)));
        }
        backend::command_complete(&mut self.output, &format!("SELECT {}", rows.len()));
        Ok(())
    }

    fn row(&mut self, value: &str, simple: bool) {
        if simple {
            backend::row_description(&mut self.output, [("value", backend::oid::TEXT)].into_iter());
        }
        backend::data_row(&mut self.output, [Some(value.as_bytes())].into_iter());
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        if value == "bad" {
            return Err(("22023", format!("invalid value for parameter \"{name}\": \"bad\"")));
        }
        let value = if value == "utc" { "UTC" } else { value };
        match self.world.settings.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            Some((_, slot)) => *slot = value.to_owned(),
            None => return Err(("42704", format!("unrecognized configuration parameter \"{name}\""))),
        }
        Ok(())
    }

    fn in_copy(&mut self, tag: u8, _body: &[u8]) {
        let Some(copy) = &self.copy else { return };
        let failure = match (tag, copy.kind.as_str()) {
            (tag::SYNC | tag::FLUSH, _) => return,
            (tag::COPY_DATA, "data") => ("22P02", "bad row".to_owned()),
            (tag::COPY_DATA, _) => return,
            (tag::COPY_DONE, "end") => ("23505", "duplicate key".to_owned()),
            (tag::COPY_FAIL, _) => ("57014", "COPY from stdin failed".to_owned()),
            (tag::COPY_DONE, _) => {
                let simple = copy.simple;
                self.copy = None;
                backend::command_complete(&mut self.output, "COPY 1");
                if simple {
                    self.go_on();
                }
                return;
            }
            _ => ("08P01", "unexpected message type during COPY from stdin".to_owned()),
        };
        self.fail_copy(failure);
    }

    /// A trigger may fail after CopyInResponse and before anything is read.
    fn early_failure(&mut self) {
        if self.copy.as_ref().is_some_and(|copy| copy.kind == "early") {
            self.fail_copy(("P0001", "raised before the first row".to_owned()));
        }
    }

    fn fail_copy(&mut self, failure: Failure) {
        let simple = self.copy.take().is_some_and(|copy| copy.simple);
        self.fail(failure);
        if simple {
            self.pending.clear();
            self.go_on();
        } else {
            self.ignore_till_sync = true;
        }
    }

    /// In a failed transaction only its end is understood.
    fn check_sound(&self, text: &str) -> Result<(), Failure> {
        let ends = text.eq_ignore_ascii_case("rollback") || text.starts_with("commit") || text.is_empty();
        if self.tx == TxStatus::Failed && !ends {
            return Err(("25P02", "current transaction is aborted".to_owned()));
        }
        Ok(())
    }

    fn start(&mut self) {
        if self.saved.is_none() {
            self.saved = Some(self.world.clone());
        }
    }

    fn roll_back(&mut self) {
        if let Some(saved) = self.saved.take() {
            self.world = saved;
        }
        self.portals.clear();
    }

    fn finish(&mut self) {
        self.saved = None;
        self.tx = TxStatus::Idle;
        self.portals.clear();
    }

    fn end_implicit(&mut self) {
        if self.tx == TxStatus::Idle {
            self.finish();
        }
    }

    fn fail(&mut self, (sqlstate, message): Failure) {
        let at = self.output.len();
        let report = Report { severity: Severity::Error, sqlstate, message: &message, detail: None, hint: None };
        backend::error_response(&mut self.output, &report);
        if sqlstate == "0A000" {
            self.output.pop();
            self.output.extend_from_slice(b"RRevalidateCachedQuery\0\0");
            let len = (self.output.len() - at - 1) as u32;
            self.output[at + 1..at + 5].copy_from_slice(&len.to_be_bytes());
        }
        self.roll_back();
        if self.tx == TxStatus::InTransaction {
            self.tx = TxStatus::Failed;
        }
    }

    fn ready(&mut self) {
        for (name, value) in &mut self.reported {
            let now = &self.world.settings[name];
            if now != value {
                *value = now.clone();
                backend::parameter_status(&mut self.output, name, value.as_bytes());
            }
        }
        backend::ready_for_query(&mut self.output, self.tx);
    }
}

fn is_query(text: &str) -> bool {
    ["select", "rows", "show"].iter().any(|word| text.starts_with(word))
}

fn text_of(definition: &[u8]) -> String {
    String::from_utf8(definition[..definition.iter().position(|&b| b == 0).unwrap()].to_vec()).unwrap()
}

/// Reads `pg_catalog.set_config('name','value',false),…`; the tests' values have no quotes.
fn set_configs(text: &str) -> Vec<(String, String)> {
    let calls = text.split("pg_catalog.set_config(").skip(1);
    calls
        .map(|call| {
            let parts: Vec<_> = call.split('\'').collect();
            (parts[1].to_owned(), parts[3].to_owned())
        })
        .collect()
}
