//! Judges a trace by its lines alone, as a program that knows nothing of Kontiki would.
//!
//! It rebuilds every node's log, term and vote from what was written and persisted, and holds what nodes show and
//! say against that.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What a line breaks.
pub(crate) type Verdict = Result<(), String>;

/// The largest number in a line: TLC takes no more.
const NUMBER_MAX: u64 = i32::MAX as u64;

/// A write that is not on disk yet.
struct Pending {
    id: u64,
    hard_state: Option<(u64, u64)>,
}

/// What is known of a node.
#[derive(Default)]
struct Node {
    up: bool,
    life: u64,
    term: u64,
    vote: u64,
    commit: u64,
    /// By index, behind `base`.
    log: BTreeMap<u64, u64>,
    base: (u64, u64),
    pending: Vec<Pending>,
    /// Term and vote on disk.
    durable: (u64, u64),
}

/// A message, by the number of the line that says it was sent.
struct Message {
    fields: Value,
    copies: u64,
}

/// The judge.
#[derive(Default)]
pub(crate) struct Validator {
    seq: u64,
    us: u64,
    turn: u64,
    nodes: BTreeMap<u64, Node>,
    messages: BTreeMap<u64, Message>,
    leaders: BTreeMap<u64, u64>,
    committed: BTreeMap<u64, u64>,
    /// Which events there were, and which types of messages.
    pub(crate) seen: BTreeSet<String>,
}

/// Judges all lines of a trace; the events and types of messages in it.
pub(crate) fn judge(lines: &[Value]) -> Result<BTreeSet<String>, String> {
    let mut validator = Validator::default();
    for line in lines {
        validator.line(line).map_err(|what| format!("{what}: {line}"))?;
    }
    Ok(validator.seen)
}

fn ensure(holds: bool, what: &str) -> Verdict {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

fn number(value: &Value, field: &str) -> Result<u64, String> {
    value[field].as_u64().ok_or_else(|| format!("no number {field}"))
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str, String> {
    value[field].as_str().ok_or_else(|| format!("no text {field}"))
}

/// Index and term.
fn at(value: &Value) -> Result<(u64, u64), String> {
    Ok((number(value, "index")?, number(value, "term")?))
}

fn each<'a>(value: &'a Value, field: &str) -> Result<impl Iterator<Item = &'a Value>, String> {
    let values = value[field].as_array();
    Ok(values.ok_or_else(|| format!("no list {field}"))?.iter())
}

/// Nothing is null, and no number is too large.
fn plain(value: &Value) -> Verdict {
    match value {
        Value::Null => Err("something is null".to_owned()),
        Value::Number(n) => ensure(
            n.as_u64().is_some_and(|n| n <= NUMBER_MAX),
            "a number is too large",
        ),
        Value::Array(values) => values.iter().try_for_each(plain),
        Value::Object(fields) => fields.values().try_for_each(plain),
        Value::Bool(_) | Value::String(_) => Ok(()),
    }
}

impl Validator {
    fn line(&mut self, line: &Value) -> Verdict {
        plain(line)?;
        let (seq, us) = (number(line, "seq")?, number(line, "us")?);
        ensure(seq > self.seq, "seq does not rise")?;
        ensure(us >= self.us, "time goes back")?;
        (self.seq, self.us) = (seq, us);
        if line.get("turn").is_some() {
            let turn = number(line, "turn")?;
            ensure(turn >= self.turn, "turns go back")?;
            self.turn = turn;
        }
        let event = text(line, "event")?;
        self.seen.insert(event.to_owned());
        let rare = ["truncate", "install", "purge"]
            .into_iter()
            .filter(|name| line.get(name).is_some());
        self.seen.extend(rare.map(str::to_owned));
        match event {
            "send" => self.sent(seq, line),
            "recv" => {
                ensure(
                    number(&line["msg"], "to")? == number(line, "node")?,
                    "it is for another",
                )?;
                self.comes_to_its_end(line)
            }
            "drop" => {
                text(line, "why")?;
                self.comes_to_its_end(line)
            }
            "repeat" => {
                let message = self.messages.get_mut(&number(line, "id")?);
                message.ok_or("it was never sent")?.copies += 1;
                Ok(())
            }
            _ => self.of_a_node(event, line),
        }
    }

    fn of_a_node(&mut self, event: &str, line: &Value) -> Verdict {
        let id = number(line, "node")?;
        let node = self.nodes.entry(id).or_default();
        ensure(node.up == (event != "up"), "it is up, or down")?;
        match event {
            "up" => {
                node.begins(line)?;
                self.shows(id, line)
            }
            "down" => {
                node.up = false;
                Ok(())
            }
            "state" => self.shows(id, line),
            "role" if text(line, "role")? == "leader" => self.leads(id, number(line, "term")?),
            "role" => Ok(()),
            "write" => node.writes(line),
            "persisted" => node.persists(number(line, "id")?),
            other => Err(format!("{other} is no event")),
        }
    }

    /// A message leaves its node: what it promises is on disk.
    fn sent(&mut self, seq: u64, line: &Value) -> Verdict {
        let (from, msg) = (number(line, "node")?, &line["msg"]);
        let node = self.nodes.get(&from).filter(|n| n.up).ok_or("it is not up")?;
        ensure(number(msg, "from")? == from, "it is from another")?;
        let kind = text(msg, "type")?;
        self.seen.insert(kind.to_owned());
        let pre = msg["pre"] == Value::Bool(true);
        if kind.starts_with("request_vote") || kind.starts_with("append_entries") {
            let term = number(msg, "term")?;
            ensure(pre || term <= node.term, "it is of a later term than its node")?;
            ensure(pre || term <= node.durable.0, "its term is not on disk")?;
        }
        if kind == "request_vote_reply" && !pre && msg["granted"] == Value::Bool(true) {
            let vote = (number(msg, "term")?, number(msg, "to")?);
            ensure(vote == node.durable, "the vote is not on disk")?;
        }
        if kind == "append_entries" {
            for run in each(msg, "records")? {
                ensure(number(run, "first")? <= number(run, "last")?, "a run is empty")?;
            }
        }
        let fields = msg.clone();
        self.messages.insert(seq, Message { fields, copies: 1 });
        Ok(())
    }

    /// A copy of a message is taken in, or is lost.
    fn comes_to_its_end(&mut self, line: &Value) -> Verdict {
        let message = self.messages.get_mut(&number(line, "id")?);
        let message = message.ok_or("it was never sent")?;
        ensure(message.fields == line["msg"], "it is not what was sent")?;
        ensure(message.copies > 0, "there are no more copies of it")?;
        message.copies -= 1;
        Ok(())
    }

    /// A node shows how it stands.
    fn shows(&mut self, id: u64, line: &Value) -> Verdict {
        let node = self.nodes.get_mut(&id).ok_or("it is not up")?;
        let (term, vote, commit) = (
            number(line, "term")?,
            number(line, "vote")?,
            number(line, "commit")?,
        );
        ensure(term >= node.term, "the term falls")?;
        let kept = term > node.term || node.vote == 0 || vote == node.vote;
        ensure(kept, "the vote changes within a term")?;
        ensure(commit >= node.commit, "the commit index falls")?;
        (node.term, node.vote) = (term, vote);
        ensure(at(&line["last"])? == node.last(), "its log ends elsewhere")?;
        ensure(at(&line["base"])? == node.base, "its log begins elsewhere")?;
        ensure(commit <= node.last().0, "more is committed than it holds")?;
        let newly = (commit > node.commit).then(|| node.log.range(node.commit + 1..=commit));
        for (index, term) in newly.into_iter().flatten() {
            let agreed = self.committed.entry(*index).or_insert(*term);
            ensure(agreed == term, "another record is committed there")?;
        }
        node.commit = commit;
        ensure(
            each(&line["configuration"], "voters")?.count() > 0,
            "it has no members",
        )?;
        if text(line, "role")? == "leader" {
            self.leads(id, term)?;
        }
        Ok(())
    }

    fn leads(&mut self, node: u64, term: u64) -> Verdict {
        let leader = *self.leaders.entry(term).or_insert(node);
        ensure(leader == node, "another node leads the term")
    }
}

impl Node {
    fn last(&self) -> (u64, u64) {
        self.log
            .last_key_value()
            .map_or(self.base, |(index, term)| (*index, *term))
    }

    /// A process begins with what is on disk: what was persisted at least, and nothing that was not written.
    fn begins(&mut self, line: &Value) -> Verdict {
        let life = number(line, "life")?;
        ensure(life > self.life, "it had this life")?;
        let (term, vote) = (number(line, "term")?, number(line, "vote")?);
        let written = self.pending.iter().filter_map(|p| p.hard_state);
        let possible = written.chain([self.durable]).any(|state| state == (term, vote));
        ensure(possible, "term and vote are not what was written")?;
        let base = at(&line["base"])?;
        let mut log = BTreeMap::new();
        for run in each(line, "log")? {
            for index in number(run, "first")?..=number(run, "last")? {
                log.insert(index, number(run, "term")?);
            }
        }
        *self = Self {
            up: true,
            life,
            log,
            base,
            durable: (term, vote),
            ..Self::default()
        };
        Ok(())
    }

    fn writes(&mut self, line: &Value) -> Verdict {
        if line.get("truncate").is_some() {
            let from = number(line, "truncate")?;
            ensure(from > self.commit, "what is committed is removed")?;
            self.log.split_off(&from);
        }
        if let Some(base) = line.get("install") {
            self.base = at(&base["last"])?;
            self.log.clear();
        }
        for run in each(line, "records")? {
            let (first, term) = (number(run, "first")?, number(run, "term")?);
            ensure(first == self.last().0 + 1, "there is a gap in the log")?;
            ensure(term >= self.last().1, "terms fall along the log")?;
            (first..=number(run, "last")?).for_each(|index| {
                self.log.insert(index, term);
            });
        }
        if let Some(base) = line.get("purge") {
            self.base = at(&base["last"])?;
            self.log = self.log.split_off(&(self.base.0 + 1));
        }
        let hard_state = match line.get("term") {
            Some(_) => Some((number(line, "term")?, number(line, "vote")?)),
            None => None,
        };
        let id = number(line, "id")?;
        self.pending.push(Pending { id, hard_state });
        Ok(())
    }

    fn persists(&mut self, id: u64) -> Verdict {
        let known = self.pending.iter().any(|p| p.id == id);
        ensure(known, "it was not written, or was on disk before")?;
        let done = self.pending.iter().take_while(|p| p.id <= id);
        if let Some(state) = done.filter_map(|p| p.hard_state).last() {
            self.durable = state;
        }
        self.pending.retain(|p| p.id > id);
        Ok(())
    }
}
